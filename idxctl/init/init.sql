-- name: tables
-- Every table whose rows could be in a document: its names (as the catalog has them, and as SQL wants them), about how many rows,
-- whether this role may read it, and whether it is one of idxctl's own.
SELECT c.oid::bigint, n.nspname::text, c.relname::text, quote_ident(n.nspname), quote_ident(c.relname),
       CASE WHEN c.reltuples >= 0 AND c.relkind = 'r' THEN c.reltuples::bigint
            ELSE (SELECT coalesce(sum(CASE WHEN m.reltuples >= 0 THEN m.reltuples ELSE pg_relation_size(m.oid) / 100 END), 0)::bigint
                  FROM pg_partition_tree(c.oid) t JOIN pg_class m ON m.oid = t.relid AND t.isleaf) END,
       has_table_privilege(c.oid, 'SELECT')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_toast%%'
  AND c.relname NOT LIKE 'opensearch\_indexing\_%%'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')

-- name: columns
-- The columns of some tables, in order: names, type (whole, below domains, of an array's elements), NULLs, how generated, what
-- the planner knows of it, the labels of an enum.
WITH RECURSIVE base AS (
    SELECT a.attrelid, a.attnum, a.attname, a.attnotnull, a.attgenerated, a.atttypid AS type, a.atttypmod AS modifier
    FROM pg_attribute a
    WHERE a.attrelid = ANY(%(tables)s) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT b.attrelid, b.attnum, b.attname, b.attnotnull OR t.typnotnull, b.attgenerated, t.typbasetype, t.typtypmod
    FROM base b
    JOIN pg_type t ON t.oid = b.type AND t.typtype = 'd'
)
SELECT b.attrelid::bigint, b.attname::text, quote_ident(b.attname), format_type(b.type, b.modifier), format_type(b.type, NULL),
       CASE WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN (
           SELECT format_type(CASE WHEN e.typtype = 'd' THEN e.typbasetype ELSE e.oid END, NULL) FROM pg_type e WHERE e.oid = t.typelem) END,
       b.attnotnull, b.attgenerated::text, t.typtype::text, coalesce(e.typtype::text, ''),
       s.avg_width, s.n_distinct::float8
FROM base b
JOIN pg_type t ON t.oid = b.type AND t.typtype <> 'd'
LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
JOIN pg_class c ON c.oid = b.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (SELECT max(p.avg_width) AS avg_width, max(p.n_distinct) AS n_distinct FROM pg_stats p
                   WHERE p.schemaname = n.nspname AND p.tablename = c.relname AND p.attname = b.attname) s ON true
ORDER BY b.attrelid, b.attnum

-- name: foreign_keys
-- Every foreign key between tables that are nobody's partitions: from which columns to which, and whether rows go with what they
-- belong to.
SELECT con.conrelid::bigint, con.confrelid::bigint, con.conname::text,
       (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(con.conkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.number),
       (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(con.confkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.number),
       con.confdeltype = 'c'
FROM pg_constraint con
JOIN pg_class c ON c.oid = con.conrelid AND NOT c.relispartition
JOIN pg_class f ON f.oid = con.confrelid AND NOT f.relispartition
WHERE con.contype = 'f'
ORDER BY con.conrelid, con.conname

-- name: indexes
-- The indexes of some tables over plain columns: which, in order, whether unique (over all rows), and whether the primary key.
SELECT i.indrelid::bigint,
       (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number WHERE k.place <= i.indnkeyatts),
       i.indisunique, i.indisprimary
FROM pg_index i
WHERE i.indrelid = ANY(%(tables)s) AND i.indisvalid AND i.indpred IS NULL AND 0 <> ALL (i.indkey::smallint[])
ORDER BY i.indrelid, i.indisprimary DESC, i.indexrelid
