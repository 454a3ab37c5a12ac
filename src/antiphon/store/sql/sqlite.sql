-- Every parameter is bound by name, except in the statements that run per event: there by position, which is cheaper.

-- name: append_segment
-- One more segment, if the claim holds and none begins there.
INSERT INTO segments (response, first, last, mask, frames)
SELECT row, ?1, ?2, ?3, ?4 FROM responses
WHERE tenant = ?5 AND id = ?6 AND attempt = ?7 AND closed = 0
ON CONFLICT DO NOTHING;

-- name: append_segments
-- The same for several logs at once; the row of values is repeated as often as needed.
INSERT INTO segments (response, first, last, mask, frames)
SELECT row, column1, column2, column3, column4
FROM (VALUES (?, ?, ?, ?, ?, ?, ?)) CROSS JOIN responses
WHERE tenant = column5 AND id = column6 AND attempt = column7 AND closed = 0
ON CONFLICT DO NOTHING;

-- name: append_note
-- One more note, if the claim holds.
INSERT INTO notes (response, after, kind, body)
SELECT row, :after, :kind, :body FROM responses
WHERE tenant = :tenant AND id = :id AND attempt = :attempt AND closed = 0;

-- name: end
-- Closes the log, if the claim holds.
UPDATE responses SET closed = 1, lease_ends = 0, status = :status, mask = :mask, response = :response
WHERE tenant = :tenant AND id = :id AND attempt = :attempt AND closed = 0
RETURNING row;

-- name: find
-- A response's row number, its depth and the row that it continues.
SELECT row, depth, previous FROM responses WHERE tenant = :tenant AND id = :id;

-- name: create_response
-- A new response, unless its id is taken.
INSERT INTO responses (
    tenant, id, attempt, closed, lease_ends, tries, background, followed_until, previous, depth,
    created_at, expires_at, model, metadata, request, mask
) VALUES (
    :tenant, :id, :attempt, 0, :lease_ends, :attempt, :background, :now, :previous, :depth,
    :created_at, :expires_at, :model, :metadata, :request, 0
) ON CONFLICT DO NOTHING;

-- name: create_segment
-- The segment that the create writes.
INSERT INTO segments (response, first, last, mask, frames) VALUES (?, ?, ?, ?, ?);

-- name: find_item
-- The row number of an item that is equal, if there is one.
SELECT row FROM items WHERE tenant = ? AND id = ? AND body = ? LIMIT 1;

-- name: create_item
-- A new item.
INSERT INTO items (tenant, id, body) VALUES (?, ?, ?);

-- name: create_link
-- Says that a response was given an item (output 0) or said it (1).
INSERT INTO links (response, output, position, item) VALUES (?, ?, ?, ?);

-- name: claim
-- Takes the oldest open responses that no worker holds. A foreground one that was never claimed waits for its create.
UPDATE responses
SET attempt = attempt + 1, tries = tries + 1, lease_ends = :lease_ends, followed_until = max(followed_until, :now)
WHERE row IN (
    SELECT row FROM responses INDEXED BY responses_open
    WHERE closed = 0 AND lease_ends <= :now AND iif(background, :background, attempt > 0)
    ORDER BY created_at, row LIMIT :limit
)
RETURNING created_at, row, tenant, id, attempt, background, tries;

-- name: seize
-- Takes the claim of an open response, whoever holds it.
UPDATE responses SET attempt = attempt + 1, lease_ends = :lease_ends
WHERE tenant = :tenant AND id = :id AND closed = 0
RETURNING attempt, background, tries;

-- name: renew
-- Extends a lease, if the claim holds; gives whether somebody waits for the response.
UPDATE responses SET lease_ends = :lease_ends
WHERE tenant = :tenant AND id = :id AND attempt = :attempt AND closed = 0
RETURNING background OR followed_until >= :followed_after;

-- name: release
-- Hands a response back, if the claim holds.
UPDATE responses SET attempt = attempt + 1, tries = max(tries - 1, 0), lease_ends = 0
WHERE tenant = :tenant AND id = :id AND attempt = :attempt AND closed = 0;

-- name: void_leases
-- Ends all leases: their holders died with the process that owned the file before.
UPDATE responses SET lease_ends = 0 WHERE closed = 0 AND lease_ends > 0;

-- name: mark_followed
-- Notes that an open response is followed until then.
UPDATE responses SET followed_until = :until
WHERE tenant = :tenant AND id = :id AND closed = 0 AND followed_until < :until;

-- name: get
-- A response's row. It is queued until there is a second segment: the first is the create's.
SELECT
    coalesce(status, iif(
        background AND 0 = (SELECT max(first) FROM segments WHERE segments.response = responses.row),
        'queued', 'in_progress'
    )),
    model, created_at, background, closed, attempt, request, response,
    (SELECT id FROM responses AS parent WHERE parent.row = responses.previous),
    followed_until, metadata, mask
FROM responses WHERE tenant = :tenant AND id = :id;

-- name: read
-- Whether the log is closed, and its segments that hold numbers above `after`: one statement, so one snapshot.
SELECT closed, first, last, segments.mask, frames
FROM responses LEFT JOIN segments ON segments.response = responses.row AND last > :after
    AND first >= (SELECT max(first) FROM segments WHERE segments.response = responses.row AND first <= :after + 1)
WHERE tenant = :tenant AND id = :id
ORDER BY first;

-- name: notes
-- The notes of a log in the order of their writing; one empty row if there are none.
SELECT after, kind, body FROM responses LEFT JOIN notes ON notes.response = responses.row
WHERE tenant = :tenant AND id = :id
ORDER BY notes.row;

-- name: context
-- What a response and its ancestors were given and said, oldest first; one empty row if that is nothing.
WITH RECURSIVE chain (row, previous, age) AS (
    SELECT row, previous, 0 FROM responses WHERE tenant = :tenant AND id = :id
    UNION ALL
    SELECT parent.row, parent.previous, age + 1 FROM chain JOIN responses AS parent ON parent.row = chain.previous
), sequence (item, age, output, position) AS MATERIALIZED (
    SELECT item, age, output, position
    FROM chain LEFT JOIN links ON links.response = chain.row AND (age > 0 OR output <= :output)
    ORDER BY age DESC, output, position
)
SELECT items.row, id, body FROM sequence LEFT JOIN items ON items.row = item
ORDER BY age DESC, output, position;

-- name: adopt
-- Responses that continue a row continue another one instead.
UPDATE responses SET previous = :previous WHERE previous = :row;

-- name: delete_items
-- Erases the items that only this response refers to.
DELETE FROM items WHERE row IN (SELECT item FROM links WHERE response = :row)
  AND NOT EXISTS (SELECT 1 FROM links WHERE item = items.row AND response <> :row);

-- name: delete_links
-- Erases what a response refers to.
DELETE FROM links WHERE response = :row;

-- name: delete_segments
-- Erases a log.
DELETE FROM segments WHERE response = :row;

-- name: delete_notes
-- Erases the notes of a log.
DELETE FROM notes WHERE response = :row;

-- name: delete_response
-- Erases the row itself.
DELETE FROM responses WHERE row = :row;
