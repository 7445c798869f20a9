-- Nobody runs code as idxctl's owner: no function is for PUBLIC, none resolves a name where others may create one, and the
-- one that fills in dead letters does so on their table alone.
-- Old workers: survive. They call the same functions; a role that is not the owner's needs the rights that idxctl grants
-- prints. Locks: none that anything waits for. Safe to run again and on two hosts at once.

DO $own$
DECLARE
    place  text := pg_catalog.current_setting('search_path');
    schema name := pg_catalog.current_schema();
    item   record;
BEGIN
    -- From here on, nothing of ours resolves in a schema where somebody may have created a better match.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION @ours@.opensearch_indexing_enqueue(
    index text, document_id text, action text DEFAULT 'index', priority integer DEFAULT 0,
    available_at timestamptz DEFAULT now()
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF index IS NULL OR index = '' OR document_id IS NULL OR document_id = '' THEN
        RAISE EXCEPTION 'opensearch_indexing_enqueue: % must not be empty', CASE WHEN coalesce(index, '') = '' THEN 'index' ELSE 'document_id' END
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF action IS NULL OR action NOT IN ('index', 'delete') THEN
        RAISE EXCEPTION 'opensearch_indexing_enqueue: action is %, wanted index or delete', coalesce(quote_literal(action), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- now() is the transaction's start: a default that lies before rows already claimed would sit below the claims' floor
    INSERT INTO @ours@.opensearch_indexing_queue (index_name, document_id, action, priority, available_at, origin)
    VALUES (index, document_id, action, CASE WHEN priority > 0 THEN 1 WHEN priority < 0 THEN -1 ELSE 0 END,
            CASE WHEN available_at IS NULL OR available_at <= clock_timestamp() THEN clock_timestamp() ELSE available_at END, 'api');
END $body$ $function$, '@ours@', quote_ident(schema));

    -- T4: names this sequence in this run of this server; the sequence by its number, as before.
    EXECUTE replace(replace($function$
CREATE OR REPLACE FUNCTION @ours@.opensearch_indexing_server() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT concat_ws(' ', (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
                     (SELECT oid FROM pg_database WHERE datname = current_database()),
                     @token@::regclass::oid)
$body$ $function$, '@token@', quote_literal(quote_ident(schema) || '.opensearch_indexing_token')), '@ours@', quote_ident(schema));

    -- T4: moves the token sequence forward, never back. ALTER SEQUENCE blocks nextval until the commit, setval does not.
    -- The first jump that a run of the server sees goes to the clock at least: how far the sequence had come before is not known.
    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION @ours@.opensearch_indexing_advance_token(past bigint, why text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    last     bigint;
    sequence oid;
    clock    bigint := extract(epoch FROM clock_timestamp()) * 1000000;
    here     text := @ours@.opensearch_indexing_server();
BEGIN
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
    INSERT INTO @ours@.opensearch_indexing_token_jumps (jumped_from, jumped_to, reason, server) VALUES (last, past + 1, why, here);
    RETURN past + 1;
END $body$ $function$, '@ours@', quote_ident(schema));

    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION @ours@.opensearch_indexing_dlq_group(error text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT left(md5(
        regexp_replace(regexp_replace(coalesce(error, ''), '"[^"]*"|''[^'']*''|\[[^][]*\]', '?', 'g'), '[0-9]+', '0', 'g')), 6)
$body$ $function$, '@ours@', quote_ident(schema));

    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION @ours@.opensearch_indexing_dlq_number(document_id text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT CASE WHEN document_id ~ '^(0|-?[1-9][0-9]{0,18})$' THEN
        CASE WHEN document_id::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 THEN document_id::bigint END
    END
$body$ $function$, '@ours@', quote_ident(schema));

    -- It has its owner's rights because the program that writes a letter has none on the settings. So it looks at no value of
    -- the row before it knows the table: a column of a stranger's type would run the stranger's cast.
    EXECUTE replace(replace($function$
CREATE OR REPLACE FUNCTION @ours@.opensearch_indexing_dlq_fill() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF TG_TABLE_SCHEMA <> @schema@ OR TG_TABLE_NAME <> 'opensearch_indexing_dlq' THEN
        RAISE EXCEPTION '% is for the table of dead letters alone, not for %.%', 'opensearch_indexing_dlq_fill', TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.index_name IS NULL OR NEW.document_id IS NULL THEN
        NEW.document_id := coalesce(NEW.document_id, NEW.listing_id::text);
        IF NEW.index_name IS NULL THEN
            SELECT value INTO NEW.index_name FROM @ours@.opensearch_indexing_settings WHERE name = 'default_index';
            IF NEW.index_name IS NULL THEN
                RAISE EXCEPTION 'opensearch_indexing_dlq: index_name is not given, and idxctl was not told which index the older program''s letters belong to'
                    USING ERRCODE = 'not_null_violation', HINT = 'idxctl migrate up --adopt-index NAME';
            END IF;
        END IF;
        NEW.action := CASE WHEN lower(btrim(NEW.action)) = 'delete' THEN 'delete' ELSE 'index' END;
        NEW.attempts := coalesce(NEW.attempts, 0);
        NEW.created_at := coalesce(NEW.created_at, now());
        NEW.last_attempt_at := coalesce(NEW.last_attempt_at, now());
        NEW.error_type := 'legacy';
        NEW.origin := 'legacy';
        -- Where the older table had lost its constraint, its program inserts letter after letter: the newest counts.
        IF TG_OP = 'INSERT' AND EXISTS (SELECT FROM @ours@.opensearch_indexing_settings WHERE name = 'dlq_adopted' AND value = 'duplicates') THEN
            UPDATE @ours@.opensearch_indexing_dlq d SET duplicate = true
            WHERE d.index_name = NEW.index_name AND d.document_id = NEW.document_id AND d.action = NEW.action AND NOT d.duplicate;
        END IF;
    END IF;
    NEW.listing_id := @ours@.opensearch_indexing_dlq_number(NEW.document_id);
    IF EXISTS (SELECT FROM @ours@.opensearch_indexing_settings WHERE name = 'dlq_listings' AND value <> NEW.index_name) THEN
        NEW.listing_id := NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN                         -- another error under the same token is not of ours
        IF NEW.last_error IS DISTINCT FROM OLD.last_error AND NEW.token = OLD.token AND NEW.fingerprint = OLD.fingerprint THEN
            NEW.error_type := 'legacy';
            NEW.fingerprint := '';
        END IF;
    END IF;
    IF NEW.fingerprint = '' THEN
        NEW.fingerprint := @ours@.opensearch_indexing_dlq_group(NEW.last_error);
    END IF;
    RETURN NEW;
END $body$ $function$, '@ours@', quote_ident(schema)), '@schema@', quote_literal(schema));

    EXECUTE replace($function$
CREATE OR REPLACE FUNCTION @ours@.opensearch_indexing_dlq_unique_listings() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF NOT EXISTS (SELECT FROM @ours@.opensearch_indexing_settings WHERE name = 'dlq_adopted' AND value = 'unique')
        OR EXISTS (SELECT FROM @ours@.opensearch_indexing_settings WHERE name = 'dlq_listings') THEN
        RETURN NULL;
    END IF;
    LOCK TABLE @ours@.opensearch_indexing_dlq IN ACCESS EXCLUSIVE MODE;
    INSERT INTO @ours@.opensearch_indexing_settings (name, value) VALUES ('dlq_listings', NEW.value);
    UPDATE @ours@.opensearch_indexing_dlq SET listing_id = NULL WHERE listing_id IS NOT NULL AND index_name <> NEW.value;
    SET CONSTRAINTS ALL IMMEDIATE;                   -- pending events of the update would stop what follows
    ALTER TABLE @ours@.opensearch_indexing_dlq ADD CONSTRAINT opensearch_indexing_dlq_listing_id_action_key UNIQUE (listing_id, action);
    RETURN NULL;
END $body$ $function$, '@ours@', quote_ident(schema));

    -- Who already could cause tasks, by writing a table that is watched, goes on enqueuing without a word from us; others are
    -- granted it: idxctl grants. A worker that is not the owner's could move the sequence: it may ask for its name too.
    FOR item IN EXECUTE format(
        'SELECT DISTINCT a.grantee::regrole AS role FROM %1$I.opensearch_indexing_watches w '
        'JOIN pg_namespace n ON n.nspname = w.table_schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.table_name '
        'CROSS JOIN aclexplode(coalesce(c.relacl, acldefault(''r'', c.relowner))) AS a '
        'WHERE w.removed_at IS NULL AND a.grantee <> 0 AND a.privilege_type IN (''INSERT'', ''UPDATE'', ''DELETE'')', schema)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I.opensearch_indexing_enqueue(text, text, text, integer, timestamptz) TO %s', schema, item.role);
    END LOOP;
    FOR item IN
        SELECT DISTINCT a.grantee::regrole AS role FROM pg_proc p
        JOIN pg_namespace n ON n.oid = p.pronamespace
        CROSS JOIN aclexplode(p.proacl) AS a
        WHERE n.nspname = schema AND p.proname = 'opensearch_indexing_advance_token' AND a.grantee <> 0
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I.opensearch_indexing_server() TO %s', schema, item.role);
    END LOOP;

    -- Also those that an earlier release's triggers call: nobody else is to make a trigger of them.
    FOR item IN
        SELECT p.oid::regprocedure AS function FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = schema AND starts_with(p.proname::text, 'opensearch_indexing_') AND pg_has_role(p.proowner, 'USAGE')
        AND p.prokind IN ('f', 'p')
    LOOP
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', item.function);
    END LOOP;

    PERFORM set_config('search_path', place, true);
END $own$;
