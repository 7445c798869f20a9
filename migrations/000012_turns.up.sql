-- A rollback that is about to be made is noted with the generation that it brings back (G4).
-- Old workers: survive, they know nothing of it; but one of them may retire, at the end of its keep period, a standby that is
-- just being brought back. Locks: of the generations, ACCESS EXCLUSIVE for a moment. Safe to run again and on two hosts at once.

ALTER TABLE opensearch_indexing_generations ADD COLUMN IF NOT EXISTS intent jsonb;  -- {verb, from, keep_seconds, at}
