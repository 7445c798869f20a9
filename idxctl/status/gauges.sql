-- name: reindexes
-- The reindex under way of each index, and how far it has come.
SELECT index_name, documents, failed FROM opensearch_indexing_reindex_runs WHERE finished_at IS NULL
