-- Back to the audit of before: entries stay, without database user, address, channel, count and reason; who acted stays as
-- the program claimed it.

DROP TRIGGER IF EXISTS opensearch_indexing_dlq_truncated ON opensearch_indexing_dlq;
DROP FUNCTION IF EXISTS opensearch_indexing_dlq_truncated();
DROP FUNCTION IF EXISTS opensearch_indexing_waiting(text);
DROP FUNCTION IF EXISTS opensearch_indexing_gap_seen();
DROP FUNCTION IF EXISTS opensearch_indexing_audit_write(text, text, bigint, jsonb, text, text, text);
ALTER TABLE opensearch_indexing_audit
    ALTER COLUMN actor DROP DEFAULT,
    DROP COLUMN IF EXISTS database_user, DROP COLUMN IF EXISTS address, DROP COLUMN IF EXISTS operator,
    DROP COLUMN IF EXISTS channel, DROP COLUMN IF EXISTS count, DROP COLUMN IF EXISTS reason;
