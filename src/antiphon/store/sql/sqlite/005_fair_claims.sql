-- What is open, for claims: each tenant's, in order. Foreground ones apart, as most claims look at few of them.
DROP INDEX responses_open;
CREATE INDEX responses_open ON responses (background, tenant, created_at) WHERE closed = 0;
