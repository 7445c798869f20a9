-- name: tables_present
-- Whether the tables that capture writes are there.
SELECT to_regclass(%(queue)s) IS NOT NULL AND to_regclass(%(watches)s) IS NOT NULL

-- name: search_path
-- The schemas that names resolve in, in this session; the session's own temporary one is no place for shared names. Run under
-- the session's own search path, not pinned.
SELECT coalesce(pg_catalog.array_agg(s), '{}') FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) AS s
WHERE NOT pg_catalog.starts_with(s::pg_catalog.text, 'pg_temp')

-- name: resolve
-- The table a name means, if any, under the application's search path.
SELECT pg_catalog.to_regclass(%(name)s)::pg_catalog.oid

-- name: written
-- What the text of a value depends on: as the live generation renders documents, whose ids a watch's keys are to equal; where
-- there is none, as configured, or as this session has it. Run under its own settings, not pinned.
SELECT w.name, coalesce(
    (SELECT g.definition OPERATOR(pg_catalog.->) 'local' OPERATOR(pg_catalog.->>) w.name FROM opensearch_indexing_generations g
     WHERE g.index_name OPERATOR(pg_catalog.=) %(index)s AND g.state OPERATOR(pg_catalog.=) 'live'
     ORDER BY g.id DESC LIMIT 1),
    %(configured)s::pg_catalog.jsonb OPERATOR(pg_catalog.->>) pg_catalog.lower(w.name),
    pg_catalog.current_setting(w.name))
FROM pg_catalog.unnest(%(names)s::pg_catalog.text[]) WITH ORDINALITY AS w (name, place)
ORDER BY w.place

-- name: table_names
-- Tables somebody could mean, for "did you mean".
SELECT c.relname, n.nspname, n.nspname = ANY(%(path)s::name[])
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_%%'
ORDER BY n.nspname = ANY(%(path)s::name[]) DESC, n.nspname, c.relname
LIMIT %(most)s

-- name: table
-- One table: what it is, whose, and whether something feeds it that our triggers would not see.
SELECT n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relispartition, c.relowner::regrole::text,
       pg_has_role(c.relowner, 'USAGE'),
       has_table_privilege(c.oid, 'TRIGGER'),
       EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = c.oid),
       (SELECT CASE WHEN s.nspname = 'public' THEN u.relname::text ELSE format('%%s.%%s', s.nspname, u.relname) END
        FROM pg_inherits p
        JOIN pg_class u ON u.oid = p.inhparent
        JOIN pg_namespace s ON s.oid = u.relnamespace
        WHERE p.inhrelid = c.oid ORDER BY p.inhseqno LIMIT 1),
       n.nspname IN ('pg_catalog', 'information_schema') OR n.nspname LIKE 'pg\_toast%%'
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = %(oid)s

-- name: columns
-- Its columns, in order: name, type, the type below a domain, enum or not, made outside pg_catalog or not, refusing NULL or
-- not, the expression of a virtual column; what names its type for good (a number for PostgreSQL's own), the type that a
-- lookup reads its text as (that below a domain, whose checks are somebody's code), and whether its text is short whatever it holds.
WITH RECURSIVE base AS (
    SELECT a.attnum, a.attname, a.atttypid, a.atttypid AS type, false AS refuses_null
    FROM pg_attribute a
    WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT b.attnum, b.attname, b.atttypid, t.typbasetype, b.refuses_null OR t.typnotnull
    FROM base b
    JOIN pg_type t ON t.oid = b.type AND t.typtype = 'd'
)
SELECT b.attname, format_type(b.atttypid, NULL), format_type(t.oid, NULL), t.typtype = 'e',
       t.typtype = 'b' AND t.typnamespace <> 'pg_catalog'::regnamespace AND t.typelem = 0, b.refuses_null,
       (SELECT pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a
        JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = %(oid)s AND a.attnum = b.attnum AND a.attgenerated = 'v'),
       (SELECT CASE WHEN d.oid < 10000 THEN d.oid::text ELSE quote_ident(n.nspname) || '.' || quote_ident(d.typname) END
        FROM pg_type d JOIN pg_namespace n ON n.oid = d.typnamespace WHERE d.oid = b.atttypid),
       (SELECT quote_ident(n.nspname) || '.' || quote_ident(s.typname)
        FROM pg_type s JOIN pg_namespace n ON n.oid = s.typnamespace
        WHERE s.oid = coalesce((SELECT below.typarray FROM pg_type e JOIN pg_type below ON below.oid = e.typbasetype
                                WHERE e.oid = t.typelem AND e.typtype = 'd' AND t.typlen = -1), t.oid)),
       t.typlen > 0 OR t.typtype = 'e' OR t.oid = 'pg_catalog.numeric'::regtype
FROM base b
JOIN pg_type t ON t.oid = b.type AND t.typtype <> 'd'
ORDER BY b.attnum

-- name: primary_key
-- The columns of its primary key, in the key's order.
SELECT a.attname
FROM pg_index i
JOIN unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(attnum, place) ON k.place <= i.indnkeyatts
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = %(oid)s AND i.indisprimary
ORDER BY k.place

-- name: members
-- C2: the table and all below it, partitions and children, the nearest first.
WITH RECURSIVE tree AS (
    SELECT %(oid)s::oid AS oid, 0 AS depth
    UNION ALL
    SELECT i.inhrelid, t.depth + 1
    FROM tree t
    JOIN pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending
)
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, min(t.depth), c.relowner::regrole::text,
       pg_has_role(c.relowner, 'USAGE'), has_table_privilege(c.oid, 'TRIGGER'),
       EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid = c.oid)
FROM tree t
JOIN pg_class c ON c.oid = t.oid
JOIN pg_namespace n ON n.oid = c.relnamespace
GROUP BY c.oid, n.nspname, c.relname
ORDER BY min(t.depth), n.nspname, c.relname

-- name: view_columns
-- C1: which columns of the view `changed` a query over it reads, by the dependencies of its rewrite rule, and whether it
-- takes whole rows, which leave no trace there.
SELECT coalesce((SELECT array_agg(DISTINCT a.attname)
                 FROM pg_depend d
                 JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                 WHERE d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                   AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(changed)s AND d.refobjsubid > 0), '{}'),
       r.ev_action::text LIKE '%%:varattno 0 %%',
       EXISTS (SELECT FROM pg_depend d
               WHERE d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                 AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(changed)s)
FROM pg_rewrite r
WHERE r.ev_class = %(query)s

-- name: view_tables
-- The tables a view reads, those below other views too.
WITH RECURSIVE reads AS (
    SELECT %(query)s::oid AS oid
    UNION
    SELECT d.refobjid
    FROM reads v
    JOIN pg_rewrite r ON r.ev_class = v.oid
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
)
SELECT c.oid::bigint, n.nspname, c.relname
FROM reads
JOIN pg_class c ON c.oid = reads.oid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'm') AND c.relpersistence <> 't'

-- name: view_functions
-- Whether a view uses functions, operators or types that somebody made; built-in ones leave no dependency.
SELECT EXISTS (SELECT FROM pg_rewrite r
               JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
               WHERE r.ev_class = %(query)s
                 AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_cast'::regclass))

-- name: watches
-- Watches in force, in their order.
SELECT id, index_name, position, table_schema, table_name, definition, fingerprint, at_watermark, installed_at
FROM opensearch_indexing_watches
WHERE removed_at IS NULL
ORDER BY index_name, position

-- name: watch
-- One watch by its number, removed ones too: tasks may name them.
SELECT id, index_name, position, table_schema, table_name, definition, fingerprint, at_watermark, installed_at
FROM opensearch_indexing_watches
WHERE id = %(id)s

-- name: add_watch
-- A watch as configured now. Its row never changes: tasks name it.
INSERT INTO opensearch_indexing_watches
    (index_name, position, table_schema, table_name, definition, fingerprint, at_watermark)
VALUES (%(index)s, %(position)s, %(schema)s, %(table)s, %(definition)s, %(fingerprint)s, coalesce(%(watermark)s, CASE WHEN %(at)s THEN now() END))
RETURNING id, at_watermark

-- name: end_watches
-- They are kept, since tasks in the queue may name them.
UPDATE opensearch_indexing_watches SET removed_at = clock_timestamp() WHERE id = ANY(%(ids)s) AND removed_at IS NULL

-- name: place_watches
-- Move watches in their index's list; twice, by way of places that nothing holds, since two may change places.
UPDATE opensearch_indexing_watches w SET position = n.position
FROM unnest(%(ids)s::bigint[], %(positions)s::integer[]) AS n(id, position)
WHERE w.id = n.id

-- name: older_lock
-- The advisory lock by which programs of the release before keep installations apart.
SELECT hashtextextended('opensearch_indexing capture ' || %(schema)s, 0)

-- name: functions
-- Our trigger functions as they are.
SELECT p.oid::bigint, p.proname, p.prosrc, coalesce(obj_description(p.oid, 'pg_proc'), ''), p.prosecdef,
       p.proowner::regrole::text, pg_has_role(p.proowner, 'USAGE'), has_function_privilege('public', p.oid, 'EXECUTE'),
       ARRAY(SELECT a.grantee::regrole::text FROM aclexplode(p.proacl) AS a WHERE a.grantee <> 0 AND a.privilege_type = 'EXECUTE'),
       coalesce(p.proconfig, '{}'),
       coalesce(has_schema_privilege(p.proowner, p.pronamespace, 'USAGE')
                AND has_table_privilege(p.proowner, to_regclass(quote_ident(%(schema)s) || '.opensearch_indexing_queue'), 'INSERT'), true)
FROM pg_proc p
WHERE p.pronamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = %(schema)s)
  AND p.proname LIKE 'opensearch\_indexing\_capture\_%%' AND p.prorettype = 'trigger'::regtype

-- name: gap_is_there
-- C6: whether there is a sequence in which triggers mark a gap.
SELECT to_regclass(%(gap)s) IS NOT NULL

-- name: triggers
-- Every trigger of those functions, except the copies that a row trigger has on partitions.
SELECT t.tgrelid::bigint, n.nspname, c.relname, t.tgname, p.proname, t.tgenabled::text, t.tgtype,
       t.tgoldtable IS NOT NULL, t.tgnewtable IS NOT NULL, t.tgargs, coalesce(obj_description(t.oid, 'pg_trigger'), ''),
       pg_has_role(c.relowner, 'USAGE'), c.relowner::regrole::text,
       EXISTS (WITH RECURSIVE copies AS (
                   SELECT k.oid, k.tgenabled FROM pg_trigger k WHERE k.tgparentid = t.oid
                   UNION ALL
                   SELECT k.oid, k.tgenabled FROM copies p JOIN pg_trigger k ON k.tgparentid = p.oid
               )
               SELECT FROM copies WHERE tgenabled IN ('D', 'R'))
FROM pg_trigger t
JOIN pg_proc p ON p.oid = t.tgfoid
JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pronamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = %(schema)s)
  AND p.proname LIKE 'opensearch\_indexing\_capture\_%%' AND p.prorettype = 'trigger'::regtype
  AND t.tgparentid = 0
ORDER BY n.nspname, c.relname, t.tgname

-- name: strangers
-- Triggers of our names on these tables that call functions of another schema: another idxctl in this database.
SELECT DISTINCT n.nspname, c.relname, f.nspname
FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_proc p ON p.oid = t.tgfoid
JOIN pg_namespace f ON f.oid = p.pronamespace
WHERE t.tgrelid = ANY(%(tables)s) AND t.tgname LIKE 'opensearch\_indexing\_capture\_%%' AND f.nspname <> %(schema)s
ORDER BY n.nspname, c.relname

-- name: holders
-- Who keeps a table from being locked for a change of its triggers.
SELECT l.pid, coalesce(a.usename, '?'), coalesce(a.application_name, ''), coalesce(a.state, '?'),
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.relation = %(oid)s AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND l.granted AND l.pid <> pg_backend_pid()
  AND (%(exclusive)s OR l.mode NOT IN ('AccessShareLock', 'RowShareLock'))
ORDER BY a.xact_start
LIMIT 5

-- name: open_tasks
-- Tasks of indexes, waiting.
SELECT count(*) FROM opensearch_indexing_queue WHERE index_name = ANY(%(indexes)s)

-- name: is_indexed
-- Whether an index has a generation that is written to.
SELECT EXISTS (SELECT FROM opensearch_indexing_generations WHERE index_name = %(index)s AND state <> 'retired')

-- name: purge_tasks
-- Tasks that nobody will claim any more.
DELETE FROM opensearch_indexing_queue WHERE index_name = ANY(%(indexes)s)

-- name: audit
-- Who did it, and what.
INSERT INTO opensearch_indexing_audit (actor, action, subject, detail) VALUES (%(actor)s, %(action)s, %(subject)s, %(detail)s)

-- name: queue_owner
-- Whose rights the trigger functions should have (C5).
SELECT c.relowner::regrole::text FROM pg_class c WHERE c.oid = to_regclass(%(queue)s)

-- name: next_watch
-- A number for a watch that a script will insert.
SELECT nextval(pg_get_serial_sequence(%(watches)s, 'id'))

-- name: may_make
-- Whether this role may make a temporary view, or one in our schema.
SELECT has_database_privilege(current_database(), 'TEMPORARY'), coalesce((SELECT has_schema_privilege(n.oid, 'CREATE') FROM pg_namespace n WHERE n.nspname = %(schema)s), false)

-- name: resync
-- C6: everything of these indexes, after the transactions that are open now.
INSERT INTO opensearch_indexing_queue (index_name, kind, priority, origin, payload)
SELECT w.index_name, 'keys', -1, 'gap',
       jsonb_build_object('watch', min(w.id), 'coarse', 'triggers', 'after', pg_current_xact_id()::text)
FROM opensearch_indexing_watches w
WHERE w.removed_at IS NULL AND w.index_name = ANY(%(indexes)s)
  AND EXISTS (SELECT FROM opensearch_indexing_generations g WHERE g.index_name = w.index_name AND g.state <> 'retired')
GROUP BY w.index_name
