"""Installing, looking at and removing capture: again and again, at once, without rights, while tables are in use."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from idxctl.capture.install import install, remove
from idxctl.capture.offline_sql import sql as script
from idxctl.capture.plan import plan
from idxctl.capture.watches import installed_watches, watch_by_id
from idxctl.core.errors import Locked, PostgresRefused, SchemaError, UsageError
from idxctl.postgres import migrate
from support.capture import SHOP_WATCHES, Captured, index

DOCS = {"table": "docs", "key": ("id",)}


@pytest.fixture
def db(migrated):
    captured = Captured(migrated).sql("CREATE TABLE docs (id bigint PRIMARY KEY, v int, seen int, due timestamptz)")
    yield captured
    captured.conn.close()


@pytest.fixture
def market(shop):
    captured = Captured(shop)
    yield captured
    captured.conn.close()


def ids(*values):
    return Counter(map(str, values))


# Again and again -------------------------------------------------------------------------------------------------------


def test_the_second_installation_has_nothing_to_do(market):
    first = market.install(index(*SHOP_WATCHES))
    assert (first.changed, first.watches, first.added, first.functions, first.triggers) == (True, 6, 6, 6, 24)
    second = market.install(index(*SHOP_WATCHES))
    assert not second.changed
    assert second.watches == 6
    assert {one.state for one in market.status(*SHOP_WATCHES)} == {"ok"}


def test_a_dry_run_changes_nothing(db):
    assert db.install(index(DOCS), dry_run=True).triggers == 4
    assert installed_watches(db.conn) == ()
    assert [one.state for one in db.status(DOCS)] == ["not installed"]


def test_two_hosts_may_install_at_once(market):
    others = [Captured(market.url) for _ in range(3)]
    plans = [plan(each.conn, index(*SHOP_WATCHES)) for each in others]
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda pair: install(pair[0].conn, pair[1], ["docs"]), zip(others, plans, strict=True)))
    assert sorted(one.added for one in done) == [0, 0, 6]
    for each in others:
        each.conn.close()
    assert {one.state for one in market.status(*SHOP_WATCHES)} == {"ok"}


def test_a_changed_watch_is_outdated_and_replaced_by_a_row_of_its_own(db):
    db.watch(DOCS)
    (old,) = installed_watches(db.conn)
    changed = {**DOCS, "ignore": ("seen",)}
    assert [one.state for one in db.status(changed)] == ["outdated"]
    db.watch(changed)
    (new,) = installed_watches(db.conn)
    assert new.id != old.id
    assert watch_by_id(db.conn, old.id) == old  # tasks may name it
    assert db.after("INSERT INTO docs VALUES (1)", "UPDATE docs SET seen = 1") == ids(1)


def test_watches_that_change_places_keep_their_rows(db):
    one, two = DOCS, {"table": "docs", "key": ("v",)}
    db.watch(one, two)
    before = {watch.definition.key: watch.id for watch in installed_watches(db.conn)}
    assert not db.install(index(two, one)).changed
    assert {watch.definition.key: watch.id for watch in installed_watches(db.conn)} == before
    assert [watch.definition.key for watch in installed_watches(db.conn)] == [("v",), ("id",)]


def test_replacing_triggers_leaves_no_gap(db):
    """Writers that write all the while miss nothing, whichever function is in force."""
    db.watch(DOCS)
    stop, written = threading.Event(), []

    def write() -> None:
        with psycopg.connect(db.url, autocommit=True) as connection:
            while not stop.is_set() or not written:
                connection.execute("INSERT INTO docs VALUES (%s)", (len(written),))
                written.append(str(len(written)))

    thread = threading.Thread(target=write)
    thread.start()
    other = Captured(db.url)
    for turn in range(10):
        other.install(index({**DOCS, "ignore": ("seen",) if turn % 2 else ()}))
    stop.set()
    thread.join()
    other.conn.close()
    assert db.ids() == Counter(written)


def test_the_time_watermark_begins_now_and_is_kept(db):
    def mark():
        return db.conn.execute(
            b"SELECT at_watermark FROM opensearch_indexing_watches WHERE removed_at IS NULL"
        ).fetchone()[0]

    db.watch({**DOCS, "at": "due"})
    first = mark()
    assert first is not None
    db.watch({**DOCS, "at": "due"})
    db.watch({**DOCS, "at": "due", "ignore": ("seen",)})
    assert mark() == first


def test_a_schema_that_is_not_migrated_says_so(database):
    db = Captured(database).sql("CREATE TABLE docs (id int)")
    for act in (lambda: db.install(index(DOCS)), lambda: remove(db.conn), lambda: db.status(DOCS)):
        with pytest.raises(SchemaError) as told:
            act()
        assert told.value.hint == "idxctl migrate up"
    db.conn.close()


def test_our_tables_may_live_in_a_schema_of_their_own(migrated):
    db = Captured(migrated).sql('CREATE SCHEMA "Search idx"', "CREATE TABLE docs (id int PRIMARY KEY)")
    db.conn.close()
    db.conn = db.connect(schema="Search idx")
    migrate.up(db.conn)
    db.install(index(DOCS, {"table": "docs", "keys": "SELECT id FROM changed"}))
    db.sql("INSERT INTO docs VALUES (5)")
    rows = db.conn.execute(
        b'SELECT kind, document_id FROM "Search idx".opensearch_indexing_queue ORDER BY id'
    ).fetchall()
    assert sorted(rows, key=str) == [("document", "5"), ("keys", None)]
    db.conn.close()


# What status finds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "state"),
    [
        ("DROP TRIGGER opensearch_indexing_capture_delete ON docs", "missing"),
        ("ALTER TABLE docs DISABLE TRIGGER opensearch_indexing_capture_update", "disabled"),
        ("ALTER TABLE docs ENABLE REPLICA TRIGGER opensearch_indexing_capture_insert", "disabled"),
        ("ALTER TABLE docs ENABLE TRIGGER opensearch_indexing_capture_insert", "outdated"),
        ("ALTER TABLE docs ADD COLUMN more int", "outdated"),
        ("DROP TABLE docs; CREATE TABLE docs (id bigint PRIMARY KEY, v int, seen int, due timestamptz)", "missing"),
    ],
)
def test_damage_is_seen_and_mended(db, damage, state):
    watch = {**DOCS, "ignore": ("seen",)}
    db.watch(watch)
    db.sql(damage)
    assert [one.state for one in db.status(watch)] == [state]
    done = db.watch(watch)
    assert done.changed
    assert bool(done.warnings) == (
        state in {"missing", "disabled"} or "ENABLE TRIGGER" in damage
    )  # they were off for a while
    assert [one.state for one in db.status(watch)] == ["ok"]
    assert db.after("INSERT INTO docs VALUES (1)", "UPDATE docs SET v = 1", "DELETE FROM docs") == Counter({"1": 3})


def test_a_function_that_somebody_edited_is_outdated(db):
    db.watch(DOCS)
    (name,) = db.conn.execute(
        b"SELECT proname FROM pg_proc WHERE proname LIKE 'opensearch_indexing_capture%'"
    ).fetchone()
    db.sql(
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NULL; END'"
    )
    assert [one.state for one in db.status(DOCS)] == ["outdated"]
    db.watch(DOCS)
    assert db.after("INSERT INTO docs VALUES (1)") == ids(1)


def test_a_dropped_table_is_told_from_one_that_never_was(db):
    assert [one.state for one in db.status({"table": "nowhere", "key": ("id",)})] == ["invalid"]
    db.watch(DOCS)
    db.sql("DROP TABLE docs")
    assert [one.state for one in db.status(DOCS)] == ["table dropped"]


def test_a_watch_taken_out_of_the_configuration_is_shown_and_its_triggers_are_dropped(db):
    db.sql("CREATE TABLE parts (id int, doc int)").watch(DOCS, {"table": "parts", "key": ("doc",)})
    assert [one.state for one in db.status(DOCS)] == ["ok", "not configured"]
    assert db.watch(DOCS).dropped == 4
    assert db.after("INSERT INTO parts VALUES (1, 1)") == {}
    assert [one.state for one in db.status(DOCS)] == ["ok"]
    left = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'opensearch\\_indexing\\_capture\\_%'"
    assert db.conn.execute(left.encode()).fetchone() == (1,)


def test_indexes_of_another_configuration_are_left_alone(db):
    """P8: two teams may share the tables, each with a file of its own."""
    db.watch(DOCS, name="theirs")
    done = db.watch(DOCS, name="ours")
    assert done.warnings == (
        "index theirs is captured and not in this configuration; idxctl watch remove --index theirs ends that",
    )
    db.sql("INSERT INTO docs VALUES (1)")
    assert sorted(db.tasks("index_name", "document")) == ["ours", "theirs"]


# remove ----------------------------------------------------------------------------------------------------------------


def test_removing_one_index_leaves_the_other(db):
    db.watch(DOCS, name="one")
    db.watch(DOCS, name="two")
    db.sql("INSERT INTO docs VALUES (1)")
    preview = remove(db.conn, index="one", dry_run=True)
    assert (preview.watches, preview.tables, preview.tasks, preview.purged) == (1, (), 1, 0)
    assert remove(db.conn, index="one", purge=True).purged == 1
    db.sql("INSERT INTO docs VALUES (2)")
    assert db.tasks("index_name, document_id", "document") == [("two", "1"), ("two", "2")]


def test_removing_all_leaves_no_trigger_and_an_audit_row(db):
    db.watch(DOCS)
    db.sql("INSERT INTO docs VALUES (1)")
    done = remove(db.conn)
    assert (done.indexes, done.watches, done.tables, done.tasks, done.purged) == (("docs",), 1, ("docs",), 1, 0)
    assert db.after("INSERT INTO docs VALUES (2)") == ids(1)
    assert db.conn.execute(
        b"SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'opensearch_indexing_capture%'"
    ).fetchone() == (0,)
    actions = db.conn.execute(
        b"SELECT action, subject FROM opensearch_indexing_audit WHERE action LIKE 'watch%' ORDER BY id"
    ).fetchall()
    assert actions == [("watch install", "docs"), ("watch remove", "docs")]
    assert remove(db.conn).watches == 0


def test_removing_an_index_that_is_not_captured_is_a_usage_error(db):
    db.watch(DOCS)
    with pytest.raises(UsageError) as told:
        remove(db.conn, index="doc")
    assert told.value.hint == "did you mean 'docs'?"


@pytest.mark.parametrize(
    "name", ["made up", "-", "'; DROP TABLE docs; --", "a\nb", "\u202e\u00e9\u6f22\U0001f600", "i" * 255]
)
def test_tasks_under_a_name_that_is_no_index_are_purged_by_it(db, name):
    db.watch(DOCS)
    db.conn.execute(
        "SELECT opensearch_indexing_enqueue(%s, i::text), opensearch_indexing_enqueue('docs', i::text) FROM generate_series(1, 3) i",
        (name,),
    )
    preview = remove(db.conn, index=name, dry_run=True)
    assert (preview.watches, preview.tasks, preview.purged) == (0, 3, 3)
    assert remove(db.conn, index=name).purged == 3
    assert db.tasks("index_name", "document") == ["docs"] * 3
    with pytest.raises(UsageError):
        remove(db.conn, index=name)


def test_tasks_of_an_index_that_has_a_generation_are_purged_where_that_is_said_alone(db):
    db.conn.execute(b"SELECT opensearch_indexing_enqueue('built', '1')")
    db.conn.execute(
        b"INSERT INTO opensearch_indexing_generations (index_name, number, physical_name, state, definition, fingerprint) "
        b"VALUES ('built', 1, 'built-000001', 'live', '{}', '')"
    )
    assert remove(db.conn, index="built").purged == 0
    assert remove(db.conn, index="built", purge=True).purged == 1


def test_removing_goes_on_where_a_table_was_dropped(db):
    db.watch(DOCS)
    db.sql("DROP TABLE docs")
    assert remove(db.conn).watches == 1


# Locks -----------------------------------------------------------------------------------------------------------------


def test_a_table_in_use_is_named_with_who_uses_it(db):
    with psycopg.connect(db.url, application_name="the shop") as user:
        user.execute("INSERT INTO docs VALUES (1)")
        pid = user.info.backend_pid
        with pytest.raises(Locked) as told:
            db.install(index(DOCS), wait_seconds=0.1)
    assert "docs is in use" in told.value.message
    assert f"pid {pid}" in told.value.message
    assert "the shop" in told.value.message
    assert installed_watches(db.conn) == ()
    assert db.install(index(DOCS)).triggers == 4


def test_a_table_that_becomes_free_in_time_is_waited_for(db):
    user = psycopg.connect(db.url)
    user.execute("INSERT INTO docs VALUES (1)")
    freed = []

    def pause(_: float) -> None:
        freed.append(user.rollback())

    assert db.install(index(DOCS), wait_seconds=5, pause=pause).triggers == 4
    assert len(freed) == 1
    user.close()


def test_waiting_for_one_table_holds_no_other(market):
    """A transaction that has one table and wants another must not deadlock with an installation that has the other."""
    user = psycopg.connect(market.url)
    user.execute("UPDATE storefronts SET name = 's' WHERE id = 1")
    tried = []

    def pause(_: float) -> None:
        user.execute("SET LOCAL lock_timeout = '1s'")
        user.execute("UPDATE categories SET name = 'c' WHERE id = 1")  # locked first by the installation
        user.commit()
        tried.append(True)

    assert market.install(index(*SHOP_WATCHES), pause=pause).triggers == 24
    assert tried == [True]
    user.close()


def test_another_installation_under_way_is_told(db):
    other = Captured(db.url)
    with other.conn.raw.transaction():
        other.sql("SELECT pg_advisory_xact_lock(hashtextextended('opensearch_indexing capture public', 0))")
        with pytest.raises(Locked, match="another watch install"):
            db.install(index(DOCS), wait_seconds=0.1)
    other.conn.close()


def test_who_installs_at_the_same_time_is_named(db):
    with psycopg.connect(db.url, application_name="another host") as other:
        other.execute("LOCK TABLE opensearch_indexing_watches IN SHARE UPDATE EXCLUSIVE MODE")
        for act in (lambda: db.install(index(DOCS), wait_seconds=0.1), lambda: remove(db.conn, wait_seconds=0.1)):
            with pytest.raises(
                Locked, match=rf"another watch install or remove .*pid {other.info.backend_pid}, .*another host"
            ):
                act()


def test_a_stranger_who_holds_the_older_lock_is_passed_over_and_named(db, unique_name):
    db.sql(f"CREATE ROLE {unique_name} LOGIN")
    with psycopg.connect(make_conninfo(db.url, user=unique_name), autocommit=True) as stranger:
        stranger.execute("SELECT pg_advisory_lock(hashtextextended('opensearch_indexing capture public', 0))")
        done = db.install(index(DOCS))
        assert done.triggers > 0
        assert any(f"pid {stranger.info.backend_pid}" in warning for warning in done.warnings)
        assert remove(db.conn).watches == 1
    db.sql(f"DROP ROLE {unique_name}")


# Rights ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def installer(db, unique_name):
    """A role with rights on our tables, which owns no table of the application."""
    db.sql(
        f"CREATE ROLE {unique_name} LOGIN",
        f"GRANT USAGE, CREATE ON SCHEMA public TO {unique_name}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {unique_name}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {unique_name}",
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {unique_name}",
        f"REVOKE ALL ON docs FROM {unique_name}",
    )
    captured = Captured(make_conninfo(db.url, user=unique_name))
    yield captured
    captured.conn.close()
    db.sql(f"DROP OWNED BY {unique_name} CASCADE", f"DROP ROLE {unique_name}")


def test_a_table_of_somebody_else_is_named_with_its_owner_and_the_way_out(db, installer):
    with pytest.raises(PostgresRefused) as told:
        installer.install(index(DOCS))
    assert told.value.sqlstate == "42501"
    assert "table docs belongs to" in told.value.message
    assert "idxctl watch sql" in (told.value.hint or "")


def test_the_right_to_make_triggers_is_enough_but_for_replication_role(db, installer):
    db.sql(f"GRANT TRIGGER ON docs TO {installer.conn.raw.info.user}")
    done = installer.install(index(DOCS))
    assert done.warnings == (
        "table docs is not yours: writes under session_replication_role = replica are not captured",
    )
    assert db.after("INSERT INTO docs VALUES (1)") == ids(1)
    assert not installer.install(index(DOCS)).changed


def test_the_script_does_what_install_would_do(db, installer):
    watches = ({**DOCS, "at": "due"}, {"table": "docs", "keys": "SELECT id FROM changed WHERE '\\' <> ''''"})
    db.sql("CREATE TABLE parts (id int)", f"ALTER TABLE parts OWNER TO {installer.conn.raw.info.user}")
    db.sql(f"GRANT SELECT ON docs TO {installer.conn.raw.info.user}")
    installer.install(index({"table": "parts", "key": ("id",)}))
    text = script(installer.conn, plan(installer.conn, index(*watches)), ["docs"])
    assert "SHARE ROW EXCLUSIVE" in text
    with psycopg.connect(db.url, autocommit=True) as owner:
        owner.execute(text.encode())
    assert {one.state for one in db.status(*watches)} == {"ok"}
    assert not db.install(index(*watches)).changed
    assert script(db.conn, plan(db.conn, index(*watches)), ["docs"]).startswith("-- Nothing to do")
    db.sql("INSERT INTO docs VALUES (1)")
    assert (db.ids(), db.expanded()) == (ids(1), ["1"])


def test_the_script_for_a_dba_has_no_line_of_somebody_elses(db, unique_name):
    """A role's name may hold a line break: what follows it would be a statement, run by a superuser."""
    role = f'"{unique_name}\nSELECT 1/0; --"'
    db.sql("CREATE TABLE bills (id int)", f"CREATE ROLE {role}", f"ALTER TABLE bills OWNER TO {role}")
    try:
        text = script(db.conn, plan(db.conn, index({"table": "bills", "key": ("id",)})), ["docs"])
        assert unique_name in text
        assert "\nSELECT 1/0" not in text
    finally:
        db.sql(f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")
