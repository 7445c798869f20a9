-- Programs of before rely on what everybody may call. The functions' bodies stay as they are: they do what those of before did.

DO $everybody$
DECLARE
    item record;
BEGIN
    FOR item IN
        SELECT p.oid::regprocedure AS function FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = pg_catalog.current_schema() AND p.proname IN (
            'opensearch_indexing_enqueue', 'opensearch_indexing_server', 'opensearch_indexing_dlq_group', 'opensearch_indexing_dlq_number')
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', item.function);
    END LOOP;
END $everybody$;
