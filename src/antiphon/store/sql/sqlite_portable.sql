-- What is read to carry a database's content elsewhere, and what is written to take it in. Reads are in the order of the
-- rows, which is that of their making; writes do nothing where the row is there already.

-- name: dump_keys
-- All API keys.
SELECT id, tenant, name, digest, created_at, expires_at, revoked_at, used_at, limits FROM api_keys ORDER BY id;

-- name: dump_usage
-- What each response has used.
SELECT tenant, model, created_at, status, input, cached, output, reasoning FROM usage ORDER BY created_at;

-- name: dump_conversations
-- All conversations.
SELECT tenant, id, created_at, metadata FROM conversations ORDER BY row;

-- name: dump_conversation_items
-- The items of all conversations: those of one are in their order.
SELECT conversations.tenant, conversations.id, conversation_items.id, body
FROM conversation_items CROSS JOIN conversations ON conversations.row = conversation
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
WHERE response = :row ORDER BY output, position;

-- name: dump_turn
-- The conversation that a response is a turn of, if that is still there, and the last item that it sees.
SELECT conversations.id, seen IS NOT NULL, (
    SELECT id FROM conversation_items
    WHERE conversation_items.conversation = turns.conversation AND conversation_items.row <= seen
    ORDER BY conversation_items.row DESC LIMIT 1
), open, inherited
FROM turns JOIN conversations ON conversations.row = turns.conversation
WHERE response = :row;

-- name: dump_idempotency
-- The idempotency key that a response was made with.
SELECT key, fingerprint, expires_at FROM idempotency WHERE response = :row;

-- name: dump_segments
-- The log of a response.
SELECT first, last - first + 1, mask, frames FROM segments WHERE response = :row ORDER BY first;

-- name: dump_notes
-- The notes of a response in the order of their writing.
SELECT after, kind, body FROM notes WHERE response = :row ORDER BY row;

-- name: load_key
-- An API key.
INSERT INTO api_keys (id, tenant, name, digest, created_at, expires_at, revoked_at, used_at, limits)
VALUES (:id, :tenant, :name, :digest, :created_at, :expires_at, :revoked_at, :used_at, :limits)
ON CONFLICT DO NOTHING;

-- name: count_usage
-- How many responses are known to have used just this.
SELECT count(*) FROM usage
WHERE created_at = :created_at AND tenant = :tenant AND model = :model AND status = :status
  AND input = :input AND cached = :cached AND output = :output AND reasoning = :reasoning;

-- name: load_usage
-- What a response has used.
INSERT INTO usage (tenant, model, created_at, status, input, cached, output, reasoning)
VALUES (:tenant, :model, :created_at, :status, :input, :cached, :output, :reasoning);

-- name: load_conversation
-- A conversation.
INSERT INTO conversations (tenant, id, created_at, metadata) VALUES (:tenant, :id, :created_at, :metadata)
ON CONFLICT DO NOTHING;

-- name: load_conversation_item
-- One more item of a conversation.
INSERT INTO conversation_items (conversation, tenant, id, body)
SELECT row, :tenant, :id, :body FROM conversations WHERE tenant = :tenant AND id = :conversation
ON CONFLICT DO NOTHING;

-- name: load_prompt
-- A version of a template.
INSERT INTO prompts (tenant, id, version, created_at, body) VALUES (:tenant, :id, :version, :created_at, :body)
ON CONFLICT DO NOTHING;

-- name: load_item
-- An item of responses.
INSERT INTO items (tenant, id, body)
SELECT :tenant, :id, :body
WHERE NOT EXISTS (SELECT 1 FROM items WHERE tenant = :tenant AND id = :id AND body = :body);

-- name: load_response
-- What was open is as if its worker had handed it back.
INSERT INTO responses (
    tenant, id, attempt, closed, lease_ends, tries, background, followed_until, previous, depth,
    created_at, expires_at, status, model, metadata, request, mask, response
)
SELECT
    :tenant, :id, :attempt + NOT :closed, :closed, 0, :tries, :background, :followed_until, parent.row,
    iif(parent.row IS NULL, 0, parent.depth + 1),
    :created_at, :expires_at, :status, :model, :metadata, :request, :mask, :response
FROM (SELECT 1) LEFT JOIN responses AS parent ON parent.tenant = :tenant AND parent.id = :previous
WHERE :previous IS NULL OR parent.row IS NOT NULL
ON CONFLICT DO NOTHING
RETURNING row;

-- name: is_there
-- Whether a response is there, also one that is gone for callers.
SELECT 1 FROM responses WHERE tenant = :tenant AND id = :id;

-- name: find_same_ids
-- The items with an id.
SELECT row, body FROM items WHERE tenant = :tenant AND id = :id;

-- name: load_turn
-- Says that a response is a turn of a conversation.
INSERT INTO turns (response, conversation, seen, open, inherited)
SELECT :row, conversations.row, iif(:begun, coalesce(conversation_items.row, 0), NULL), :open, :inherited
FROM conversations LEFT JOIN conversation_items ON conversation_items.tenant = :tenant
    AND conversation_items.id = :seen AND conversation_items.conversation = conversations.row
WHERE conversations.tenant = :tenant AND conversations.id = :conversation;

-- name: load_idempotency
-- The idempotency key of a response.
INSERT INTO idempotency (tenant, key, fingerprint, response, expires_at)
VALUES (:tenant, :key, :fingerprint, :row, :expires_at)
ON CONFLICT DO NOTHING;

-- name: load_note
-- A note of a log.
INSERT INTO notes (response, after, kind, body) VALUES (:response, :after, :kind, :body);
