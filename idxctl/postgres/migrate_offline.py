"""Migrations as a script for a DBA."""

from __future__ import annotations

from psycopg import sql

from idxctl.core.errors import UsageError
from idxctl.postgres.bookkeeping import BOOKS, SQL
from idxctl.postgres.migration_run import LOCK, LOCK_SECONDS, QUEUE_SECONDS
from idxctl.postgres.migrations import known


def offline_sql(
    *, from_: int = 0, to: int | None = None, schema: str | None = None, default_index: str | None = None
) -> str:
    """
    Return a script that does what `up` does from version *from_*, to be read first and run by psql or any other client.

    It is one transaction and checks that the database stands at *from_*. Without a *schema*, the first of the search path
    of whoever runs it.
    """
    steps = known()
    target = len(steps) if to is None else to
    if not 0 <= from_ <= target <= len(steps):
        raise UsageError(f"cannot go from version {from_} to {target}", hint=f"this program knows 1 to {len(steps)}")
    if schema is None:
        place = (
            "SELECT pg_catalog.set_config('search_path', pg_catalog.quote_ident(pg_catalog.current_schema()::pg_catalog.text) "
            "OPERATOR(pg_catalog.||) ', pg_temp', true);"
        )
        create = ""
    else:
        name = sql.Identifier(schema).as_string(None)
        place = f"SET LOCAL search_path = {name}, pg_temp;"
        create = f"CREATE SCHEMA IF NOT EXISTS {name};\n"
    index = sql.quote(default_index or "")
    parts = [
        f"""\
-- idxctl migrate, version {from_} to {target}: the same as `idxctl migrate up`, to be run by hand.
-- One transaction: all of it or nothing. Run it as the role that is to own the tables, or does own them.
-- Locks: new tables disturb nobody. An existing table opensearch_indexing_dlq of the older shape is locked and rewritten,
-- some seconds for 100,000 rows; its times without a zone are read in the session's time zone (SHOW TimeZone).
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = '{LOCK_SECONDS}s';
SET LOCAL statement_timeout = 0;
SET LOCAL client_min_messages = warning;
{create}{place}
SELECT pg_catalog.set_config('idxctl.default_index', {index}, true);

{SQL["create_bookkeeping"].text}
SET LOCAL lock_timeout = '{QUEUE_SECONDS}s';
LOCK TABLE {BOOKS} IN SHARE UPDATE EXCLUSIVE MODE;    -- one run at a time
SELECT pg_catalog.pg_try_advisory_xact_lock({LOCK});    -- which programs of the release before wait for
SET LOCAL lock_timeout = '{LOCK_SECONDS}s';
DO $guard$
DECLARE
    place text := pg_catalog.current_setting('search_path');
    schema name := pg_catalog.current_schema();
    tables oid := 'opensearch_indexing_migrations'::pg_catalog.regclass;
    owner name;
    version integer;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT pg_get_userbyid(relowner) INTO owner FROM pg_class WHERE oid = tables;
    IF NOT pg_has_role(current_user, owner, 'USAGE') THEN
        RAISE EXCEPTION 'idxctl''s tables belong to %, and this is run by %', owner, current_user
            USING HINT = format('SET ROLE %I, or connect as it', owner);
    END IF;
    IF {from_} = 0 AND EXISTS (
        SELECT FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) AS a
        WHERE n.nspname = schema AND a.grantee = 0 AND a.privilege_type = 'CREATE') THEN
        RAISE EXCEPTION 'everybody may create functions in schema %', schema
            USING HINT = format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, or a schema of its own: [database] schema', schema);
    END IF;
    EXECUTE format('SELECT coalesce(max(version), 0) FROM %s', tables::regclass) INTO version;
    IF version <> {from_} THEN
        RAISE EXCEPTION 'this script starts at version {from_}, the database is at %', version;
    END IF;
    PERFORM set_config('search_path', place, true);
END $guard$;
"""
    ]
    for step in steps[from_:target]:
        survive = "true" if step.old_workers_survive else "false"
        parts.append(
            f"""
-- {step.title} {"-" * (100 - len(step.title))}
{step.up}
INSERT INTO opensearch_indexing_migrations (version, name, checksum, old_workers, applied_by)
VALUES ({step.version}, {sql.quote(step.name)}, {sql.quote(step.checksum)}, {survive}, session_user || ' (sql)');
"""
        )
    if target > 0 and default_index is not None:
        parts.append(
            f"""
INSERT INTO opensearch_indexing_settings (name, value) VALUES ('default_index', {index}) ON CONFLICT (name) DO NOTHING;
"""
        )
    parts.append("\nCOMMIT;\n")
    return "".join(parts)
