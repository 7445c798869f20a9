-- Ids of any length in the tables whose indexes hold them; a barrier whose lock needs a privilege; what enqueue refuses.
-- Old workers: survive. They write letters as before: what is too long for an index is shortened by the triggers below, which
-- they need not know of. Locks: each table ACCESS EXCLUSIVE for a moment; no row is rewritten. Safe to run again.

-- An index row holds 2,704 bytes at the most. A longer id stands in whole_id, and document_id has a name of 600 bytes that no
-- other id has: it is longer than any id that stands there as it is.
ALTER TABLE opensearch_indexing_dlq ADD COLUMN IF NOT EXISTS whole_id text;
ALTER TABLE opensearch_indexing_generation_failures ADD COLUMN IF NOT EXISTS whole_id text;

-- A batch in flight that could not be taken back, and why.
ALTER TABLE opensearch_indexing_inflight ADD COLUMN IF NOT EXISTS trouble text;

-- G2: the lock that claims share and a change of the set of generations has alone. It has no rows; locking it takes a right
-- on it, where an advisory lock takes none.
CREATE TABLE IF NOT EXISTS opensearch_indexing_barrier (nothing boolean);

DO $any_id$
DECLARE
    place  text := pg_catalog.current_setting('search_path');
    schema name := pg_catalog.current_schema();
    item   text;
BEGIN
    -- From here on, nothing of ours resolves in a schema where somebody may have created a better match.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION @ours@.opensearch_indexing_short_id() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    NEW.whole_id := NEW.document_id;
    -- A database without an encoding has bytes, valid or not.
    NEW.document_id := rpad('sha256 ' || encode(sha256(convert_to(NEW.document_id,
        CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)), 'hex') || ' ', 600, '.');
    RETURN NEW;
END $body$ $function$, '@ours@', quote_ident(schema));
    EXECUTE format('REVOKE ALL ON FUNCTION %I.opensearch_indexing_short_id() FROM PUBLIC', schema);

    -- By its name after opensearch_indexing_dlq_letter: that one fills in an older program's document_id.
    FOREACH item IN ARRAY ARRAY['opensearch_indexing_dlq', 'opensearch_indexing_generation_failures'] LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS opensearch_indexing_short_id ON %I.%I', schema, item);
        EXECUTE format('CREATE TRIGGER opensearch_indexing_short_id BEFORE INSERT OR UPDATE OF document_id ON %1$I.%2$I '
                       'FOR EACH ROW WHEN (octet_length(NEW.document_id) > 512 AND NEW.whole_id IS NULL) '
                       'EXECUTE FUNCTION %1$I.opensearch_indexing_short_id()', schema, item);
    END LOOP;

    -- For applications in any language, inside their own transaction; a statement may call it over many rows.
    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION @ours@.opensearch_indexing_enqueue(
    index text, document_id text, action text DEFAULT 'index', priority integer DEFAULT 0,
    available_at timestamptz DEFAULT now()
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    moment timestamptz := clock_timestamp();
BEGIN
    IF index IS NULL OR index = '' OR document_id IS NULL OR document_id = '' THEN
        RAISE EXCEPTION 'opensearch_indexing_enqueue: % must not be empty', CASE WHEN coalesce(index, '') = '' THEN 'index' ELSE 'document_id' END
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF action IS NULL OR action NOT IN ('index', 'delete') THEN
        RAISE EXCEPTION 'opensearch_indexing_enqueue: action is %, wanted index or delete', coalesce(quote_literal(left(action, 40)), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF octet_length(document_id) > 512 THEN
        RAISE EXCEPTION 'opensearch_indexing_enqueue: document_id has % bytes, OpenSearch takes 512 at the most', octet_length(document_id)
            USING ERRCODE = 'string_data_right_truncation', DETAIL = 'It begins with ' || quote_literal(left(document_id, 40));
    END IF;
    IF octet_length(index) > 255 THEN
        RAISE EXCEPTION 'opensearch_indexing_enqueue: index has % bytes, the name of one has 255 at the most', octet_length(index)
            USING ERRCODE = 'string_data_right_truncation';
    END IF;
    -- Only what lies ahead is kept: now() is the transaction's start, and before rows already claimed is below the claims' floor.
    IF available_at > moment THEN
        IF available_at > moment + interval '1 year' THEN    -- a mistake in most programs, and in the others it never comes
            RAISE EXCEPTION 'opensearch_indexing_enqueue: available_at is %, wanted a moment within a year', available_at
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        moment := available_at;
    END IF;
    INSERT INTO @ours@.opensearch_indexing_queue (index_name, document_id, action, priority, available_at, origin)
    VALUES (index, document_id, action, CASE WHEN priority > 0 THEN 1 WHEN priority < 0 THEN -1 ELSE 0 END, moment, 'api');
END $body$ $function$, '@ours@', quote_ident(schema));

    PERFORM set_config('search_path', place, true);
END $any_id$;
