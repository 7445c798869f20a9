-- name: open_run
-- The run of an index that has not ended, if there is one.
SELECT r.id, r.index_name, r.generation, r.previous, r.state, r.intent, r.owner, r.started_at,
       extract(epoch FROM clock_timestamp() - r.seen_at)::float8, r.options, r.total, r.documents, r.failed
FROM opensearch_indexing_reindex_runs r
WHERE r.index_name = %(index)s AND r.finished_at IS NULL

-- name: start_run
-- A run; the unique index on open runs keeps a second one out.
INSERT INTO opensearch_indexing_reindex_runs (index_name, previous, state, options, intent, owner, total, max_rate)
VALUES (%(index)s, %(previous)s, 'planned', %(options)s, %(intent)s, %(owner)s, %(total)s, %(max_rate)s)
ON CONFLICT (index_name) WHERE finished_at IS NULL DO NOTHING
RETURNING id

-- name: advance_run
-- The run's next state, if it is in the one before and still its owner's. With each sign of life the time is added up that a
-- process was at it.
UPDATE opensearch_indexing_reindex_runs
SET state = %(to)s, generation = coalesce(%(generation)s, generation),
    documents = coalesce(%(documents)s, documents), failed = coalesce(%(failed)s, failed),
    busy_seconds = busy_seconds + least(extract(epoch FROM clock_timestamp() - seen_at)::float8, 5), seen_at = clock_timestamp()
WHERE id = %(id)s AND state = %(of)s AND owner = %(owner)s AND finished_at IS NULL
RETURNING id

-- name: intend
-- G4: the act about to be made.
UPDATE opensearch_indexing_reindex_runs SET intent = %(intent)s, seen_at = clock_timestamp()
WHERE id = %(id)s AND state = 'ready' AND owner = %(owner)s AND finished_at IS NULL
RETURNING id

-- name: run_state
-- How far a run is, if it is still its owner's.
SELECT state, intent FROM opensearch_indexing_reindex_runs WHERE id = %(id)s AND owner = %(owner)s AND finished_at IS NULL

-- name: take_over
-- A run that no process carries on goes to another one, which has seen it silent. What was proved of it may have changed: it
-- catches up and is checked again, unless its swap may have been made.
UPDATE opensearch_indexing_reindex_runs
SET owner = %(owner)s, seen_at = clock_timestamp(), options = %(options)s, max_rate = coalesce(%(max_rate)s, max_rate),
    state = CASE WHEN state IN ('checking', 'ready') AND NOT coalesce(intent ? 'swap', false) THEN 'catching_up' ELSE state END
WHERE id = %(id)s AND finished_at IS NULL AND owner = %(before)s
  AND seen_at < clock_timestamp() - make_interval(secs => %(silent)s)
RETURNING id

-- name: beat_run
-- The run is alive, and how far it has come: what its chunks say until they are checked.
UPDATE opensearch_indexing_reindex_runs r
SET busy_seconds = busy_seconds + least(extract(epoch FROM clock_timestamp() - seen_at)::float8, 5), seen_at = clock_timestamp(),
    documents = CASE WHEN r.state = 'backfilling' THEN c.documents ELSE r.documents END,
    failed = CASE WHEN r.state = 'backfilling' THEN c.failed ELSE r.failed END
FROM (SELECT coalesce(sum(documents - failed), 0)::bigint AS documents, coalesce(sum(failed), 0)::bigint AS failed
      FROM opensearch_indexing_reindex_chunks WHERE run = %(id)s AND done_at IS NOT NULL) AS c
WHERE r.id = %(id)s AND r.owner = %(owner)s AND r.finished_at IS NULL
RETURNING r.documents, r.failed

-- name: leave_run
-- A process that carried the run on has ended; another may at once.
UPDATE opensearch_indexing_reindex_runs SET seen_at = clock_timestamp() - interval '1 hour'
WHERE id = %(id)s AND owner = %(owner)s AND finished_at IS NULL

-- name: finish_run
-- The run has ended; what it had sent need not be known any more.
WITH gone AS (DELETE FROM opensearch_indexing_reindex_digests WHERE run = %(id)s)
UPDATE opensearch_indexing_reindex_runs
SET state = %(state)s, error = %(error)s, finished_at = clock_timestamp(), seen_at = clock_timestamp()
WHERE id = %(id)s AND finished_at IS NULL
RETURNING id

-- name: settle_runs
-- Swaps that cannot be undone any more, since their standby is no standby now, are finished.
UPDATE opensearch_indexing_reindex_runs r SET state = 'finished'
WHERE r.index_name = %(index)s AND r.state = 'swapped'
  AND NOT EXISTS (SELECT FROM opensearch_indexing_generations g WHERE g.id = r.previous AND g.state = 'standby')

-- name: tidy_chunks
-- Chunks of runs that have ended and whose generation is out of service.
DELETE FROM opensearch_indexing_reindex_chunks c USING opensearch_indexing_reindex_runs r
WHERE r.id = c.run AND r.index_name = %(index)s AND r.finished_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM opensearch_indexing_generations g WHERE g.id = r.generation AND g.state <> 'retired')

-- name: throttle
-- The rate of a run, for all processes that fill it; NULL: none.
UPDATE opensearch_indexing_reindex_runs SET max_rate = %(rate)s, paced_until = NULL
WHERE index_name = %(index)s AND finished_at IS NULL
RETURNING id, state

-- name: runs
-- Each index's last run, and how fast its chunks came in lately.
SELECT DISTINCT ON (r.index_name) r.index_name, r.id, g.physical_name,
       CASE WHEN r.state = 'swapped' AND NOT EXISTS (
           SELECT FROM opensearch_indexing_generations p WHERE p.id = r.previous AND p.state = 'standby') THEN 'finished' ELSE r.state END,
       r.documents, r.total, r.failed, r.started_at, r.seen_at, r.finished_at, r.owner, r.error, r.max_rate, r.busy_seconds,
       extract(epoch FROM clock_timestamp() - r.seen_at)::float8,
       (SELECT coalesce(sum(c.documents), 0)::float8 FROM opensearch_indexing_reindex_chunks c
        WHERE c.run = r.id AND c.done_at > clock_timestamp() - interval '30 seconds') / 30
FROM opensearch_indexing_reindex_runs r LEFT JOIN opensearch_indexing_generations g ON g.id = r.generation
WHERE %(index)s::text IS NULL OR r.index_name = %(index)s
ORDER BY r.index_name, r.id DESC

-- name: last_speed
-- Documents and seconds of the last run of an index that was swapped.
SELECT documents, busy_seconds FROM opensearch_indexing_reindex_runs
WHERE index_name = %(index)s AND state IN ('swapped', 'finished') AND documents > 0 AND busy_seconds > 0
ORDER BY id DESC LIMIT 1

-- name: plan_chunks
-- How far the chunks of a run are planned, and how many of them nobody has taken, up to so many.
SELECT r.planned_upto, r.planned_all,
       (SELECT count(*) FROM (SELECT FROM opensearch_indexing_reindex_chunks c
                              WHERE c.run = r.id AND c.done_at IS NULL AND c.token IS NULL LIMIT %(most)s) AS open),
       r.max_rate
FROM opensearch_indexing_reindex_runs r WHERE r.id = %(run)s AND r.finished_at IS NULL AND r.state = 'backfilling'

-- name: planned
-- Chunks are planned up to a key, unless another process was faster. The row stays locked until the chunk is there.
UPDATE opensearch_indexing_reindex_runs SET planned_upto = %(upto)s, planned_all = %(all)s
WHERE id = %(run)s AND finished_at IS NULL AND state = 'backfilling' AND NOT planned_all
  AND planned_upto IS NOT DISTINCT FROM %(before)s::text[]
RETURNING id

-- name: add_chunk
-- A range of keys to be read.
INSERT INTO opensearch_indexing_reindex_chunks (run, number, after_key, upto_key)
VALUES (%(run)s, (SELECT coalesce(max(number) + 1, 0) FROM opensearch_indexing_reindex_chunks WHERE run = %(run)s), %(after)s, %(upto)s)

-- name: take_chunk
-- T2: the token is drawn with a row that the same commit makes durable, before the chunk is read. None is taken of a run that
-- was taken over: its generation is retired, and a late write would make the deleted index again (G3).
UPDATE opensearch_indexing_reindex_chunks c
SET token = nextval('opensearch_indexing_token'), owner = %(owner)s, lease_until = clock_timestamp() + interval '30 seconds'
WHERE c.run = %(run)s
  AND EXISTS (SELECT FROM opensearch_indexing_reindex_runs r
              WHERE r.id = %(run)s AND r.finished_at IS NULL AND r.state = 'backfilling'
                AND (r.max_rate IS NULL OR r.paced_until IS NULL OR r.paced_until <= clock_timestamp()))
  AND c.number = (
    SELECT number FROM opensearch_indexing_reindex_chunks
    WHERE run = %(run)s AND done_at IS NULL AND (owner IS NULL OR lease_until < clock_timestamp())
    ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING c.number, c.after_key, c.upto_key, c.token

-- name: retake_chunk
-- The same chunk under a new token: what was read under the old one is too old, or its outcome is unknown (T3).
UPDATE opensearch_indexing_reindex_chunks
SET token = nextval('opensearch_indexing_token'), lease_until = clock_timestamp() + interval '30 seconds'
WHERE run = %(run)s AND number = %(number)s AND owner = %(owner)s AND done_at IS NULL
  AND EXISTS (SELECT FROM opensearch_indexing_reindex_runs r WHERE r.id = %(run)s AND r.finished_at IS NULL AND r.state = 'backfilling')
RETURNING number, after_key, upto_key, token

-- name: renew_chunks
-- The leases of chunks that a process is at.
UPDATE opensearch_indexing_reindex_chunks SET lease_until = clock_timestamp() + interval '30 seconds'
WHERE run = %(run)s AND owner = %(owner)s AND number = ANY (%(numbers)s) AND done_at IS NULL

-- name: release_chunks
-- Chunks of a process that is not at them any more may be taken at once.
UPDATE opensearch_indexing_reindex_chunks SET lease_until = clock_timestamp()
WHERE run = %(run)s AND owner = %(owner)s AND done_at IS NULL

-- name: is_filling
-- Whether chunks of a run are still to be filled by anyone.
SELECT EXISTS (SELECT FROM opensearch_indexing_reindex_runs WHERE id = %(run)s AND finished_at IS NULL AND state = 'backfilling')

-- name: chunks_left
-- Whether chunks of a run are still to be planned or are not in the index.
SELECT NOT r.planned_all OR EXISTS (SELECT FROM opensearch_indexing_reindex_chunks c WHERE c.run = r.id AND c.done_at IS NULL)
FROM opensearch_indexing_reindex_runs r WHERE r.id = %(run)s

-- name: chunk_done
-- A chunk is in the index, if it is still its reader's; under a rate the next one is taken later by as much as it counts.
WITH done AS (
    UPDATE opensearch_indexing_reindex_chunks SET done_at = clock_timestamp(), documents = %(documents)s, failed = %(failed)s
    WHERE run = %(run)s AND number = %(number)s AND owner = %(owner)s AND done_at IS NULL
    RETURNING number
), paced AS (
    UPDATE opensearch_indexing_reindex_runs
    SET paced_until = greatest(paced_until, clock_timestamp()) + make_interval(secs => %(documents)s / max_rate)
    WHERE id = %(run)s AND max_rate IS NOT NULL AND EXISTS (SELECT FROM done)
)
SELECT number FROM done

-- name: keep_digests
-- What the documents of a chunk are that were sent under some tokens.
INSERT INTO opensearch_indexing_reindex_digests (run, chunk, token, digests)
SELECT %(run)s, %(number)s, sent.token, sent.digests FROM unnest(%(tokens)s::bigint[], %(digests)s::bytea[]) AS sent (token, digests)

-- name: tokens_sent
-- The tokens of a run that documents were sent under, each with its chunk's range.
SELECT d.token, c.after_key, c.upto_key
FROM opensearch_indexing_reindex_digests d JOIN opensearch_indexing_reindex_chunks c ON c.run = d.run AND c.number = d.chunk
WHERE d.run = %(run)s

-- name: chunks_unknown
-- Whether it is not known of a chunk of a run what was sent: it was not, or by an older program, which kept nothing of it.
SELECT NOT EXISTS (SELECT FROM opensearch_indexing_reindex_chunks WHERE run = %(run)s AND upto_key IS NULL)
    OR EXISTS (
    SELECT FROM opensearch_indexing_reindex_chunks c
    WHERE c.run = %(run)s AND (c.done_at IS NULL OR (c.documents > 0
      AND NOT EXISTS (SELECT FROM opensearch_indexing_reindex_digests d WHERE d.run = c.run AND d.chunk = c.number))))

-- name: digests
-- What was sent under a token.
SELECT digests FROM opensearch_indexing_reindex_digests WHERE run = %(run)s AND token = %(token)s

-- name: chunks
-- The ranges of a run, in order.
SELECT after_key, upto_key FROM opensearch_indexing_reindex_chunks WHERE run = %(run)s ORDER BY number

-- name: generation_failures
-- Documents that a generation has refused and not taken since; a write it missed is no refusal.
SELECT coalesce(whole_id, document_id), error_type, last_error, fingerprint FROM opensearch_indexing_generation_failures
WHERE generation = %(generation)s AND error_type <> 'missed_write'

-- name: failures_by_type
-- The same by the type of their error, with an example; most of them first.
SELECT error_type, count(*), min(coalesce(whole_id, document_id)), min(last_error)
FROM opensearch_indexing_generation_failures
WHERE generation = %(generation)s AND error_type <> 'missed_write'
GROUP BY error_type ORDER BY count(*) DESC, error_type

-- name: failures_to_letters
-- What the new live generation has refused becomes dead letters; the greater token stays (T5).
INSERT INTO opensearch_indexing_dlq AS d (
    index_name, document_id, whole_id, action, attempts, last_error, error_type, fingerprint, token, retryable, origin, created_at, last_attempt_at)
SELECT %(index)s, f.document_id, f.whole_id, f.action, 1, f.last_error, f.error_type, f.fingerprint, f.token, false, 'reindex', f.failed_at, f.failed_at
FROM opensearch_indexing_generation_failures f
WHERE f.generation = %(generation)s AND f.error_type <> 'missed_write'
ORDER BY f.document_id, f.action
ON CONFLICT (index_name, document_id, action) WHERE NOT duplicate DO UPDATE SET
    attempts = excluded.attempts, last_error = excluded.last_error, error_type = excluded.error_type,
    fingerprint = excluded.fingerprint, token = excluded.token, retryable = excluded.retryable, last_attempt_at = excluded.last_attempt_at
WHERE d.token < excluded.token

-- name: heal_rebuilt
-- T5: letters older than every token that a rebuild wrote its documents under are healed by it, and those whose documents were
-- compared since; but for what it refused. Locked in order, as by a settle.
DELETE FROM opensearch_indexing_dlq d
WHERE d.id IN (
    SELECT l.id FROM opensearch_indexing_dlq l
    WHERE l.index_name = %(index)s
      AND (l.token < (SELECT min(c.token) FROM opensearch_indexing_reindex_chunks c WHERE c.run = %(run)s)
           OR EXISTS (SELECT FROM unnest(%(proved)s::bigint[], %(tokens)s::bigint[]) AS p (id, token)
                      WHERE p.id = l.id AND p.token = l.token))
      AND NOT EXISTS (SELECT FROM opensearch_indexing_generation_failures f
                      WHERE f.generation = %(generation)s AND f.document_id = l.document_id)
    ORDER BY l.id FOR UPDATE)

-- name: letters_since
-- Letters that came while the run was building, of documents that its generation has not refused.
SELECT l.id, l.token, coalesce(l.whole_id, l.document_id) FROM opensearch_indexing_dlq l
WHERE l.index_name = %(index)s
  AND l.token >= (SELECT min(c.token) FROM opensearch_indexing_reindex_chunks c WHERE c.run = %(run)s)
  AND NOT EXISTS (SELECT FROM opensearch_indexing_generation_failures f
                  WHERE f.generation = %(generation)s AND f.document_id = l.document_id)
ORDER BY l.id

-- name: missed_to_tasks
-- What the new live generation missed while it was not live is written again (P1).
INSERT INTO opensearch_indexing_queue (index_name, document_id, action, last_error, origin)
SELECT %(index)s, coalesce(f.whole_id, f.document_id), f.action, f.last_error, 'reindex'
FROM opensearch_indexing_generation_failures f
WHERE f.generation = %(generation)s AND f.error_type = 'missed_write'

-- name: drop_failures
-- They are letters or tasks now.
DELETE FROM opensearch_indexing_generation_failures WHERE generation = %(generation)s

-- name: durable
-- T2: whatever the server's default.
SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') IN ('off', 'local')

-- name: watched
-- Whether anything captures changes for an index.
SELECT 1 FROM opensearch_indexing_watches WHERE index_name = %(index)s AND removed_at IS NULL LIMIT 1

-- name: not_waiting
-- Those of some documents that no task in the queue or in flight is about; none while a fan-out waits. Each side is read once
-- and hashed: there may be many on both.
SELECT wanted.id FROM unnest(%(ids)s::text[]) AS wanted (id)
WHERE NOT EXISTS (SELECT FROM opensearch_indexing_queue q WHERE q.index_name = %(index)s AND q.kind <> 'document')
  AND NOT EXISTS (SELECT FROM opensearch_indexing_inflight f WHERE f.index_name = %(index)s AND f.kind <> 'document')
  AND NOT EXISTS (SELECT FROM opensearch_indexing_queue q WHERE q.index_name = %(index)s AND q.document_id = wanted.id)
  AND NOT EXISTS (SELECT FROM opensearch_indexing_inflight f, unnest(f.document_ids) AS held (id)
                  WHERE f.index_name = %(index)s AND held.id = wanted.id)

-- name: lacking
-- Rights on our tables that a rebuild needs, its swap included, and that this role does not have.
SELECT needed.verb || ' on ' || needed.name
FROM (VALUES
    ('opensearch_indexing_reindex_runs', 'INSERT'), ('opensearch_indexing_reindex_runs', 'UPDATE'),
    ('opensearch_indexing_reindex_chunks', 'INSERT'), ('opensearch_indexing_reindex_chunks', 'UPDATE'),
    ('opensearch_indexing_reindex_digests', 'INSERT'), ('opensearch_indexing_reindex_digests', 'DELETE'),
    ('opensearch_indexing_generations', 'INSERT'), ('opensearch_indexing_generations', 'UPDATE'),
    ('opensearch_indexing_generation_failures', 'INSERT'), ('opensearch_indexing_generation_failures', 'DELETE'),
    ('opensearch_indexing_queue', 'INSERT'), ('opensearch_indexing_dlq', 'INSERT'), ('opensearch_indexing_dlq', 'UPDATE'),
    ('opensearch_indexing_dlq', 'DELETE')) AS needed (name, verb)
WHERE NOT CASE needed.verb WHEN 'DELETE' THEN has_table_privilege(needed.name, 'DELETE')
          ELSE has_any_column_privilege(needed.name, needed.verb) END
ORDER BY needed.name, needed.verb
