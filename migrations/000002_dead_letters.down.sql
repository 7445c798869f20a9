-- Takes the dead letter table away; one that was adopted goes back to the older shape, with the letters that fit it: those
-- of the index it was adopted for, whose document is a number of four bytes; without such an index the newest of a number.
-- Loses: opensearch_indexing_dlq (dead letters)

DROP TRIGGER IF EXISTS opensearch_indexing_dlq_letter ON opensearch_indexing_dlq;
DROP FUNCTION IF EXISTS opensearch_indexing_dlq_fill();
DROP TRIGGER IF EXISTS opensearch_indexing_dlq_unique_listings ON opensearch_indexing_settings;
DROP FUNCTION IF EXISTS opensearch_indexing_dlq_unique_listings();
DROP FUNCTION IF EXISTS opensearch_indexing_dlq_group(text);
DROP FUNCTION IF EXISTS opensearch_indexing_dlq_number(text);

DO $restore$
DECLARE
    adopted text := (SELECT value FROM opensearch_indexing_settings WHERE name = 'dlq_adopted');
    added   text := (SELECT value FROM opensearch_indexing_settings WHERE name = 'dlq_added');
    ids     text := pg_get_serial_sequence(format('%I.opensearch_indexing_dlq', current_schema()), 'id');
    item    text;
    newest  bigint;
BEGIN
    IF adopted IS NULL THEN
        DROP TABLE opensearch_indexing_dlq;
    ELSE
        DELETE FROM opensearch_indexing_dlq d
        WHERE index_name <> coalesce((SELECT value FROM opensearch_indexing_settings WHERE name = 'default_index'), index_name)
        OR listing_id IS NULL OR listing_id NOT BETWEEN -2147483648 AND 2147483647
        OR adopted = 'unique' AND EXISTS (
            SELECT FROM opensearch_indexing_dlq n
            WHERE n.listing_id = d.listing_id AND n.action = d.action AND (n.last_attempt_at, n.id) > (d.last_attempt_at, d.id));
        ALTER TABLE opensearch_indexing_dlq DROP CONSTRAINT IF EXISTS opensearch_indexing_dlq_listing_id_action_key;
        DROP INDEX IF EXISTS opensearch_indexing_dlq_letter, opensearch_indexing_dlq_document,
            opensearch_indexing_dlq_attempted, opensearch_indexing_dlq_fingerprint;
        FOREACH item IN ARRAY string_to_array(added, ',') LOOP
            EXECUTE format('ALTER TABLE opensearch_indexing_dlq DROP COLUMN %I', item);
        END LOOP;
        ALTER TABLE opensearch_indexing_dlq
            ALTER COLUMN listing_id TYPE integer, ALTER COLUMN listing_id SET NOT NULL,
            ALTER COLUMN attempts DROP NOT NULL,
            ALTER COLUMN created_at DROP NOT NULL, ALTER COLUMN last_attempt_at DROP NOT NULL,
            ALTER COLUMN created_at TYPE timestamp, ALTER COLUMN last_attempt_at TYPE timestamp;  -- in the session's time zone
        EXECUTE format('SELECT greatest((SELECT max(id) FROM opensearch_indexing_dlq), last_value) FROM %s', ids) INTO newest;
        IF newest < 2147483647 THEN
            ALTER TABLE opensearch_indexing_dlq ALTER COLUMN id TYPE integer;
            EXECUTE format('ALTER SEQUENCE %s AS integer', ids);
        END IF;
        IF adopted = 'unique' THEN
            ALTER TABLE opensearch_indexing_dlq ADD UNIQUE (listing_id, action);
        END IF;
    END IF;
    DELETE FROM opensearch_indexing_settings WHERE name IN ('dlq_adopted', 'dlq_added', 'dlq_adopted_letters', 'dlq_listings', 'default_index');
END $restore$;
