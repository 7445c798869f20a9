-- Our tables stay ours: no other role's trigger or foreign key is on them, and capture knows whether its queue is as it was made.
-- Old workers: survive. Locks: none that anything waits for. Safe to run again and on two hosts at once.

DO $made$
DECLARE
    place  text := pg_catalog.current_setting('search_path');
    schema name := pg_catalog.current_schema();
    item   record;
BEGIN
    -- From here on, nothing of ours resolves in a schema where somebody may have created a better match.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

    -- GRANT ALL ON ALL TABLES and default privileges give TRIGGER too: a trigger on the queue runs with the rights of our
    -- capture functions' owner, whoever wrote it. No program needs it, of this release or of one before.
    FOR item IN
        SELECT DISTINCT c.oid::regclass AS relation, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN aclexplode(c.relacl) AS a
        WHERE n.nspname = schema AND c.relkind IN ('r', 'p') AND starts_with(c.relname::text, 'opensearch_indexing_')
          AND a.grantee <> c.relowner AND a.privilege_type IN ('TRIGGER', 'REFERENCES') AND pg_has_role(c.relowner, 'USAGE')
    LOOP
        EXECUTE format('REVOKE TRIGGER, REFERENCES ON %s FROM %s', item.relation, item.role);
    END LOOP;

    -- Whether an INSERT of a task can be refused by what was put on the queue since: constraints, triggers, rules, columns.
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

    -- For capture alone. PostgreSQL asks it when it plans a statement over the queue, which it does again whenever the queue is
    -- altered, and then keeps the answer: a writer pays nothing. That is what IMMUTABLE says here; the look itself is VOLATILE,
    -- since a statement that waited for the alteration has a snapshot of before it.
    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION @ours@.opensearch_indexing_queue_as_made() RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$ SELECT @ours@.opensearch_indexing_queue_look() $body$
$function$, '@ours@', quote_ident(schema));
    EXECUTE format('REVOKE ALL ON FUNCTION %I.opensearch_indexing_queue_look() FROM PUBLIC', schema);
    EXECUTE format('REVOKE ALL ON FUNCTION %I.opensearch_indexing_queue_as_made() FROM PUBLIC', schema);

    -- T4, as in 000003, and no further than workers ever ask for: a sequence at its end draws no token, for ever.
    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION @ours@.opensearch_indexing_advance_token(past bigint, why text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    last     bigint;
    sequence oid;
    clock    bigint := extract(epoch FROM clock_timestamp()) * 1000000;
    here     text := @ours@.opensearch_indexing_server();
BEGIN
    IF past > 4611686018427387904 THEN
        RAISE EXCEPTION 'opensearch_indexing_advance_token: % is more than half of all tokens', past
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    LOCK TABLE @ours@.opensearch_indexing_token_jumps IN SHARE ROW EXCLUSIVE MODE;   -- one jump at a time
    -- Takes the sequence's lock before its value is read: no number is drawn in between.
    ALTER SEQUENCE @ours@.opensearch_indexing_token NO CYCLE;
    SELECT last_value, tableoid INTO last, sequence FROM @ours@.opensearch_indexing_token;
    IF here IS DISTINCT FROM (SELECT server FROM @ours@.opensearch_indexing_token_jumps ORDER BY id DESC LIMIT 1) THEN
        -- A sequence that runs ahead of the clock, after a foreign version: past what was drawn in a quarter of an hour.
        past := greatest(past, CASE WHEN clock > last THEN clock ELSE last + 1000000000 END);
    END IF;
    IF past < last THEN
        RETURN last;
    END IF;
    EXECUTE format('ALTER SEQUENCE %s RESTART WITH %s', sequence::regclass, past + 1);
    INSERT INTO @ours@.opensearch_indexing_token_jumps (jumped_from, jumped_to, reason, server) VALUES (last, past + 1, left(why, 1000), here);
    RETURN past + 1;
END $body$ $function$, '@ours@', quote_ident(schema));

    PERFORM set_config('search_path', place, true);
END $made$;
