-- A run under way is compared with its rows.

DROP TABLE IF EXISTS opensearch_indexing_reindex_digests;
