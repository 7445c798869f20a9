-- The audit that nobody forges: who acted is what the database knows, and rows are written by a function alone.
-- Old workers: survive. Those of before this step write the columns they know, and go on doing so where they have the right.
-- Locks: the audit and the dead letters for a moment. Safe to run again and on two hosts at once.

-- What programs say of themselves (operator, channel, reason) stands beside what they cannot choose.
ALTER TABLE opensearch_indexing_audit
    ADD COLUMN IF NOT EXISTS database_user text,      -- the role that logged in, whatever it has become since
    ADD COLUMN IF NOT EXISTS address inet,            -- where it connected from; NULL: by a socket of the server's own machine
    ADD COLUMN IF NOT EXISTS operator text,           -- as claimed: a user of the system, or the name of a token
    ADD COLUMN IF NOT EXISTS channel text,            -- cli, cron, http, library, worker, sql
    ADD COLUMN IF NOT EXISTS count bigint,            -- of what the act was about
    ADD COLUMN IF NOT EXISTS reason text;
-- After the columns, so that rows of before stay without one; for programs of before this step.
ALTER TABLE opensearch_indexing_audit
    ALTER COLUMN actor SET DEFAULT '',
    ALTER COLUMN database_user SET DEFAULT session_user,
    ALTER COLUMN address SET DEFAULT pg_catalog.inet_client_addr();

-- The one way in: it needs EXECUTE and no right on the table, and gives none to change or delete what was written. One line
-- each, and bounded: what a program says must not look like another entry where it is shown.
DO $make$
DECLARE
    place  text := pg_catalog.current_setting('search_path');
    schema name := pg_catalog.current_schema();
    item   record;
BEGIN
    -- From here on, nothing of ours resolves in a schema where somebody may have created a better match.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

    EXECUTE format($statement$
CREATE OR REPLACE FUNCTION %1$I.opensearch_indexing_audit_write(
    action text, what text, count bigint, detail jsonb, operator text, channel text, reason text
) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO %1$I.opensearch_indexing_audit (
        actor, action, subject, detail, database_user, address, operator, channel, count, reason)
    SELECT coalesce(said.operator, ''), coalesce(said.action, ''), coalesce(said.what, ''),
           CASE WHEN octet_length($4::text) <= 20000 THEN $4 ELSE '{}'::jsonb END,
           session_user, inet_client_addr(), said.operator,
           CASE WHEN $6 IN ('cli', 'cron', 'http', 'library', 'worker') THEN $6 ELSE 'sql' END, $3, said.reason
    FROM (
        SELECT regexp_replace(left($1, 100), E'[\\x01-\\x1f\\x7f]', ' ', 'g') AS action,
               regexp_replace(left($2, 1000), E'[\\x01-\\x1f\\x7f]', ' ', 'g') AS what,
               regexp_replace(left($5, 200), E'[\\x01-\\x1f\\x7f]', ' ', 'g') AS operator,
               regexp_replace(left($7, 1000), E'[\\x01-\\x1f\\x7f]', ' ', 'g') AS reason
    ) AS said
$$
$statement$, schema);

    -- Teams have always emptied the table of dead letters by TRUNCATE. It goes on working; a note that fails does not stop it.
    -- Deletes are not noted: each settle makes one, and would pay for it.
    EXECUTE format($statement$
CREATE OR REPLACE FUNCTION %1$I.opensearch_indexing_dlq_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    letters bigint;
BEGIN
    IF TG_RELID <> %2$L::regclass THEN
        RAISE EXCEPTION 'this function belongs to the table of dead letters' USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    BEGIN
        SELECT count(*) INTO letters FROM %1$I.opensearch_indexing_dlq;
        PERFORM %1$I.opensearch_indexing_audit_write('dlq truncate', 'all', letters, '{}', NULL, 'sql', NULL);
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'idxctl: the TRUNCATE of the dead letters is not in the audit: %%', SQLERRM;
    END;
    RETURN NULL;
END $$
$statement$, schema, quote_ident(schema) || '.opensearch_indexing_dlq');

    -- Marked gaps have been seen to: the one setting that workers change, and no other.
    EXECUTE format($statement$
CREATE OR REPLACE FUNCTION %1$I.opensearch_indexing_gap_seen() RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO %1$I.opensearch_indexing_settings AS t (name, value)
    SELECT 'gap_seen', s.last_value::text FROM pg_sequences s
    WHERE s.schemaname = %2$L AND s.sequencename = 'opensearch_indexing_gap' AND s.last_value IS NOT NULL
      AND EXISTS (SELECT FROM %1$I.opensearch_indexing_watches w WHERE w.removed_at IS NULL)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE t.value::bigint < excluded.value::bigint
    RETURNING true
$$
$statement$, schema, schema);

    -- What waits, counted; for roles that see that much and not the values that fan-outs carry. The queue is read once.
    EXECUTE format($statement$
CREATE OR REPLACE FUNCTION %1$I.opensearch_indexing_waiting(only_index text)
RETURNS TABLE (index_name text, queued bigint, due bigint, urgent bigint, later bigint, fan_outs bigint, coarse bigint, oldest timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT q.index_name, count(*),
           count(*) FILTER (WHERE q.available_at <= clock_timestamp()),
           count(*) FILTER (WHERE q.available_at <= clock_timestamp() AND q.kind = 'document' AND q.priority >= 0),
           count(*) FILTER (WHERE q.available_at > clock_timestamp() AND q.attempts = 0 AND q.last_error IS NULL),
           count(*) FILTER (WHERE q.kind <> 'document'),
           count(*) FILTER (WHERE CASE WHEN q.kind = 'keys' AND pg_column_size(q.payload) < 1000 THEN q.payload ? 'coarse' END),
           min(q.enqueued_at) FILTER (WHERE isfinite(q.enqueued_at)
               AND (q.available_at <= clock_timestamp() OR q.attempts > 0 OR q.last_error IS NOT NULL))
    FROM %1$I.opensearch_indexing_queue q
    WHERE $1 IS NULL OR q.index_name = $1
    GROUP BY q.index_name
$$
$statement$, schema);
    EXECUTE format('REVOKE ALL ON FUNCTION %I.opensearch_indexing_waiting(text) FROM PUBLIC', schema);
    -- Roles that could read the queue go on seeing what waits.
    FOR item IN
        SELECT DISTINCT a.grantee::regrole AS role
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN aclexplode(c.relacl) AS a
        WHERE n.nspname = schema AND c.relname = 'opensearch_indexing_queue' AND a.privilege_type = 'SELECT' AND a.grantee <> 0
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I.opensearch_indexing_waiting(text) TO %s', schema, item.role);
    END LOOP;

    EXECUTE format('REVOKE ALL ON FUNCTION %I.opensearch_indexing_gap_seen() FROM PUBLIC', schema);
    EXECUTE format('REVOKE ALL ON FUNCTION %I.opensearch_indexing_audit_write(text, text, bigint, jsonb, text, text, text) FROM PUBLIC', schema);
    EXECUTE format('REVOKE ALL ON FUNCTION %I.opensearch_indexing_dlq_truncated() FROM PUBLIC', schema);
    -- Roles that could add to the audit go on doing so; that they can do more with its table is theirs to end: idxctl grants.
    FOR item IN
        SELECT DISTINCT a.grantee::regrole AS role
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN aclexplode(c.relacl) AS a
        WHERE n.nspname = schema AND c.relname = 'opensearch_indexing_audit' AND a.privilege_type = 'INSERT' AND a.grantee <> 0
    LOOP
        EXECUTE format(
            'GRANT EXECUTE ON FUNCTION %I.opensearch_indexing_audit_write(text, text, bigint, jsonb, text, text, text) TO %s', schema, item.role);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I.opensearch_indexing_gap_seen() TO %s', schema, item.role);
    END LOOP;

    EXECUTE format('DROP TRIGGER IF EXISTS opensearch_indexing_dlq_truncated ON %I.opensearch_indexing_dlq', schema);
    EXECUTE format('CREATE TRIGGER opensearch_indexing_dlq_truncated BEFORE TRUNCATE ON %1$I.opensearch_indexing_dlq '
        'FOR EACH STATEMENT EXECUTE FUNCTION %1$I.opensearch_indexing_dlq_truncated()', schema);
    PERFORM set_config('search_path', place, true);
END $make$;
