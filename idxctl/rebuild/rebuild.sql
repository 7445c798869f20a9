-- name: open_run
-- The unfinished run of an index, if there is one.
SELECT id, index_name, generation, previous, phase, intent, owner, started_at,
       extract(epoch FROM clock_timestamp() - seen_at)
FROM opensearch_indexing_reindex_runs
WHERE index_name = %(index)s AND finished_at IS NULL

-- name: start_run
-- A run; the unique index on open runs keeps a second one out.
INSERT INTO opensearch_indexing_reindex_runs (index_name, previous, phase, options, intent, owner)
VALUES (%(index)s, %(previous)s, 'planned', %(options)s, %(intent)s, %(owner)s)
ON CONFLICT (index_name) WHERE finished_at IS NULL DO NOTHING
RETURNING id

-- name: advance_run
-- The run's next phase.
UPDATE opensearch_indexing_reindex_runs
SET phase = %(phase)s, generation = coalesce(%(generation)s, generation), intent = coalesce(%(intent)s, intent),
    seen_at = clock_timestamp()
WHERE id = %(id)s AND finished_at IS NULL
RETURNING id

-- name: beat_run
-- The run is alive, and how far it has come.
UPDATE opensearch_indexing_reindex_runs
SET seen_at = clock_timestamp(), documents = %(documents)s, failed = %(failed)s
WHERE id = %(id)s AND finished_at IS NULL
RETURNING id

-- name: finish_run
-- The run has ended.
UPDATE opensearch_indexing_reindex_runs
SET phase = %(phase)s, error = %(error)s, documents = coalesce(%(documents)s, documents), failed = coalesce(%(failed)s, failed),
    finished_at = clock_timestamp(), seen_at = clock_timestamp()
WHERE id = %(id)s AND finished_at IS NULL
RETURNING id

-- name: add_chunk
-- A range of keys to be read.
INSERT INTO opensearch_indexing_reindex_chunks (run, number, after_key, upto_key)
VALUES (%(run)s, %(number)s, %(after)s, %(upto)s)

-- name: planned
-- How far chunks have been planned.
UPDATE opensearch_indexing_reindex_runs SET planned_until = %(upto)s, planned_all = %(all)s WHERE id = %(run)s

-- name: take_chunk
-- T2: the token is drawn with a row that the same commit makes durable, before the chunk is read. None is taken of a run that
-- was taken over: its generation is retired, and a late write would make the deleted index again (G3).
UPDATE opensearch_indexing_reindex_chunks c
SET token = nextval('opensearch_indexing_token'), owner = %(owner)s, lease_until = clock_timestamp() + interval '2 minutes'
WHERE c.run = %(run)s AND EXISTS (SELECT FROM opensearch_indexing_reindex_runs r WHERE r.id = %(run)s AND r.finished_at IS NULL)
  AND c.number = (
    SELECT number FROM opensearch_indexing_reindex_chunks
    WHERE run = %(run)s AND done_at IS NULL AND (owner IS NULL OR lease_until < clock_timestamp())
    ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING c.number, c.after_key, c.upto_key, c.token

-- name: retake_chunk
-- The same chunk under a new token: what was read under the old one is too old, or its outcome is unknown (T3).
UPDATE opensearch_indexing_reindex_chunks
SET token = nextval('opensearch_indexing_token'), lease_until = clock_timestamp() + interval '2 minutes'
WHERE run = %(run)s AND number = %(number)s AND owner = %(owner)s AND done_at IS NULL
  AND EXISTS (SELECT FROM opensearch_indexing_reindex_runs r WHERE r.id = %(run)s AND r.finished_at IS NULL)
RETURNING number, after_key, upto_key, token

-- name: run_is_open
-- Whether a run is still its process's: not finished, and not taken over.
SELECT EXISTS (SELECT FROM opensearch_indexing_reindex_runs WHERE id = %(run)s AND finished_at IS NULL)

-- name: chunk_done
-- A chunk is in the index.
UPDATE opensearch_indexing_reindex_chunks SET done_at = clock_timestamp(), documents = %(documents)s, failed = %(failed)s
WHERE run = %(run)s AND number = %(number)s AND owner = %(owner)s

-- name: chunks
-- The ranges of a run, in order.
SELECT after_key, upto_key FROM opensearch_indexing_reindex_chunks WHERE run = %(run)s ORDER BY number

-- name: generation_failures
-- Documents that a generation has refused and not taken since; a write it missed is no refusal.
SELECT coalesce(whole_id, document_id), error_type, last_error, fingerprint FROM opensearch_indexing_generation_failures
WHERE generation = %(generation)s AND error_type <> 'missed_write'

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
    ('opensearch_indexing_generations', 'INSERT'), ('opensearch_indexing_generations', 'UPDATE'),
    ('opensearch_indexing_generation_failures', 'INSERT'), ('opensearch_indexing_generation_failures', 'DELETE'),
    ('opensearch_indexing_queue', 'INSERT'), ('opensearch_indexing_dlq', 'INSERT'), ('opensearch_indexing_dlq', 'UPDATE'),
    ('opensearch_indexing_dlq', 'DELETE')) AS needed (name, verb)
WHERE NOT CASE needed.verb WHEN 'DELETE' THEN has_table_privilege(needed.name, 'DELETE')
          ELSE has_any_column_privilege(needed.name, needed.verb) END
ORDER BY needed.name, needed.verb
