-- Names of our tables that are data stand in parameters: in the text they would be given a schema.

-- name: create_bookkeeping
-- What has been applied, by whom; old_workers: programs that do not know the step go on working over it.
CREATE TABLE IF NOT EXISTS opensearch_indexing_migrations (
    version     integer PRIMARY KEY,
    name        text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    checksum    text NOT NULL,
    old_workers boolean NOT NULL DEFAULT false,
    applied_by  text NOT NULL
);

-- name: drop_bookkeeping
-- After the way down from version 1.
DROP TABLE IF EXISTS opensearch_indexing_migrations;

-- name: applied
-- The steps taken, in order.
SELECT version, name, applied_at, checksum, applied_by FROM opensearch_indexing_migrations ORDER BY version;

-- name: record
-- A step was taken.
INSERT INTO opensearch_indexing_migrations (version, name, checksum, old_workers, applied_by)
VALUES (%(version)s, %(name)s, %(checksum)s, %(old_workers)s, %(by)s);

-- name: forget
-- A step was taken back.
DELETE FROM opensearch_indexing_migrations WHERE version = %(version)s;

-- name: version
-- Where the tables stand; steps this program knows that are missing; newer ones that it must not work over.
SELECT coalesce(max(version), 0),
       %(wanted)s - count(*) FILTER (WHERE version <= %(wanted)s),
       count(*) FILTER (WHERE version > %(wanted)s AND NOT old_workers)
FROM opensearch_indexing_migrations;

-- name: exists
-- Whether a table is there.
SELECT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = %(table)s AND c.relkind IN ('r', 'p')
);

-- name: hidden
-- Whether the version cannot be seen because policies hide it from this role.
SELECT coalesce(bool_or(row_security_active(c.oid)), false)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = 'opensearch' || '_indexing_migrations';

-- name: exists_function
-- Whether a function is there.
SELECT EXISTS (
    SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = %(schema)s AND p.proname = %(function)s
);

-- name: older_dlq
-- Schemas with a DLQ table of the older shape: a table of that name without our trigger on it.
SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%(schemas)s) AND c.relname = %(table)s AND c.relkind = 'r'
AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'listing_id' AND NOT a.attisdropped)
AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = %(trigger)s);

-- name: set_default_index
-- Where letters of an older program belong; what was once decided stays.
INSERT INTO opensearch_indexing_settings (name, value) VALUES ('default_index', %(index)s) ON CONFLICT (name) DO NOTHING;

-- name: setting
-- One setting.
SELECT value FROM opensearch_indexing_settings WHERE name = %(name)s;

-- name: letters_lost
-- Letters that the older shape of an adopted table cannot hold; as 000002's way down deletes them.
SELECT count(*) FROM opensearch_indexing_dlq d
WHERE index_name <> coalesce((SELECT value FROM opensearch_indexing_settings WHERE name = 'default_index'), index_name)
OR listing_id IS NULL OR listing_id NOT BETWEEN -2147483648 AND 2147483647
OR EXISTS (SELECT FROM opensearch_indexing_settings WHERE name = 'dlq_adopted' AND value = 'unique') AND EXISTS (
    SELECT FROM opensearch_indexing_dlq n
    WHERE n.listing_id = d.listing_id AND n.action = d.action AND (n.last_attempt_at, n.id) > (d.last_attempt_at, d.id));

-- name: in_flight
-- Tasks under a lease.
SELECT coalesce(sum(cardinality(document_ids)), 0) FROM opensearch_indexing_inflight;

-- name: live_workers
-- Workers that gave a sign of life within the last minute.
SELECT id FROM opensearch_indexing_workers
WHERE seen_at > clock_timestamp() - interval '60 s' AND state <> 'stopped' ORDER BY id;

-- name: capture_triggers
-- Tables of the application whose writes run our functions.
SELECT DISTINCT CASE WHEN s.nspname = 'public' THEN c.relname::text ELSE format('%%s.%%s', s.nspname, c.relname) END
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace s ON s.oid = c.relnamespace
WHERE NOT t.tgisinternal AND n.nspname = %(schema)s AND starts_with(p.proname, %(prefix)s)
ORDER BY 1;
