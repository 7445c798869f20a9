-- name: beat
-- A worker is alive; its row is made with the first beat. The session is the one that the client was told of when it
-- connected: a pooler tells a number of its own, and nothing is found then.
INSERT INTO opensearch_indexing_workers AS w (
    id, host, pid, version, state, threads, queue_size, indexes, counters, breaker, session_pid, session_start)
SELECT %(id)s, %(host)s, %(pid)s, %(version)s, %(state)s, %(threads)s, %(queue_size)s, %(indexes)s, %(counters)s, %(breaker)s,
       s.pid, s.backend_start
FROM (SELECT pg_backend_pid() AS pid) AS mine
LEFT JOIN pg_stat_activity s ON s.pid = mine.pid AND s.pid = %(session)s AND s.backend_start IS NOT NULL
ON CONFLICT (id) DO UPDATE SET
    seen_at = clock_timestamp(), state = excluded.state, counters = excluded.counters, breaker = excluded.breaker,
    session_pid = excluded.session_pid, session_start = excluded.session_start

-- name: leave
-- A worker that ends takes its row with it.
DELETE FROM opensearch_indexing_workers WHERE id = %(id)s

-- name: gone
-- Workers that hold batches, whose session has ended and who have not beaten by another one since. Who has just connected,
-- perhaps because the server was away, leaves the others the same time to come back. Others' roles may hide when a session
-- began: one of the same number counts as theirs then.
SELECT w.id
FROM opensearch_indexing_workers w
WHERE w.id <> %(me)s AND w.session_pid IS NOT NULL
  AND w.seen_at < clock_timestamp() - %(grace)s * interval '1 second'
  AND EXISTS (SELECT FROM opensearch_indexing_inflight f WHERE f.worker = w.id)
  AND NOT EXISTS (
      SELECT FROM pg_stat_activity a
      WHERE a.pid = w.session_pid AND coalesce(a.backend_start, w.session_start) = w.session_start)
  AND EXISTS (
      SELECT FROM pg_stat_activity a
      WHERE a.pid = pg_backend_pid() AND a.backend_start < clock_timestamp() - %(grace)s * interval '1 second')

-- name: forget
-- Rows of workers not seen for a day.
DELETE FROM opensearch_indexing_workers WHERE seen_at < clock_timestamp() - interval '1 day'

-- name: live
-- Workers seen within the last seconds that serve an index (any, when none is named).
SELECT id, host, pid, version, state, threads, queue_size, started_at, seen_at, indexes, counters, breaker
FROM opensearch_indexing_workers
WHERE seen_at > clock_timestamp() - %(within)s * interval '1 second'
  AND (%(index)s::text IS NULL OR indexes IS NULL OR %(index)s = ANY(indexes))
ORDER BY started_at
