-- Whether the log is compacted and the final object packed: see store/packing.py.
ALTER TABLE responses ADD COLUMN packed boolean NOT NULL DEFAULT false;
CREATE INDEX responses_loose ON responses (created_at) WHERE closed AND NOT packed;
CREATE INDEX responses_gone ON responses (expires_at) WHERE closed AND expires_at IS NOT NULL;

ALTER TABLE segments ADD COLUMN plain_bytes integer;  -- of packed frames: their size when they are unpacked

-- What responses have used, without a word of what was said. Stays when they go.
CREATE TABLE usage (
    row bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,       -- of the response
    status text COLLATE "C" NOT NULL,
    input bigint NOT NULL,            -- tokens
    cached bigint NOT NULL,           -- of the input
    output bigint NOT NULL,
    reasoning bigint NOT NULL         -- of the output
);
CREATE INDEX usage_created ON usage (created_at);

-- Whether a response is unknown, since its time is over; one that is open never is.
CREATE FUNCTION gone(closed boolean, expires_at double precision) RETURNS boolean LANGUAGE sql STABLE
AS 'SELECT closed AND coalesce(expires_at <= seconds(), false)';

-- The responses that are not gone.
CREATE VIEW living AS SELECT * FROM responses WHERE NOT gone(closed, expires_at);

-- As before, of these; and what it takes to unpack the final object, if it is packed.
DROP VIEW stored;
CREATE VIEW stored AS
SELECT
    row, tenant, id,
    coalesce(status, CASE
        WHEN background AND NOT EXISTS (
            SELECT 1 FROM segments WHERE segments.response = living.row AND first > 0
        ) THEN 'queued' ELSE 'in_progress'
    END) AS status,
    model, created_at, background, closed, attempt, request, response,
    (SELECT id FROM responses AS parent WHERE parent.row = living.previous) AS previous,
    followed_until, metadata, labels, mask,
    (SELECT conversations.id FROM turns JOIN conversations ON conversations.row = turns.conversation
        WHERE turns.response = living.row AND NOT inherited) AS conversation,
    CASE WHEN packed THEN ARRAY(
        SELECT body FROM links JOIN items ON items.row = item
        WHERE links.response = living.row AND output = 1 ORDER BY position
    ) END AS said
FROM living;
