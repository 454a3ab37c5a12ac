-- `closed` of a response is 2 once its log is compacted and its final object packed: see store/packing.py.
-- The time from which on it is unknown: its expiry, but never while it is open.
ALTER TABLE responses ADD COLUMN gone_at REAL AS (iif(closed, expires_at, NULL)) VIRTUAL;
CREATE INDEX responses_gone ON responses (expires_at) WHERE closed > 0 AND expires_at IS NOT NULL;
CREATE INDEX responses_loose ON responses (created_at) WHERE closed = 1;

-- What responses have used, without a word of what was said. Stays when they go.
CREATE TABLE usage (
    row INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    model TEXT NOT NULL,
    created_at INTEGER NOT NULL,     -- of the response
    status TEXT NOT NULL,
    input INTEGER NOT NULL,          -- tokens
    cached INTEGER NOT NULL,         -- of the input
    output INTEGER NOT NULL,
    reasoning INTEGER NOT NULL       -- of the output
);
CREATE INDEX usage_created ON usage (created_at);

-- The responses that are not gone; seconds() is the store's clock.
CREATE VIEW living AS SELECT * FROM responses WHERE gone_at IS NULL OR gone_at > seconds();

DROP VIEW stored;
CREATE VIEW stored AS
SELECT
    row, tenant, id,
    coalesce(status, iif(
        background AND 0 = (SELECT max(first) FROM segments WHERE segments.response = living.row),
        'queued', 'in_progress'
    )) AS status,
    model, created_at, background, closed, attempt, request, response,
    (SELECT id FROM responses AS parent WHERE parent.row = living.previous) AS previous,
    followed_until, metadata, mask,
    (SELECT conversations.id FROM turns JOIN conversations ON conversations.row = turns.conversation
        WHERE turns.response = living.row AND NOT inherited) AS conversation
FROM living;
