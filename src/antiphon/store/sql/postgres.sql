-- Parameters stand by position; each query says what they are where its text does not. What many rows are given to comes
-- as arrays, one for each column. Rows that are locked together are locked in the order of their numbers, so that no two
-- transactions wait for each other.

-- name: append_segments
-- Appends one segment each to many logs, where the claim holds and none begins there; gives the places of the refused.
-- The row is locked, so that who takes the claim meanwhile waits, and then reads what was written here.
WITH given AS (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[]
    ) WITH ORDINALITY AS given (tenant, id, attempt, first, last, mask, frames, place)
), held AS MATERIALIZED (
    SELECT responses.row AS response, given.first, given.last, given.mask, given.attempt, given.frames, given.place
    FROM given JOIN responses
        ON responses.tenant = given.tenant AND responses.id = given.id AND responses.attempt = given.attempt
    WHERE NOT responses.closed
    ORDER BY responses.row FOR NO KEY UPDATE OF responses
), written AS (
    INSERT INTO segments (response, first, last, mask, attempt, frames)
    SELECT response, first, last, mask, attempt, frames FROM held ORDER BY response, first
    ON CONFLICT DO NOTHING RETURNING response, first
)
SELECT place FROM generate_series(1, cardinality($1)) AS place WHERE place NOT IN (SELECT place FROM held)
UNION ALL SELECT place FROM held WHERE (response, first) NOT IN (SELECT response, first FROM written);

-- name: append_notes
-- Appends notes, where the claim holds; gives the places of the refused.
WITH held AS MATERIALIZED (
    SELECT responses.row AS response, given.*
    FROM unnest($1::text[], $2::text[], $3::integer[], $4::bigint[], $5::text[], $6::bytea[])
        WITH ORDINALITY AS given (tenant, id, attempt, after, kind, body, place)
    JOIN responses ON responses.tenant = given.tenant AND responses.id = given.id AND responses.attempt = given.attempt
    WHERE NOT responses.closed
    ORDER BY responses.row FOR NO KEY UPDATE OF responses
), written AS (
    INSERT INTO notes (response, after, attempt, kind, body)
    SELECT response, after, attempt, kind, body FROM held ORDER BY place
)
SELECT place FROM generate_series(1, cardinality($1)) AS place WHERE place NOT IN (SELECT place FROM held);

-- name: end
-- Closes logs, where the claim holds, and books what was used; gives the place and row of each that was closed, and
-- whether it is an open turn.
WITH held AS MATERIALIZED (
    SELECT
        responses.row, given.status, given.response, given.mask, input, cached, output, reasoning, given.place
    FROM unnest(
        $1::text[], $2::text[], $3::integer[], $4::text[], $5::bytea[], $6::bigint[],
        $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[]
    ) WITH ORDINALITY AS given (tenant, id, attempt, status, response, mask, input, cached, output, reasoning, place)
    JOIN responses ON responses.tenant = given.tenant AND responses.id = given.id AND responses.attempt = given.attempt
    WHERE NOT responses.closed
    ORDER BY responses.row FOR NO KEY UPDATE OF responses
), ended AS (
    UPDATE responses
    SET closed = true, lease_ends = 0, status = held.status, mask = held.mask, response = held.response
    FROM held WHERE responses.row = held.row
    RETURNING tenant, model, created_at, held.*
), booked AS (
    INSERT INTO usage (tenant, model, created_at, status, input, cached, output, reasoning)
    SELECT tenant, model, created_at, status, input, cached, output, reasoning FROM ended
)
SELECT place, row, EXISTS (SELECT 1 FROM turns WHERE turns.response = ended.row AND open) FROM ended;

-- name: settle
-- Waits until whoever writes to a log at this moment, maybe by a connection that we have lost, has ended.
SELECT row FROM responses WHERE tenant = $1 AND id = $2 FOR NO KEY UPDATE;

-- name: ended
-- Whether this very attempt has closed the log.
SELECT 1 FROM responses WHERE tenant = $1 AND id = $2 AND attempt = $3 AND closed;

-- name: appended
-- Whether this very attempt has written the segment.
SELECT 1 FROM responses JOIN segments ON segments.response = responses.row AND first = $4 AND segments.attempt = $3
WHERE tenant = $1 AND id = $2;

-- name: noted
-- Whether this very attempt has written the note.
SELECT 1 FROM responses JOIN notes ON notes.response = responses.row
    AND notes.attempt = $3 AND after = $4 AND kind = $5 AND body = $6
WHERE tenant = $1 AND id = $2 LIMIT 1;

-- name: mark_followed
-- Notes that open responses are followed for the seconds to come.
WITH held AS MATERIALIZED (
    SELECT responses.row, given.seconds
    FROM unnest($1::text[], $2::text[], $3::double precision[]) AS given (tenant, id, seconds)
    JOIN responses ON responses.tenant = given.tenant AND responses.id = given.id
    WHERE NOT closed AND followed_until < seconds() + given.seconds
    ORDER BY responses.row FOR NO KEY UPDATE OF responses
)
UPDATE responses SET followed_until = greatest(followed_until, seconds() + held.seconds)
FROM held WHERE responses.row = held.row;

-- name: find_previous
-- The row of a response that is to be continued, and its depth; it cannot be deleted before this transaction ends.
SELECT row, depth FROM living WHERE tenant = $1 AND id = $2 FOR KEY SHARE;

-- name: create_response
-- A new response with its first segment, unless its id is taken. $3: the seconds of its lease, NULL if it is not claimed.
WITH made AS (
    INSERT INTO responses (
        tenant, id, attempt, closed, lease_ends, tries, background, followed_until, previous, depth,
        created_at, expires_at, model, metadata, labels, request, mask
    ) VALUES (
        $1, $2, ($3::double precision IS NOT NULL)::integer, false, coalesce(seconds() + $3, 0),
        ($3 IS NOT NULL)::integer, $4, seconds(), $5, $6, $7, $8, $9, $10, $11, $12, 0
    ) ON CONFLICT DO NOTHING RETURNING row, lease_ends
), said AS (
    INSERT INTO segments (response, first, last, mask, attempt, frames) SELECT row, $13, $14, $15, 0, $16 FROM made
)
SELECT row, lease_ends FROM made;

-- name: created
-- What a create has made: whether it was claimed at once, until when, and whether it is background.
SELECT attempt > 0, lease_ends, background FROM responses WHERE tenant = $1 AND id = $2;

-- name: link_items
-- Says that responses were given (output 0) or said (1) items, as far as these are there; gives what was linked.
-- The items are locked, so that who erases what nothing refers to waits, and then sees the link.
WITH found AS MATERIALIZED (
    SELECT given.response, given.output, given.position, items.row
    FROM unnest($1::bigint[], $2::integer[], $3::integer[], $4::text[], $5::text[], $6::bytea[])
        AS given (response, output, position, tenant, id, digest)
    JOIN items ON items.tenant = given.tenant AND items.id = given.id AND items.digest = given.digest
    ORDER BY items.row FOR KEY SHARE OF items
)
INSERT INTO links (response, output, position, item) SELECT response, output, position, row FROM found
RETURNING response, output, position;

-- name: create_items
-- The same for items that are not there: makes them.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::bigint[], $2::integer[], $3::integer[], $4::text[], $5::text[], $6::bytea[], $7::bytea[])
        AS given (response, output, position, tenant, id, digest, body)
), made AS (
    INSERT INTO items (tenant, id, digest, body)
    SELECT tenant, id, digest, body FROM given ORDER BY tenant, id, digest
    ON CONFLICT DO NOTHING RETURNING row, tenant, id, digest
)
INSERT INTO links (response, output, position, item)
SELECT response, output, position, made.row FROM given JOIN made USING (tenant, id, digest)
RETURNING response, output, position;

-- name: claim
-- Takes open responses that no worker holds: the oldest of each tenant, then the next of each, and so on; first of the
-- tenant whose last claim, by whatever node, is the longest ago. A foreground one that was never claimed waits for its
-- create, unless it is a turn of a conversation; and a turn waits for the earlier ones. What another node is just taking
-- is left out. Fixes what turns see, unless it was fixed before.
-- $1: how many; $2: the seconds of the lease; $3: whether background ones too; $4: how many of each tenant to look at.
WITH RECURSIVE tenants (background, tenant) AS (
    SELECT kind.background, (
        SELECT responses.tenant FROM responses
        WHERE status IS NULL AND responses.background = kind.background ORDER BY responses.tenant LIMIT 1
    ) FROM unnest(ARRAY[false, $3]) WITH ORDINALITY AS kind (background, place) WHERE kind.background OR place = 1
    UNION ALL
    SELECT tenants.background, (
        SELECT responses.tenant FROM responses
        WHERE status IS NULL AND responses.background = tenants.background AND responses.tenant > tenants.tenant
        ORDER BY responses.tenant LIMIT 1
    ) FROM tenants WHERE tenants.tenant IS NOT NULL
), owners AS MATERIALIZED (
    SELECT background, tenant, coalesce((SELECT turn FROM served WHERE served.tenant = tenants.tenant), 0) AS turn
    FROM tenants WHERE tenant IS NOT NULL
), candidates AS MATERIALIZED (
    SELECT waiting.row, waiting.created_at, owners.background, owners.turn, row_number() OVER (
        PARTITION BY owners.background, owners.tenant ORDER BY waiting.created_at, waiting.row
    ) AS rank
    FROM owners CROSS JOIN LATERAL (
        SELECT row, created_at FROM responses
        WHERE responses.background = owners.background AND responses.tenant = owners.tenant
          AND status IS NULL AND lease_ends <= seconds()
          AND (responses.background OR attempt > 0
              OR EXISTS (SELECT 1 FROM turns WHERE turns.response = responses.row AND open))
          AND NOT EXISTS (
              SELECT 1 FROM turns JOIN turns AS earlier
                  ON earlier.conversation = turns.conversation AND earlier.response < turns.response AND earlier.open
              WHERE turns.response = responses.row AND turns.open
          )
        ORDER BY created_at, row LIMIT $4
    ) AS waiting
), best AS MATERIALIZED (  -- as an array, so that these rows are looked up, and no plan reads all others
    SELECT array_agg(row ORDER BY background, rank, turn, created_at, row) AS rows FROM (
        SELECT * FROM candidates ORDER BY background, rank, turn, created_at, row LIMIT $4
    ) AS first
), taken AS MATERIALIZED (
    SELECT responses.row, array_position(rows, responses.row) AS place
    FROM best JOIN responses ON responses.row = ANY(rows)
    WHERE NOT closed AND lease_ends <= seconds()
    ORDER BY place LIMIT $1
    FOR NO KEY UPDATE OF responses SKIP LOCKED
), claimed AS (
    UPDATE responses
    SET attempt = attempt + 1, tries = tries + 1, lease_ends = seconds() + $2,
        followed_until = greatest(followed_until, seconds())
    FROM taken WHERE responses.row = taken.row
    RETURNING place, responses.row, tenant, id, attempt, lease_ends, background, tries
), begun AS (
    UPDATE turns SET seen = (
        SELECT coalesce(max(row), 0) FROM conversation_items WHERE conversation = turns.conversation
    )
    WHERE response IN (SELECT row FROM claimed) AND open AND seen IS NULL
), now_served AS MATERIALIZED (
    SELECT tenant, max(next) AS next FROM (
        SELECT tenant, nextval('served_turn') AS next FROM claimed ORDER BY place
    ) AS numbered GROUP BY tenant
), free AS MATERIALIZED (  -- who meets another node here leaves it to that one: nobody waits to be fair
    SELECT served.tenant FROM now_served JOIN served ON served.tenant = now_served.tenant
    FOR NO KEY UPDATE OF served SKIP LOCKED
), counted AS (
    UPDATE served SET turn = now_served.next
    FROM free JOIN now_served ON now_served.tenant = free.tenant WHERE served.tenant = free.tenant
), met AS (
    INSERT INTO served (tenant, turn)
    SELECT tenant, next FROM now_served
    WHERE NOT EXISTS (SELECT 1 FROM served WHERE served.tenant = now_served.tenant) ORDER BY tenant
    ON CONFLICT DO NOTHING
)
SELECT tenant, id, attempt, lease_ends, background, tries FROM claimed ORDER BY place;

-- name: overdue_turns
-- The foreground turns that wait for an earlier one, and were created $1 seconds ago or not followed for $2 seconds; of
-- each whether it was followed since.
SELECT responses.tenant, responses.id, followed_until >= seconds() - $2
FROM turns JOIN responses ON responses.row = turns.response
WHERE turns.open AND NOT closed AND NOT background
  AND (created_at < seconds() - $1 OR followed_until < seconds() - $2)
  AND EXISTS (
      SELECT 1 FROM turns AS earlier
      WHERE earlier.conversation = turns.conversation AND earlier.response < turns.response AND earlier.open
  )
ORDER BY turns.response LIMIT 100;

-- name: seize
-- Takes the claim of an open response, whoever holds it.
UPDATE responses SET attempt = attempt + 1, lease_ends = seconds() + $3
WHERE tenant = $1 AND id = $2 AND NOT closed
RETURNING attempt, lease_ends, background, tries;

-- name: renew
-- Extends the leases of the claims that hold; gives the place of each, and whether somebody waits for the response.
-- $4: the seconds of the lease; $5: those of the grace.
WITH held AS MATERIALIZED (
    SELECT responses.row, given.place
    FROM unnest($1::text[], $2::text[], $3::integer[]) WITH ORDINALITY AS given (tenant, id, attempt, place)
    JOIN responses ON responses.tenant = given.tenant AND responses.id = given.id AND responses.attempt = given.attempt
    WHERE NOT closed
    ORDER BY responses.row FOR NO KEY UPDATE OF responses
)
UPDATE responses SET lease_ends = seconds() + $4
FROM held WHERE responses.row = held.row
RETURNING held.place, background OR followed_until >= seconds() - $5;

-- name: release
-- Hands a response back, if the claim holds.
UPDATE responses SET attempt = attempt + 1, tries = greatest(tries - 1, 0), lease_ends = 0
WHERE tenant = $1 AND id = $2 AND attempt = $3 AND NOT closed;

-- name: find
-- A response's row number.
SELECT row FROM living WHERE tenant = $1 AND id = $2;

-- name: get
-- A response's row.
SELECT
    id, status, model, created_at, background, closed, attempt, request, response, previous, followed_until, metadata,
    mask, conversation, said
FROM stored WHERE tenant = $1 AND id = $2;

-- name: list_responses_descending
-- A page of responses, the newest first. $2: behind this row; $3: how many; $4, $5: of a status, of a model, or NULL;
-- $6: with these labels.
SELECT
    id, status, model, created_at, background, closed, attempt, request, response, previous, followed_until, metadata,
    mask, conversation, said
FROM stored
WHERE tenant = $1 AND row > 0 AND row < $2
  AND ($4::text IS NULL OR status = $4) AND ($5::text IS NULL OR model = $5) AND labels @> $6::bytea[]
ORDER BY row DESC LIMIT $3;

-- name: list_responses_ascending
-- The same, the oldest first.
SELECT
    id, status, model, created_at, background, closed, attempt, request, response, previous, followed_until, metadata,
    mask, conversation, said
FROM stored
WHERE tenant = $1 AND row > 0 AND row > $2
  AND ($4::text IS NULL OR status = $4) AND ($5::text IS NULL OR model = $5) AND labels @> $6::bytea[]
ORDER BY row LIMIT $3;

-- name: read
-- Whether the log is closed, the number that ends it, and its segments that hold numbers above $3: one statement, so one
-- snapshot. At most $5 segments, and of $4 bytes (as they are unpacked), but at least one.
SELECT closed, ends, first, last, mask, frames
FROM (
    SELECT row, closed,
        (SELECT last FROM segments WHERE segments.response = responses.row ORDER BY first DESC LIMIT 1) AS ends
    FROM living AS responses WHERE tenant = $1 AND id = $2
) AS response
LEFT JOIN LATERAL (
    SELECT
        first, last, mask, frames, row_number() OVER (ORDER BY first) AS place,
        sum(coalesce(plain_bytes, octet_length(frames))) OVER (ORDER BY first) AS bytes
    FROM (
        SELECT first, last, mask, frames, plain_bytes FROM segments
        WHERE segments.response = response.row AND last > $3 AND first >= coalesce(
            (SELECT max(first) FROM segments WHERE segments.response = response.row AND first <= $3 + 1), 0
        )
        ORDER BY first LIMIT $5
    ) AS next
) AS page ON bytes <= $4 OR place = 1
ORDER BY first;

-- name: packed
-- What it takes to unpack a log.
SELECT request, response, said FROM stored WHERE tenant = $1 AND id = $2;

-- name: notes
-- The notes of a log in the order of their writing; one empty row if there are none.
SELECT after, kind, body FROM living AS responses LEFT JOIN notes ON notes.response = responses.row
WHERE tenant = $1 AND id = $2
ORDER BY notes.row;

-- name: context
-- What a response and its ancestors saw of a conversation, were given and said, oldest first; empty rows count nothing.
-- $3: the last of its own kinds of links, 0 for what it was given, 1 for what it said too.
WITH RECURSIVE chain (row, previous, age, gone) AS (
    SELECT row, previous, 0, false FROM living WHERE tenant = $1 AND id = $2
    UNION ALL
    SELECT parent.row, parent.previous, age + 1, gone(parent.closed, parent.expires_at)
    FROM chain JOIN responses AS parent ON parent.row = chain.previous
), sequence AS (
    SELECT item, NULL::bigint AS conversation, NULL::bigint AS kept, age, output, position::bigint AS position
    FROM chain LEFT JOIN links ON links.response = chain.row AND NOT gone AND (age > 0 OR output <= $3)
    UNION ALL
    SELECT NULL, conversation_items.conversation, conversation_items.row, age, -1, conversation_items.row
    FROM chain JOIN turns ON turns.response = chain.row
    JOIN conversation_items ON conversation_items.conversation = turns.conversation
        AND conversation_items.row <= coalesce(seen, 9223372036854775807)
)
SELECT coalesce(items.id, conversation_items.id), coalesce(items.body, conversation_items.body)
FROM sequence LEFT JOIN items ON items.row = item
LEFT JOIN conversation_items ON conversation_items.conversation = sequence.conversation AND conversation_items.row = kept
ORDER BY age DESC, output, position;

-- name: find_items
-- The items with these ids, of conversations and, behind them, of responses, the newest last.
SELECT id, body FROM (
    SELECT 0 AS kind, row, id, body FROM conversation_items WHERE tenant = $1 AND id = ANY($2::text[])
    UNION ALL
    SELECT 1, row, id, body FROM items WHERE tenant = $1 AND id = ANY($2::text[])
      AND EXISTS (SELECT 1 FROM links JOIN living ON living.row = links.response WHERE links.item = items.row)
) AS found
ORDER BY kind, row;

-- name: lock_previous
-- What a response continues; it cannot be deleted before this transaction ends. Nothing if it has just been.
SELECT row FROM responses WHERE row = (SELECT previous FROM living WHERE tenant = $1 AND id = $2) FOR KEY SHARE;

-- name: lock_response
-- The row of a response that is to be deleted, the one that it continues, and whether it is open; nobody can continue or
-- change it any more.
SELECT row, previous, NOT closed FROM living WHERE tenant = $1 AND id = $2 FOR UPDATE;

-- name: lock_items
-- Locks the items of responses: whoever is about to refer to one is waited for, or finds it gone.
SELECT items.row FROM links JOIN items ON items.row = links.item WHERE links.response = ANY($1::bigint[])
ORDER BY items.row FOR UPDATE OF items;

-- name: delete_response
-- Erases a response: row, log, notes, and the items that only it refers to. Responses that continue it continue what it
-- has continued, and those that continue a turn see its conversation's items for themselves.
WITH inherited AS (
    INSERT INTO turns (response, conversation, seen, open, inherited)
    SELECT responses.row, conversation, seen, false, true
    FROM turns JOIN responses ON responses.previous = turns.response WHERE turns.response = $1
    ON CONFLICT DO NOTHING
), adopted AS (
    UPDATE responses SET previous = (SELECT previous FROM responses WHERE row = $1) WHERE previous = $1
), deleted_items AS (
    DELETE FROM items WHERE row IN (SELECT item FROM links WHERE response = $1)
      AND NOT EXISTS (SELECT 1 FROM links WHERE item = items.row AND response <> $1)
), deleted_links AS (
    DELETE FROM links WHERE response = $1
), deleted_segments AS (
    DELETE FROM segments WHERE response = $1
), deleted_notes AS (
    DELETE FROM notes WHERE response = $1
), deleted_turn AS (
    DELETE FROM turns WHERE response = $1
), deleted_key AS (
    DELETE FROM idempotency WHERE response = $1
)
DELETE FROM responses WHERE row = $1;

-- name: find_key
-- The fingerprint and the response of an idempotency key that is alive.
SELECT fingerprint, living.id FROM idempotency JOIN living ON living.row = idempotency.response
WHERE idempotency.tenant = $1 AND key = $2 AND idempotency.expires_at > seconds();

-- name: create_key
-- Takes an idempotency key for a response, unless it is alive. (A response that has just been made elsewhere is not seen
-- here, but its key is: so it must be seen to be gone.)
INSERT INTO idempotency (tenant, key, fingerprint, response, expires_at) VALUES ($1, $2, $3, $4, seconds() + $5)
ON CONFLICT (tenant, key) DO UPDATE
SET fingerprint = excluded.fingerprint, response = excluded.response, expires_at = excluded.expires_at
WHERE idempotency.expires_at <= seconds()
   OR (SELECT gone(closed, responses.expires_at) FROM responses WHERE row = idempotency.response)
RETURNING response;

-- name: delete_expired_keys
-- Forgets some of the idempotency keys whose time is over, but none that somebody else is about to use.
DELETE FROM idempotency WHERE (tenant, key) IN (
    SELECT tenant, key FROM idempotency WHERE expires_at <= seconds() LIMIT 100 FOR UPDATE SKIP LOCKED
);

-- name: delete_keys
-- Lets go of the idempotency keys that made responses.
DELETE FROM idempotency WHERE response = ANY($1::bigint[]);

-- name: lock_conversation
-- A conversation's row number; until this transaction ends, nobody else adds items or turns.
SELECT row FROM conversations WHERE tenant = $1 AND id = $2 FOR NO KEY UPDATE;

-- name: lock_conversations
-- The same for several, by their row numbers.
SELECT row FROM conversations WHERE row = ANY($1::bigint[]) ORDER BY row FOR NO KEY UPDATE;

-- name: place
-- A conversation's last item, and whether a turn of it is open.
SELECT
    coalesce((SELECT max(row) FROM conversation_items WHERE conversation = $1), 0),
    EXISTS (SELECT 1 FROM turns WHERE conversation = $1 AND open);

-- name: create_turn
-- Says that a response is a turn of a conversation; what it sees is fixed now if it is claimed at once.
INSERT INTO turns (response, conversation, seen, open, inherited) VALUES ($1, $2, $3, true, false);

-- name: end_turns
-- Lets the next turns of the conversations run; gives the responses that were turns with their conversations.
UPDATE turns SET open = false, seen = coalesce(
    seen, (SELECT max(row) FROM conversation_items WHERE conversation = turns.conversation), 0
)
WHERE response = ANY($1::bigint[]) AND open
RETURNING response, conversation;

-- name: given_items
-- What a response was given, in order.
SELECT id, body FROM links JOIN items ON items.row = item WHERE response = $1 AND output = 0 ORDER BY position;

-- name: create_conversation
-- A new conversation, unless its id is taken.
INSERT INTO conversations (tenant, id, created_at, metadata) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING RETURNING row;

-- name: get_conversation
-- A conversation's row.
SELECT row, created_at, metadata FROM conversations WHERE tenant = $1 AND id = $2;

-- name: update_conversation
-- Replaces a conversation's metadata.
UPDATE conversations SET metadata = $3 WHERE tenant = $1 AND id = $2 RETURNING row, created_at, metadata;

-- name: delete_conversation
-- Erases a conversation's row.
DELETE FROM conversations WHERE tenant = $1 AND id = $2 RETURNING row;

-- name: delete_conversation_items
-- Erases the items of a conversation.
DELETE FROM conversation_items WHERE conversation = $1;

-- name: same_ids
-- The items of a conversation that have one of these ids.
SELECT id, body FROM conversation_items WHERE tenant = $1 AND conversation = $2 AND id = ANY($3::text[]);

-- name: add_items
-- More items of a conversation, but none whose id it has.
INSERT INTO conversation_items (conversation, tenant, id, body)
SELECT conversations.row, conversations.tenant, given.id, given.body
FROM conversations CROSS JOIN unnest($2::text[], $3::bytea[]) WITH ORDINALITY AS given (id, body, place)
WHERE conversations.row = $1 ORDER BY place
ON CONFLICT DO NOTHING;

-- name: find_conversation_item
-- One item of a conversation, and its place.
SELECT row, id, body FROM conversation_items WHERE tenant = $1 AND id = $2 AND conversation = $3;

-- name: delete_conversation_item
-- Erases one item of a conversation.
DELETE FROM conversation_items WHERE tenant = $1 AND id = $2 AND conversation = $3 RETURNING row;

-- name: list_items_descending
-- A page of a conversation's items, the newest first.
SELECT id, body FROM conversation_items WHERE conversation = $1 AND row < $2 ORDER BY row DESC LIMIT $3;

-- name: list_items_ascending
-- A page of a conversation's items, the oldest first.
SELECT id, body FROM conversation_items WHERE conversation = $1 AND row > $2 ORDER BY row LIMIT $3;

-- name: conversation_bytes
-- How large a conversation's items are.
SELECT coalesce(sum(octet_length(body)), 0) FROM conversation_items WHERE conversation = $1;

-- name: put_prompt
-- One more version of a template, unless somebody else has just made it.
INSERT INTO prompts (tenant, id, version, created_at, body)
SELECT $1, $2, coalesce(max(version), 0) + 1, floor(seconds())::bigint, $3 FROM prompts WHERE tenant = $1 AND id = $2
ON CONFLICT DO NOTHING
RETURNING version, created_at;

-- name: get_prompt
-- A version of a template, or its newest.
SELECT id, version, created_at, body FROM prompts
WHERE tenant = $1 AND id = $2 AND ($3::integer IS NULL OR version = $3)
ORDER BY version DESC LIMIT 1;

-- name: find_prompt
-- The place of a template among the others.
SELECT row FROM prompts WHERE tenant = $1 AND id = $2 AND version = 1;

-- name: list_prompts_descending
-- A page of templates, each in its newest version, the newest template first.
SELECT newest.id, newest.version, newest.created_at, newest.body
FROM prompts AS first CROSS JOIN LATERAL (
    SELECT * FROM prompts WHERE tenant = first.tenant AND id = first.id ORDER BY version DESC LIMIT 1
) AS newest
WHERE first.tenant = $1 AND first.version = 1 AND first.row < $2
ORDER BY first.row DESC LIMIT $3;

-- name: list_prompts_ascending
-- The same, the oldest template first.
SELECT newest.id, newest.version, newest.created_at, newest.body
FROM prompts AS first CROSS JOIN LATERAL (
    SELECT * FROM prompts WHERE tenant = first.tenant AND id = first.id ORDER BY version DESC LIMIT 1
) AS newest
WHERE first.tenant = $1 AND first.version = 1 AND first.row > $2
ORDER BY first.row LIMIT $3;

-- name: delete_prompt
-- Erases all versions of a template.
DELETE FROM prompts WHERE tenant = $1 AND id = $2 RETURNING version;

-- name: keep_secret
-- A secret that all nodes share, unless it is there.
INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: find_secret
-- A secret that all nodes share.
SELECT value FROM secrets WHERE name = $1;

-- name: count_background
-- How many background responses are open: of a tenant, or of all.
SELECT count(*) FROM responses WHERE status IS NULL AND background AND ($1::text IS NULL OR tenant = $1);
