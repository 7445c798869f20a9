-- Takes the whole ids away where an index cannot hold them: these letters keep the short names of their documents.
-- enqueue goes on refusing what it refuses: the steps before this one would take its rights away with its body.

DROP TRIGGER IF EXISTS opensearch_indexing_short_id ON opensearch_indexing_generation_failures;
DROP TRIGGER IF EXISTS opensearch_indexing_short_id ON opensearch_indexing_dlq;
DROP FUNCTION IF EXISTS opensearch_indexing_short_id();
UPDATE opensearch_indexing_dlq SET document_id = whole_id WHERE octet_length(whole_id) <= 1000;
UPDATE opensearch_indexing_generation_failures SET document_id = whole_id WHERE octet_length(whole_id) <= 1000;
ALTER TABLE opensearch_indexing_dlq DROP COLUMN IF EXISTS whole_id;
ALTER TABLE opensearch_indexing_generation_failures DROP COLUMN IF EXISTS whole_id;
ALTER TABLE opensearch_indexing_inflight DROP COLUMN IF EXISTS trouble;
DROP TABLE IF EXISTS opensearch_indexing_barrier;
