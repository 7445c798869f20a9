-- Triggers of this release go on without: the function's absence is an unknown answer to them, and they guard each INSERT.
-- TRIGGER and REFERENCES on our tables stay with their owner.

DROP FUNCTION IF EXISTS opensearch_indexing_queue_as_made();
DROP FUNCTION IF EXISTS opensearch_indexing_queue_look();
