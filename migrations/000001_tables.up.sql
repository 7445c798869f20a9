-- Tables, the token sequence and the SQL functions of idxctl.
-- Old workers: none before this one. Safe to run again and on two hosts at once (the runner holds a lock).
-- The runner sets search_path to the schema of idxctl; SET search_path FROM CURRENT pins it into each function.

-- Tokens -------------------------------------------------------------------------------------------------------------
-- CACHE 1: a session that kept a range of numbers would draw old tokens after newer ones (T1).
CREATE SEQUENCE IF NOT EXISTS opensearch_indexing_token AS bigint CACHE 1;

CREATE TABLE IF NOT EXISTS opensearch_indexing_token_jumps (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    jumped_from bigint NOT NULL,             -- the last token that may have been drawn before the jump
    jumped_to   bigint NOT NULL,             -- the first one after it
    reason      text NOT NULL,
    server      text NOT NULL,               -- the run of the server that it was made for: see opensearch_indexing_server
    jumped_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Settings that the database itself needs to know --------------------------------------------------------------------
CREATE TABLE IF NOT EXISTS opensearch_indexing_settings (
    name  text PRIMARY KEY,
    value text NOT NULL
);

-- The queue: append-only for writers ---------------------------------------------------------------------------------
CREATE TABLE IF NOT EXISTS opensearch_indexing_queue (
    id           bigint GENERATED ALWAYS AS IDENTITY,
    index_name   text NOT NULL,
    document_id  text,                       -- NULL for the kinds keys and sweep
    action       text NOT NULL DEFAULT 'index' CHECK (action IN ('index', 'delete')),
    kind         text NOT NULL DEFAULT 'document' CHECK (kind IN ('document', 'keys', 'sweep')),
    priority     smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN -1 AND 1),   -- low, normal, high
    attempts     integer NOT NULL DEFAULT 0,
    available_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    enqueued_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error   text,
    origin       text NOT NULL DEFAULT 'api',
    split_group  bigint,                     -- halves of a rescued batch are claimed apart
    payload      jsonb,                      -- keys: {"watch": id, "rows": [[...], ...]}; sweep: {"watch": id, ...}
    CHECK ((kind = 'document') = (document_id IS NOT NULL))
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
    autovacuum_vacuum_cost_delay = 0
);
-- Nothing identifies a row here but the row: under a publication FOR ALL TABLES a DELETE would be an error otherwise.
ALTER TABLE opensearch_indexing_queue REPLICA IDENTITY FULL;
-- The order of claims. The primary key is this index's business too: nothing looks a task up by its id alone.
CREATE INDEX IF NOT EXISTS opensearch_indexing_queue_claim
    ON opensearch_indexing_queue (index_name, priority, available_at, id);

-- Batches under a lease ----------------------------------------------------------------------------------------------
CREATE TABLE IF NOT EXISTS opensearch_indexing_inflight (
    token        bigint PRIMARY KEY,
    index_name   text NOT NULL,
    kind         text NOT NULL,
    worker       text NOT NULL,
    claimed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until  timestamptz NOT NULL,
    generations  bigint[] NOT NULL,          -- the active generations when it was claimed (G2)
    document_ids text[] NOT NULL,            -- the arrays run parallel, one element a task
    actions      text[] NOT NULL,
    priorities   smallint[] NOT NULL,
    attempts     integer[] NOT NULL,
    enqueued_at  timestamptz[] NOT NULL,
    origins      text[] NOT NULL,
    last_errors  text[] NOT NULL,
    payloads     jsonb[] NOT NULL
) WITH (
    fillfactor = 70,                         -- renewals stay on their page
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0
);

-- Generations --------------------------------------------------------------------------------------------------------
CREATE TABLE IF NOT EXISTS opensearch_indexing_generations (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    index_name    text NOT NULL,             -- the alias that clients query
    number        integer NOT NULL,          -- never used twice
    physical_name text NOT NULL,
    state         text NOT NULL CHECK (state IN ('building', 'live', 'standby', 'retired')),
    definition    jsonb NOT NULL,            -- document SQL, key, types, mapping, settings, render settings (G1)
    fingerprint   text NOT NULL,             -- of what rendering depends on
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    live_at       timestamptz,
    standby_until timestamptz,
    behind_since  timestamptz,               -- it refused or missed a write while it was not live
    retired_at    timestamptz,
    deleted_at    timestamptz,               -- when the physical index was seen gone (G3)
    UNIQUE (index_name, number)
);
CREATE UNIQUE INDEX IF NOT EXISTS opensearch_indexing_generations_live
    ON opensearch_indexing_generations (index_name) WHERE state = 'live';
CREATE UNIQUE INDEX IF NOT EXISTS opensearch_indexing_generations_building
    ON opensearch_indexing_generations (index_name) WHERE state = 'building';

-- Documents that a generation refused while it was not the live one; at the swap they become dead letters.
CREATE TABLE IF NOT EXISTS opensearch_indexing_generation_failures (
    generation  bigint NOT NULL REFERENCES opensearch_indexing_generations (id) ON DELETE CASCADE,
    document_id text NOT NULL,
    action      text NOT NULL,
    token       bigint NOT NULL,
    error_type  text NOT NULL,
    fingerprint text NOT NULL,
    last_error  text NOT NULL,
    failed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (generation, document_id)
);

-- Watches, as installed ----------------------------------------------------------------------------------------------
CREATE TABLE IF NOT EXISTS opensearch_indexing_watches (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    index_name   text NOT NULL,
    position     integer NOT NULL,           -- its place among the index's watches
    table_schema text NOT NULL,
    table_name   text NOT NULL,
    definition   jsonb NOT NULL,             -- key, key_sql, keys, columns, types, ignore, priority, deferred, at, search_path
    fingerprint  text NOT NULL,
    at_watermark timestamptz,                -- rows whose `at` column lies before it have been enqueued
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    removed_at   timestamptz                 -- kept while tasks may name it
);
CREATE UNIQUE INDEX IF NOT EXISTS opensearch_indexing_watches_place
    ON opensearch_indexing_watches (index_name, position) WHERE removed_at IS NULL;

-- Workers, pauses, audit ---------------------------------------------------------------------------------------------
CREATE TABLE IF NOT EXISTS opensearch_indexing_workers (
    id         text PRIMARY KEY,             -- host:pid:random
    host       text NOT NULL,
    pid        integer NOT NULL,
    version    text NOT NULL,
    state      text NOT NULL DEFAULT 'running',
    threads    integer NOT NULL,
    queue_size integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    indexes    text[],                       -- NULL: all
    counters   jsonb NOT NULL DEFAULT '{}',
    breaker    jsonb,
    -- Of the connection that its heartbeats come by: once the session is gone and no beat follows, so is the worker.
    session_pid   integer,                   -- NULL behind a pooler, whose sessions tell nothing
    session_start timestamptz
);

CREATE TABLE IF NOT EXISTS opensearch_indexing_pauses (
    index_name text NOT NULL,
    cause      text NOT NULL CHECK (cause IN ('operator', 'blocked')),
    reason     text NOT NULL,
    paused_by  text NOT NULL,
    paused_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    probe_at   timestamptz,                  -- NULL: until somebody resumes it
    probes     integer NOT NULL DEFAULT 0,
    PRIMARY KEY (index_name, cause)
);

CREATE TABLE IF NOT EXISTS opensearch_indexing_audit (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor   text NOT NULL,
    action  text NOT NULL,
    subject text NOT NULL,
    detail  jsonb NOT NULL DEFAULT '{}'
);

-- Reindex runs and their chunks --------------------------------------------------------------------------------------
CREATE TABLE IF NOT EXISTS opensearch_indexing_reindex_runs (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    index_name    text NOT NULL,
    generation    bigint REFERENCES opensearch_indexing_generations (id),   -- once its index was created
    previous      bigint REFERENCES opensearch_indexing_generations (id),
    phase         text NOT NULL CHECK (phase IN
                      ('planned', 'created', 'backfill', 'catch_up', 'check', 'restore', 'swap', 'done', 'failed', 'cancelled')),
    options       jsonb NOT NULL DEFAULT '{}',
    intent        jsonb,                     -- the act about to be made, written before it is made (G4)
    planned_until text,                      -- keys, as text: chunks are planned up to here
    planned_all   boolean NOT NULL DEFAULT false,
    documents     bigint NOT NULL DEFAULT 0,
    failed        bigint NOT NULL DEFAULT 0,
    error         text,
    owner         text NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS opensearch_indexing_reindex_runs_open
    ON opensearch_indexing_reindex_runs (index_name) WHERE finished_at IS NULL;

CREATE TABLE IF NOT EXISTS opensearch_indexing_reindex_chunks (
    run         bigint NOT NULL REFERENCES opensearch_indexing_reindex_runs (id) ON DELETE CASCADE,
    number      integer NOT NULL,
    after_key   text[],                      -- exclusive; NULL: from the beginning
    upto_key    text[],                      -- inclusive; NULL: to the end
    token       bigint,                      -- drawn and committed before the chunk is read (T2)
    owner       text,
    lease_until timestamptz,
    documents   bigint,
    failed      bigint,
    done_at     timestamptz,
    PRIMARY KEY (run, number)
);

-- Functions ----------------------------------------------------------------------------------------------------------
-- For applications in any language, inside their own transaction; a statement may call it over many rows.
CREATE OR REPLACE FUNCTION opensearch_indexing_enqueue(
    index text, document_id text, action text DEFAULT 'index', priority integer DEFAULT 0,
    available_at timestamptz DEFAULT now()
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
    INSERT INTO opensearch_indexing_queue (index_name, document_id, action, priority, available_at, origin)
    VALUES (index, document_id, action, sign(coalesce(priority, 0)),
            CASE WHEN available_at IS NULL OR available_at <= clock_timestamp() THEN clock_timestamp() ELSE available_at END, 'api');
END $$;

-- T4: names this sequence in this run of this server. A restored backup, a promoted standby, a server that crashed, a dump
-- read in again, a copy of the database: each has another name than the last jump, and its sequence may have gone back.
CREATE OR REPLACE FUNCTION opensearch_indexing_server() RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT concat_ws(' ', (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
                     (SELECT oid FROM pg_database WHERE datname = current_database()), 'opensearch_indexing_token'::regclass::oid)
$$;

-- T4: moves the token sequence forward, never back. ALTER SEQUENCE blocks nextval until the commit, setval does not.
-- The first jump that a run of the server sees goes to the clock at least: how far the sequence had come before is not known.
CREATE OR REPLACE FUNCTION opensearch_indexing_advance_token(past bigint, why text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    last  bigint;
    clock bigint := extract(epoch FROM clock_timestamp()) * 1000000;
    here  text := opensearch_indexing_server();
BEGIN
    LOCK TABLE opensearch_indexing_token_jumps IN SHARE ROW EXCLUSIVE MODE;   -- one jump at a time
    -- Takes the sequence's lock before its value is read: no number is drawn in between.
    ALTER SEQUENCE opensearch_indexing_token NO CYCLE;
    SELECT last_value INTO last FROM opensearch_indexing_token;
    IF here IS DISTINCT FROM (SELECT server FROM opensearch_indexing_token_jumps ORDER BY id DESC LIMIT 1) THEN
        -- A sequence that runs ahead of the clock, after a foreign version: past what was drawn in a quarter of an hour.
        past := greatest(past, CASE WHEN clock > last THEN clock ELSE last + 1000000000 END);
    END IF;
    IF past < last THEN
        RETURN last;
    END IF;
    EXECUTE format('ALTER SEQUENCE opensearch_indexing_token RESTART WITH %s', past + 1);
    INSERT INTO opensearch_indexing_token_jumps (jumped_from, jumped_to, reason, server) VALUES (last, past + 1, why, here);
    RETURN past + 1;
END $$;

SELECT opensearch_indexing_advance_token((extract(epoch FROM clock_timestamp()) * 1000000)::bigint, 'installed')
WHERE NOT EXISTS (SELECT FROM opensearch_indexing_token_jumps);

-- Its owner's rights, one narrow way in: applications need nothing on the tables.
REVOKE ALL ON FUNCTION opensearch_indexing_advance_token(bigint, text) FROM PUBLIC;
