-- A conversation. Its number is never used again: a response may outlive the conversation that it was a turn of.
CREATE TABLE conversations (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    metadata BLOB NOT NULL
);
CREATE UNIQUE INDEX conversations_id ON conversations (tenant, id);

-- The items of conversations, which are copies of their own. The numbers say the order, so they are never used again.
CREATE TABLE conversation_items (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX conversation_items_id ON conversation_items (tenant, id, conversation);
CREATE INDEX conversation_items_order ON conversation_items (conversation);

-- The responses that are turns of conversations. A table of its own: a column added to the responses would lie behind
-- their large ones. The earliest open turn of a conversation is the one that may run.
CREATE TABLE turns (
    response INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL,
    seen INTEGER,                    -- the last item of the conversation that it sees; NULL until it is claimed
    open INTEGER NOT NULL,
    inherited INTEGER NOT NULL       -- not a turn itself: it continued one that was deleted, and still sees its items
);
CREATE INDEX turns_open ON turns (conversation, response) WHERE open = 1;

-- The creates that are not to be carried out again.
CREATE TABLE idempotency (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    response INTEGER NOT NULL,
    expires_at REAL NOT NULL,
    PRIMARY KEY (tenant, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_response ON idempotency (response);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

CREATE TABLE prompts (
    row INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX prompts_id ON prompts (tenant, id, version);

-- A tenant's responses in the order of their creation.
CREATE INDEX responses_tenant ON responses (tenant);

-- A response's row with what must be looked up for it. It is queued until there is a second segment: the first is the
-- create's.
CREATE VIEW stored AS
SELECT
    row, tenant, id,
    coalesce(status, iif(
        background AND 0 = (SELECT max(first) FROM segments WHERE segments.response = responses.row),
        'queued', 'in_progress'
    )) AS status,
    model, created_at, background, closed, attempt, request, response,
    (SELECT id FROM responses AS parent WHERE parent.row = responses.previous) AS previous,
    followed_until, metadata, mask,
    (SELECT conversations.id FROM turns JOIN conversations ON conversations.row = turns.conversation
        WHERE turns.response = responses.row AND NOT inherited) AS conversation
FROM responses;
