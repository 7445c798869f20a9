-- Why an index stands still, a batch is stuck, a run has failed: as data, beside the sentence that people read.
-- Old workers: survive. They write the sentence alone; `why` counts only while the sentence beside it is its own.
-- Locks: three small tables for a moment. Safe to run again and on two hosts at once.

ALTER TABLE opensearch_indexing_pauses ADD COLUMN IF NOT EXISTS why jsonb;
ALTER TABLE opensearch_indexing_inflight ADD COLUMN IF NOT EXISTS why jsonb;
ALTER TABLE opensearch_indexing_reindex_runs ADD COLUMN IF NOT EXISTS why jsonb;
