-- name: beat
-- A worker is alive; its row is made with the first beat.
INSERT INTO opensearch_indexing_workers AS w (id, host, pid, version, state, threads, queue_size, indexes, counters, breaker)
VALUES (%(id)s, %(host)s, %(pid)s, %(version)s, %(state)s, %(threads)s, %(queue_size)s, %(indexes)s, %(counters)s, %(breaker)s)
ON CONFLICT (id) DO UPDATE SET
    seen_at = clock_timestamp(), state = excluded.state, counters = excluded.counters, breaker = excluded.breaker

-- name: leave
-- A worker that ends takes its row with it.
DELETE FROM opensearch_indexing_workers WHERE id = %(id)s

-- name: forget
-- Rows of workers not seen for a day.
DELETE FROM opensearch_indexing_workers WHERE seen_at < clock_timestamp() - interval '1 day'

-- name: release
-- Leases given up: whoever rescues next may take the batches at once.
UPDATE opensearch_indexing_inflight SET lease_until = clock_timestamp() - interval '1 second' WHERE token = ANY(%(tokens)s)

-- name: live
-- Workers seen within the last seconds that serve an index (any, when none is named).
SELECT id, host, pid, version, state, threads, queue_size, started_at, seen_at, indexes, counters, breaker
FROM opensearch_indexing_workers
WHERE seen_at > clock_timestamp() - %(within)s * interval '1 second'
  AND (%(index)s::text IS NULL OR indexes IS NULL OR %(index)s = ANY(indexes))
ORDER BY started_at
