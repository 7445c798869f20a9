-- Takes away what 000001 made. Capture triggers must be gone: their functions write into the queue.
-- Loses: opensearch_indexing_queue (tasks in the queue), opensearch_indexing_inflight (batches in flight)
-- Loses: opensearch_indexing_generations (generations), opensearch_indexing_watches (watches), opensearch_indexing_pauses (pauses)
-- Loses: opensearch_indexing_reindex_runs (reindex runs), opensearch_indexing_audit (audit entries)
-- The token sequence starts at the wall clock again when it is made anew, so it does not go back.

DROP FUNCTION IF EXISTS opensearch_indexing_enqueue(text, text, text, integer, timestamptz);
DROP FUNCTION IF EXISTS opensearch_indexing_advance_token(bigint, text);
DROP FUNCTION IF EXISTS opensearch_indexing_server();
DROP TABLE IF EXISTS opensearch_indexing_reindex_chunks;
DROP TABLE IF EXISTS opensearch_indexing_reindex_runs;
DROP TABLE IF EXISTS opensearch_indexing_audit;
DROP TABLE IF EXISTS opensearch_indexing_pauses;
DROP TABLE IF EXISTS opensearch_indexing_workers;
DROP TABLE IF EXISTS opensearch_indexing_watches;
DROP TABLE IF EXISTS opensearch_indexing_generation_failures;
DROP TABLE IF EXISTS opensearch_indexing_generations;
DROP TABLE IF EXISTS opensearch_indexing_inflight;
DROP TABLE IF EXISTS opensearch_indexing_queue;
DROP TABLE IF EXISTS opensearch_indexing_settings;
DROP TABLE IF EXISTS opensearch_indexing_token_jumps;
DROP SEQUENCE IF EXISTS opensearch_indexing_token;
