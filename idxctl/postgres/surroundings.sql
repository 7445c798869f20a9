-- Names of our tables that are data stand in parts, or in parameters: in the text they would be given a schema.

-- name: owner
-- Whose the tables are.
SELECT pg_get_userbyid(c.relowner)::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = 'opensearch_' || 'indexing_migrations';

-- name: creators
-- Who may create in the schema, but for its owner, the owner of our tables and superusers: everybody first.
SELECT CASE WHEN a.grantee = 0 THEN %(everybody)s ELSE pg_get_userbyid(a.grantee)::text END
FROM pg_namespace n
CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a
LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE n.nspname = %(schema)s AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner AND r.rolsuper IS NOT TRUE
  AND r.rolname IS DISTINCT FROM current_user
  AND NOT EXISTS (
      SELECT FROM pg_class c
      WHERE c.relnamespace = n.oid AND c.relname = 'opensearch_' || 'indexing_migrations' AND c.relowner = a.grantee)
ORDER BY a.grantee <> 0, 1;

-- name: strangers
-- Functions and operators called as one of PostgreSQL's own, and tables and functions called as ours, of someone who is
-- neither we, nor the owner of schema or database, nor a superuser. An older program's dead letters are adopted as they are.
SELECT things.what, pg_get_userbyid(things.owner)::text
FROM pg_namespace n
JOIN pg_database d ON d.datname = current_database()
CROSS JOIN LATERAL (
    SELECT 'function ' || p.proname, p.proowner FROM pg_proc p
    WHERE p.pronamespace = n.oid
      AND (starts_with(p.proname::text, 'opensearch_' || 'indexing_')
           OR EXISTS (SELECT FROM pg_proc o WHERE o.proname = p.proname AND o.pronamespace = 'pg_catalog'::regnamespace))
    UNION
    SELECT 'operator ' || p.oprname, p.oprowner FROM pg_operator p
    WHERE p.oprnamespace = n.oid
      AND EXISTS (SELECT FROM pg_operator o WHERE o.oprname = p.oprname AND o.oprnamespace = 'pg_catalog'::regnamespace)
    UNION
    SELECT 'table ' || c.relname, c.relowner FROM pg_class c
    WHERE c.relnamespace = n.oid AND c.relkind NOT IN ('i', 'I', 'S', 't')
      AND starts_with(c.relname::text, 'opensearch_' || 'indexing_') AND c.relname <> 'opensearch_' || 'indexing_dlq'
) AS things (what, owner)
WHERE n.nspname = %(schema)s AND things.owner NOT IN (n.nspowner, d.datdba)
  AND things.owner <> (SELECT u.oid FROM pg_roles u WHERE u.rolname = current_user)
  AND NOT EXISTS (SELECT FROM pg_roles s WHERE s.oid = things.owner AND s.rolsuper)
ORDER BY 1;

-- name: present
-- What is there, by kind and name.
SELECT CASE c.relkind WHEN 'i' THEN 'index' WHEN 'S' THEN 'sequence' ELSE 'table' END, c.relname::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'i', 'S')
UNION ALL
SELECT 'function', p.proname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = %(schema)s
UNION ALL
SELECT 'trigger', t.tgname::text
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND NOT t.tgisinternal AND t.tgenabled <> 'D';

-- name: publications
-- Publications that take in every table, ours as well.
SELECT pubname::text FROM pg_publication WHERE puballtables ORDER BY pubname;

-- name: may_ask
-- Whether this role may ask if the queue is as it was made.
SELECT has_function_privilege(p.oid, 'EXECUTE')
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND p.proname = 'opensearch_' || 'indexing_queue_look';

-- name: powers
-- TRIGGER and REFERENCES on any table of ours; changing what workers run or believe; taking the sequence of tokens back.
SELECT CASE held.grantee WHEN 0 THEN %(everybody)s ELSE pg_get_userbyid(held.grantee)::text END,
       string_agg(held.privilege, ', ' ORDER BY held.privilege), held.relname::text, min(held.why)
FROM (
    SELECT a.grantee, a.privilege_type AS privilege, c.relname,
        CASE WHEN a.privilege_type = 'TRIGGER' THEN 'its code would run as the owner'
             WHEN a.privilege_type = 'REFERENCES' THEN 'a foreign key would stop deletes'
             WHEN c.relname = 'opensearch_' || 'indexing_gap' THEN 'each draw has every index looked at again'
             WHEN c.relkind = 'S' THEN 'tokens could be drawn twice'
             WHEN c.relname IN ('opensearch_' || 'indexing_generations', 'opensearch_' || 'indexing_watches') THEN 'workers run what stands there'
             ELSE 'it says what is true' END AS why
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN aclexplode(c.relacl) AS a
    LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE n.nspname = %(schema)s AND starts_with(c.relname::text, 'opensearch_' || 'indexing_')
      AND a.grantee <> c.relowner AND r.rolsuper IS NOT TRUE
      AND CASE
          WHEN c.relname = 'opensearch_' || 'indexing_gap' THEN a.privilege_type IN ('USAGE', 'UPDATE')
          WHEN c.relkind = 'S' THEN a.privilege_type = 'UPDATE' AND c.relname = 'opensearch_' || 'indexing_token'
          WHEN c.relkind NOT IN ('r', 'p') THEN false
          WHEN a.privilege_type IN ('TRIGGER', 'REFERENCES') THEN true
          WHEN c.relname = 'opensearch_' || 'indexing_generations' THEN a.privilege_type = 'UPDATE'
          ELSE c.relname IN ('opensearch_' || 'indexing_watches', 'opensearch_' || 'indexing_settings',
                             'opensearch_' || 'indexing_migrations', 'opensearch_' || 'indexing_audit')
               AND a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
      END
) AS held
GROUP BY held.grantee, held.relname
ORDER BY 1, 3;
