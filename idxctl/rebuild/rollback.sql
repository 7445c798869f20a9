-- name: letters_to_failures
-- T5: what the live generation lacks stands in letters as long as it is live; once it is standby, it is noted against it, so that
-- no success of the next one lets it be forgotten.
INSERT INTO opensearch_indexing_generation_failures AS f (
    generation, document_id, whole_id, action, token, error_type, fingerprint, last_error, failed_at)
SELECT DISTINCT ON (l.document_id) %(generation)s, l.document_id, l.whole_id, l.action, coalesce(l.token, 0),
       coalesce(l.error_type, 'unknown'), coalesce(l.fingerprint, ''), coalesce(l.last_error, ''), l.last_attempt_at
FROM opensearch_indexing_dlq l
WHERE l.index_name = %(index)s AND NOT l.duplicate AND l.document_id IS NOT NULL
ORDER BY l.document_id, l.token DESC NULLS LAST
ON CONFLICT (generation, document_id) DO UPDATE SET
    action = excluded.action, token = excluded.token, error_type = excluded.error_type, fingerprint = excluded.fingerprint,
    last_error = excluded.last_error, failed_at = excluded.failed_at
WHERE f.token <= excluded.token

-- name: lacks
-- What a standby lacks and the live generation has: writes that it missed, and refused. A document with a letter is in neither.
SELECT count(*) FILTER (WHERE f.error_type = 'missed_write'), count(*) FILTER (WHERE f.error_type <> 'missed_write')
FROM opensearch_indexing_generation_failures f
WHERE f.generation = %(generation)s
  AND NOT EXISTS (SELECT FROM opensearch_indexing_dlq d WHERE d.index_name = %(index)s AND d.document_id = f.document_id)

-- name: lacks_which
-- The same, the latest of them.
SELECT coalesce(f.whole_id, f.document_id), f.error_type, f.last_error
FROM opensearch_indexing_generation_failures f
WHERE f.generation = %(generation)s
  AND NOT EXISTS (SELECT FROM opensearch_indexing_dlq d WHERE d.index_name = %(index)s AND d.document_id = f.document_id)
ORDER BY f.failed_at DESC, f.document_id LIMIT %(most)s

-- name: intend
-- G4: the act about to be made.
UPDATE opensearch_indexing_generations SET intent = %(intent)s WHERE id = %(id)s AND state = 'standby' RETURNING id

-- name: intended
-- Standby generations that were to be brought back.
SELECT id, intent FROM opensearch_indexing_generations WHERE index_name = %(index)s AND state = 'standby' AND intent IS NOT NULL

-- name: forget_intent
-- It was made and recorded, or not made after all.
UPDATE opensearch_indexing_generations SET intent = NULL WHERE id = %(id)s

-- name: finish
-- A standby is kept no longer; one that is just being brought back is.
UPDATE opensearch_indexing_generations SET state = 'retired', retired_at = clock_timestamp(), standby_until = NULL
WHERE id = %(id)s AND state = 'standby' AND intent IS NULL
RETURNING id

-- name: standing_letters
-- Letters of an index, of documents that its live generation has not refused.
SELECT l.id, l.token, coalesce(l.whole_id, l.document_id) FROM opensearch_indexing_dlq l
WHERE l.index_name = %(index)s AND l.token IS NOT NULL AND l.document_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM opensearch_indexing_generation_failures f
                  WHERE f.generation = %(generation)s AND f.document_id = l.document_id)
ORDER BY l.id

-- name: heal_proved
-- T5: letters whose documents were found equal since; one that was written again has another token, and stays.
DELETE FROM opensearch_indexing_dlq d
WHERE d.id IN (
    SELECT l.id FROM opensearch_indexing_dlq l
    JOIN unnest(%(letters)s::bigint[], %(tokens)s::bigint[]) AS p (id, token) ON p.id = l.id AND p.token = l.token
    ORDER BY l.id FOR UPDATE OF l)
