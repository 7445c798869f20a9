-- A rollback that died half-way is then found by its alias alone.

ALTER TABLE opensearch_indexing_generations DROP COLUMN IF EXISTS intent;
