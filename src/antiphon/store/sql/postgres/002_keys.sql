-- API keys, known by their digests alone. None is ever deleted: the id of a revoked one goes on to say whose it was.
CREATE TABLE api_keys (
    id text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    name text NOT NULL,
    digest bytea NOT NULL,           -- SHA-256 of the key
    created_at double precision NOT NULL,
    expires_at double precision,
    revoked_at double precision,     -- from when on it is refused; may lie ahead
    used_at double precision,        -- about when it was last used
    limits text NOT NULL             -- JSON
);
CREATE UNIQUE INDEX api_keys_digest ON api_keys (digest);

-- How many background responses of a tenant are open.
CREATE INDEX responses_background ON responses (tenant) WHERE NOT closed AND background;
