-- Capture knows of two more ways in which others make its queue refuse a task: an index over long values, a column stored plain.
-- Old workers: survive. Locks: none that anything waits for. Safe to run again and on two hosts at once.

DO $look$
DECLARE
    place  text := pg_catalog.current_setting('search_path');
    schema name := pg_catalog.current_schema();
BEGIN
    -- From here on, nothing of ours resolves in a schema where somebody may have created a better match.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

    -- As in 000006, with two more looks: whether an INSERT of a task can be refused by what was put on the queue since: constraints, triggers, rules, columns.
    -- Each session asks once, in its first write: so it looks at flags and names, and prints no expression.
    EXECUTE replace(replace($function$
CREATE OR REPLACE FUNCTION @ours@.opensearch_indexing_queue_look() RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    queue oid := @queue@::regclass;
    flags record;
BEGIN
    SELECT c.relkind, c.relispartition, c.relrowsecurity, c.relforcerowsecurity, c.relhastriggers, c.relhasrules, c.relchecks
    INTO flags FROM pg_class c WHERE c.oid = queue;
    IF flags.relkind <> 'r' OR flags.relispartition OR flags.relforcerowsecurity OR NOT has_table_privilege(queue, 'INSERT')
        OR (flags.relrowsecurity AND row_security_active(queue)) THEN
        RETURN false;
    END IF;
    IF flags.relhastriggers THEN
        IF EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = queue) THEN RETURN false; END IF;
    END IF;
    IF flags.relhasrules THEN
        IF EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = queue) THEN RETURN false; END IF;
    END IF;
    IF flags.relchecks > 0 AND EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = queue AND k.contype <> 'n' AND k.conname NOT IN (
        'opensearch_indexing_queue_action_check', 'opensearch_indexing_queue_kind_check',
        'opensearch_indexing_queue_priority_check', 'opensearch_indexing_queue_check')) THEN
        RETURN false;
    END IF;
    IF EXISTS (SELECT FROM pg_index i WHERE i.indrelid = queue
               AND (i.indisunique OR i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)) THEN
        RETURN false;
    END IF;
    -- An index over what may be long refuses it: "index row size exceeds maximum". Hash and GIN (405, 2742) hold no whole values.
    IF EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
               JOIN pg_attribute a ON a.attrelid = queue AND a.attnum = ANY (i.indkey)
               WHERE i.indrelid = queue AND a.attname IN ('document_id', 'payload') AND x.relam NOT IN (405, 2742)) THEN
        RETURN false;
    END IF;
    -- As does a row that may not be stored out of line.
    IF EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = queue AND a.attname IN ('document_id', 'payload') AND a.attstorage = 'p') THEN
        RETURN false;
    END IF;
    -- Ours by type and by what is filled in; of others none that asks for a value or makes one.
    RETURN 13 = (SELECT sum(CASE
            WHEN a.attname = 'id' THEN CASE WHEN a.atttypid = 20 AND a.attidentity = 'a' THEN 1 ELSE 100 END
            WHEN a.attname IN ('document_id', 'last_error') THEN CASE WHEN a.atttypid = 25 AND NOT a.attnotnull AND NOT a.atthasdef THEN 1 ELSE 100 END
            WHEN a.attname = 'payload' THEN CASE WHEN a.atttypid = 3802 AND NOT a.attnotnull AND NOT a.atthasdef THEN 1 ELSE 100 END
            WHEN a.attname = 'split_group' THEN CASE WHEN a.atttypid = 20 AND NOT a.attnotnull AND NOT a.atthasdef THEN 1 ELSE 100 END
            WHEN a.attname IN ('index_name', 'origin') THEN CASE WHEN a.atttypid = 25 THEN 1 ELSE 100 END
            WHEN a.attname IN ('action', 'kind') THEN CASE WHEN a.atttypid = 25 AND a.atthasdef THEN 1 ELSE 100 END
            WHEN a.attname = 'priority' THEN CASE WHEN a.atttypid = 21 THEN 1 ELSE 100 END
            WHEN a.attname = 'attempts' THEN CASE WHEN a.atttypid = 23 AND a.atthasdef THEN 1 ELSE 100 END
            WHEN a.attname IN ('available_at', 'enqueued_at') THEN CASE WHEN a.atttypid = 1184 AND a.atthasdef THEN 1 ELSE 100 END
            WHEN a.attnotnull OR a.atthasdef OR a.atttypid >= 16384 THEN 100
            ELSE 0 END)
        FROM pg_attribute a WHERE a.attrelid = queue AND a.attnum > 0 AND NOT a.attisdropped);
END $body$ $function$, '@ours@', quote_ident(schema)), '@queue@', quote_literal(quote_ident(schema) || '.opensearch_indexing_queue'));
    PERFORM set_config('search_path', place, true);
END $look$;
