-- What a reindex has sent, as sixteen bytes a document, so that the new index is checked without reading rows again.
-- Old workers: survive, they know nothing of it; a run that an older program filled has none, and is compared with its rows.
-- Locks: none that anything waits for. Safe to run again and on two hosts at once.

CREATE TABLE IF NOT EXISTS opensearch_indexing_reindex_digests (
    run     bigint NOT NULL REFERENCES opensearch_indexing_reindex_runs (id) ON DELETE CASCADE,
    token   bigint NOT NULL,                    -- that the documents were sent under
    chunk   integer NOT NULL,
    digests bytea NOT NULL,                     -- of each document's id and of its bytes: 64 bits of XXH3 each
    PRIMARY KEY (run, token)
);

-- Digests cannot be compressed: it is not tried.
ALTER TABLE opensearch_indexing_reindex_digests ALTER COLUMN digests SET STORAGE EXTERNAL;

-- As of every table of ours (000006): default privileges may have given rights that no program needs.
DO $ours$
DECLARE
    place  text := pg_catalog.current_setting('search_path');
    schema name := pg_catalog.current_schema();
    item   record;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    FOR item IN
        SELECT DISTINCT c.oid::regclass AS relation, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN aclexplode(c.relacl) AS a
        WHERE n.nspname = schema AND c.relkind = 'r' AND c.relname = 'opensearch_indexing_reindex_digests'
          AND a.grantee <> c.relowner AND a.privilege_type IN ('TRIGGER', 'REFERENCES') AND pg_has_role(c.relowner, 'USAGE')
    LOOP
        EXECUTE format('REVOKE TRIGGER, REFERENCES ON %s FROM %s', item.relation, item.role);
    END LOOP;

    PERFORM set_config('search_path', place, true);
END $ours$;
