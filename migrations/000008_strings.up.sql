-- What a function of ours says does not depend on how the session that calls it reads strings.
-- Old workers: survive. Locks: none that anything waits for. Safe to run again and on two hosts at once.
--
-- A body is read under the settings of its caller. With standard_conforming_strings off, which programs from before
-- PostgreSQL 9.1 still set, a backslash in it is an escape: a pattern means something else, and one letter's group another.

DO $strings$
DECLARE
    place  text := pg_catalog.current_setting('search_path');
    schema name := pg_catalog.current_schema();
    item   record;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    FOR item IN
        SELECT p.oid::regprocedure AS function FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = schema AND starts_with(p.proname, 'opensearch_indexing_')
          AND NOT starts_with(p.proname, 'opensearch_indexing_capture_')      -- written as they are by idxctl watch install
          AND strpos(p.prosrc, chr(92)) > 0 AND pg_has_role(p.proowner, 'USAGE')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET standard_conforming_strings = on', item.function);
    END LOOP;
    PERFORM set_config('search_path', place, true);
END $strings$;
