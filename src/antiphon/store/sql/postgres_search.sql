-- name: tables
-- The names of all tables.
SELECT relname FROM pg_class WHERE relnamespace = 'antiphon'::regnamespace AND relkind = 'r' ORDER BY relname;

-- name: responses
-- All responses, each with what it takes to unpack it.
SELECT responses.*, CASE WHEN packed THEN ARRAY(
    SELECT body FROM links JOIN items ON items.row = item
    WHERE links.response = responses.row AND output = 1 ORDER BY position
) END AS said
FROM responses ORDER BY row;

-- name: segments
-- The log of a response.
SELECT first, last - first + 1, frames, mask FROM segments WHERE response = $1 ORDER BY first;

-- name: orphans
-- Pieces of logs whose response is not there.
SELECT response, first FROM segments
WHERE NOT EXISTS (SELECT 1 FROM responses WHERE row = segments.response) ORDER BY response, first;
