-- name: last_token
-- Where the sequence of tokens stands: whatever is claimed from now on is written under a greater one.
SELECT last_value FROM opensearch_indexing_token

-- name: begin
-- A comparison; the unique index on open ones keeps a second of its kind out.
INSERT INTO opensearch_indexing_verify_runs (index_name, generation, options, owner, scrub)
VALUES (%(index)s, %(generation)s, %(options)s, %(owner)s, %(scrub)s)
ON CONFLICT (index_name, scrub) WHERE finished_at IS NULL DO NOTHING
RETURNING id

-- name: open_run
-- The unfinished comparison of an index and a kind, if there is one.
SELECT id, index_name, generation, state, options, owner, started_at,
       extract(epoch FROM clock_timestamp() - seen_at)::float8
FROM opensearch_indexing_verify_runs WHERE index_name = %(index)s AND scrub = %(scrub)s AND finished_at IS NULL

-- name: abandon
-- A comparison that nobody carries on any more; what it found goes.
WITH gone AS (
    DELETE FROM opensearch_indexing_verify_differences WHERE run = %(run)s
), ranges AS (
    DELETE FROM opensearch_indexing_verify_ranges WHERE run = %(run)s
)
UPDATE opensearch_indexing_verify_runs SET state = 'abandoned', finished_at = clock_timestamp()
WHERE id = %(run)s AND finished_at IS NULL
RETURNING id

-- name: beat
-- Somebody is at it.
UPDATE opensearch_indexing_verify_runs SET seen_at = clock_timestamp()
WHERE id = %(run)s AND finished_at IS NULL
RETURNING id

-- name: leave
-- A process that was at it ended.
UPDATE opensearch_indexing_verify_runs SET seen_at = clock_timestamp() - interval '1 hour'
WHERE id = %(run)s AND finished_at IS NULL

-- name: release
-- Ranges that nobody is at any more may be taken at once: of one process, or of all.
UPDATE opensearch_indexing_verify_ranges SET lease_until = clock_timestamp()
WHERE run = %(run)s AND done_at IS NULL AND (%(owner)s::text IS NULL OR owner = %(owner)s)

-- name: state
-- How far a comparison is.
SELECT state FROM opensearch_indexing_verify_runs WHERE id = %(run)s AND finished_at IS NULL

-- name: retake
-- A range, or a slice of ids, that nobody is at: it was not taken yet, or its process was not heard of.
UPDATE opensearch_indexing_verify_ranges r
SET owner = %(owner)s, lease_until = clock_timestamp() + interval '1 minute'
WHERE r.run = %(run)s AND r.number = (
    SELECT number FROM opensearch_indexing_verify_ranges
    WHERE run = %(run)s AND done_at IS NULL AND (lease_until < clock_timestamp() OR owner = ANY (%(gone)s))
    ORDER BY number LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING r.number, r.after_key, r.upto_key, r.slice, r.slices

-- name: plan
-- How far ranges have been made.
SELECT planned_upto, planned_all FROM opensearch_indexing_verify_runs
WHERE id = %(run)s AND finished_at IS NULL AND state = 'rows'

-- name: add_range
-- The next range, taken by who made it.
INSERT INTO opensearch_indexing_verify_ranges (run, number, after_key, upto_key, owner, lease_until)
VALUES (%(run)s, (SELECT coalesce(max(number), 0) + 1 FROM opensearch_indexing_verify_ranges WHERE run = %(run)s),
        %(after)s, %(upto)s, %(owner)s, clock_timestamp() + interval '1 minute')
RETURNING number

-- name: planned
-- How far ranges have been made, unless another process was faster. The row stays locked until the range is there.
UPDATE opensearch_indexing_verify_runs
SET planned_upto = %(upto)s, planned_all = %(all)s, seen_at = clock_timestamp()
WHERE id = %(run)s AND finished_at IS NULL AND state = 'rows' AND NOT planned_all
  AND planned_upto IS NOT DISTINCT FROM %(before)s::text[]
RETURNING id

-- name: renew
-- The process that has a range is still at it.
UPDATE opensearch_indexing_verify_ranges SET lease_until = clock_timestamp() + interval '1 minute'
WHERE run = %(run)s AND number = %(number)s AND owner = %(owner)s AND done_at IS NULL

-- name: add_slices
-- The index's ids in parts, for whoever takes them.
INSERT INTO opensearch_indexing_verify_ranges (run, number, slice, slices, owner, lease_until)
SELECT %(run)s, n.last + s.slice + 1, s.slice, %(slices)s, '', '-infinity'
FROM (SELECT coalesce(max(number), 0) AS last FROM opensearch_indexing_verify_ranges WHERE run = %(run)s) AS n,
     generate_series(0, %(slices)s - 1) AS s (slice)

-- name: range_done
-- A range is compared; counted once, whoever was first.
UPDATE opensearch_indexing_verify_ranges SET done_at = clock_timestamp(), checked = %(checked)s
WHERE run = %(run)s AND number = %(number)s AND done_at IS NULL
RETURNING number

-- name: open_ranges
-- Whether ranges are still to be made or compared.
SELECT NOT r.planned_all OR EXISTS (
    SELECT FROM opensearch_indexing_verify_ranges WHERE run = %(run)s AND done_at IS NULL)
FROM opensearch_indexing_verify_runs r WHERE r.id = %(run)s

-- name: checked
-- How many documents have been compared with their rows, or, of slices, how many ids were looked up.
SELECT coalesce(sum(checked), 0)::bigint FROM opensearch_indexing_verify_ranges
WHERE run = %(run)s AND (slice IS NOT NULL) = %(slices)s

-- name: found
-- Documents that differ.
INSERT INTO opensearch_indexing_verify_differences (run, document_id, kind, fields, foreign_version, unnameable, routing)
SELECT %(run)s, d.document_id, d.kind, ARRAY(SELECT jsonb_array_elements_text(d.fields::jsonb)), d.foreign_version, d.unnameable, d.routing
FROM unnest(%(ids)s::text[], %(kinds)s::text[], %(fields)s::text[], %(foreign)s::boolean[], %(unnameable)s::boolean[], %(routings)s::text[])
    AS d (document_id, kind, fields, foreign_version, unnameable, routing)

-- name: advance
-- The comparison's next part.
UPDATE opensearch_indexing_verify_runs SET state = %(to)s, owner = %(owner)s, seen_at = clock_timestamp()
WHERE id = %(run)s AND finished_at IS NULL AND state = %(of)s
RETURNING id

-- name: take_over
-- A part that one process alone does, whose process was not heard of.
UPDATE opensearch_indexing_verify_runs SET owner = %(owner)s, seen_at = clock_timestamp()
WHERE id = %(run)s AND finished_at IS NULL AND state = %(state)s
  AND (owner = %(owner)s OR seen_at < clock_timestamp() - interval '30 seconds' OR owner = ANY (%(gone)s))
RETURNING id

-- name: lagging
-- Documents that something waiting may still change, in order.
SELECT id, document_id FROM opensearch_indexing_verify_differences
WHERE run = %(run)s AND kind = 'lagging' AND id > %(after)s AND NOT unnameable ORDER BY id LIMIT %(limit)s

-- name: differing
-- Documents that differ, in order; those enqueued, or those that are not; where it is asked for without dead letters.
SELECT id, document_id, kind, routing FROM opensearch_indexing_verify_differences d
WHERE run = %(run)s AND kind IN ('missing', 'stale', 'orphan') AND enqueued = %(enqueued)s AND id > %(after)s AND NOT unnameable
  AND (NOT %(but_dead)s OR NOT EXISTS (SELECT FROM opensearch_indexing_dlq l
                                       WHERE l.index_name = %(index)s AND coalesce(l.whole_id, l.document_id) = d.document_id))
ORDER BY id LIMIT %(limit)s

-- name: judged
-- What a second look says of documents; those that agree go.
WITH judged AS (
    SELECT * FROM jsonb_to_recordset(%(judged)s::jsonb) AS d (id bigint, kind text, fields jsonb, foreign_version boolean)
), equal AS (
    DELETE FROM opensearch_indexing_verify_differences d USING judged j WHERE d.id = j.id AND j.kind IS NULL
)
UPDATE opensearch_indexing_verify_differences d
SET kind = j.kind, fields = ARRAY(SELECT jsonb_array_elements_text(j.fields)), foreign_version = j.foreign_version
FROM judged j WHERE d.id = j.id AND j.kind IS NOT NULL

-- name: enqueued
-- What was enqueued to be written again.
UPDATE opensearch_indexing_verify_differences SET enqueued = true WHERE run = %(run)s AND id = ANY (%(ids)s)

-- name: counts
-- What was found, by kind: how much of it somebody else wrote, was enqueued, is dead letters, is neither of the last two.
SELECT d.kind, count(*), count(*) FILTER (WHERE d.foreign_version), count(*) FILTER (WHERE d.enqueued),
       count(*) FILTER (WHERE d.dead), count(*) FILTER (WHERE NOT d.enqueued AND NOT d.dead)
FROM (
    SELECT v.*, EXISTS (SELECT FROM opensearch_indexing_dlq l
                        WHERE l.index_name = %(index)s AND coalesce(l.whole_id, l.document_id) = v.document_id) AS dead
    FROM opensearch_indexing_verify_differences v WHERE v.run = %(run)s) AS d
GROUP BY d.kind

-- name: examples
-- The first of those that differ, of each kind.
SELECT document_id, kind, fields, routing FROM (
    SELECT d.*, row_number() OVER (PARTITION BY d.kind ORDER BY d.id) AS place
    FROM opensearch_indexing_verify_differences d WHERE d.run = %(run)s AND d.kind <> 'lagging') AS d
ORDER BY d.place, d.kind LIMIT %(limit)s

-- name: finish
-- The comparison has ended.
UPDATE opensearch_indexing_verify_runs
SET state = 'finished', finished_at = clock_timestamp(), seen_at = clock_timestamp(), result = %(result)s
WHERE id = %(run)s AND finished_at IS NULL
RETURNING id

-- name: tidy
-- Ranges and findings of comparisons that are over, and all but the last hundred of them; a few examples stay.
WITH over AS (
    SELECT id, row_number() OVER (ORDER BY id DESC) AS age FROM opensearch_indexing_verify_runs
    WHERE index_name = %(index)s AND finished_at IS NOT NULL
), ranges AS (
    DELETE FROM opensearch_indexing_verify_ranges r USING over WHERE r.run = over.id
), differences AS (
    DELETE FROM opensearch_indexing_verify_differences d USING over WHERE d.run = over.id
)
DELETE FROM opensearch_indexing_verify_runs r USING over WHERE r.id = over.id AND over.age > 100

-- name: open_for
-- Whether anything waits that may change any document; and which of some documents have a task that is due, or in flight.
SELECT EXISTS (SELECT FROM opensearch_indexing_queue q WHERE q.index_name = %(index)s AND q.kind <> 'document'
               AND (q.available_at <= clock_timestamp() OR q.attempts > 0 OR q.last_error IS NOT NULL))
    OR EXISTS (SELECT FROM opensearch_indexing_inflight f WHERE f.index_name = %(index)s AND f.kind <> 'document'),
       ARRAY(
           SELECT w.id FROM unnest(%(ids)s::text[]) AS w (id)
           WHERE EXISTS (SELECT FROM opensearch_indexing_queue q WHERE q.index_name = %(index)s AND q.document_id = w.id
                         AND (q.available_at <= clock_timestamp() OR q.attempts > 0 OR q.last_error IS NOT NULL))
              OR EXISTS (SELECT FROM opensearch_indexing_inflight f, unnest(f.document_ids) AS held (id)
                         WHERE f.index_name = %(index)s AND held.id = w.id))

-- name: first_token
-- The first token that a generation's own build was written under.
SELECT min(c.token) FROM opensearch_indexing_reindex_chunks c JOIN opensearch_indexing_reindex_runs r ON r.id = c.run
WHERE r.generation = %(generation)s

-- name: dead_among
-- Which of some documents are dead letters.
SELECT DISTINCT coalesce(l.whole_id, l.document_id) FROM opensearch_indexing_dlq l
WHERE l.index_name = %(index)s AND coalesce(l.whole_id, l.document_id) = ANY (%(ids)s)

-- name: since_scrub
-- How many seconds ago the last scrub of a generation that came to its end began.
SELECT extract(epoch FROM clock_timestamp() - max(started_at))::float8 FROM opensearch_indexing_verify_runs
WHERE index_name = %(index)s AND generation = %(generation)s AND scrub AND state = 'finished'

-- name: progress
-- How far an unfinished comparison is: its seconds, its part, rows compared and ids looked up.
SELECT extract(epoch FROM clock_timestamp() - r.started_at)::float8, r.state,
       coalesce(sum(g.checked) FILTER (WHERE g.slice IS NULL), 0)::bigint, coalesce(sum(g.checked) FILTER (WHERE g.slice IS NOT NULL), 0)::bigint
FROM opensearch_indexing_verify_runs r LEFT JOIN opensearch_indexing_verify_ranges g ON g.run = r.id
WHERE r.id = %(run)s AND r.finished_at IS NULL
GROUP BY r.id

-- name: silent_owners
-- Processes that have ranges of a comparison, or its last part, and are workers that were not heard of.
SELECT o.owner FROM (
    SELECT owner FROM opensearch_indexing_verify_ranges WHERE run = %(run)s AND done_at IS NULL AND owner <> ''
    UNION
    SELECT owner FROM opensearch_indexing_verify_runs WHERE id = %(run)s) AS o
WHERE o.owner <> %(owner)s AND NOT EXISTS (
    SELECT FROM opensearch_indexing_workers w
    WHERE w.id = o.owner AND w.seen_at > clock_timestamp() - make_interval(secs => %(alive)s))
