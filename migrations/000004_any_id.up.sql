-- Ids of any length in the tables whose indexes hold them; a barrier whose lock needs a privilege; what enqueue refuses.
-- Old workers: survive. They write letters as before: what is too long for an index is shortened by the triggers below, which
-- they need not know of. Locks: each table ACCESS EXCLUSIVE for a moment; no row is rewritten. Safe to run again.

-- An index row holds 2,704 bytes at the most. A longer id stands in whole_id, and document_id has a name of 600 bytes that no
-- other id has: as long as no id is that stands there as it is.
ALTER TABLE opensearch_indexing_dlq ADD COLUMN IF NOT EXISTS whole_id text;
ALTER TABLE opensearch_indexing_generation_failures ADD COLUMN IF NOT EXISTS whole_id text;

-- A batch in flight that could not be taken back, and why.
ALTER TABLE opensearch_indexing_inflight ADD COLUMN IF NOT EXISTS trouble text;

CREATE OR REPLACE FUNCTION opensearch_indexing_short_id() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NEW.whole_id := NEW.document_id;
    -- A database without an encoding has bytes, valid or not.
    NEW.document_id := pg_catalog.rpad(
        'sha256 ' OPERATOR(pg_catalog.||) pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(NEW.document_id,
            CASE pg_catalog.getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)), 'hex') OPERATOR(pg_catalog.||) ' ',
        600, '.');
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION opensearch_indexing_short_id() FROM PUBLIC;

-- After opensearch_indexing_dlq_letter, by its name: that one fills in an older program's document_id.
DROP TRIGGER IF EXISTS opensearch_indexing_short_id ON opensearch_indexing_dlq;
CREATE TRIGGER opensearch_indexing_short_id BEFORE INSERT OR UPDATE OF document_id ON opensearch_indexing_dlq
    FOR EACH ROW WHEN (octet_length(NEW.document_id) > 512 AND NEW.whole_id IS NULL) EXECUTE FUNCTION opensearch_indexing_short_id();
DROP TRIGGER IF EXISTS opensearch_indexing_short_id ON opensearch_indexing_generation_failures;
CREATE TRIGGER opensearch_indexing_short_id BEFORE INSERT OR UPDATE OF document_id ON opensearch_indexing_generation_failures
    FOR EACH ROW WHEN (octet_length(NEW.document_id) > 512 AND NEW.whole_id IS NULL) EXECUTE FUNCTION opensearch_indexing_short_id();

-- G2: the lock that claims share and a change of the set of generations has alone. It has no rows; locking it takes a right
-- on it, where an advisory lock takes none.
CREATE TABLE IF NOT EXISTS opensearch_indexing_barrier (nothing boolean);

-- For applications in any language, inside their own transaction; a statement may call it over many rows.
CREATE OR REPLACE FUNCTION opensearch_indexing_enqueue(
    index text, document_id text, action text DEFAULT 'index', priority integer DEFAULT 0,
    available_at timestamptz DEFAULT now()
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    moment timestamptz := pg_catalog.clock_timestamp();
BEGIN
    IF index IS NULL OR index = '' OR document_id IS NULL OR document_id = '' THEN
        RAISE EXCEPTION 'opensearch_indexing_enqueue: % must not be empty', CASE WHEN coalesce(index, '') = '' THEN 'index' ELSE 'document_id' END
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF action IS NULL OR action NOT IN ('index', 'delete') THEN
        RAISE EXCEPTION 'opensearch_indexing_enqueue: action is %, wanted index or delete',
            coalesce(pg_catalog.quote_literal(pg_catalog.left(action, 40)), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF pg_catalog.octet_length(document_id) > 512 THEN
        RAISE EXCEPTION 'opensearch_indexing_enqueue: document_id has % bytes, OpenSearch takes 512 at the most', pg_catalog.octet_length(document_id)
            USING ERRCODE = 'string_data_right_truncation', DETAIL = 'It begins with ' || pg_catalog.quote_literal(pg_catalog.left(document_id, 40));
    END IF;
    IF pg_catalog.octet_length(index) > 255 THEN
        RAISE EXCEPTION 'opensearch_indexing_enqueue: index has % bytes, the name of one has 255 at the most', pg_catalog.octet_length(index)
            USING ERRCODE = 'string_data_right_truncation';
    END IF;
    IF available_at > moment THEN
        -- Beyond a year it is a mistake in most programs, and never comes in the others.
        IF available_at > moment + interval '1 year' THEN
            RAISE EXCEPTION 'opensearch_indexing_enqueue: available_at is %, wanted a moment within a year', available_at
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        moment := available_at;
    END IF;
    -- now() is the transaction's start: a default that lies before rows already claimed would sit below the claims' floor
    INSERT INTO opensearch_indexing_queue (index_name, document_id, action, priority, available_at, origin)
    VALUES (index, document_id, action, pg_catalog.sign(coalesce(priority, 0)::pg_catalog.float8)::pg_catalog.int2, moment, 'api');
END $$;
