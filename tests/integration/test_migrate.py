"""Migrations up, down and looked at, on a real PostgreSQL."""

from __future__ import annotations

import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from idxctl.config.settings import DatabaseSettings
from idxctl.core.errors import Locked, PostgresRefused, Refused, SchemaError, UsageError
from idxctl.core.secret import Secret
from idxctl.postgres import migrate, migrate_down, migrate_offline, migration_run, migrations
from idxctl.postgres.connect import Connection, connect

NEWEST = len(migrations.known())

CATALOG = """
SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity::text,
       pg_get_expr(d.adbin, d.adrelid)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v') AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT 'index', tablename, indexname, indexdef, false, '', '' FROM pg_indexes WHERE schemaname = current_schema()
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), false, contype::text, ''
FROM pg_constraint WHERE connamespace = current_schema()::regnamespace
UNION ALL SELECT 'function', proname, pg_get_functiondef(oid), coalesce(proacl::text, ''), false, '', ''
FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), false, tgenabled::text, ''
FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'sequence', sequencename, '', data_type::text, cycle, cache_size::text, increment_by::text
FROM pg_sequences WHERE schemaname = current_schema()
UNION ALL SELECT 'options', relname, reloptions::text, relreplident::text, false, '', ''
FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
ORDER BY 1, 2, 3, 4
"""


@pytest.fixture
def settings(database):
    return DatabaseSettings(url=Secret(database))


@pytest.fixture
def conn(settings):
    with connect(settings) as made:
        yield made


def catalog(conn: Connection) -> list[tuple]:
    return conn.execute(CATALOG).fetchall()


def tables(conn: Connection) -> list[str]:
    return [
        row[0]
        for row in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", (conn.schema,))
    ]


def one(conn: Connection, query: str, *parameters: object):
    return conn.execute(query, parameters or None).fetchone()[0]


# Up -----------------------------------------------------------------------------------------------------------------


def test_up_creates_the_tables_and_up_again_finds_nothing_to_do(conn):
    first, again = migrate.up(conn), migrate.up(conn)
    assert first.applied == tuple(step.title for step in migrations.known())
    assert (again.applied, again.version) == ((), NEWEST)
    migrate.require(conn)


def test_every_migration_can_be_run_over_its_own_result(conn):
    migrate.up(conn)
    before = catalog(conn)
    assert migrate.up(conn, repair=True).applied == ()
    assert catalog(conn) == before


def test_hosts_that_migrate_at_once_apply_each_migration_once(settings):
    gate = threading.Barrier(6)

    def host(_: int) -> tuple[str, ...]:
        with connect(settings) as mine:
            gate.wait()
            return migrate.up(mine).applied

    with ThreadPoolExecutor(6) as hosts:
        done = sorted(hosts.map(host, range(6)), key=len)
    assert [len(applied) for applied in done] == [0, 0, 0, 0, 0, NEWEST]


def test_a_failing_migration_leaves_nothing_behind(conn):
    broken = migrations.Migration(NEWEST + 1, "broken", "CREATE TABLE half (); SELECT 1 / 0;", "")
    with pytest.raises(
        PostgresRefused, match=f"migration {broken.title} failed and nothing was changed: division by zero"
    ):
        migrate.up(conn, steps=(*migrations.known(), broken))
    assert tables(conn) == []


def test_up_to_a_version_stops_there(conn):
    assert migrate.up(conn, to=1).version == 1
    with pytest.raises(SchemaError, match="older: version 1") as caught:
        migrate.require(conn)
    assert caught.value.hint == "idxctl migrate up"
    assert migrate.up(conn).version == NEWEST


def test_up_to_a_version_that_does_not_exist_is_refused(conn):
    with pytest.raises(UsageError, match="no migration 99"):
        migrate.up(conn, to=99)


@pytest.mark.parametrize("schema", ["my schema", 'Odd "one" 100%', "UPPER", "o'clock"])
def test_a_schema_of_any_name_is_created_and_used(settings, schema):
    with connect(replace(settings, schema=schema)) as conn:
        migrate.up(conn)
        migrate.require(conn)
        assert migrate.status(conn).pending == ()
        assert "opensearch_indexing_queue" in tables(conn)
        enqueue = sql.Identifier(schema, "opensearch_indexing_enqueue")
        conn.execute(sql.SQL("SELECT {}('products', '1')").format(enqueue))
        assert one(conn, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        migrate.down(conn, to=0, force=True)
        assert tables(conn) == []


def test_functions_do_not_heed_the_search_path_of_their_caller(settings):
    with connect(replace(settings, schema="idx")) as conn:
        migrate.up(conn)
        conn.execute("CREATE TABLE public.opensearch_indexing_queue (x int)")
        conn.execute("SET search_path = public")
        conn.execute("SELECT idx.opensearch_indexing_enqueue('i', '1')")
        conn.execute("SELECT idx.opensearch_indexing_advance_token(4e18::bigint, 'test')")
        assert one(conn, "SELECT count(*) FROM idx.opensearch_indexing_queue") == 1


def test_a_role_without_rights_is_told_what_to_grant(conn, database):
    role = f"nobody_{uuid.uuid4().hex[:8]}"
    conn.execute(f"CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE SCHEMA theirs")
    try:
        for schema, granting in (("theirs", "GRANT USAGE, CREATE ON SCHEMA"), ("missing", "CREATE SCHEMA")):
            theirs = DatabaseSettings(url=Secret(make_conninfo(database, user=role)), schema=schema)
            with connect(theirs) as mine, pytest.raises(PostgresRefused, match="nothing was changed") as caught:
                migrate.up(mine)
            assert caught.value.sqlstate == "42501"
            assert granting in caught.value.hint
            assert role in caught.value.hint
    finally:
        conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_lock_on_a_table_is_not_waited_for_for_ever(conn, settings, monkeypatch):
    monkeypatch.setattr(migration_run, "LOCK_SECONDS", 0.2)
    migrate.up(conn)
    with connect(settings) as other, other.raw.transaction():
        other.execute("SELECT FROM opensearch_indexing_dlq")
        with pytest.raises(Locked, match="nothing was changed"):
            migrate.down(conn, to=0)
    assert migrate.status(conn).version == NEWEST


def test_another_run_is_not_waited_for_for_ever(conn, settings, monkeypatch):
    monkeypatch.setattr(migration_run, "QUEUE_SECONDS", 0.2)
    with connect(settings) as other, other.raw.transaction():
        other.execute("SELECT pg_advisory_xact_lock(%s)", (migration_run.LOCK,))
        with pytest.raises(Locked, match="another migration"):
            migrate.up(conn)


def test_who_runs_another_migration_is_named(conn, settings, monkeypatch):
    migrate.up(conn, to=1)
    monkeypatch.setattr(migration_run, "QUEUE_SECONDS", 0.2)
    with connect(settings, application_name="another host") as other, other.raw.transaction():
        other.execute("LOCK TABLE opensearch_indexing_migrations IN SHARE UPDATE EXCLUSIVE MODE")
        for act in (migrate.up, lambda conn: migrate.down(conn, to=0)):
            with pytest.raises(Locked, match=rf"another migration .* pid {other.raw.info.backend_pid}, .*another host"):
                act(conn)
    assert migrate.up(conn).version == NEWEST


@pytest.fixture
def stranger(conn, settings, unique_name):
    """A session of a role that may connect, and nothing else."""
    conn.execute(f"CREATE ROLE {unique_name} LOGIN")
    with psycopg.connect(make_conninfo(settings.url.reveal(), user=unique_name), autocommit=True) as session:
        yield session
    conn.execute(f"DROP ROLE {unique_name}")


@pytest.mark.parametrize("lock", ["pg_advisory_lock", "pg_advisory_lock_shared"])
def test_a_stranger_who_holds_the_older_lock_is_passed_over_and_named(conn, stranger, lock):
    stranger.execute(f"SELECT {lock}({migration_run.LOCK})")
    done = migrate.up(conn)
    assert done.version == NEWEST
    assert any(f"pid {stranger.info.backend_pid}" in note and "passed over" in note for note in done.notes)
    assert migrate.down(conn, to=0).version == 0
    conn.raw.execute(migrate_offline.offline_sql())
    migrate.require(conn)


def test_first_migrations_at_once_exclude_each_other_without_the_older_lock_too(settings, stranger):
    stranger.execute(f"SELECT pg_advisory_lock({migration_run.LOCK})")
    gate = threading.Barrier(4)

    def one_host(schema: str) -> tuple[str, ...]:
        with connect(replace(settings, schema=schema)) as mine:
            gate.wait()
            return migrate.up(mine).applied

    with ThreadPoolExecutor(4) as hosts:
        applied = list(hosts.map(one_host, ["its own"] * 4))
    assert sorted(map(len, applied)) == [0, 0, 0, NEWEST]


def test_a_stranger_cannot_take_the_lock_of_a_run(conn, stranger):
    migrate.up(conn)
    for table in ("opensearch_indexing_migrations", "opensearch_indexing_watches"):
        for mode in ("ACCESS SHARE", "SHARE UPDATE EXCLUSIVE", "ACCESS EXCLUSIVE"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), stranger.transaction():
                stranger.execute(f"LOCK TABLE {table} IN {mode} MODE")


def test_workers_go_on_while_a_run_has_its_lock(conn, settings):
    migrate.up(conn)
    with connect(settings) as other, other.raw.transaction():
        other.execute(
            "LOCK TABLE opensearch_indexing_migrations, opensearch_indexing_watches IN SHARE UPDATE EXCLUSIVE MODE"
        )
        conn.execute("SET lock_timeout = '1s'")
        migrate.require(conn)
        conn.execute("SELECT FROM opensearch_indexing_watches FOR UPDATE")
        conn.execute("UPDATE opensearch_indexing_watches SET at_watermark = now()")


def test_a_run_keeps_nothing_in_the_session(conn):
    def state():
        return conn.execute(
            "SELECT current_setting('search_path'), current_setting('lock_timeout'), current_setting('idxctl.default_index', true)"
        ).fetchone()

    before = state()
    migrate.up(conn, default_index="products")
    assert state()[:2] == before[:2]
    assert not state()[2]
    assert one(conn, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()") == 0


def test_the_queue_survives_a_publication_for_all_tables(conn):
    migrate.up(conn)
    conn.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    for step in ("SELECT opensearch_indexing_enqueue('i', '1')", "DELETE FROM opensearch_indexing_queue"):
        conn.execute(step)


# Offline ------------------------------------------------------------------------------------------------------------


def test_the_offline_script_does_what_up_does(settings, conn):
    migrate.up(conn, default_index="products")
    expected = catalog(conn)
    books = conn.execute("SELECT version, name, checksum, old_workers FROM opensearch_indexing_migrations").fetchall()
    migrate.down(conn, to=0)
    conn.raw.execute(migrate_offline.offline_sql(default_index="products"))
    assert catalog(conn) == expected
    assert (
        conn.execute("SELECT version, name, checksum, old_workers FROM opensearch_indexing_migrations").fetchall()
        == books
    )
    assert one(conn, "SELECT value FROM opensearch_indexing_settings WHERE name = 'default_index'") == "products"
    assert migrate.up(conn).applied == ()


def test_the_offline_script_goes_on_from_where_the_database_is(settings):
    with connect(replace(settings, schema="my schema")) as conn:
        migrate.up(conn, to=1)
        conn.raw.execute(migrate_offline.offline_sql(from_=1, schema="my schema", default_index="o'clock"))
        migrate.require(conn)


def test_the_offline_script_refuses_a_database_that_is_elsewhere(conn):
    migrate.up(conn)
    before = catalog(conn)
    with pytest.raises(psycopg.errors.RaiseException, match=f"starts at version 0, the database is at {NEWEST}"):
        conn.raw.execute(migrate_offline.offline_sql())
    conn.raw.execute("ROLLBACK")
    assert catalog(conn) == before


# The check of every command -----------------------------------------------------------------------------------------


def test_a_database_without_tables_is_said_to_be_not_migrated(conn):
    with pytest.raises(SchemaError, match='schema "public" is not migrated') as caught:
        migrate.require(conn)
    assert "idxctl migrate up" in caught.value.hint


def newer(conn: Connection, *, survive: bool) -> None:
    conn.execute(
        "INSERT INTO opensearch_indexing_migrations (version, name, checksum, old_workers, applied_by) VALUES (%s, 'later', '', %s, '')",
        (NEWEST + 1, survive),
    )


def test_tables_newer_than_the_program_are_refused(conn):
    migrate.up(conn)
    newer(conn, survive=False)
    for use in (migrate.require, migrate.up, migrate.down):
        with pytest.raises(SchemaError, match="newer than this program") as caught:
            use(conn)
        assert "upgrade idxctl" in caught.value.hint
    assert migrate.status(conn).unknown == (f"{NEWEST + 1:06d}_later",)


def test_a_program_may_start_over_newer_tables_that_old_workers_survive(conn):
    migrate.up(conn)
    newer(conn, survive=True)
    migrate.require(conn)


def test_a_gap_counts_as_older(conn):
    migrate.up(conn)
    conn.execute("DELETE FROM opensearch_indexing_migrations WHERE version = 1")
    with pytest.raises(SchemaError, match="older"):
        migrate.require(conn)


def test_a_file_that_was_edited_after_it_was_applied_is_named(conn):
    migrate.up(conn)
    assert migrate.status(conn).edited == ()
    first, *rest = migrations.known()
    edited = replace(first, up=first.up + "-- edited\n")
    assert migrate.status(conn, steps=(edited, *rest)).edited == (first.title,)


# Down ---------------------------------------------------------------------------------------------------------------


def test_down_takes_everything_away_and_up_brings_it_back(conn):
    migrate.up(conn)
    expected = catalog(conn)
    assert migrate.down(conn, to=0).version == 0
    assert catalog(conn) == []
    migrate.up(conn)
    assert catalog(conn) == expected


def test_down_goes_one_step_unless_told_and_leaves_an_audit_row(conn):
    migrate.up(conn)
    assert migrate.down(conn).version == NEWEST - 1
    entries = conn.execute("SELECT actor, action, subject FROM opensearch_indexing_audit ORDER BY id").fetchall()
    assert entries[-1] == (conn.actor.name, "migrate down", f"version {NEWEST} to {NEWEST - 1}")


def test_down_from_nothing_is_nothing(conn):
    assert migrate.down(conn).applied == ()


CAPTURE = """
CREATE TABLE listings (id int);
CREATE FUNCTION opensearch_indexing_capture_1() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER anything AFTER INSERT ON listings EXECUTE FUNCTION opensearch_indexing_capture_1()
"""


@pytest.mark.parametrize("force", [False, True])
def test_down_is_refused_while_capture_triggers_are_installed(conn, force):
    migrate.up(conn)
    conn.execute(CAPTURE)
    with pytest.raises(Refused, match=r"capture triggers are installed \(listings\)") as caught:
        migrate.down(conn, force=force)
    assert "idxctl watch remove" in caught.value.hint
    assert migrate.status(conn).version == NEWEST


HOLDING = {
    "tasks in the queue (1)": "SELECT opensearch_indexing_enqueue('i', '1')",
    "dead letters (1)": "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action) VALUES ('i', '1', 'index')",
    "tasks in flight: 2": """INSERT INTO opensearch_indexing_inflight VALUES
        (1, 'i', 'document', 'w', now(), now(), '{}', '{1,2}', '{index,index}', '{0,0}', '{0,0}', '{}', '{}', '{}', '{}')""",
    "seen in the last minute: h:1:x": """INSERT INTO opensearch_indexing_workers (id, host, pid, version, threads, queue_size)
        VALUES ('h:1:x', 'h', 1, '1', 1, 1)""",
}


@pytest.mark.parametrize("holding", HOLDING)
def test_down_is_refused_while_something_would_be_lost_unless_forced(conn, holding):
    migrate.up(conn)
    conn.execute(HOLDING[holding])
    with pytest.raises(Refused, match=re.escape(holding)) as caught:
        migrate.down(conn, to=0)
    assert "--force" in caught.value.hint
    assert migrate.down(conn, to=0, force=True).version == 0


def test_a_worker_not_seen_for_long_does_not_stand_against_down(conn):
    migrate.up(conn)
    conn.execute(HOLDING["seen in the last minute: h:1:x"])
    conn.execute("UPDATE opensearch_indexing_workers SET seen_at = now() - interval '2 minutes'")
    assert migrate.down(conn, to=0).version == 0


def test_the_plan_names_what_would_be_lost_and_changes_nothing(conn):
    migrate.up(conn)
    conn.execute(HOLDING["tasks in the queue (1)"])
    conn.execute(HOLDING["dead letters (1)"])
    plan = migrate_down.plan(conn, to=0)
    assert dict(plan.loses) == {"tasks in the queue": 1, "dead letters": 1, "audit entries": 1}
    assert plan.undoes == tuple(step.title for step in reversed(migrations.known()))
    assert dict(migrate_down.plan(conn, to=1).loses) == {"dead letters": 1}
    assert one(conn, "SELECT count(*) FROM opensearch_indexing_queue") == 1


def test_a_migration_without_a_way_down_is_refused(conn):
    steps = (*migrations.known(), migrations.Migration(NEWEST + 1, "forward", "SELECT 1;", ""))
    migrate.up(conn, steps=steps)
    with pytest.raises(Refused, match="no way down"):
        migrate.down(conn, steps=steps)


def test_down_to_a_version_above_is_refused(conn):
    with pytest.raises(UsageError, match="version 7"):
        migrate.down(conn, to=7)


# The token sequence -------------------------------------------------------------------------------------------------


def test_tokens_begin_at_the_wall_clock_in_microseconds(conn):
    migrate.up(conn)
    behind = one(
        conn,
        "SELECT extract(epoch FROM clock_timestamp()) * 1000000 - (SELECT last_value FROM opensearch_indexing_token)",
    )
    assert 0 <= behind < 60_000_000


def test_the_token_sequence_only_moves_forward(conn):
    migrate.up(conn)
    first = one(conn, "SELECT nextval('opensearch_indexing_token')")
    conn.execute("SELECT opensearch_indexing_advance_token(%s, 'back')", (first - 1000,))
    assert one(conn, "SELECT nextval('opensearch_indexing_token')") == first + 1
    conn.execute("SELECT opensearch_indexing_advance_token(%s, 'on')", (first + 1000,))
    assert one(conn, "SELECT nextval('opensearch_indexing_token')") == first + 1001
    jump = conn.execute(
        "SELECT jumped_from, jumped_to, reason FROM opensearch_indexing_token_jumps ORDER BY id DESC"
    ).fetchone()
    assert jump == (first + 1, first + 1001, "on")


def test_tokens_drawn_beside_jumps_are_never_drawn_twice_or_backwards(settings, conn):
    migrate.up(conn)
    start = one(conn, "SELECT nextval('opensearch_indexing_token')")
    gate = threading.Barrier(5)

    def draw(_: int) -> list[int]:
        with connect(settings) as mine:
            gate.wait()
            return [one(mine, "SELECT nextval('opensearch_indexing_token')") for _ in range(400)]

    def jump(_: int) -> list[int]:
        with connect(settings) as mine:
            gate.wait()
            for step in range(100):
                mine.execute("SELECT opensearch_indexing_advance_token(%s, 'hammer')", (start + step * 7,))
        return []

    with ThreadPoolExecutor(5) as pool:
        drawing = [pool.submit(draw, n) for n in range(3)]
        jumping = [pool.submit(jump, n) for n in range(2)]
        drawn = [task.result() for task in drawing]
        assert all(task.result() == [] for task in jumping)
    everything = [token for tokens in drawn for token in tokens]
    assert len(set(everything)) == len(everything)
    assert all(tokens == sorted(tokens) for tokens in drawn)
    assert min(everything) > start


def test_a_jump_heeds_the_tokens_drawn_while_it_waited(settings, conn):
    migrate.up(conn)
    with connect(settings) as jumper, connect(settings) as drawer, ThreadPoolExecutor(1) as pool:
        with drawer.raw.transaction():
            token = one(drawer, "SELECT nextval('opensearch_indexing_token')")
            jump = pool.submit(one, jumper, "SELECT opensearch_indexing_advance_token(%s, 'test')", token + 5)
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s"
            deadline = time.monotonic() + 30
            while one(conn, waiting, jumper.raw.info.backend_pid) == 0:
                assert time.monotonic() < deadline
            drawn = [one(drawer, "SELECT nextval('opensearch_indexing_token')") for _ in range(10)]
        jump.result()
    assert one(conn, "SELECT nextval('opensearch_indexing_token')") == drawn[-1] + 1


def test_the_sequence_cannot_be_moved_by_everybody(conn):
    migrate.up(conn)
    assert not one(
        conn,
        "SELECT has_function_privilege('public', 'opensearch_indexing_advance_token(bigint, text)', 'EXECUTE')",
    )
