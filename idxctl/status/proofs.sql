-- name: may_read_comparisons
-- Whether this role may read comparisons; a worker's rights of a release before may not have them.
SELECT coalesce(bool_and(has_table_privilege(t, 'SELECT')), false)
FROM unnest(ARRAY['opensearch_indexing_verify_runs', 'opensearch_indexing_verify_differences', 'opensearch_indexing_dlq']) AS t

-- name: last_whole
-- The last comparison of each live generation that was about all of it: when it began, and what it left.
SELECT DISTINCT ON (r.index_name) r.index_name, r.started_at, extract(epoch FROM clock_timestamp() - r.started_at)::float8,
       coalesce((r.result->>'left')::bigint, 0), coalesce((r.result->>'lagging')::bigint, 0) + coalesce((r.result->>'unreadable')::bigint, 0),
       r.scrub
FROM opensearch_indexing_verify_runs r
JOIN opensearch_indexing_generations g ON g.id = r.generation AND g.state = 'live'
WHERE r.state = 'finished' AND r.options->>'where' IS NULL AND r.options->>'share' IS NULL AND r.options->>'count' IS NULL
ORDER BY r.index_name, r.started_at DESC

-- name: scrubs
-- Each live index: for how long it has been live, for how long its scrub has been under way, and what that has found to differ
-- without a task or a dead letter, up to a thousand.
SELECT g.index_name, extract(epoch FROM clock_timestamp() - coalesce(g.live_at, g.created_at))::float8,
       extract(epoch FROM clock_timestamp() - r.started_at)::float8, d.documents
FROM opensearch_indexing_generations g
LEFT JOIN opensearch_indexing_verify_runs r ON r.generation = g.id AND r.scrub AND r.finished_at IS NULL
LEFT JOIN LATERAL (
    SELECT count(*) AS documents FROM (
        SELECT FROM opensearch_indexing_verify_differences v
        WHERE v.run = r.id AND v.kind IN ('missing', 'stale', 'orphan') AND NOT v.enqueued
          AND NOT EXISTS (SELECT FROM opensearch_indexing_dlq l
                          WHERE l.index_name = g.index_name AND coalesce(l.whole_id, l.document_id) = v.document_id)
        LIMIT 1000) AS these) AS d ON true
WHERE g.state = 'live'
ORDER BY g.index_name
