-- Comparisons and their findings go; what they enqueued stays in the queue.

DROP TABLE IF EXISTS opensearch_indexing_verify_differences;
DROP TABLE IF EXISTS opensearch_indexing_verify_ranges;
DROP TABLE IF EXISTS opensearch_indexing_verify_runs;
