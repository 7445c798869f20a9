-- name: append
-- Tasks for documents in the caller's transaction, by the function that needs no rights on the tables; returns the time they
-- were enqueued in, in microseconds. A target list is computed from left to right; OFFSET 0 keeps it whole. It runs under
-- the caller's search path, whatever that is.
SELECT CAST(extract(epoch FROM pg_catalog.min(t.began)) OPERATOR(pg_catalog.*) 1000000 AS bigint),
       CAST(extract(epoch FROM pg_catalog.max(t.ended)) OPERATOR(pg_catalog.*) 1000000 AS bigint)
FROM (
    SELECT pg_catalog.clock_timestamp() AS began,
           opensearch_indexing_enqueue(CAST(%(index)s AS pg_catalog.text), i.id, CAST(%(action)s AS pg_catalog.text)) AS done,
           pg_catalog.clock_timestamp() AS ended
    FROM pg_catalog.unnest(CAST(%(ids)s AS pg_catalog.text[])) AS i (id)
    OFFSET 0
) AS t

-- name: queue_size
-- Due document tasks of high and normal priority, counted to a limit for each index: what a capacity is measured against.
SELECT coalesce(sum(waiting.tasks), 0)::bigint
FROM (
    SELECT unnest(%(indexes)s::text[]) AS index_name
    UNION SELECT g.index_name FROM opensearch_indexing_generations g WHERE g.state <> 'retired'
) AS names
CROSS JOIN (VALUES (1), (0)) AS p (priority)
CROSS JOIN LATERAL (
    SELECT count(*) AS tasks FROM (
        SELECT FROM opensearch_indexing_queue q
        WHERE q.index_name = names.index_name AND q.priority = p.priority::smallint
          AND q.available_at <= statement_timestamp() AND q.kind = 'document'
        LIMIT %(most)s
    ) AS due
) AS waiting

-- name: clock
-- Now, by the server.
SELECT clock_timestamp()

-- name: unsettled
-- Which of these documents have a task enqueued before a time, waiting or in flight; not those meant for a later moment.
SELECT q.document_id
FROM opensearch_indexing_queue q
WHERE q.index_name = %(index)s AND q.priority IN (1, 0, -1) AND q.document_id = ANY(%(ids)s::text[])
  AND q.enqueued_at <= %(before)s
  AND (q.available_at <= statement_timestamp() OR q.attempts > 0 OR q.last_error IS NOT NULL)
UNION
SELECT t.document_id
FROM opensearch_indexing_inflight f, unnest(f.document_ids, f.enqueued_at) AS t (document_id, enqueued_at)
WHERE f.index_name = %(index)s AND f.kind = 'document' AND f.document_ids && %(ids)s::text[]
  AND t.document_id = ANY(%(ids)s::text[]) AND t.enqueued_at <= %(before)s
