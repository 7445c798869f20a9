-- name: captured
-- What is wrong with capture, from the catalog alone: watched tables that are not there, and tables of their trees with fewer
-- triggers of ours than they should have, or with disabled ones. `elsewhere`: where the triggers of a table now stand.
WITH RECURSIVE watched AS (
    SELECT table_schema, table_name, array_agg(DISTINCT index_name ORDER BY index_name) AS indexes, max(installed_at) AS installed_at
    FROM opensearch_indexing_watches WHERE removed_at IS NULL
    GROUP BY table_schema, table_name
), roots AS MATERIALIZED (
    SELECT w.*, f.name AS function, c.oid, c.relkind
    FROM watched w
    JOIN unnest(%(schemas)s::text[], %(tables)s::text[], %(functions)s::text[]) AS f (schema, "table", name)
      ON f.schema = w.table_schema AND f."table" = w.table_name
    LEFT JOIN pg_namespace n ON n.nspname = w.table_schema
    LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.table_name AND c.relkind IN ('r', 'p')
), tree AS (
    SELECT r.oid AS root, r.oid, 0 AS depth FROM roots r WHERE r.oid IS NOT NULL
    UNION ALL
    SELECT t.root, i.inhrelid, t.depth + 1 FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending
), ours AS MATERIALIZED (
    SELECT t.tgrelid, p.proname::text AS function, count(*) AS triggers, count(*) FILTER (WHERE t.tgenabled IN ('D', 'R')) AS disabled
    FROM pg_proc p
    JOIN pg_trigger t ON t.tgfoid = p.oid AND t.tgparentid = 0
    WHERE p.pronamespace = (SELECT s.oid FROM pg_namespace s WHERE s.nspname = %(schema)s)
      AND p.proname LIKE 'opensearch\_indexing\_capture\_%%'
    GROUP BY t.tgrelid, p.proname
), members AS (
    SELECT r.table_schema, r.table_name, r.indexes, r.installed_at, r.function, t.oid, min(t.depth) AS depth,
           CASE WHEN c.relkind = 'f' THEN 0 WHEN r.relkind <> 'p' OR c.relkind <> 'p' THEN 4 WHEN min(t.depth) = 0 THEN 6 ELSE 5 END AS wanted
    FROM roots r JOIN tree t ON t.root = r.oid JOIN pg_class c ON c.oid = t.oid
    GROUP BY r.table_schema, r.table_name, r.indexes, r.installed_at, r.function, r.relkind, t.oid, c.relkind
)
SELECT m.table_schema, m.table_name, m.indexes, n.nspname::text, c.relname::text, m.depth, coalesce(o.triggers, 0),
       coalesce(o.disabled, 0), m.wanted,
       CASE WHEN m.depth = 0 AND o.triggers IS NULL THEN (
           SELECT en.nspname || '.' || e.relname FROM ours s JOIN pg_class e ON e.oid = s.tgrelid JOIN pg_namespace en ON en.oid = e.relnamespace
           WHERE s.function = m.function AND s.tgrelid NOT IN (SELECT x.oid FROM members x WHERE x.function = m.function)
           ORDER BY 1 LIMIT 1) END
FROM members m
JOIN pg_class c ON c.oid = m.oid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN ours o ON o.tgrelid = m.oid AND o.function = m.function
WHERE coalesce(o.triggers, 0) < m.wanted OR o.disabled > 0
UNION ALL
SELECT r.table_schema, r.table_name, r.indexes, NULL, NULL, 0, 0, 0, 4, NULL FROM roots r WHERE r.oid IS NULL
ORDER BY 1, 2, 6, 4, 5

-- name: watched
-- Tables that are watched, and for which indexes.
SELECT DISTINCT table_schema, table_name, index_name FROM opensearch_indexing_watches WHERE removed_at IS NULL ORDER BY 1, 2, 3

-- name: generations
-- Generations whose index is there, with what they were made from where they are live.
SELECT index_name, physical_name, state, behind_since, live_at, CASE WHEN state = 'live' THEN definition END
FROM opensearch_indexing_generations
WHERE deleted_at IS NULL
ORDER BY index_name, number

-- name: may_read_sequence
-- Whether this role may read the sequence of tokens; one that only looks may not.
SELECT has_sequence_privilege('opensearch_indexing_token', 'SELECT')
       AND has_table_privilege('opensearch_indexing_token_jumps', 'SELECT')

-- name: sequence
-- T4: a number that was given out, above the sequence: it has gone back.
SELECT s.last_value, g.token
FROM opensearch_indexing_token s,
     LATERAL (SELECT greatest((SELECT max(jumped_to) - 1 FROM opensearch_indexing_token_jumps),
                              (SELECT max(token) FROM opensearch_indexing_inflight)) AS token) AS g
WHERE g.token > s.last_value

-- name: letters
-- Dead letters of the last ten minutes, of both their halves, by index.
SELECT index_name, count(*), count(*) FILTER (WHERE created_at < clock_timestamp() - interval '5 minutes'), min(created_at)
FROM opensearch_indexing_dlq
WHERE created_at > clock_timestamp() - interval '10 minutes' AND created_at <= clock_timestamp()
GROUP BY index_name
