-- name: try_older
-- The advisory lock of programs of the release before, which anybody may take; without waiting.
SELECT pg_try_advisory_xact_lock(%(key)s)

-- name: older
-- The same, waiting.
SELECT pg_advisory_xact_lock(%(key)s)

-- name: older_holders
-- Who has it, and whether its role may work on a table of ours, or make it where it is not there yet.
SELECT l.pid, coalesce(a.usename::text, '?'), coalesce(a.application_name, ''), a.xact_start,
       coalesce(CASE WHEN c.oid IS NOT NULL THEN has_table_privilege(a.usesysid, c.oid, 'INSERT')
                     WHEN n.oid IS NOT NULL THEN has_schema_privilege(a.usesysid, n.oid, 'CREATE')
                     ELSE has_database_privilege(a.usesysid, current_database(), 'CREATE') END, false)
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_namespace n ON n.nspname = %(schema)s
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = %(table)s
WHERE l.locktype = 'advisory' AND l.granted AND l.pid <> pg_backend_pid() AND l.objsubid = 1
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND (l.classid::bigint << 32) | l.objid::bigint = %(key)s
ORDER BY 1

-- name: table_holders
-- Who has a lock of a table that keeps us from ours.
SELECT DISTINCT l.pid, coalesce(a.usename::text, '?'), coalesce(a.application_name, ''), a.xact_start
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
JOIN pg_class c ON c.oid = l.relation AND c.relname = %(table)s
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = %(schema)s
WHERE l.granted AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
ORDER BY 1

-- name: readers_wait_for
-- Who has locks of our tables that not even a reader gets by.
SELECT DISTINCT l.pid, coalesce(a.usename::text, '?'), coalesce(a.application_name, ''), a.xact_start
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
JOIN pg_class c ON c.oid = l.relation AND starts_with(c.relname, %(prefix)s)
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = %(schema)s
WHERE l.granted AND l.pid <> pg_backend_pid() AND l.mode = 'AccessExclusiveLock'
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
ORDER BY 1
