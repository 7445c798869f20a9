-- name: home
-- The schema of our tables: whose it is, whether the tables are there, and whose they are.
SELECT n.nspowner::regrole::text,
       (SELECT c.relowner::regrole::text FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = %(queue)s)
FROM pg_namespace n WHERE n.nspname = %(schema)s

-- name: schema_owner
-- Whose a schema is.
SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = %(schema)s

-- name: role
-- Whether a role is there, and whether policies bind it.
SELECT r.rolsuper OR r.rolbypassrls FROM pg_roles r WHERE r.rolname = %(role)s

-- name: database
-- The database, and what everybody may do with it already.
SELECT d.datname, d.datdba::regrole::text,
       EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT'),
       EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE a.grantee = 0 AND a.privilege_type = 'TEMPORARY')
FROM pg_database d WHERE d.datname = current_database()

-- name: ours
-- Our own tables and sequences, with their columns.
SELECT c.oid::bigint, c.relname, c.relkind::text,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND starts_with(c.relname, %(prefix)s) AND c.relkind IN ('r', 'p', 'S')
ORDER BY c.relkind, c.relname

-- name: our_functions
-- Our functions that are called by name, with the types of their arguments.
SELECT p.oid::bigint, p.proname, pg_get_function_identity_arguments(p.oid)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND starts_with(p.proname, %(prefix)s) AND p.prorettype <> 'trigger'::regtype
ORDER BY p.proname

-- name: relations
-- What a view reads: tables and views, and what is below a view that reads with its caller's rights.
WITH RECURSIVE reads AS (
    SELECT %(view)s::oid AS oid
    UNION
    SELECT d.refobjid
    FROM reads v
    JOIN pg_class c ON c.oid = v.oid
    JOIN pg_rewrite r ON r.ev_class = v.oid
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
    WHERE v.oid = %(view)s::oid OR c.reloptions && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1', 'security_invoker=yes']
)
SELECT c.oid::bigint, n.nspname, c.relname, c.relowner::regrole::text, c.relrowsecurity, c.relforcerowsecurity
FROM reads JOIN pg_class c ON c.oid = reads.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v') AND c.oid <> %(view)s::oid AND c.oid <> ALL (%(but)s::oid[])
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY n.nspname, c.relname

-- name: functions
-- Functions that a view calls and that someone made, with whether everybody may.
SELECT DISTINCT p.oid::bigint, n.nspname, p.proname, pg_get_function_identity_arguments(p.oid), p.proowner::regrole::text,
       EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)
FROM pg_rewrite r
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_proc'::regclass
JOIN pg_proc p ON p.oid = d.refobjid JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE r.ev_class = %(view)s AND n.nspname <> 'pg_catalog'

-- name: may_grant
-- Whether this role may grant on behalf of an owner.
SELECT pg_has_role(%(owner)s::regrole, 'USAGE')

-- name: may_admit
-- Whether this role may make others members of an owner: that takes more than to be one, or to be the owner.
SELECT pg_has_role(%(owner)s::regrole, 'MEMBER WITH ADMIN OPTION') AND (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user) <> %(owner)s::regrole
    OR (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user)

-- name: member
-- Whether a role has another's rights.
SELECT pg_has_role(%(role)s, %(owner)s::regrole, 'USAGE')

-- name: may_database
-- Whether a role has a right on this database.
SELECT has_database_privilege(%(role)s, current_database(), %(right)s)

-- name: may_schema
-- Whether a role has a right on a schema.
SELECT has_schema_privilege(%(role)s, %(schema)s, %(right)s)

-- name: may_table
-- Whether a role has rights on a table, on some columns of it where they are named.
SELECT bool_and(CASE WHEN cardinality(%(columns)s::text[]) = 0 THEN has_table_privilege(%(role)s, %(oid)s::oid, one)
                ELSE (SELECT bool_and(has_column_privilege(%(role)s, %(oid)s::oid, col, one)) FROM unnest(%(columns)s::text[]) AS col) END)
FROM unnest(%(rights)s::text[]) AS one

-- name: may_sequence
-- Whether a role has rights on a sequence.
SELECT bool_and(has_sequence_privilege(%(role)s, %(oid)s::oid, one)) FROM unnest(%(rights)s::text[]) AS one

-- name: may_function
-- Whether a role may call a function.
SELECT has_function_privilege(%(role)s, %(oid)s::oid, 'EXECUTE')

-- name: beyond
-- What a role itself was granted on a table of ours.
SELECT DISTINCT a.privilege_type
FROM pg_class c, aclexplode(c.relacl) a
WHERE c.oid = %(oid)s AND a.grantee = (SELECT r.oid FROM pg_roles r WHERE r.rolname = %(role)s) AND c.relowner <> a.grantee
