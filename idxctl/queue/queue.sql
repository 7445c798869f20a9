-- name: enqueue
-- Tasks for documents, one a distinct id.
INSERT INTO opensearch_indexing_queue (index_name, document_id, action, priority, available_at, origin)
SELECT %(index)s, id, %(action)s, %(priority)s, coalesce(%(available_at)s::timestamptz, clock_timestamp()), %(origin)s
FROM (SELECT DISTINCT unnest(%(ids)s::text[]) AS id) AS wanted
WHERE id IS NOT NULL AND id <> ''

-- name: enqueue_sweep
-- A task that becomes one for every id that the index holds.
INSERT INTO opensearch_indexing_queue (index_name, kind, priority, origin, payload)
VALUES (%(index)s, 'sweep', %(priority)s, %(origin)s, '{}')

-- name: heads
-- The oldest due task of each index and priority that may be claimed: a generation is there, nothing pauses it.
SELECT open.index_name, p.priority, head.available_at, open.probing
FROM (
    SELECT DISTINCT g.index_name,
           EXISTS (SELECT FROM opensearch_indexing_pauses b WHERE b.index_name = g.index_name AND b.cause = 'blocked') AS probing
    FROM opensearch_indexing_generations g
    WHERE g.state <> 'retired'
      AND (%(indexes)s::text[] IS NULL OR g.index_name = ANY(%(indexes)s))
      AND NOT EXISTS (
          SELECT FROM opensearch_indexing_pauses s
          WHERE s.index_name = g.index_name AND (s.probe_at IS NULL OR s.probe_at > statement_timestamp()))
) AS open
CROSS JOIN (VALUES (1), (0), (-1)) AS p (priority)
LEFT JOIN unnest(%(floor_indexes)s::text[], %(floor_priorities)s::int[], %(floors)s::timestamptz[]) AS f (index_name, priority, floor)
       ON f.index_name = open.index_name AND f.priority = p.priority
CROSS JOIN LATERAL (
    SELECT q.available_at
    FROM opensearch_indexing_queue q
    WHERE q.index_name = open.index_name AND q.priority = p.priority::smallint
      AND q.available_at >= coalesce(f.floor, '-infinity') AND q.available_at <= statement_timestamp()
    ORDER BY q.available_at, q.id
    LIMIT 1
) AS head
ORDER BY p.priority DESC, head.available_at

-- name: horizon
-- A time, the oldest transaction still open that writes, and an id given after the time: who gets a later one begins to write
-- after it. The snapshot's own end will not do: it is where completed ones end, and open ones may be beyond it.
SELECT statement_timestamp(), pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_current_xact_id()::text::bigint

-- name: claim
-- T1: the token is drawn by the statement that takes the tasks. G2: the set of generations is read here, never remembered;
-- the shared lock was taken by an earlier statement. A batch holds documents or fan-outs, and tasks of one split group.
-- SKIP LOCKED: another claimer's tasks are not waited for. The rows are found again by ctid: they are locked and never updated.
-- T4: nothing is taken while the sequence has not been moved to the clock in this run of the server.
-- Of one transaction's tasks alone, where their documents and the time they were enqueued in are given.
-- As many as come to a number of bytes, and one in any case: the arrays, and whoever holds them, have limits. Sizes are read
-- without the values; a payload's is that of its compressed form.
WITH due AS MATERIALIZED (
    SELECT q.ctid AS place, q.id, q.available_at, q.kind <> 'document' AS fan_out, q.split_group,
           coalesce(octet_length(q.document_id), 0) + coalesce(pg_column_size(q.payload), 0)
           + coalesce(octet_length(q.last_error), 0) AS bytes
    FROM opensearch_indexing_queue q
    WHERE q.index_name = %(index)s AND q.priority = %(priority)s::smallint
      AND q.available_at >= coalesce(%(floor)s::timestamptz, '-infinity')
      AND q.available_at <= least(statement_timestamp(), %(upto)s::timestamptz)
      AND (%(documents)s::text[] IS NULL OR q.document_id = ANY(%(documents)s::text[]))
      AND EXISTS (
          SELECT FROM opensearch_indexing_generations g WHERE g.index_name = %(index)s AND g.state <> 'retired')
      AND NOT EXISTS (
          SELECT FROM opensearch_indexing_pauses s
          WHERE s.index_name = %(index)s AND (s.probe_at IS NULL OR s.probe_at > statement_timestamp()))
      AND (SELECT j.server FROM opensearch_indexing_token_jumps j ORDER BY j.id DESC LIMIT 1) = (SELECT opensearch_indexing_server())
    ORDER BY q.available_at, q.id
    LIMIT %(limit)s
    FOR UPDATE OF q SKIP LOCKED
), head AS (
    SELECT id, fan_out, split_group FROM due ORDER BY available_at, id LIMIT 1
), fitting AS MATERIALIZED (
    SELECT due.place, due.id, due.available_at,
           due.id = head.id
           OR sum(due.bytes) OVER (ORDER BY due.available_at, due.id ROWS UNBOUNDED PRECEDING) <= %(bytes)s AS fits
    FROM due, head
    WHERE due.fan_out = head.fan_out AND due.split_group IS NOT DISTINCT FROM head.split_group
), taken AS (
    DELETE FROM opensearch_indexing_queue q
    WHERE q.ctid = ANY(ARRAY(SELECT place FROM fitting WHERE fits))
    RETURNING q.*
), merged AS (
    SELECT coalesce(document_id, kind) AS document_id,
           max(action) FILTER (WHERE action IS NOT NULL) AS action,
           max(priority) AS priority, max(attempts) AS attempts, min(enqueued_at) AS enqueued_at,
           (array_agg(origin ORDER BY id))[1] AS origin,
           coalesce((array_agg(last_error ORDER BY id) FILTER (WHERE last_error IS NOT NULL))[1], '') AS last_error,
           coalesce((array_agg(payload ORDER BY payload ? 'letter' DESC, id) FILTER (WHERE payload IS NOT NULL))[1], '{}') AS payload,
           max(available_at) AS available_at,
           min(kind) AS kind
    FROM taken
    GROUP BY document_id, kind, CASE WHEN kind <> 'document' THEN id END
)
INSERT INTO opensearch_indexing_inflight (
    token, index_name, kind, worker, lease_until, generations,
    document_ids, actions, priorities, attempts, enqueued_at, origins, last_errors, payloads)
SELECT nextval('opensearch_indexing_token'), %(index)s, (SELECT CASE WHEN fan_out THEN 'fan_out' ELSE 'document' END FROM head),
       %(worker)s, clock_timestamp() + %(lease)s::interval,
       ARRAY(SELECT g.id FROM opensearch_indexing_generations g WHERE g.index_name = %(index)s AND g.state <> 'retired' ORDER BY g.id),
       array_agg(document_id), array_agg(action), array_agg(priority), array_agg(attempts), array_agg(enqueued_at),
       array_agg(origin), array_agg(last_error), array_agg(payload || jsonb_build_object('kind', kind))
FROM merged
HAVING count(*) > 0
RETURNING token, kind, generations, document_ids, actions, priorities, attempts, enqueued_at, origins, last_errors, payloads,
          coalesce((SELECT min(due.available_at) FROM due  -- left behind: another kind or split group, or too much
                    WHERE due.id NOT IN (SELECT id FROM fitting WHERE fits)),
                   (SELECT max(available_at) FROM merged)),
          CASE WHEN EXISTS (SELECT FROM fitting WHERE NOT fits) THEN %(limit)s ELSE (SELECT count(*) FROM due) END, clock_timestamp()

-- name: holders
-- Sessions that hold a lock on what claims need, which keeps them waiting; a change of the set of generations does, shortly.
SELECT DISTINCT l.pid, coalesce(a.usename::text, '?'), coalesce(a.application_name, ''), a.xact_start
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.granted AND l.locktype = 'relation' AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.relation = ANY(ARRAY['opensearch_indexing_barrier'::regclass, 'opensearch_indexing_queue'::regclass,
                             'opensearch_indexing_inflight'::regclass, 'opensearch_indexing_generations'::regclass]::oid[])
  AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  AND coalesce(a.xact_start, '-infinity') <= clock_timestamp() - %(seconds)s * interval '1 second'
ORDER BY 1

-- name: renew
-- A lease still held is held for longer; returns those that are. A batch that is just being settled or taken back is passed
-- over: the others' leases must not wait for it.
UPDATE opensearch_indexing_inflight SET lease_until = clock_timestamp() + %(lease)s::interval
WHERE token IN (
    SELECT token FROM opensearch_indexing_inflight WHERE token = ANY(%(tokens)s) ORDER BY token FOR UPDATE SKIP LOCKED)
RETURNING token

-- name: settle_done
-- All went well: the lease ends, and letters of these documents older than the token go (T5).
WITH settled AS (
    DELETE FROM opensearch_indexing_inflight WHERE token = %(token)s RETURNING token
), healed AS (
    DELETE FROM opensearch_indexing_dlq d
    USING settled
    WHERE d.index_name = %(index)s AND d.document_id = ANY(%(ids)s) AND d.token < settled.token
    RETURNING d.id
)
SELECT (SELECT count(*) FROM settled), (SELECT count(*) FROM healed)

-- name: end_lease
-- The batch ends here; no row: the lease was lost, and others have the tasks.
DELETE FROM opensearch_indexing_inflight WHERE token = %(token)s RETURNING token

-- name: heal
-- T5: a success clears only letters older than its token. Locked in order, so that two settles cannot wait in a ring.
DELETE FROM opensearch_indexing_dlq d
WHERE d.id IN (
    SELECT id FROM opensearch_indexing_dlq
    WHERE index_name = %(index)s AND document_id = ANY(%(ids)s) AND token < %(token)s
    ORDER BY id FOR UPDATE)

-- name: requeue
-- Tasks put back, with what is known of them, each after its delay in seconds.
INSERT INTO opensearch_indexing_queue (
    index_name, document_id, kind, action, priority, attempts, available_at, enqueued_at, last_error, origin, split_group, payload)
SELECT %(index)s, t.document_id, 'document', t.action, t.priority, t.attempts,
       clock_timestamp() + t.delay * interval '1 second', t.enqueued_at, nullif(t.last_error, ''), t.origin, t.split_group,
       nullif(t.payload - 'kind', '{}')
FROM unnest(%(document_ids)s::text[], %(actions)s::text[], %(priorities)s::smallint[], %(attempts)s::int[], %(delays)s::float8[],
            %(enqueued_at)s::timestamptz[], %(last_errors)s::text[], %(origins)s::text[], %(split_groups)s::bigint[], %(payloads)s::jsonb[])
     AS t (document_id, action, priority, attempts, delay, enqueued_at, last_error, origin, split_group, payload)

-- name: bury
-- Dead letters; one an index, document and action. T5: the greater token stays. The past of both is kept, its last entries.
INSERT INTO opensearch_indexing_dlq AS d (
    id, index_name, document_id, whole_id, action, attempts, last_error, error_type, fingerprint, token, retryable, retries,
    not_before, origin, history, data, created_at, last_attempt_at)
SELECT coalesce((t.payload->'letter'->>'id')::bigint, nextval('opensearch_indexing_dlq_id_seq')),
       %(index)s, t.document_id, t.whole_id, t.action, t.attempts, t.last_error, t.error_type, t.fingerprint, %(token)s, t.retryable,
       coalesce((t.payload->'letter'->>'retries')::int, 0),
       clock_timestamp() + t.wait * interval '1 second', t.origin,
       coalesce(t.payload->'letter'->'history', '[]'), t.payload->'letter'->'data',
       coalesce((t.payload->'letter'->>'created_at')::timestamptz, clock_timestamp()), clock_timestamp()
FROM unnest(%(document_ids)s::text[], %(whole_ids)s::text[], %(actions)s::text[], %(attempts)s::int[], %(last_errors)s::text[], %(error_types)s::text[],
            %(fingerprints)s::text[], %(retryable)s::boolean[], %(waits)s::float8[], %(origins)s::text[], %(payloads)s::jsonb[])
     AS t (document_id, whole_id, action, attempts, last_error, error_type, fingerprint, retryable, wait, origin, payload)
ORDER BY t.document_id, t.action
ON CONFLICT (index_name, document_id, action) WHERE NOT duplicate DO UPDATE SET
    attempts = excluded.attempts, last_error = excluded.last_error, error_type = excluded.error_type,
    fingerprint = excluded.fingerprint, token = excluded.token, retryable = excluded.retryable,
    retries = greatest(d.retries, excluded.retries), not_before = excluded.not_before, origin = excluded.origin,
    created_at = least(d.created_at, excluded.created_at), last_attempt_at = excluded.last_attempt_at,
    history = (
        SELECT jsonb_agg(past.entry ORDER BY past.place)
        FROM (SELECT entry, place FROM jsonb_array_elements(d.history || excluded.history) WITH ORDINALITY AS all_ (entry, place)
              ORDER BY place DESC LIMIT %(remembered)s) AS past)
WHERE d.token <= excluded.token

-- name: blame
-- Documents that a generation refused while it was not live.
INSERT INTO opensearch_indexing_generation_failures AS f (generation, document_id, whole_id, action, token, error_type, fingerprint, last_error)
SELECT t.generation, t.document_id, t.whole_id, t.action, %(token)s, t.error_type, t.fingerprint, t.last_error
FROM unnest(%(generations)s::bigint[], %(document_ids)s::text[], %(whole_ids)s::text[], %(actions)s::text[], %(error_types)s::text[], %(fingerprints)s::text[], %(last_errors)s::text[])
     AS t (generation, document_id, whole_id, action, error_type, fingerprint, last_error)
ORDER BY t.generation, t.document_id
ON CONFLICT (generation, document_id) DO UPDATE SET
    action = excluded.action, token = excluded.token, error_type = excluded.error_type, fingerprint = excluded.fingerprint,
    last_error = excluded.last_error, failed_at = clock_timestamp()
WHERE f.token <= excluded.token

-- name: absolve
-- Documents that a generation has taken after all.
DELETE FROM opensearch_indexing_generation_failures f
WHERE f.generation = ANY(%(generations)s) AND f.document_id = ANY(%(ids)s) AND f.token < %(token)s

-- name: any_blamed
-- Whether any of these generations has refused a document.
SELECT EXISTS (SELECT FROM opensearch_indexing_generation_failures WHERE generation = ANY(%(generations)s))

-- name: lapsed
-- The oldest batch whose lease has lapsed, or whose worker is known to be gone. A server that has just started leaves those
-- who live the time to renew what lapsed while it was away.
SELECT token FROM opensearch_indexing_inflight
WHERE (greatest(lease_until, pg_postmaster_start_time() + interval '5 seconds') < clock_timestamp() OR worker = ANY(%(gone)s))
  AND token <> ALL(%(but)s::bigint[])
ORDER BY token LIMIT 1 FOR UPDATE SKIP LOCKED

-- name: take_lapsed
-- A batch taken back.
DELETE FROM opensearch_indexing_inflight WHERE token = %(token)s
RETURNING index_name, kind, worker, claimed_at, clock_timestamp(), document_ids, actions, priorities, attempts, enqueued_at, origins, last_errors, payloads

-- name: hold_lapsed
-- A batch that cannot be taken back is tried again later, and keeps nobody from the others.
UPDATE opensearch_indexing_inflight SET lease_until = clock_timestamp() + %(seconds)s * interval '1 second', trouble = %(trouble)s,
    why = %(why)s
WHERE token = %(token)s

-- name: take_unheld
-- Batches of a worker that it does not know of: their claim was committed, and the answer lost.
DELETE FROM opensearch_indexing_inflight
WHERE worker = %(worker)s AND token <> ALL(%(held)s::bigint[])
RETURNING token, index_name, kind, worker, claimed_at, document_ids, actions, priorities, attempts, enqueued_at, origins, last_errors, payloads

-- name: requeue_fan_outs
-- Fan-out tasks put back as they were.
INSERT INTO opensearch_indexing_queue (index_name, kind, priority, attempts, available_at, enqueued_at, last_error, origin, payload)
SELECT %(index)s, t.payload->>'kind', t.priority, t.attempts, clock_timestamp() + t.delay * interval '1 second', t.enqueued_at,
       nullif(t.last_error, ''), t.origin, t.payload - 'kind'
FROM unnest(%(priorities)s::smallint[], %(attempts)s::int[], %(delays)s::float8[], %(enqueued_at)s::timestamptz[],
            %(last_errors)s::text[], %(origins)s::text[], %(payloads)s::jsonb[])
     AS t (priority, attempts, delay, enqueued_at, last_error, origin, payload)

-- name: next_split_group
-- A number no two groups share: any token will do.
SELECT nextval('opensearch_indexing_token')

-- name: token_state
-- T4: the last token drawn, and whether a version lies in a gap that a jump left.
SELECT (SELECT last_value FROM opensearch_indexing_token),
       EXISTS (SELECT FROM opensearch_indexing_token_jumps WHERE %(version)s > jumped_from AND %(version)s < jumped_to)

-- name: advance_token
-- T4: move the sequence past a version that this database did not draw.
SELECT opensearch_indexing_advance_token(%(past)s, %(why)s)

-- name: token_lag
-- T4: how far the sequence lies behind the wall clock, in seconds, and whether it has been moved in this run of the server.
SELECT extract(epoch FROM clock_timestamp()) - last_value / 1000000.0,
       coalesce((SELECT server FROM opensearch_indexing_token_jumps ORDER BY id DESC LIMIT 1) = opensearch_indexing_server(), false)
FROM opensearch_indexing_token

-- name: watch
-- What a fan-out task needs to know of its watch, also of one that was replaced since.
SELECT definition, table_schema, table_name FROM opensearch_indexing_watches WHERE id = %(id)s

-- name: enqueue_expanded
-- Tasks for the keys that a lookup found; they are as old as the change.
INSERT INTO opensearch_indexing_queue (index_name, document_id, priority, enqueued_at, origin)
SELECT %(index)s, id, %(priority)s, %(enqueued_at)s, %(origin)s
FROM (SELECT DISTINCT unnest(%(ids)s::text[]) AS id) AS found
WHERE id IS NOT NULL

-- name: enqueue_coarse
-- C6: instead of changed rows that cannot be read any more. One is enough, and those that wait are taken as one.
INSERT INTO opensearch_indexing_queue (index_name, kind, priority, enqueued_at, origin, payload)
VALUES (%(index)s, 'keys', -1, %(enqueued_at)s, 'lookup', jsonb_build_object('watch', %(watch)s::bigint, 'coarse', 'values'))

-- name: other_batches
-- Batches of an index in flight apart from this one, and how long each has at most before its bytes are too old.
SELECT token, extract(epoch FROM clock_timestamp() - claimed_at) FROM opensearch_indexing_inflight
WHERE index_name = %(index)s AND kind = 'document' AND token < %(token)s

-- name: at_watches
-- Watches whose documents change with time alone, each for one worker at a time.
SELECT id, index_name, definition, table_schema, table_name, at_watermark
FROM opensearch_indexing_watches
WHERE removed_at IS NULL AND definition->>'at' IS NOT NULL AND at_watermark < clock_timestamp() - interval '500 ms'
ORDER BY id
FOR UPDATE SKIP LOCKED

-- name: move_watermark
-- Rows up to here have been enqueued.
UPDATE opensearch_indexing_watches SET at_watermark = %(upto)s WHERE id = %(id)s

-- name: pause
-- An index that nobody claims from until someone resumes it, with the reason.
INSERT INTO opensearch_indexing_pauses (index_name, cause, reason, paused_by)
VALUES (%(index)s, 'operator', %(reason)s, %(by)s)
ON CONFLICT (index_name, cause) DO UPDATE SET reason = excluded.reason

-- name: block
-- An index whose writes are refused, with the reason. Only a probe that failed counts as one: batches that were under way
-- together are refused together.
INSERT INTO opensearch_indexing_pauses AS p (index_name, cause, reason, why, paused_by, probe_at)
VALUES (%(index)s, 'blocked', %(reason)s, %(why)s, %(by)s, clock_timestamp() + %(probe_after)s * interval '1 second')
ON CONFLICT (index_name, cause) DO UPDATE SET
    reason = excluded.reason, why = excluded.why,
    probes = CASE WHEN %(probed)s THEN p.probes + 1 ELSE p.probes END,
    probe_at = CASE WHEN %(probed)s THEN excluded.probe_at ELSE p.probe_at END

-- name: put_off
-- A blocked index is being probed: the next probe is due later.
UPDATE opensearch_indexing_pauses SET probe_at = clock_timestamp() + %(seconds)s * interval '1 second'
WHERE index_name = %(index)s AND cause = 'blocked'

-- name: resume
-- Claims go on.
DELETE FROM opensearch_indexing_pauses WHERE index_name = %(index)s AND cause = %(cause)s RETURNING reason

-- name: pauses
-- What is paused now.
SELECT index_name, cause, reason, paused_by, paused_at, probe_at, probes, why FROM opensearch_indexing_pauses ORDER BY index_name, cause

-- name: successors
-- Lookups in force over the table of a watch that has been replaced since.
SELECT n.definition
FROM opensearch_indexing_watches o
JOIN opensearch_indexing_watches n
  ON n.index_name = o.index_name AND n.table_schema = o.table_schema AND n.table_name = o.table_name
WHERE o.id = %(id)s AND o.removed_at IS NOT NULL AND n.removed_at IS NULL AND n.definition->>'keys' IS NOT NULL
ORDER BY n.position

-- name: broken_lookup
-- Why a fan-out of the index waits, if its query fails.
SELECT last_error FROM opensearch_indexing_queue
WHERE index_name = %(index)s AND kind = 'keys' AND last_error IS NOT NULL
ORDER BY id LIMIT 1

-- name: open_tasks
-- What may still change a document of the index: tasks due or backing off, fan-outs and batches in flight, all of them enqueued before a time.
SELECT (SELECT count(*) FROM opensearch_indexing_queue q
        WHERE q.index_name = %(index)s AND (q.available_at <= statement_timestamp() OR q.attempts > 0 OR q.last_error IS NOT NULL)
          AND q.enqueued_at <= %(before)s)
     + (SELECT coalesce(sum(cardinality(f.document_ids)), 0) FROM opensearch_indexing_inflight f
        WHERE f.index_name = %(index)s AND (SELECT min(e) FROM unnest(f.enqueued_at) e) <= %(before)s)

-- name: remaining
-- What --until-empty waits for: claimable, retried later or in flight; and what a pause or a missing generation keeps. A block
-- that three probes have not ended is not waited for either, nor a lookup that could not be run three times.
SELECT coalesce(sum(n) FILTER (WHERE claimable), 0)::bigint,
       coalesce(sum(n) FILTER (WHERE NOT claimable), 0)::bigint,
       (SELECT count(*) FROM opensearch_indexing_inflight f WHERE %(indexes)s::text[] IS NULL OR f.index_name = ANY(%(indexes)s))
FROM (
    SELECT q.index_name, count(*) AS n,
           NOT q.broken
           AND EXISTS (SELECT FROM opensearch_indexing_generations g WHERE g.index_name = q.index_name AND g.state <> 'retired')
           AND NOT EXISTS (SELECT FROM opensearch_indexing_pauses s WHERE s.index_name = q.index_name AND (s.cause = 'operator' OR s.probes >= 3)) AS claimable
    FROM (SELECT index_name, kind = 'keys' AND attempts >= 3 AS broken FROM opensearch_indexing_queue
          WHERE (%(indexes)s::text[] IS NULL OR index_name = ANY(%(indexes)s))
            AND (available_at <= statement_timestamp() OR attempts > 0 OR last_error IS NOT NULL)) AS q
    GROUP BY q.index_name, q.broken
) AS waiting

-- name: coarse_round
-- C6: whether documents of the last coarse task still wait, and whether all transactions up to one are over that may have
-- written a watched table. They hold its lock until they end, which takes a right on it: anybody who may connect, to another
-- database too, can keep a transaction open. Locks are given back after a transaction has become visible, so what this does
-- not find, the next statement sees. A trigger is taken off only when no writer holds the table.
SELECT EXISTS (SELECT FROM opensearch_indexing_queue q
               WHERE q.index_name = %(index)s AND q.priority = -1::smallint AND q.kind = 'document' AND q.origin = 'coarse'),
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint > %(after)s::bigint
       OR NOT EXISTS (
           SELECT FROM pg_locks written
           JOIN pg_locks writer ON writer.virtualtransaction = written.virtualtransaction
               AND writer.locktype = 'transactionid' AND writer.mode = 'ExclusiveLock'
           WHERE written.locktype = 'relation' AND written.granted
             AND written.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
             AND written.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
             AND age(writer.transactionid) > age((%(after)s::bigint %% 4294967296)::text::xid)
             AND EXISTS (SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
                         WHERE t.tgrelid = written.relation AND n.nspname = %(schema)s
                           AND starts_with(p.proname::text, 'opensearch_' || 'indexing_capture_')))

-- name: absorb_coarse
-- C6: coarse tasks committed by now are done with the one that is held; without its lease, nothing is taken.
WITH held AS MATERIALIZED (
    SELECT token FROM opensearch_indexing_inflight WHERE token = %(token)s FOR UPDATE
)
DELETE FROM opensearch_indexing_queue q
WHERE EXISTS (SELECT FROM held) AND q.ctid = ANY(ARRAY(
    SELECT w.ctid FROM opensearch_indexing_queue w
    WHERE w.index_name = %(index)s AND w.priority = -1::smallint AND w.kind = 'keys'
      AND w.payload ? 'coarse' AND NOT w.payload ? 'after'
    FOR UPDATE SKIP LOCKED))

-- name: gaps
-- C6: changes that left no task, since this was last seen to. What a role may not read is not shown.
SELECT coalesce((SELECT s.last_value FROM pg_sequences s WHERE s.schemaname = %(schema)s AND s.sequencename = %(gap)s), 0)
       - coalesce((SELECT t.value::bigint FROM opensearch_indexing_settings t WHERE t.name = 'gap_seen'), 0)

-- name: see_gaps
-- Seen to, by one worker, once there is something to look at again. By a function: workers write no settings.
SELECT seen FROM opensearch_indexing_gap_seen() AS seen WHERE seen

-- name: enqueue_gap
-- Every index that is captured; after the transactions that may have marked the gap: they have numbers before this one's.
INSERT INTO opensearch_indexing_queue (index_name, kind, priority, origin, payload)
SELECT w.index_name, 'keys', -1, 'gap',
       jsonb_build_object('watch', min(w.id), 'coarse', 'gap', 'after', pg_current_xact_id()::text)
FROM opensearch_indexing_watches w
WHERE w.removed_at IS NULL
GROUP BY w.index_name
