-- The sentences stay.

ALTER TABLE opensearch_indexing_reindex_runs DROP COLUMN IF EXISTS why;
ALTER TABLE opensearch_indexing_inflight DROP COLUMN IF EXISTS why;
ALTER TABLE opensearch_indexing_pauses DROP COLUMN IF EXISTS why;
