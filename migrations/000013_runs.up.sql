-- A reindex is a row that any process can carry on: its states by the words that people are shown, how far its chunks are
-- planned, what it may spend, how long it was worked at.
-- Old workers: survive, they know nothing of it. A reindex of the release before that runs meanwhile ends with an error, and is
-- resumed by one of this release. Locks: two small tables for a moment. Safe to run again and on two hosts at once.

DO $ours$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_attribute
               WHERE attrelid OPERATOR(pg_catalog.=) 'opensearch_indexing_reindex_runs'::pg_catalog.regclass
                 AND attname OPERATOR(pg_catalog.=) 'phase' AND NOT attisdropped) THEN
        ALTER TABLE opensearch_indexing_reindex_runs RENAME COLUMN phase TO state;
    END IF;
END $ours$;

ALTER TABLE opensearch_indexing_reindex_runs DROP CONSTRAINT IF EXISTS opensearch_indexing_reindex_runs_phase_check;
ALTER TABLE opensearch_indexing_reindex_runs DROP CONSTRAINT IF EXISTS opensearch_indexing_reindex_runs_state_check;
UPDATE opensearch_indexing_reindex_runs SET state = CASE state
    WHEN 'backfill' THEN 'backfilling' WHEN 'catch_up' THEN 'catching_up' WHEN 'check' THEN 'checking'
    WHEN 'restore' THEN 'checking' WHEN 'swap' THEN 'ready' ELSE 'swapped' END
WHERE state IN ('backfill', 'catch_up', 'check', 'restore', 'swap', 'done');
ALTER TABLE opensearch_indexing_reindex_runs ADD CONSTRAINT opensearch_indexing_reindex_runs_state_check CHECK (state IN
    ('planned', 'created', 'backfilling', 'catching_up', 'checking', 'ready', 'swapped', 'finished', 'failed', 'cancelled'));

ALTER TABLE opensearch_indexing_reindex_runs DROP COLUMN IF EXISTS why;            -- neither was ever read
ALTER TABLE opensearch_indexing_reindex_runs DROP COLUMN IF EXISTS planned_until;
ALTER TABLE opensearch_indexing_reindex_runs ADD COLUMN IF NOT EXISTS planned_upto text[];  -- chunks are planned up to here
ALTER TABLE opensearch_indexing_reindex_runs ADD COLUMN IF NOT EXISTS total bigint;         -- rows there are, about
ALTER TABLE opensearch_indexing_reindex_runs ADD COLUMN IF NOT EXISTS max_rate double precision;  -- documents a second, of all processes
ALTER TABLE opensearch_indexing_reindex_runs ADD COLUMN IF NOT EXISTS paced_until timestamptz;    -- no chunk is taken before, under a max_rate
ALTER TABLE opensearch_indexing_reindex_runs ADD COLUMN IF NOT EXISTS busy_seconds double precision NOT NULL DEFAULT 0;  -- with a process at it

CREATE INDEX IF NOT EXISTS opensearch_indexing_reindex_chunks_open
    ON opensearch_indexing_reindex_chunks (run, number) WHERE done_at IS NULL;
