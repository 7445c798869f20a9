-- Scrubs that are under way end; what they enqueued stays in the queue.

DELETE FROM opensearch_indexing_verify_runs WHERE scrub;
DELETE FROM opensearch_indexing_verify_differences WHERE routing IS NOT NULL;
DELETE FROM opensearch_indexing_verify_ranges WHERE slice IS NOT NULL;
DROP INDEX IF EXISTS opensearch_indexing_verify_runs_open_by_kind;
CREATE UNIQUE INDEX IF NOT EXISTS opensearch_indexing_verify_runs_open
    ON opensearch_indexing_verify_runs (index_name) WHERE finished_at IS NULL;
ALTER TABLE opensearch_indexing_verify_differences DROP COLUMN IF EXISTS routing;
ALTER TABLE opensearch_indexing_verify_ranges DROP COLUMN IF EXISTS slices, DROP COLUMN IF EXISTS slice;
ALTER TABLE opensearch_indexing_verify_runs DROP COLUMN IF EXISTS scrub;
