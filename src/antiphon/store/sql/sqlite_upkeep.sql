-- name: expired
-- Responses that are gone and not erased yet, the first first; open ones stay.
SELECT row, tenant, id FROM responses
WHERE closed > 0 AND expires_at <= seconds() ORDER BY expires_at LIMIT :limit;

-- name: loose
-- The oldest responses whose logs are closed and not compacted yet, of those created before.
SELECT row FROM responses WHERE closed = 1 AND created_at < :before ORDER BY created_at LIMIT :limit;

-- name: loose_response
-- One of them.
SELECT row, tenant, id, request, response FROM responses WHERE closed = 1 AND row = :row;

-- name: loose_segments
-- What is not packed yet of a log: plain frames begin with a printable character.
SELECT first, last - first + 1, frames, mask FROM segments
WHERE response = :row AND substr(frames, 1, 1) >= x'20' ORDER BY first;

-- name: is_loose
-- Whether a response is still there and not compacted. Row numbers are used again, and so may ids be.
SELECT 1 FROM responses
WHERE row = :row AND closed = 1 AND tenant = :tenant AND id = :id AND request = :request AND response = :response;

-- name: delete_stretch
-- Erases segments of a log.
DELETE FROM segments WHERE response = :row AND first BETWEEN :first AND :last;

-- name: take
-- Takes a row away.
DELETE FROM responses WHERE row = :row
RETURNING
    row, tenant, id, attempt, lease_ends, tries, background, followed_until, previous, depth, created_at, expires_at,
    status, model, metadata, request, mask;

-- name: put
-- Puts it back with its final object packed.
INSERT INTO responses (
    row, tenant, id, attempt, lease_ends, tries, background, followed_until, previous, depth, created_at, expires_at,
    status, model, metadata, request, mask, closed, response
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 2, ?);

-- name: usage
-- What was used, in all and by what is asked for.
SELECT
    tenant, iif(:by_model, model, NULL) AS model, iif(:by_day, date(created_at, 'unixepoch'), NULL) AS day,
    count(*), sum(input), sum(cached), sum(output), sum(reasoning)
FROM usage
WHERE created_at >= :since AND created_at < :until AND (:tenant IS NULL OR tenant = :tenant)
GROUP BY 1, 2, 3 ORDER BY 1, 3, 2;
