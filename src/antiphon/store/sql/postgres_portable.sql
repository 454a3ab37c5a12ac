-- What is read to carry a database's content elsewhere, and what is written to take it in. Reads are in the order of the
-- rows, which is that of their making; writes do nothing where the row is there already, and say what they have added.

-- name: dump_secrets
-- What encrypted content can be opened with.
SELECT name, value FROM secrets ORDER BY name;

-- name: dump_keys
-- All API keys.
SELECT id, tenant, name, digest, created_at, expires_at, revoked_at, used_at, limits FROM api_keys ORDER BY id;

-- name: dump_usage
-- What responses have used, and how many just this.
SELECT tenant, model, created_at, status, input, cached, output, reasoning, count(*)
FROM usage GROUP BY created_at, tenant, model, status, input, cached, output, reasoning
ORDER BY created_at, tenant, model, status, input, cached, output, reasoning;

-- name: dump_conversations
-- All conversations.
SELECT tenant, id, created_at, metadata FROM conversations ORDER BY row;

-- name: dump_conversation_items
-- The items of all conversations: those of one are in their order.
SELECT conversations.tenant, conversations.id, conversation_items.id, body
FROM conversation_items JOIN conversations ON conversations.row = conversation
ORDER BY conversation_items.row;

-- name: dump_prompts
-- All versions of all templates.
SELECT tenant, id, version, created_at, body FROM prompts ORDER BY row;

-- name: dump_items
-- All items of responses.
SELECT tenant, id, body FROM items ORDER BY row;

-- name: dump_responses
-- All responses, each with its row number, but without what there may be many of.
SELECT
    row, tenant, id, model, created_at, background, closed, attempt, tries, followed_until, expires_at, status, mask,
    (SELECT id FROM responses AS parent WHERE parent.row = responses.previous), metadata, request, response
FROM responses ORDER BY row;

-- name: dump_links
-- What a response was given (0) and said (1).
SELECT output, id, body FROM links JOIN items ON items.row = item
WHERE response = $1 ORDER BY output, position;

-- name: dump_turn
-- The conversation that a response is a turn of, if that is still there, and the last item that it sees.
SELECT conversations.id, seen IS NOT NULL, (
    SELECT id FROM conversation_items
    WHERE conversation_items.conversation = turns.conversation AND conversation_items.row <= seen
    ORDER BY conversation_items.row DESC LIMIT 1
), open, inherited
FROM turns JOIN conversations ON conversations.row = turns.conversation
WHERE response = $1;

-- name: dump_idempotency
-- The idempotency key that a response was made with.
SELECT key, fingerprint, expires_at FROM idempotency WHERE response = $1;

-- name: dump_segments
-- The log of a response.
SELECT first, last - first + 1, mask, frames FROM segments WHERE response = $1 ORDER BY first;

-- name: dump_notes
-- The notes of a response in the order of their writing.
SELECT after, kind, body FROM notes WHERE response = $1 ORDER BY row;

-- name: load_secrets
-- What encrypted content can be opened with.
INSERT INTO secrets (name, value)
SELECT * FROM unnest($1::text[], $2::text[])
ON CONFLICT DO NOTHING RETURNING 1;

-- name: find_secret
-- What is kept under a name.
SELECT value FROM secrets WHERE name = $1;

-- name: load_keys
-- API keys.
INSERT INTO api_keys (id, tenant, name, digest, created_at, expires_at, revoked_at, used_at, limits)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::bytea[], $5::double precision[], $6::double precision[],
    $7::double precision[], $8::double precision[], $9::text[]
)
ON CONFLICT DO NOTHING RETURNING 1;

-- name: load_usage
-- What so many responses have used, as far as fewer are known to have used just this.
WITH given AS (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
        $9::bigint[]
    ) AS given (tenant, model, created_at, status, input, cached, output, reasoning, times)
), missing AS MATERIALIZED (
    SELECT given.*, times - (
        SELECT count(*) FROM usage
        WHERE usage.created_at = given.created_at AND usage.tenant = given.tenant AND usage.model = given.model
          AND usage.status = given.status AND usage.input = given.input AND usage.cached = given.cached
          AND usage.output = given.output AND usage.reasoning = given.reasoning
    ) AS more
    FROM given
), added AS (
    INSERT INTO usage (tenant, model, created_at, status, input, cached, output, reasoning)
    SELECT tenant, model, created_at, status, input, cached, output, reasoning
    FROM missing CROSS JOIN generate_series(1, more)
)
SELECT 1 FROM missing WHERE more > 0;

-- name: load_conversations
-- Conversations.
INSERT INTO conversations (tenant, id, created_at, metadata)
SELECT tenant, id, created_at, metadata
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[])
    WITH ORDINALITY AS given (tenant, id, created_at, metadata, place)
ORDER BY place
ON CONFLICT DO NOTHING RETURNING 1;

-- name: load_conversation_items
-- More items of conversations.
INSERT INTO conversation_items (conversation, tenant, id, body)
SELECT conversations.row, given.tenant, given.id, body
FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[])
    WITH ORDINALITY AS given (tenant, conversation, id, body, place)
JOIN conversations ON conversations.tenant = given.tenant AND conversations.id = given.conversation
ORDER BY place
ON CONFLICT DO NOTHING RETURNING 1;

-- name: load_prompts
-- Versions of templates.
INSERT INTO prompts (tenant, id, version, created_at, body)
SELECT tenant, id, version, created_at, body
FROM unnest($1::text[], $2::text[], $3::integer[], $4::bigint[], $5::bytea[])
    WITH ORDINALITY AS given (tenant, id, version, created_at, body, place)
ORDER BY place
ON CONFLICT DO NOTHING RETURNING 1;

-- name: load_items
-- Items of responses.
INSERT INTO items (tenant, id, digest, body)
SELECT tenant, id, digest, body
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[])
    WITH ORDINALITY AS given (tenant, id, digest, body, place)
ORDER BY place
ON CONFLICT DO NOTHING RETURNING 1;

-- name: load_response
-- A response, if it is not there and what it continues is. What was open is as if its worker had handed it back.
INSERT INTO responses (
    tenant, id, attempt, closed, lease_ends, tries, background, followed_until, previous, depth,
    created_at, expires_at, status, model, metadata, labels, request, mask, response
)
SELECT
    $1, $2, $6::integer + (NOT $5::boolean)::integer, $5, 0, $7, $4, $8::double precision, parent.row,
    coalesce(parent.depth + 1, 0), $9, $10, $11, $3, $12::bytea, $13::bytea[], $14::bytea, $15, $16::bytea
FROM (SELECT 1) AS one LEFT JOIN responses AS parent ON parent.tenant = $1 AND parent.id = $17
WHERE $17::text IS NULL OR parent.row IS NOT NULL
ON CONFLICT DO NOTHING
RETURNING row;

-- name: is_there
-- Whether a response is there.
SELECT 1 FROM responses WHERE tenant = $1 AND id = $2;

-- name: load_links
-- What a response was given and said; gives the places of the items that are there.
INSERT INTO links (response, output, position, item)
SELECT $1, output, position, items.row
FROM unnest($3::integer[], $4::integer[], $5::text[], $6::bytea[]) AS given (output, position, id, digest)
JOIN items ON items.tenant = $2 AND items.id = given.id AND items.digest = given.digest
RETURNING output, position;

-- name: load_turn
-- Says that a response is a turn of a conversation.
INSERT INTO turns (response, conversation, seen, open, inherited)
SELECT $1, conversations.row, CASE WHEN $4::boolean THEN coalesce(conversation_items.row, 0) END, $6, $7
FROM conversations LEFT JOIN conversation_items ON conversation_items.tenant = $2
    AND conversation_items.id = $5 AND conversation_items.conversation = conversations.row
WHERE conversations.tenant = $2 AND conversations.id = $3;

-- name: load_idempotency
-- The idempotency key of a response.
INSERT INTO idempotency (response, tenant, key, fingerprint, expires_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING;

-- name: load_segments
-- Pieces of a log.
INSERT INTO segments (response, first, last, mask, attempt, frames)
SELECT $1, first, first + count - 1, mask, 0, frames
FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[]) AS given (first, count, mask, frames)
RETURNING 1;

-- name: load_notes
-- Notes of a log.
INSERT INTO notes (response, after, attempt, kind, body)
SELECT $1, after, 0, kind, body
FROM unnest($2::bigint[], $3::text[], $4::bytea[]) WITH ORDINALITY AS given (after, kind, body, place)
ORDER BY place
RETURNING 1;
