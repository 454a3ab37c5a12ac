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
-- Closes the log, if the claim holds; gives the row's number, and whether it is a turn of a conversation.
UPDATE responses SET closed = 1, lease_ends = 0, status = :status, mask = :mask, response = :response
WHERE tenant = :tenant AND id = :id AND attempt = :attempt AND closed = 0
RETURNING row, EXISTS (SELECT 1 FROM turns WHERE turns.response = responses.row);

-- name: find
-- A response's row number, its depth, the row that it continues, and whether it is open.
SELECT row, depth, previous, closed = 0 FROM living WHERE tenant = :tenant AND id = :id;

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
-- A new item, unless there is an equal one.
INSERT INTO items (tenant, id, body)
SELECT ?1, ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM items WHERE tenant = ?1 AND id = ?2 AND body = ?3);

-- name: create_link
-- Says that a response was given an item (output 0) or said it (1).
INSERT INTO links (response, output, position, item) VALUES (?, ?, ?, ?);

-- name: open_tenants
-- The tenants that have open responses, from the one whose oldest is the oldest; one seek in the index for each.
WITH RECURSIVE tenants (tenant) AS (
    SELECT min(tenant) FROM responses INDEXED BY responses_open WHERE closed = 0 AND background = :background
    UNION ALL
    SELECT (
        SELECT min(responses.tenant) FROM responses INDEXED BY responses_open
        WHERE closed = 0 AND background = :background AND responses.tenant > tenants.tenant
    ) FROM tenants WHERE tenant IS NOT NULL
)
SELECT tenant FROM tenants WHERE tenant IS NOT NULL
ORDER BY (
    SELECT min(created_at) FROM responses INDEXED BY responses_open
    WHERE closed = 0 AND background = :background AND responses.tenant = tenants.tenant
);

-- name: claim
-- Takes a tenant's oldest open response that no worker holds, but none that was just taken. A foreground one that was
-- never claimed waits for its create, unless it is a turn of a conversation; and a turn waits for the earlier ones.
UPDATE responses
SET attempt = attempt + 1, tries = tries + 1, lease_ends = :lease_ends, followed_until = max(followed_until, :now)
WHERE row = (
    SELECT row FROM responses INDEXED BY responses_open
    WHERE closed = 0 AND background = :background AND tenant = :tenant AND lease_ends <= :now
      AND row NOT IN (SELECT value FROM json_each(:taken))
      AND (background OR attempt > 0
          OR EXISTS (SELECT 1 FROM turns WHERE turns.response = responses.row AND open = 1))
      AND NOT EXISTS (
          SELECT 1 FROM turns JOIN turns AS earlier
              ON earlier.conversation = turns.conversation AND earlier.response < turns.response AND earlier.open = 1
          WHERE turns.response = responses.row AND turns.open = 1
      )
    ORDER BY created_at, row LIMIT 1
)
RETURNING created_at, row, tenant, id, attempt, background, tries;

-- name: open_rows
-- The rows of a tenant's open responses, as their index has them.
SELECT row FROM responses INDEXED BY responses_open WHERE closed = 0 AND background = :background AND tenant = :tenant;

-- name: whole_row
-- All that the row of a response holds.
SELECT * FROM responses WHERE row = :row;

-- name: begin_turns
-- Fixes what the turns among these responses see: what is in their conversation now, unless it was fixed before.
UPDATE turns
SET seen = (SELECT coalesce(max(row), 0) FROM conversation_items WHERE conversation = turns.conversation)
WHERE response IN (SELECT value FROM json_each(:rows)) AND open = 1 AND seen IS NULL;

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

-- name: all_open_rows
-- The rows of all open responses, as their index has them.
SELECT row FROM responses INDEXED BY responses_open WHERE closed = 0;

-- name: void_lease
-- The same for one row.
UPDATE responses SET lease_ends = 0 WHERE row = :row AND lease_ends > 0;

-- name: mark_followed
-- Notes that an open response is followed until then.
UPDATE responses SET followed_until = :until
WHERE tenant = :tenant AND id = :id AND closed = 0 AND followed_until < :until;

-- name: get
-- A response's row, with what its final object is packed against beside the request, if that is packed.
SELECT
    id, status, model, created_at, background, closed, attempt, request, response, previous, followed_until, metadata,
    mask, conversation, iif(response < x'20', (
        SELECT CAST(group_concat(body, '' ORDER BY position) AS BLOB) FROM links JOIN items ON items.row = item
        WHERE links.response = stored.row AND output = 1
    ), NULL) AS said
FROM stored WHERE tenant = :tenant AND id = :id;

-- name: list_responses_descending
-- A page of responses, the newest first.
SELECT
    id, status, model, created_at, background, closed, attempt, request, response, previous, followed_until, metadata,
    mask, conversation, iif(response < x'20', (
        SELECT CAST(group_concat(body, '' ORDER BY position) AS BLOB) FROM links JOIN items ON items.row = item
        WHERE links.response = stored.row AND output = 1
    ), NULL) AS said
FROM stored
WHERE tenant = :tenant AND row < :after
  AND (:status IS NULL OR status = :status) AND (:model IS NULL OR model = :model)
  AND NOT EXISTS (
      SELECT 1 FROM json_each(:metadata) AS wanted WHERE NOT EXISTS (
          SELECT 1 FROM json_each(CAST(stored.metadata AS TEXT)) AS pair
          WHERE pair.key = wanted.key AND pair.value = wanted.value
      )
  )
ORDER BY row DESC LIMIT :limit;

-- name: list_responses_ascending
-- A page of responses, the oldest first.
SELECT
    id, status, model, created_at, background, closed, attempt, request, response, previous, followed_until, metadata,
    mask, conversation, iif(response < x'20', (
        SELECT CAST(group_concat(body, '' ORDER BY position) AS BLOB) FROM links JOIN items ON items.row = item
        WHERE links.response = stored.row AND output = 1
    ), NULL) AS said
FROM stored
WHERE tenant = :tenant AND row > :after
  AND (:status IS NULL OR status = :status) AND (:model IS NULL OR model = :model)
  AND NOT EXISTS (
      SELECT 1 FROM json_each(:metadata) AS wanted WHERE NOT EXISTS (
          SELECT 1 FROM json_each(CAST(stored.metadata AS TEXT)) AS pair
          WHERE pair.key = wanted.key AND pair.value = wanted.value
      )
  )
ORDER BY row LIMIT :limit;

-- name: read
-- Whether the log is closed, and its segments that hold numbers above `after`: one statement, so one snapshot.
SELECT closed, first, last, segments.mask, frames
FROM living AS responses LEFT JOIN segments ON segments.response = responses.row AND last > :after
    AND first >= (SELECT max(first) FROM segments WHERE segments.response = responses.row AND first <= :after + 1)
WHERE tenant = :tenant AND id = :id
ORDER BY first;

-- name: notes
-- The notes of a log in the order of their writing; one empty row if there are none.
SELECT after, kind, body FROM living AS responses LEFT JOIN notes ON notes.response = responses.row
WHERE tenant = :tenant AND id = :id
ORDER BY notes.row;

-- name: extent
-- How many ancestors a response has at most, and whether it begins with the items of a conversation.
SELECT depth, EXISTS (SELECT 1 FROM turns WHERE response = responses.row)
FROM living AS responses WHERE tenant = :tenant AND id = :id;

-- name: context
-- What a response and its ancestors saw of a conversation, were given and said, oldest first; empty rows count nothing.
WITH RECURSIVE chain (row, previous, age, gone) AS (
    SELECT row, previous, 0, 0 FROM living WHERE tenant = :tenant AND id = :id
    UNION ALL
    SELECT parent.row, parent.previous, age + 1, ifnull(parent.gone_at <= seconds(), 0)
    FROM chain JOIN responses AS parent ON parent.row = chain.previous
), sequence (item, kept, age, output, position) AS MATERIALIZED (
    SELECT item, NULL, age, output, position
    FROM chain LEFT JOIN links ON links.response = chain.row AND NOT gone AND (age > 0 OR output <= :output)
    UNION ALL
    SELECT NULL, conversation_items.row, age, -1, conversation_items.row
    FROM chain JOIN turns ON turns.response = chain.row
    JOIN conversation_items ON conversation_items.conversation = turns.conversation
        AND conversation_items.row <= ifnull(seen, 9223372036854775807)
)
SELECT coalesce(items.id, conversation_items.id), coalesce(items.body, conversation_items.body)
FROM sequence LEFT JOIN items ON items.row = item LEFT JOIN conversation_items ON conversation_items.row = kept
ORDER BY age DESC, output, position;

-- name: find_items
-- The items with these ids, of conversations and, behind them, of responses, the newest last.
SELECT id, body FROM (
    SELECT 0 AS kind, conversation_items.row, conversation_items.id, body FROM json_each(:ids)
    CROSS JOIN conversation_items ON conversation_items.tenant = :tenant AND conversation_items.id = json_each.value
    UNION ALL
    SELECT 1, items.row, items.id, body FROM json_each(:ids)
    CROSS JOIN items ON items.tenant = :tenant AND items.id = json_each.value
    WHERE EXISTS (SELECT 1 FROM links JOIN living ON living.row = links.response WHERE links.item = items.row)
)
ORDER BY kind, row;

-- name: inherit_turn
-- Responses that continue a turn see its conversation's items for themselves.
INSERT INTO turns (response, conversation, seen, open, inherited)
SELECT responses.row, conversation, seen, 0, 1
FROM turns JOIN responses ON responses.previous = turns.response WHERE turns.response = :row
ON CONFLICT DO NOTHING;

-- name: adopt
-- Responses that continue a row continue what that one continues instead.
UPDATE responses SET previous = (SELECT previous FROM responses WHERE row = :row) WHERE previous = :row;

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

-- name: delete_turn
-- Forgets that a response is a turn.
DELETE FROM turns WHERE response = :row;

-- name: delete_key
-- Lets go of the idempotency key that made a response.
DELETE FROM idempotency WHERE response = :row;

-- name: delete_response
-- Erases the row itself.
DELETE FROM responses WHERE row = :row;

-- name: find_key
-- The fingerprint and the response of an idempotency key that is alive.
SELECT fingerprint, living.id FROM idempotency JOIN living ON living.row = idempotency.response
WHERE idempotency.tenant = :tenant AND key = :key AND idempotency.expires_at > :now;

-- name: create_key
-- Takes an idempotency key for a response.
INSERT OR REPLACE INTO idempotency (tenant, key, fingerprint, response, expires_at)
VALUES (:tenant, :key, :fingerprint, :row, :expires_at);

-- name: delete_expired_keys
-- Forgets the idempotency keys whose time is over.
DELETE FROM idempotency WHERE expires_at <= :now;

-- name: create_turn
-- Says that a response is a turn of a conversation; what it sees is fixed now if it is claimed at once.
INSERT INTO turns (response, conversation, seen, open, inherited) VALUES (:row, :conversation, :seen, 1, 0);

-- name: end_turn
-- Lets the next turn of the conversation run; gives the conversation if the response was a turn.
UPDATE turns
SET open = 0, seen = coalesce(seen, (SELECT max(row) FROM conversation_items WHERE conversation = turns.conversation), 0)
WHERE response = :row AND open = 1
RETURNING conversation;

-- name: overdue_turns
-- The foreground turns that wait for an earlier one, and were created, or followed last, before these times; of each
-- whether it was followed later.
SELECT responses.tenant, responses.id, followed_until >= :followed_after
FROM turns CROSS JOIN responses ON responses.row = turns.response
WHERE turns.open = 1 AND closed = 0 AND background = 0 AND (created_at < :created_before OR followed_until < :followed_after)
  AND EXISTS (
      SELECT 1 FROM turns AS earlier
      WHERE earlier.conversation = turns.conversation AND earlier.response < turns.response AND earlier.open = 1
  )
ORDER BY turns.response LIMIT 100;

-- name: given_items
-- What a response was given, in order.
SELECT id, body FROM links JOIN items ON items.row = item
WHERE response = :row AND output = 0 ORDER BY position;

-- name: create_conversation
-- A new conversation, unless its id is taken.
INSERT INTO conversations (tenant, id, created_at, metadata) VALUES (:tenant, :id, :created_at, :metadata)
ON CONFLICT DO NOTHING RETURNING row;

-- name: get_conversation
-- A conversation's row.
SELECT row, created_at, metadata FROM conversations WHERE tenant = :tenant AND id = :id;

-- name: find_conversation
-- A conversation's row number, its last item, and whether a turn of it is open.
SELECT
    row,
    coalesce((SELECT max(row) FROM conversation_items WHERE conversation = conversations.row), 0),
    EXISTS (SELECT 1 FROM turns WHERE conversation = conversations.row AND open = 1)
FROM conversations WHERE tenant = :tenant AND id = :id;

-- name: update_conversation
-- Replaces a conversation's metadata.
UPDATE conversations SET metadata = :metadata WHERE tenant = :tenant AND id = :id
RETURNING row, created_at, metadata;

-- name: delete_conversation
-- Erases a conversation's row.
DELETE FROM conversations WHERE tenant = :tenant AND id = :id RETURNING row;

-- name: delete_conversation_items
-- Erases the items of a conversation.
DELETE FROM conversation_items WHERE conversation = :row;

-- name: same_ids
-- The items of a conversation that have one of these ids.
SELECT conversation_items.id, body FROM json_each(:ids) CROSS JOIN conversation_items
    ON tenant = :tenant AND conversation_items.id = json_each.value AND conversation = :conversation;

-- name: add_item
-- One more item of a conversation, if that is there and has none with this id.
INSERT INTO conversation_items (conversation, tenant, id, body)
SELECT row, tenant, ?1, ?2 FROM conversations WHERE row = ?3
ON CONFLICT DO NOTHING;

-- name: find_conversation_item
-- One item of a conversation, and its place.
SELECT row, id, body FROM conversation_items
WHERE tenant = :tenant AND id = :id AND conversation = :conversation;

-- name: delete_conversation_item
-- Erases one item of a conversation.
DELETE FROM conversation_items WHERE tenant = :tenant AND id = :id AND conversation = :conversation;

-- name: list_items_descending
-- A page of a conversation's items, the newest first.
SELECT id, body FROM conversation_items
WHERE conversation = :conversation AND row < :after ORDER BY row DESC LIMIT :limit;

-- name: list_items_ascending
-- A page of a conversation's items, the oldest first.
SELECT id, body FROM conversation_items
WHERE conversation = :conversation AND row > :after ORDER BY row LIMIT :limit;

-- name: conversation_bytes
-- How large a conversation's items are.
SELECT ifnull(sum(length(body)), 0) FROM conversation_items WHERE conversation = :conversation;

-- name: put_prompt
-- One more version of a template.
INSERT INTO prompts (tenant, id, version, created_at, body)
SELECT :tenant, :id, coalesce(max(version), 0) + 1, :created_at, :body FROM prompts WHERE tenant = :tenant AND id = :id
RETURNING version;

-- name: get_prompt
-- A version of a template, or its newest.
SELECT id, version, created_at, body FROM prompts
WHERE tenant = :tenant AND id = :id AND (:version IS NULL OR version = :version)
ORDER BY version DESC LIMIT 1;

-- name: find_prompt
-- The place of a template among the others.
SELECT row FROM prompts WHERE tenant = :tenant AND id = :id AND version = 1;

-- name: list_prompts_descending
-- A page of templates, each in its newest version, the newest template first.
SELECT newest.id, newest.version, newest.created_at, newest.body
FROM prompts AS first JOIN prompts AS newest ON newest.tenant = first.tenant AND newest.id = first.id
    AND newest.version = (SELECT max(version) FROM prompts WHERE tenant = first.tenant AND id = first.id)
WHERE first.tenant = :tenant AND first.version = 1 AND first.row < :after
ORDER BY first.row DESC LIMIT :limit;

-- name: list_prompts_ascending
-- A page of templates, each in its newest version, the oldest template first.
SELECT newest.id, newest.version, newest.created_at, newest.body
FROM prompts AS first JOIN prompts AS newest ON newest.tenant = first.tenant AND newest.id = first.id
    AND newest.version = (SELECT max(version) FROM prompts WHERE tenant = first.tenant AND id = first.id)
WHERE first.tenant = :tenant AND first.version = 1 AND first.row > :after
ORDER BY first.row LIMIT :limit;

-- name: delete_prompt
-- Erases all versions of a template.
DELETE FROM prompts WHERE tenant = :tenant AND id = :id;

-- name: count_background
-- How many background responses are open: of a tenant, or of all.
SELECT count(*) FROM responses
WHERE closed = 0 AND background = 1 AND (:tenant IS NULL OR tenant = :tenant);

-- name: packed
-- What it takes to unpack a log: the final object, which may be packed itself, and what that is packed against.
SELECT request, response, iif(response < x'20', (
    SELECT CAST(group_concat(body, '' ORDER BY position) AS BLOB) FROM links JOIN items ON items.row = item
    WHERE links.response = living.row AND output = 1
), NULL) AS said
FROM living WHERE tenant = :tenant AND id = :id;

-- name: said
-- The items that a response has said, in order.
SELECT body FROM links JOIN items ON items.row = item WHERE response = :row AND output = 1 ORDER BY position;

-- name: book
-- What a response has used.
INSERT INTO usage (tenant, model, created_at, status, input, cached, output, reasoning)
SELECT tenant, model, created_at, :status, :input, :cached, :output, :reasoning FROM responses WHERE row = :row;
