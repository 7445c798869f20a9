-- name: rule
-- The parse tree of a view's query; none for anything else.
SELECT r.ev_action::text FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
WHERE r.ev_class = %(oid)s AND r.rulename = '_RETURN' AND c.relkind = 'v'

-- name: operator
-- An operator's name.
SELECT oprname::text FROM pg_operator WHERE oid = %(oid)s

-- name: tables
-- Tables as SQL names them under the search path in force, with the numbers and names of their columns.
SELECT c.oid::pg_catalog.int8,
       CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN '' ELSE pg_catalog.quote_ident(n.nspname) OPERATOR(pg_catalog.||) '.' END
           OPERATOR(pg_catalog.||) pg_catalog.quote_ident(c.relname),
       c.relkind::pg_catalog.text, pg_catalog.array_agg(a.attnum), pg_catalog.array_agg(a.attname::pg_catalog.text), pg_catalog.array_agg(pg_catalog.quote_ident(a.attname))
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0
WHERE c.oid OPERATOR(pg_catalog.=) ANY (%(tables)s)
GROUP BY c.oid, c.relname, c.relkind, n.nspname

-- name: columns_read
-- Which columns of which tables a view reads, those of views below it too, and of which it takes whole rows (see `reads` of coverage).
WITH RECURSIVE rules AS (
    SELECT r.oid, r.ev_action FROM pg_rewrite r WHERE r.ev_class = %(query)s
    UNION
    SELECT r.oid, r.ev_action
    FROM rules s
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = s.oid AND d.refclassid = 'pg_class'::regclass
    JOIN pg_class v ON v.oid = d.refobjid AND v.relkind = 'v'
    JOIN pg_rewrite r ON r.ev_class = v.oid AND r.oid <> s.oid
)
SELECT d.refobjid::bigint, coalesce(array_agg(DISTINCT a.attname::text) FILTER (WHERE a.attname IS NOT NULL), '{}'),
       bool_or(EXISTS (SELECT FROM regexp_matches(s.ev_action::text, ':relid (\d+) [^{}]*?:selectedCols \(b([ 0-9]*)\)', 'g') AS m
                       WHERE m[1]::oid = d.refobjid AND m[2] || ' ' LIKE '%% 7 %%'))
FROM rules s
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = s.oid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class c ON c.oid = d.refobjid AND c.relkind IN ('r', 'p', 'f', 'm')
LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND a.attnum > 0
GROUP BY d.refobjid
