-- Names and ids compare by their bytes: the same on every machine, whatever its locale says tomorrow.

-- A response's row. It is rewritten with every renewal of its lease, so its large columns are kept aside, and pages have
-- room for the next version of a row.
CREATE TABLE responses (
    row bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    attempt integer NOT NULL,         -- raised by each claim, seizure and release; who holds another number holds nothing
    closed boolean NOT NULL,
    lease_ends double precision NOT NULL,
    tries integer NOT NULL,           -- the claims that count: releases are taken off again
    background boolean NOT NULL,
    followed_until double precision NOT NULL,
    previous bigint,                  -- the row that this one continues; always a lower one
    depth integer NOT NULL,           -- how many ancestors at most (deletions shorten the chain, not this)
    created_at bigint NOT NULL,
    expires_at double precision,
    status text COLLATE "C",          -- once closed
    model text COLLATE "C" NOT NULL,
    metadata bytea NOT NULL,
    labels bytea[] NOT NULL,          -- the same as pairs, which can be searched for
    request bytea NOT NULL,
    mask bigint NOT NULL,             -- of the final object
    response bytea                    -- the final object, once closed
) WITH (fillfactor = 85, toast_tuple_target = 256);
CREATE UNIQUE INDEX responses_id ON responses (tenant, id);
-- For lists and for claims. A query that knows an id does not say their conditions: while the planner has no statistics
-- yet, it would find a tenant's rows as cheap as the one row with that id.
CREATE INDEX responses_tenant ON responses (tenant, row) WHERE row > 0;
CREATE INDEX responses_open ON responses (tenant, created_at, row) WHERE status IS NULL;
CREATE INDEX responses_previous ON responses (previous) WHERE previous IS NOT NULL;

-- The log. The key is the second lock: who does not know the log's end begins where another one began. The attempt tells
-- a worker whose connection broke whether it was its own append that is there.
CREATE TABLE segments (
    response bigint NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    mask bigint NOT NULL,
    attempt integer NOT NULL,
    frames bytea NOT NULL,
    PRIMARY KEY (response, first)
);

CREATE TABLE notes (
    row bigint GENERATED ALWAYS AS IDENTITY,
    response bigint NOT NULL,
    after bigint NOT NULL,
    attempt integer NOT NULL,
    kind text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (response, row)
);

-- Context items, each content once. Links say which response was given (0) and which said (1) them, and in which order.
CREATE TABLE items (
    row bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    digest bytea NOT NULL,            -- of the body
    body bytea NOT NULL
);
CREATE UNIQUE INDEX items_id ON items (tenant, id, digest);

CREATE TABLE links (
    response bigint NOT NULL,
    output integer NOT NULL,
    position integer NOT NULL,
    item bigint NOT NULL,
    PRIMARY KEY (response, output, position)
);
CREATE INDEX links_item ON links (item);

CREATE TABLE conversations (
    row bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    metadata bytea NOT NULL
);
CREATE UNIQUE INDEX conversations_id ON conversations (tenant, id);

-- The items of conversations, which are copies of their own. The numbers say the order: who adds items has locked the
-- conversation before it takes one.
CREATE TABLE conversation_items (
    row bigint GENERATED ALWAYS AS IDENTITY,
    conversation bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (conversation, row)
);
CREATE UNIQUE INDEX conversation_items_id ON conversation_items (tenant, id, conversation);

-- The responses that are turns of conversations. The earliest open turn of a conversation is the one that may run.
CREATE TABLE turns (
    response bigint PRIMARY KEY,
    conversation bigint NOT NULL,
    seen bigint,                      -- the last item of the conversation that it sees; NULL until it is claimed
    open boolean NOT NULL,
    inherited boolean NOT NULL        -- not a turn itself: it continued one that was deleted, and still sees its items
);
CREATE INDEX turns_open ON turns (conversation, response) WHERE open;

-- The creates that are not to be carried out again.
CREATE TABLE idempotency (
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    response bigint NOT NULL,
    expires_at double precision NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_response ON idempotency (response);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

CREATE TABLE prompts (
    row bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    created_at bigint NOT NULL,
    body bytea NOT NULL
);
CREATE UNIQUE INDEX prompts_id ON prompts (tenant, id, version);
CREATE INDEX prompts_first ON prompts (tenant, row) WHERE version = 1;

-- Secrets that all nodes share.
CREATE TABLE secrets (
    name text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

-- The time by which leases and graces run, in seconds since the epoch: one for all nodes.
CREATE FUNCTION seconds() RETURNS double precision LANGUAGE sql STABLE
AS 'SELECT extract(epoch FROM statement_timestamp())::double precision';

-- A response's row with what must be looked up for it. It is queued until there is a second segment: the first is the
-- create's.
CREATE VIEW stored AS
SELECT
    row, tenant, id,
    coalesce(status, CASE
        WHEN background AND NOT EXISTS (
            SELECT 1 FROM segments WHERE segments.response = responses.row AND first > 0
        ) THEN 'queued' ELSE 'in_progress'
    END) AS status,
    model, created_at, background, closed, attempt, request, response,
    (SELECT id FROM responses AS parent WHERE parent.row = responses.previous) AS previous,
    followed_until, metadata, labels, mask,
    (SELECT conversations.id FROM turns JOIN conversations ON conversations.row = turns.conversation
        WHERE turns.response = responses.row AND NOT inherited) AS conversation
FROM responses;
