-- name: by_index
-- What waits and what is under way, by index, with why it does not move. The queue is read once: it may have millions of rows.
-- Whoever may enqueue may name an index that there is not: such names are one row, the last, with how many they are.
WITH known AS MATERIALIZED (
    SELECT index_name FROM opensearch_indexing_generations
    UNION SELECT index_name FROM opensearch_indexing_watches WHERE removed_at IS NULL
    UNION SELECT unnest(%(known)s::text[])
), q AS MATERIALIZED (
    SELECT index_name, queued, due, urgent, later, fan_outs, coarse, oldest FROM opensearch_indexing_waiting(%(index)s::text)
), f AS MATERIALIZED (
    SELECT b.index_name, sum(cardinality(b.document_ids)) AS in_flight, min(o.oldest) AS oldest,
           count(*) FILTER (WHERE b.trouble IS NOT NULL OR b.lease_until < clock_timestamp() - interval '1 minute') AS stuck,
           min(b.trouble) AS trouble
    FROM opensearch_indexing_inflight b, LATERAL (SELECT min(e) AS oldest FROM unnest(b.enqueued_at) e WHERE isfinite(e)) o
    GROUP BY b.index_name
), d AS MATERIALIZED (
    SELECT index_name, count(*) AS dead FROM opensearch_indexing_dlq GROUP BY index_name
), names AS MATERIALIZED (
    SELECT n.index_name, n.index_name IN (SELECT index_name FROM known) AS known
    FROM (
        SELECT index_name FROM q
        UNION SELECT index_name FROM f
        UNION SELECT index_name FROM d
        UNION SELECT index_name FROM opensearch_indexing_generations WHERE state <> 'retired'
        UNION SELECT index_name FROM opensearch_indexing_watches WHERE removed_at IS NULL
    ) AS n
    WHERE %(index)s::text IS NULL OR n.index_name = %(index)s
)
SELECT names.index_name,
       coalesce(q.queued, 0), coalesce(q.due, 0), coalesce(q.urgent, 0), coalesce(q.later, 0), coalesce(q.fan_outs, 0),
       coalesce(f.in_flight, 0),
       extract(epoch FROM clock_timestamp() - least(q.oldest, f.oldest))::float8,
       coalesce(d.dead, 0),
       EXISTS (SELECT FROM opensearch_indexing_generations g WHERE g.index_name = names.index_name AND g.state <> 'retired'),
       (SELECT jsonb_agg(jsonb_build_object('cause', s.cause, 'reason', s.reason, 'why', s.why, 'since', s.paused_at,
                         'next_probe_seconds', extract(epoch FROM s.probe_at - clock_timestamp())) ORDER BY s.cause DESC)
        FROM opensearch_indexing_pauses s WHERE s.index_name = names.index_name),
       1, NULL::text[], coalesce(f.stuck, 0), f.trouble, coalesce(q.coarse, 0)
FROM names
LEFT JOIN q ON q.index_name = names.index_name
LEFT JOIN f ON f.index_name = names.index_name
LEFT JOIN d ON d.index_name = names.index_name
WHERE names.known
UNION ALL
SELECT NULL,
       coalesce(sum(q.queued), 0), coalesce(sum(q.due), 0), coalesce(sum(q.urgent), 0), coalesce(sum(q.later), 0),
       coalesce(sum(q.fan_outs), 0), coalesce(sum(f.in_flight), 0),
       extract(epoch FROM clock_timestamp() - least(min(q.oldest), min(f.oldest)))::float8,
       coalesce(sum(d.dead), 0), false, NULL, count(*),
       (array_agg(names.index_name ORDER BY q.queued DESC NULLS LAST, names.index_name))[1:5], 0, NULL, 0
FROM names
LEFT JOIN q ON q.index_name = names.index_name
LEFT JOIN f ON f.index_name = names.index_name
LEFT JOIN d ON d.index_name = names.index_name
WHERE NOT names.known
HAVING count(*) > 0
ORDER BY 1

-- name: list
-- Tasks in the order of their claims.
SELECT id, index_name, document_id, kind, action, priority, attempts, available_at, enqueued_at, origin, last_error
FROM opensearch_indexing_queue
WHERE (%(index)s::text IS NULL OR index_name = %(index)s) AND (%(documents)s::text[] IS NULL OR document_id = ANY(%(documents)s))
ORDER BY priority DESC, available_at, id
LIMIT %(limit)s

-- name: count_matching
-- What a cancel would take away.
SELECT count(*) FROM opensearch_indexing_queue
WHERE (%(index)s::text IS NULL OR index_name = %(index)s) AND (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s))
  AND (%(documents)s::text[] IS NULL OR document_id = ANY(%(documents)s))

-- name: cancel
-- Tasks taken out of the queue; those in flight stay with their worker.
DELETE FROM opensearch_indexing_queue
WHERE (%(index)s::text IS NULL OR index_name = %(index)s) AND (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s))
  AND (%(documents)s::text[] IS NULL OR document_id = ANY(%(documents)s))
