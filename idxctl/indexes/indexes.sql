-- name: render_settings
-- What the text of a document may depend on, as it is in this session, and what of it the session alone was given: run under
-- its own search path, not pinned.
SELECT (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(s::pg_catalog.text), ', ')
        FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) AS s),
       pg_catalog.array_agg(pg_catalog.current_setting(w.name, true) ORDER BY w.place),
       pg_catalog.array_agg(w.name) FILTER (
           WHERE s.source OPERATOR(pg_catalog.=) ANY ('{client,session,interactive}'::pg_catalog.text[]))
FROM pg_catalog.unnest(%(names)s::pg_catalog.text[]) WITH ORDINALITY AS w (name, place)
LEFT JOIN pg_catalog.pg_settings s ON pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) pg_catalog.lower(w.name)

-- name: type_names
-- Types by number, in the order given; their names as the document query's own search path has them.
SELECT pg_catalog.format_type(t.oid, NULL), t.typtype::pg_catalog.text
FROM pg_catalog.unnest(%(oids)s::pg_catalog.oid[]) WITH ORDINALITY AS wanted(oid, place)
JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) wanted.oid
ORDER BY wanted.place

-- name: lock_shared
-- G2: claims and settles hold this while they rely on the set of generations.
LOCK TABLE opensearch_indexing_barrier IN ROW SHARE MODE

-- name: lock_exclusive
-- G2: a change of the set waits for every open claim.
LOCK TABLE opensearch_indexing_barrier IN EXCLUSIVE MODE

-- name: try_older_shared
-- The lock of programs of the release before, which anybody may take; without waiting.
SELECT pg_try_advisory_xact_lock_shared(hashtextextended('opensearch_indexing generations ' || %(schema)s, 0))

-- name: older_shared
-- The same, waiting.
SELECT pg_advisory_xact_lock_shared(hashtextextended('opensearch_indexing generations ' || %(schema)s, 0))

-- name: older_exclusive
-- The same alone.
SELECT pg_advisory_xact_lock(hashtextextended('opensearch_indexing generations ' || %(schema)s, 0))

-- name: older_programs
-- Whether the older lock is held by a session that may change the set, or claim: only that can be a program of ours.
SELECT EXISTS (
    SELECT FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.pid <> pg_backend_pid() AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('opensearch_indexing generations ' || %(schema)s, 0)
      AND has_table_privilege(a.usesysid, 'opensearch_indexing_inflight', 'INSERT, UPDATE, DELETE'))

-- name: generations
-- All generations of an index, newest first; of all indexes when none is named.
SELECT id, index_name, number, physical_name, state, definition, fingerprint, created_at, live_at, standby_until
FROM opensearch_indexing_generations
WHERE (%(index)s::text IS NULL OR index_name = %(index)s)
ORDER BY index_name, number DESC

-- name: by_ids
-- Generations by id.
SELECT id, index_name, number, physical_name, state, definition, fingerprint, created_at, live_at, standby_until
FROM opensearch_indexing_generations
WHERE id = ANY(%(ids)s)
ORDER BY id

-- name: states
-- The states of generations as they are now.
SELECT id, state FROM opensearch_indexing_generations WHERE id = ANY(%(ids)s)

-- name: register
-- A new generation; its number is one more than any ever used.
INSERT INTO opensearch_indexing_generations (index_name, number, physical_name, state, definition, fingerprint)
VALUES (%(index)s, %(number)s, %(physical)s, 'building', %(definition)s, %(fingerprint)s)
RETURNING id

-- name: next_number
-- The number after the last one ever used for this index.
SELECT coalesce(max(number), 0) + 1 FROM opensearch_indexing_generations WHERE index_name = %(index)s

-- name: set_state
-- One step of the generation's state machine; nothing is changed unless it was in the state expected.
UPDATE opensearch_indexing_generations
SET state = %(state)s,
    live_at = CASE WHEN %(state)s = 'live' THEN clock_timestamp() ELSE live_at END,
    retired_at = CASE WHEN %(state)s = 'retired' THEN clock_timestamp() ELSE retired_at END,
    standby_until = CASE WHEN %(state)s = 'standby' THEN clock_timestamp() + %(keep)s::interval ELSE NULL END,
    behind_since = CASE WHEN %(state)s <> 'live' THEN behind_since END
WHERE id = %(id)s AND state = ANY(%(expected)s)
RETURNING id

-- name: may_redefine
-- Whether this role may record a generation's definition.
SELECT has_column_privilege('opensearch_indexing_generations', 'definition', 'UPDATE')

-- name: redefine
-- What was put in place belongs to the live generation from now on; nothing is changed where someone else was quicker.
UPDATE opensearch_indexing_generations
SET definition = %(definition)s, fingerprint = %(fingerprint)s
WHERE id = %(id)s AND state = 'live' AND fingerprint = %(before)s
RETURNING id

-- name: in_flight_with
-- Batches under way that will write to this generation.
SELECT count(*) FROM opensearch_indexing_inflight WHERE %(id)s = ANY(generations)

-- name: retired_undeleted
-- Retired generations whose index may still exist, once the last zombie must be gone (G3).
SELECT id, index_name, number, physical_name, state, definition, fingerprint, created_at, live_at, standby_until
FROM opensearch_indexing_generations
WHERE state = 'retired' AND deleted_at IS NULL AND retired_at < clock_timestamp() - %(age)s::interval

-- name: standby_expired
-- Standby generations kept as long as was promised.
SELECT id, index_name, number, physical_name, state, definition, fingerprint, created_at, live_at, standby_until
FROM opensearch_indexing_generations
WHERE state = 'standby' AND standby_until < clock_timestamp()

-- name: expire
-- One of them is retired, unless it is just being brought back; what came to nothing keeps it for ten minutes at the most.
UPDATE opensearch_indexing_generations SET state = 'retired', retired_at = clock_timestamp(), standby_until = NULL
WHERE id = %(id)s AND state = 'standby' AND standby_until < clock_timestamp()
  AND (intent IS NULL OR (intent ->> 'at')::timestamptz < clock_timestamp() - interval '10 minutes')
RETURNING id

-- name: deleted
-- The index of a retired generation was seen gone, and what it lacked concerns nobody.
WITH gone AS (
    UPDATE opensearch_indexing_generations SET deleted_at = clock_timestamp() WHERE id = %(id)s AND state = 'retired' RETURNING id
)
DELETE FROM opensearch_indexing_generation_failures WHERE generation IN (SELECT id FROM gone)

-- name: caught_up
-- Generations that have taken since what they missed or refused. The settle that marks one notes the documents a moment before;
-- what was noted long before that, of when it was live, is no lag.
UPDATE opensearch_indexing_generations g SET behind_since = NULL
WHERE g.behind_since IS NOT NULL
  AND NOT EXISTS (SELECT FROM opensearch_indexing_generation_failures f WHERE f.generation = g.id AND f.failed_at >= g.behind_since - interval '1 minute')

-- name: behind
-- A generation that is not live missed a write: it must be verified before anybody relies on it.
UPDATE opensearch_indexing_generations SET behind_since = coalesce(behind_since, clock_timestamp())
WHERE id = ANY(%(ids)s) AND behind_since IS NULL

-- name: mentioned
-- Whether anything is known of an index: a generation, a task or a letter, also of one that is configured no longer.
SELECT EXISTS (SELECT FROM opensearch_indexing_generations WHERE index_name = %(index)s)
    OR EXISTS (SELECT FROM opensearch_indexing_queue WHERE index_name = %(index)s)
    OR EXISTS (SELECT FROM opensearch_indexing_inflight WHERE index_name = %(index)s)
    OR EXISTS (SELECT FROM opensearch_indexing_dlq WHERE index_name = %(index)s)
    OR EXISTS (SELECT FROM opensearch_indexing_watches WHERE index_name = %(index)s)
