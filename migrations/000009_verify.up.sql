-- Comparisons of an index with its rows: a run is a row, its ranges are rows, and so is each document that differs.
-- Old workers: survive, they know nothing of it. Locks: none that anything waits for. Safe to run again and on two hosts at once.

CREATE TABLE IF NOT EXISTS opensearch_indexing_verify_runs (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    index_name   text NOT NULL,
    generation   bigint NOT NULL REFERENCES opensearch_indexing_generations (id) ON DELETE CASCADE,
    state        text NOT NULL DEFAULT 'rows' CHECK (state IN ('rows', 'ids', 'settling', 'finished', 'abandoned')),
    options      jsonb NOT NULL DEFAULT '{}',   -- what was chosen: sample, where
    planned_upto text[],                        -- up to which key ranges have been made
    planned_all  boolean NOT NULL DEFAULT false,
    owner        text NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    result       jsonb                          -- the counts, once it is finished
);

CREATE UNIQUE INDEX IF NOT EXISTS opensearch_indexing_verify_runs_open
    ON opensearch_indexing_verify_runs (index_name) WHERE finished_at IS NULL;

CREATE TABLE IF NOT EXISTS opensearch_indexing_verify_ranges (
    run         bigint NOT NULL REFERENCES opensearch_indexing_verify_runs (id) ON DELETE CASCADE,
    number      integer NOT NULL,
    after_key   text[],                         -- exclusive; NULL: from the beginning
    upto_key    text[],                         -- inclusive; NULL: to the end
    owner       text NOT NULL,
    lease_until timestamptz NOT NULL,
    checked     bigint,
    done_at     timestamptz,
    PRIMARY KEY (run, number)
);

CREATE TABLE IF NOT EXISTS opensearch_indexing_verify_differences (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run         bigint NOT NULL REFERENCES opensearch_indexing_verify_runs (id) ON DELETE CASCADE,
    document_id text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('missing', 'stale', 'orphan', 'lagging', 'unreadable')),
    fields      text[] NOT NULL DEFAULT '{}',   -- top-level fields that differ, of a stale one
    foreign_version boolean NOT NULL DEFAULT false,  -- its version was not drawn for this generation: somebody else wrote it
    enqueued    boolean NOT NULL DEFAULT false,
    unnameable  boolean NOT NULL DEFAULT false  -- the database's encoding cannot hold its id; document_id is escaped
);

CREATE INDEX IF NOT EXISTS opensearch_indexing_verify_differences_by_run
    ON opensearch_indexing_verify_differences (run, kind, id);

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
        WHERE n.nspname = schema AND c.relkind = 'r' AND starts_with(c.relname::text, 'opensearch_indexing_verify_')
          AND a.grantee <> c.relowner AND a.privilege_type IN ('TRIGGER', 'REFERENCES') AND pg_has_role(c.relowner, 'USAGE')
    LOOP
        EXECUTE format('REVOKE TRIGGER, REFERENCES ON %s FROM %s', item.relation, item.role);
    END LOOP;

    PERFORM set_config('search_path', place, true);
END $ours$;
