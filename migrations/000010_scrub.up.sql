-- Comparisons that begin again for ever stand beside those that somebody runs; the ids of an index are looked up in parts that
-- are rows too; and a copy of a document under another routing is kept with that routing.
-- Old workers: survive, they know nothing of it; `idxctl verify` of a program before this one ends with an error until it is
-- upgraded. Locks: of the comparisons' own tables, for a moment. Safe to run again and on two hosts at once.

ALTER TABLE opensearch_indexing_verify_runs ADD COLUMN IF NOT EXISTS scrub boolean NOT NULL DEFAULT false;
ALTER TABLE opensearch_indexing_verify_ranges ADD COLUMN IF NOT EXISTS slice integer;   -- of the index's ids, from 0; NULL: a range of keys
ALTER TABLE opensearch_indexing_verify_ranges ADD COLUMN IF NOT EXISTS slices integer;  -- of so many
ALTER TABLE opensearch_indexing_verify_differences ADD COLUMN IF NOT EXISTS routing text;  -- of a copy that stands under another one

CREATE UNIQUE INDEX IF NOT EXISTS opensearch_indexing_verify_runs_open_by_kind
    ON opensearch_indexing_verify_runs (index_name, scrub) WHERE finished_at IS NULL;
DROP INDEX IF EXISTS opensearch_indexing_verify_runs_open;
