-- A response's row. The short columns come first: what is looked at often lies before the large ones.
CREATE TABLE responses (
    row INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    attempt INTEGER NOT NULL,        -- raised by each claim, seizure and release; who holds another number holds nothing
    closed INTEGER NOT NULL,
    lease_ends REAL NOT NULL,
    tries INTEGER NOT NULL,          -- the claims that count: releases are taken off again
    background INTEGER NOT NULL,
    followed_until REAL NOT NULL,
    previous INTEGER,                -- the row that this one continues
    depth INTEGER NOT NULL,          -- how many ancestors at most (deletions shorten the chain, not this)
    created_at INTEGER NOT NULL,
    expires_at REAL,
    status TEXT,                     -- once closed
    model TEXT NOT NULL,
    metadata BLOB NOT NULL,
    request BLOB NOT NULL,
    mask INTEGER NOT NULL,           -- of the final object
    response BLOB                    -- the final object, once closed
);
CREATE UNIQUE INDEX responses_id ON responses (tenant, id);
CREATE INDEX responses_open ON responses (created_at) WHERE closed = 0;
CREATE INDEX responses_previous ON responses (previous) WHERE previous IS NOT NULL;

-- The log. The unique index is the second lock: who does not know the log's end begins where another one began.
-- A rowid table, as blobs make a clustered one slow.
CREATE TABLE segments (
    row INTEGER PRIMARY KEY,
    response INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    mask INTEGER NOT NULL,
    frames BLOB NOT NULL
);
CREATE UNIQUE INDEX segments_first ON segments (response, first);

CREATE TABLE notes (
    row INTEGER PRIMARY KEY,
    response INTEGER NOT NULL,
    after INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX notes_response ON notes (response);

-- Context items, each content once. Links say which response was given (0) and which said (1) them, and in which order.
CREATE TABLE items (
    row INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX items_id ON items (tenant, id);

CREATE TABLE links (
    response INTEGER NOT NULL,
    output INTEGER NOT NULL,
    position INTEGER NOT NULL,
    item INTEGER NOT NULL,
    PRIMARY KEY (response, output, position)
) WITHOUT ROWID;
CREATE INDEX links_item ON links (item);
