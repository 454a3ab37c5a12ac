-- API keys, known by their digests alone. None is ever deleted: the id of a revoked one goes on to say whose it was.
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    digest BLOB NOT NULL,            -- SHA-256 of the key
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL,                 -- from when on it is refused; may lie ahead
    used_at REAL,                    -- about when it was last used
    limits TEXT NOT NULL             -- JSON
) WITHOUT ROWID;
CREATE UNIQUE INDEX api_keys_digest ON api_keys (digest);

-- How many background responses of a tenant are open.
CREATE INDEX responses_background ON responses (tenant) WHERE closed = 0 AND background = 1;
