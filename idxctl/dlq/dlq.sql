-- name: summary
-- How many letters there are, and how old.
SELECT count(*), min(created_at) FROM opensearch_indexing_dlq
WHERE (%(index)s::text IS NULL OR index_name = %(index)s)

-- name: groups
-- Letters that failed alike, the most first. The names of the last columns are those teams have always queried.
SELECT fingerprint, min(error_type), count(*), min(created_at) AS first_seen, max(last_attempt_at) AS last_seen,
       (array_agg(last_error ORDER BY last_attempt_at DESC))[1] AS example,
       (array_agg(coalesce(whole_id, document_id) ORDER BY last_attempt_at DESC))[1] AS document_id,
       array_agg(DISTINCT index_name) AS indexes, bool_or(retryable) AS retryable
FROM opensearch_indexing_dlq
WHERE (%(index)s::text IS NULL OR index_name = %(index)s)
GROUP BY fingerprint
ORDER BY count(*) DESC, max(last_attempt_at) DESC

-- name: list
-- Letters, the newest failure first, chosen by what operators have at hand; a page goes on after the last of the one before.
SELECT id, index_name, coalesce(whole_id, document_id), action, attempts, error_type, last_error, created_at, last_attempt_at, retryable, fingerprint, retries
FROM opensearch_indexing_dlq
WHERE (%(index)s::text IS NULL OR index_name = %(index)s)
  AND (%(error)s::text IS NULL OR fingerprint = %(error)s)
  AND (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s))
  AND (%(documents)s::text[] IS NULL OR coalesce(whole_id, document_id) = ANY(%(documents)s) OR document_id = ANY(%(documents)s))
  AND (%(older_than)s::interval IS NULL OR created_at < clock_timestamp() - %(older_than)s::interval)
  AND (%(after_at)s::timestamptz IS NULL OR (last_attempt_at, id) < (%(after_at)s::timestamptz, %(after_id)s::bigint))
ORDER BY last_attempt_at DESC, id DESC
LIMIT %(limit)s

-- name: show
-- One letter by its number, otherwise the newest of a group, with all that is known of it.
SELECT id, index_name, coalesce(whole_id, document_id), action, attempts, error_type, last_error, created_at, last_attempt_at, retryable, fingerprint,
       retries, not_before, origin, token, history, data
FROM opensearch_indexing_dlq
WHERE id = %(id)s OR fingerprint = %(error)s
ORDER BY (id = %(id)s) IS TRUE DESC, last_attempt_at DESC, id DESC
LIMIT 1

-- name: choose
-- The letters that a retry takes: the least recently attempted first; those told to wait only when they are named.
-- SKIP LOCKED: two retries at once share the work.
SELECT id, index_name, document_id, action, attempts, created_at, retries, history, data, last_error
FROM opensearch_indexing_dlq
WHERE (%(index)s::text IS NULL OR index_name = %(index)s)
  AND (%(error)s::text IS NULL OR fingerprint = %(error)s)
  AND (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s))
  AND (%(documents)s::text[] IS NULL OR coalesce(whole_id, document_id) = ANY(%(documents)s) OR document_id = ANY(%(documents)s))
  AND (%(older_than)s::interval IS NULL OR created_at < clock_timestamp() - %(older_than)s::interval)
  AND (%(named)s OR not_before IS NULL OR not_before <= clock_timestamp())
  AND EXISTS (SELECT FROM opensearch_indexing_generations g WHERE g.index_name = opensearch_indexing_dlq.index_name AND g.state <> 'retired')
ORDER BY last_attempt_at, id
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED

-- name: names
-- The indexes that letters are of, those that can be indexed into.
SELECT DISTINCT d.index_name FROM opensearch_indexing_dlq d
WHERE (%(index)s::text IS NULL OR d.index_name = %(index)s)
  AND EXISTS (SELECT FROM opensearch_indexing_generations g WHERE g.index_name = d.index_name AND g.state <> 'retired')

-- name: orphaned
-- Letters of indexes that nobody can index into: no generation is active.
SELECT d.index_name, count(*) FROM opensearch_indexing_dlq d
WHERE NOT EXISTS (SELECT FROM opensearch_indexing_generations g WHERE g.index_name = d.index_name AND g.state <> 'retired')
GROUP BY d.index_name

-- name: retry
-- One statement, so that a crash leaves every letter in exactly one place: out of the DLQ and into the queue, no attempts
-- spent. The task carries what the letter needs to be itself again if it fails.
WITH moved AS (
    DELETE FROM opensearch_indexing_dlq WHERE id = ANY(%(ids)s)
    RETURNING id, index_name, coalesce(whole_id, document_id) AS document_id, action, created_at, retries, history, data, last_error
)
INSERT INTO opensearch_indexing_queue (index_name, document_id, action, priority, enqueued_at, origin, last_error, payload)
SELECT index_name, document_id, action, 0, clock_timestamp(), 'dlq', NULL,
       jsonb_build_object('letter', jsonb_build_object(
           'id', id, 'created_at', created_at, 'retries', retries + 1, 'history', history, 'data', data, 'retry', %(retry)s::text))
FROM moved
RETURNING document_id

-- name: outcome
-- What became of the letters a retry took: still under way, or back among the dead.
SELECT (SELECT count(*) FROM opensearch_indexing_queue WHERE payload->'letter'->>'retry' = %(retry)s)
     + (SELECT count(*) FROM opensearch_indexing_inflight f, unnest(f.payloads) p WHERE p->'letter'->>'retry' = %(retry)s),
       (SELECT count(*) FROM opensearch_indexing_dlq WHERE id = ANY(%(ids)s))

-- name: all_paused
-- Whether tasks of a retry are queued, all of them of indexes that wait for an operator, and none is in flight.
SELECT EXISTS (SELECT FROM opensearch_indexing_queue WHERE payload->'letter'->>'retry' = %(retry)s)
   AND NOT EXISTS (
       SELECT FROM opensearch_indexing_queue q WHERE q.payload->'letter'->>'retry' = %(retry)s
       AND NOT EXISTS (SELECT FROM opensearch_indexing_pauses s WHERE s.index_name = q.index_name AND s.probe_at IS NULL))
   AND NOT EXISTS (
       SELECT FROM opensearch_indexing_inflight f, unnest(f.payloads) p WHERE p->'letter'->>'retry' = %(retry)s)

-- name: failed_groups
-- Why letters failed again.
SELECT fingerprint, count(*) FROM opensearch_indexing_dlq WHERE id = ANY(%(ids)s) GROUP BY fingerprint ORDER BY count(*) DESC

-- name: count_chosen
-- How many letters a selection covers.
SELECT count(*), min(created_at), max(created_at) FROM opensearch_indexing_dlq
WHERE (%(index)s::text IS NULL OR index_name = %(index)s)
  AND (%(error)s::text IS NULL OR fingerprint = %(error)s)
  AND (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s))
  AND (%(documents)s::text[] IS NULL OR coalesce(whole_id, document_id) = ANY(%(documents)s) OR document_id = ANY(%(documents)s))
  AND (%(older_than)s::interval IS NULL OR created_at < clock_timestamp() - %(older_than)s::interval)

-- name: export
-- Letters whole, by number, with what names the version of each row; not those that came after the newest that somebody was
-- asked about. JSON as text: it is passed on as it is.
SELECT id, index_name, coalesce(whole_id, document_id), action, attempts, error_type, last_error, created_at, last_attempt_at, retryable, fingerprint,
       retries, not_before, origin, token, history::text, coalesce(data::text, 'null'), xmin::text::bigint
FROM opensearch_indexing_dlq
WHERE (%(index)s::text IS NULL OR index_name = %(index)s)
  AND (%(error)s::text IS NULL OR fingerprint = %(error)s)
  AND (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s))
  AND (%(documents)s::text[] IS NULL OR coalesce(whole_id, document_id) = ANY(%(documents)s) OR document_id = ANY(%(documents)s))
  AND (%(older_than)s::interval IS NULL OR created_at < clock_timestamp() - %(older_than)s::interval)
  AND (%(newest)s::timestamptz IS NULL OR created_at <= %(newest)s)
ORDER BY id

-- name: purge_exported
-- Letters deleted for good that are still as a file shows them.
DELETE FROM opensearch_indexing_dlq d
USING unnest(%(ids)s::bigint[], %(versions)s::bigint[]) AS e (id, version)
WHERE d.id = e.id AND d.xmin::text::bigint = e.version

-- name: purge
-- Letters deleted for good; not those that came after the newest that somebody was asked about.
DELETE FROM opensearch_indexing_dlq
WHERE (%(index)s::text IS NULL OR index_name = %(index)s)
  AND (%(error)s::text IS NULL OR fingerprint = %(error)s)
  AND (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s))
  AND (%(documents)s::text[] IS NULL OR coalesce(whole_id, document_id) = ANY(%(documents)s) OR document_id = ANY(%(documents)s))
  AND (%(older_than)s::interval IS NULL OR created_at < clock_timestamp() - %(older_than)s::interval)
  AND created_at <= %(newest)s

-- name: indexes_of
-- The indexes whose letters a retry took.
SELECT DISTINCT index_name FROM opensearch_indexing_queue WHERE payload->'letter'->>'retry' = %(retry)s
UNION
SELECT DISTINCT f.index_name FROM opensearch_indexing_inflight f, unnest(f.payloads) p WHERE p->'letter'->>'retry' = %(retry)s
