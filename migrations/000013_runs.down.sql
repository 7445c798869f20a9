-- The states' older names. A run that has not ended begins again.

DROP INDEX IF EXISTS opensearch_indexing_reindex_chunks_open;
ALTER TABLE opensearch_indexing_reindex_runs DROP COLUMN IF EXISTS busy_seconds;
ALTER TABLE opensearch_indexing_reindex_runs DROP COLUMN IF EXISTS paced_until;
ALTER TABLE opensearch_indexing_reindex_runs DROP COLUMN IF EXISTS max_rate;
ALTER TABLE opensearch_indexing_reindex_runs DROP COLUMN IF EXISTS total;
ALTER TABLE opensearch_indexing_reindex_runs DROP COLUMN IF EXISTS planned_upto;
ALTER TABLE opensearch_indexing_reindex_runs ADD COLUMN IF NOT EXISTS planned_until text;
ALTER TABLE opensearch_indexing_reindex_runs ADD COLUMN IF NOT EXISTS why jsonb;

ALTER TABLE opensearch_indexing_reindex_runs DROP CONSTRAINT IF EXISTS opensearch_indexing_reindex_runs_state_check;
DO $ours$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_attribute
               WHERE attrelid OPERATOR(pg_catalog.=) 'opensearch_indexing_reindex_runs'::pg_catalog.regclass
                 AND attname OPERATOR(pg_catalog.=) 'state' AND NOT attisdropped) THEN
        ALTER TABLE opensearch_indexing_reindex_runs RENAME COLUMN state TO phase;
    END IF;
END $ours$;
ALTER TABLE opensearch_indexing_reindex_runs DROP CONSTRAINT IF EXISTS opensearch_indexing_reindex_runs_phase_check;
UPDATE opensearch_indexing_reindex_runs SET phase = CASE phase
    WHEN 'backfilling' THEN 'backfill' WHEN 'catching_up' THEN 'catch_up' WHEN 'checking' THEN 'check'
    WHEN 'ready' THEN 'swap' ELSE 'done' END
WHERE phase IN ('backfilling', 'catching_up', 'checking', 'ready', 'swapped', 'finished');
ALTER TABLE opensearch_indexing_reindex_runs ADD CONSTRAINT opensearch_indexing_reindex_runs_phase_check CHECK (phase IN
    ('planned', 'created', 'backfill', 'catch_up', 'check', 'restore', 'swap', 'done', 'failed', 'cancelled'));
