-- What is open, for claims: each tenant's, in order. Foreground ones apart, as most claims look at few of them.
DROP INDEX responses_open;
CREATE INDEX responses_open ON responses (background, tenant, created_at, row) WHERE status IS NULL;

-- When each tenant's response was claimed last, counted over all nodes. Each claim rewrites a row or two, in their places.
CREATE TABLE served (
    tenant text COLLATE "C" PRIMARY KEY,
    turn bigint NOT NULL
) WITH (fillfactor = 20);
CREATE SEQUENCE served_turn;
