-- name: mentioned
-- Whether anything is known of an index: a generation, a task or a letter, also of one that is configured no longer.
SELECT EXISTS (SELECT FROM opensearch_indexing_generations WHERE index_name = %(index)s)
    OR EXISTS (SELECT FROM opensearch_indexing_queue WHERE index_name = %(index)s)
    OR EXISTS (SELECT FROM opensearch_indexing_inflight WHERE index_name = %(index)s)
    OR EXISTS (SELECT FROM opensearch_indexing_dlq WHERE index_name = %(index)s)
    OR EXISTS (SELECT FROM opensearch_indexing_watches WHERE index_name = %(index)s)
