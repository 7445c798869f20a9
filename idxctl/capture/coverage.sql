-- name: reads
-- C7: what a query reads, by the dependencies of a view of it: tables, views and what is below them, functions and what they
-- call. The outermost view by way of which something is read is named; none where the query reads it itself. Columns are those
-- that PostgreSQL notes. That a whole row is taken it notes as a privilege alone, in the rule: of attribute 0, which is the
-- seventh there. Bodies that are text are opaque to it: those functions are returned, to be named.
WITH RECURSIVE reads AS (
    SELECT 'pg_rewrite'::regclass::oid AS class, r.oid AS object, NULL::oid AS view
    FROM pg_rewrite r WHERE r.ev_class = %(query)s
    UNION
    SELECT n.class, n.object, coalesce(s.view, n.view)
    FROM reads s
    CROSS JOIN LATERAL (
        SELECT CASE WHEN r.oid IS NULL THEN d.refclassid ELSE 'pg_rewrite'::regclass::oid END AS class,
               coalesce(r.oid, d.refobjid) AS object, c.oid AS view
        FROM pg_depend d
        LEFT JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid AND c.relkind = 'v'
        LEFT JOIN pg_rewrite r ON r.ev_class = c.oid
        WHERE d.classid = s.class AND d.objid = s.object AND r.oid IS DISTINCT FROM s.object
          AND (r.oid IS NOT NULL OR d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_cast'::regclass))
    ) AS n
), whole AS MATERIALIZED (
    SELECT s.object, m[1]::oid AS relation
    FROM (SELECT DISTINCT object FROM reads WHERE class = 'pg_rewrite'::regclass) AS s
    JOIN pg_rewrite r ON r.oid = s.object
    CROSS JOIN LATERAL regexp_matches(r.ev_action::text, ':relid (\d+) [^{}]*?:selectedCols \(b([ 0-9]*)\)', 'g') AS m
    WHERE m[2] || ' ' LIKE '%% 7 %%'
), relations AS (
    SELECT d.refobjid AS oid, s.view, array_agg(DISTINCT a.attname::text) FILTER (WHERE a.attname IS NOT NULL) AS columns,
           bool_or(w.relation IS NOT NULL) AS whole
    FROM reads s
    JOIN pg_depend d ON d.classid = s.class AND d.objid = s.object AND d.refclassid = 'pg_class'::regclass
    LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND a.attnum > 0
    LEFT JOIN whole w ON s.class = 'pg_rewrite'::regclass AND w.object = s.object AND w.relation = d.refobjid
    GROUP BY d.refobjid, s.view
)
SELECT n.nspname::text AS schema, c.relname::text AS name, c.relkind::text, coalesce(o.columns, '{}'), o.whole,
       (SELECT vn.nspname::text FROM pg_class v JOIN pg_namespace vn ON vn.oid = v.relnamespace WHERE v.oid = o.view),
       (SELECT v.relname::text FROM pg_class v WHERE v.oid = o.view)
FROM relations o
JOIN pg_class c ON c.oid = o.oid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
UNION ALL
SELECT n.nspname::text, p.proname::text, 'function', '{}', false, NULL, NULL
FROM (SELECT DISTINCT coalesce(o.oprcode::oid, s.object) AS oid
      FROM reads s LEFT JOIN pg_operator o ON s.class = 'pg_operator'::regclass AND o.oid = s.object
      WHERE s.class IN ('pg_proc'::regclass, 'pg_operator'::regclass)) AS f
JOIN pg_proc p ON p.oid = f.oid
JOIN pg_namespace n ON n.oid = p.pronamespace
JOIN pg_language l ON l.oid = p.prolang
WHERE p.provolatile <> 'i' AND l.lanname NOT IN ('internal', 'c') AND p.prosqlbody IS NULL
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY 1, 2, 3
