-- name: add_key
-- A new key.
INSERT INTO api_keys (id, tenant, name, digest, created_at, expires_at, revoked_at, used_at, limits)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING;

-- name: find_key
-- The key with this digest.
SELECT id, tenant, name, digest, created_at, expires_at, revoked_at, used_at, limits FROM api_keys WHERE digest = $1;

-- name: list_keys
-- All keys, the oldest first.
SELECT id, tenant, name, digest, created_at, expires_at, revoked_at, used_at, limits FROM api_keys
ORDER BY created_at, id;

-- name: any_key
-- Whether there ever was a key.
SELECT EXISTS (SELECT 1 FROM api_keys);

-- name: revoke_key
-- Refuses a key from a time on, or from an earlier one if that was set before.
UPDATE api_keys SET revoked_at = least(revoked_at, $2) WHERE id = $1
RETURNING id, tenant, name, digest, created_at, expires_at, revoked_at, used_at, limits;

-- name: mark_key
-- Notes a key's use.
UPDATE api_keys SET used_at = $2 WHERE id = $1;
