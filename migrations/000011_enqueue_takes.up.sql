-- An application that enqueues knows that its task is in the queue: what others put there and swallows it is an error to the caller.
-- Old workers: survive. Locks: none that anything waits for. Safe to run again and on two hosts at once.

DO $takes$
DECLARE
    place  text := pg_catalog.current_setting('search_path');
    schema name := pg_catalog.current_schema();
BEGIN
    -- From here on, nothing of ours resolves in a schema where somebody may have created a better match.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

    -- As in 000004, and the last check is new.
    EXECUTE replace(replace($function$
CREATE OR REPLACE FUNCTION @ours@.opensearch_indexing_enqueue(
    index text, document_id text, action text DEFAULT 'index', priority integer DEFAULT 0,
    available_at timestamptz DEFAULT now()
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    moment timestamptz := clock_timestamp();
    taken  bigint;
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
    GET DIAGNOSTICS taken = ROW_COUNT;
    -- Where a rule says INSTEAD, the count is of what went elsewhere.
    IF taken <> 1 OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = @queue@::regclass AND r.ev_type = '3' AND r.is_instead
                             AND r.ev_qual::text = '<>') THEN
        RAISE EXCEPTION 'opensearch_indexing_enqueue: the task of document % is not in the queue: a trigger or a rule on % swallows it',
            quote_literal(left(document_id, 40)), @queue@
            USING ERRCODE = 'triggered_action_exception', HINT = 'idxctl migrate status says what was put on the queue';
    END IF;
END $body$ $function$, '@ours@', quote_ident(schema)), '@queue@', quote_literal(quote_ident(schema) || '.opensearch_indexing_queue'));

    PERFORM set_config('search_path', place, true);
END $takes$;
