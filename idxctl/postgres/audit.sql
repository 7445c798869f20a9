-- name: record
-- An operator did something.
INSERT INTO opensearch_indexing_audit (actor, action, subject, detail)
VALUES (%(actor)s, %(action)s, %(subject)s, %(detail)s::jsonb);

-- name: recent
-- The latest actions, newest first.
SELECT id, at, actor, action, subject, detail FROM opensearch_indexing_audit ORDER BY id DESC LIMIT %(limit)s;
