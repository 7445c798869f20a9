-- name: queued
-- Tasks of a document that wait, in the order of their claims.
SELECT q.id, q.action, q.priority, q.attempts, q.origin, q.enqueued_at, q.available_at,
       extract(epoch FROM clock_timestamp() - q.enqueued_at)::float8, extract(epoch FROM q.available_at - clock_timestamp())::float8,
       q.last_error
FROM opensearch_indexing_queue q
WHERE q.index_name = %(index)s AND q.kind = 'document' AND q.document_id = %(document)s
ORDER BY q.priority DESC, q.available_at, q.id
LIMIT %(limit)s

-- name: ahead
-- How many due tasks of an index are claimed before one of them; counted up to a number.
SELECT count(*) FROM (
    SELECT FROM opensearch_indexing_queue q
    WHERE q.index_name = %(index)s AND q.available_at <= clock_timestamp()
      AND (q.priority > %(priority)s::smallint
           OR (q.priority = %(priority)s::smallint AND (q.available_at, q.id) < (%(available_at)s::timestamptz, %(id)s::bigint)))
    LIMIT %(limit)s) AS before

-- name: in_flight
-- Tasks of a document that workers hold.
SELECT f.token, f.worker, u.action, u.attempts, u.origin, u.enqueued_at, f.claimed_at,
       extract(epoch FROM clock_timestamp() - u.enqueued_at)::float8, extract(epoch FROM f.lease_until - clock_timestamp())::float8,
       f.trouble
FROM opensearch_indexing_inflight f,
     unnest(f.document_ids, f.actions, f.attempts, f.origins, f.enqueued_at) AS u (document_id, action, attempts, origin, enqueued_at)
WHERE %(document)s = ANY(f.document_ids) AND f.index_name = %(index)s AND f.kind = 'document' AND u.document_id = %(document)s
ORDER BY f.token

-- name: fan_outs
-- Tasks of an index that stand for many documents, due or in flight: how many, the oldest one's age, and what one of them waits for.
SELECT count(*), extract(epoch FROM clock_timestamp() - min(w.enqueued_at))::float8, min(w.last_error)
FROM (
    SELECT q.enqueued_at, q.last_error FROM opensearch_indexing_queue q
    WHERE q.index_name = %(index)s AND q.kind <> 'document'
      AND (q.available_at <= clock_timestamp() OR q.attempts > 0 OR q.last_error IS NOT NULL)
    UNION ALL
    SELECT u.enqueued_at, NULL FROM opensearch_indexing_inflight f, unnest(f.enqueued_at) AS u (enqueued_at)
    WHERE f.index_name = %(index)s AND f.kind <> 'document'
) AS w

-- name: history
-- The past of letters.
SELECT id, history FROM opensearch_indexing_dlq WHERE id = ANY(%(ids)s::bigint[])

-- name: refused
-- What generations have refused of a document while they were not live.
SELECT generation, error_type, last_error, failed_at FROM opensearch_indexing_generation_failures
WHERE generation = ANY(%(generations)s::bigint[]) AND coalesce(whole_id, document_id) = %(document)s

-- name: drawn
-- T1, T2: the times between which a token was drawn, as far as jumps of the sequence, batches in flight and letters tell.
SELECT max(k.at) FILTER (WHERE k.since AND k.token <= %(token)s), min(k.at) FILTER (WHERE NOT k.since AND k.token >= %(token)s)
FROM (
    SELECT jumped_to AS token, jumped_at AS at, true AS since FROM opensearch_indexing_token_jumps
    UNION ALL SELECT jumped_from, jumped_at, false FROM opensearch_indexing_token_jumps
    UNION ALL SELECT token, claimed_at, true FROM opensearch_indexing_inflight
    UNION ALL SELECT token, claimed_at, false FROM opensearch_indexing_inflight
    UNION ALL SELECT token, last_attempt_at, false FROM opensearch_indexing_dlq WHERE index_name = %(index)s
) AS k

-- name: may_read_sequence
-- Whether this role may read the sequence of tokens; one that only looks may not.
SELECT has_sequence_privilege('opensearch_indexing_token', 'SELECT')

-- name: jumped_over
-- T4: whether a version lies in a gap that a jump of the sequence left.
SELECT EXISTS (SELECT FROM opensearch_indexing_token_jumps WHERE %(version)s > jumped_from AND %(version)s < jumped_to)

-- name: acts
-- What operators did to an index last, and to a document by its name.
SELECT at, action, coalesce(operator, nullif(actor, '')), channel, reason, count, named
FROM (
    SELECT a.*, coalesce(a.detail->'ids' ? %(document)s, false) OR coalesce(a.detail->'documents' ? %(document)s, false) AS named
    FROM opensearch_indexing_audit a WHERE a.subject IN (%(index)s, 'all')
    ORDER BY a.id DESC LIMIT %(looked_at)s
) AS acts
WHERE named OR action IN ('pause', 'resume', 'queue cancel', 'dlq purge')
ORDER BY named DESC, at DESC
LIMIT %(limit)s

-- name: verified
-- What comparisons have found of a document.
SELECT r.started_at, d.kind, d.enqueued FROM opensearch_indexing_verify_differences d JOIN opensearch_indexing_verify_runs r ON r.id = d.run
WHERE r.index_name = %(index)s AND d.document_id = %(document)s AND NOT d.unnameable
ORDER BY d.id DESC
LIMIT 1
