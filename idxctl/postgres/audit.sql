-- name: record
-- Someone did something. By the function: it needs no right on the table, and says itself who is connected.
SELECT opensearch_indexing_audit_write(%(action)s, %(what)s, %(count)s::bigint, %(detail)s::jsonb, %(operator)s, %(channel)s, %(reason)s);

-- name: record_without_function
-- The same where the tables are of a version that has none: on the way through migrations, as their owner.
INSERT INTO opensearch_indexing_audit (actor, action, subject, detail)
VALUES (%(operator)s, %(action)s, %(what)s, %(detail)s::jsonb);

-- name: entries
-- Acts, the newest first. Those of before the columns were there have an actor alone.
SELECT id, at, action, subject, count, database_user, coalesce(operator, nullif(actor, '')), channel, host(address), reason, detail
FROM opensearch_indexing_audit
WHERE (%(since)s::interval IS NULL OR at >= clock_timestamp() - %(since)s::interval)
  AND (%(action)s::text IS NULL OR action = %(action)s)
ORDER BY id DESC
LIMIT %(limit)s::bigint;

-- name: total
-- How many there are.
SELECT count(*) FROM opensearch_indexing_audit
WHERE (%(since)s::interval IS NULL OR at >= clock_timestamp() - %(since)s::interval)
  AND (%(action)s::text IS NULL OR action = %(action)s);
