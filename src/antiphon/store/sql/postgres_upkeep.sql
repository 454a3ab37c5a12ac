-- name: lock_expired
-- Responses that are gone and not erased yet, the first first. What another node erases or somebody uses is left out.
SELECT row, previous, tenant, id FROM responses
WHERE closed AND expires_at <= seconds() ORDER BY expires_at LIMIT $1
FOR UPDATE SKIP LOCKED;

-- name: lock_previous
-- Those of the rows that nobody else is deleting, or will be before this transaction ends.
SELECT row FROM responses WHERE row = ANY($1::bigint[]) FOR KEY SHARE SKIP LOCKED;

-- name: lock_loose
-- The oldest response whose log is closed and not compacted yet, of those created $1 seconds ago, with the items that it
-- has said. What another node compacts is left out.
SELECT row, request, response, ARRAY(
    SELECT body FROM links JOIN items ON items.row = item
    WHERE links.response = responses.row AND output = 1 ORDER BY position
)
FROM responses
WHERE closed AND NOT packed AND created_at < floor(seconds() - $1)::bigint ORDER BY created_at LIMIT 1
FOR NO KEY UPDATE SKIP LOCKED;

-- name: loose_segments
-- What is not packed yet of a log.
SELECT first, last - first + 1, frames, mask FROM segments WHERE response = $1 AND plain_bytes IS NULL ORDER BY first;

-- name: delete_stretch
-- Erases segments of a log.
DELETE FROM segments WHERE response = $1 AND first BETWEEN $2 AND $3;

-- name: put_stretch
-- Puts a packed one in their place.
INSERT INTO segments (response, first, last, mask, attempt, frames, plain_bytes) VALUES ($1, $2, $3, $4, 0, $5, $6);

-- name: pack_response
-- Keeps the final object packed.
UPDATE responses SET packed = true, response = $2 WHERE row = $1;

-- name: usage
-- What was used, in all and by what is asked for. $1: of a tenant, or NULL; $2, $3: of responses created from the one
-- time on and before the other; $4: by model; $5: by day.
SELECT
    tenant, CASE WHEN $4 THEN model END,
    CASE WHEN $5 THEN to_char(to_timestamp(created_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD') END,
    count(*), sum(input)::bigint, sum(cached)::bigint, sum(output)::bigint, sum(reasoning)::bigint
FROM usage
WHERE created_at >= $2 AND created_at < $3 AND ($1::text IS NULL OR tenant = $1)
GROUP BY 1, 2, 3 ORDER BY 1, 3, 2;
