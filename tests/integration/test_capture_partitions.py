"""Partitioned and inherited tables (C2): nothing missed, nothing twice."""

from __future__ import annotations

from collections import Counter

import pytest
from psycopg.conninfo import make_conninfo

from idxctl.capture.status import status
from support.capture import Captured, index

TABLES = (
    "CREATE TABLE docs (id bigint, region text, v int, seen int, PRIMARY KEY (id, region)) PARTITION BY LIST (region)",
    "CREATE TABLE docs_a PARTITION OF docs FOR VALUES IN ('a')",
    "CREATE TABLE docs_rest PARTITION OF docs FOR VALUES IN ('b', 'c') PARTITION BY LIST (region)",
    "CREATE TABLE docs_b PARTITION OF docs_rest FOR VALUES IN ('b')",
    "CREATE TABLE docs_c PARTITION OF docs_rest FOR VALUES IN ('c')",
)
WATCH = {"table": "docs", "key": ("id",)}


def each_once(*ids):
    return Counter(map(str, ids))


@pytest.fixture
def db(migrated):
    captured = Captured(migrated).sql(*TABLES)
    captured.sql("INSERT INTO docs VALUES (1, 'a', 0, 0), (2, 'b', 0, 0), (3, 'c', 0, 0)").watch(WATCH)
    yield captured
    captured.conn.close()


@pytest.fixture
def merge(db):
    if db.conn.raw.info.server_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")


def test_writes_through_the_root_leave_one_task_a_row(db):
    assert db.after("INSERT INTO docs VALUES (4, 'a'), (5, 'c')") == each_once(4, 5)
    assert db.after("UPDATE docs SET v = 1") == each_once(1, 2, 3, 4, 5)
    assert db.after("DELETE FROM docs WHERE id > 3") == each_once(4, 5)


@pytest.mark.parametrize(("table", "region"), [("docs_a", "a"), ("docs_rest", "b"), ("docs_c", "c")])
def test_writes_straight_to_a_partition_leave_one_task_a_row(db, table, region):
    assert db.after(f"INSERT INTO {table} VALUES (7, '{region}'), (8, '{region}')") == each_once(7, 8)
    assert db.after(f"UPDATE {table} SET v = 2 WHERE id = 7") == each_once(7)
    assert db.after(f"DELETE FROM {table} WHERE id > 6") == each_once(7, 8)


def test_an_update_that_moves_rows_is_captured(db):
    assert set(db.after("UPDATE docs SET region = 'c' WHERE id = 1")) == {"1"}
    assert set(db.after("UPDATE docs SET id = id + 10, region = 'a' WHERE region = 'c'")) == {"1", "3", "11", "13"}


def test_a_merge_that_moves_rows_is_captured(db, merge):
    """The root's UPDATE trigger fires with empty transition tables then: row triggers see the rows."""
    moving = "MERGE INTO docs d USING (VALUES (1, 'b'), (2, 'c')) s (id, r) ON d.id = s.id WHEN MATCHED THEN UPDATE SET region = s.r"
    assert set(db.after(moving)) == {"1", "2"}
    below = "MERGE INTO docs_rest d USING (VALUES (1, 'c')) s (id, r) ON d.id = s.id WHEN MATCHED THEN UPDATE SET region = s.r"
    assert set(db.after(below)) == {"1"}
    all_three = (
        "MERGE INTO docs d USING (VALUES (1, 'a'), (2, 'x'), (9, 'a')) s (id, r) ON d.id = s.id "
        "WHEN MATCHED AND r = 'x' THEN DELETE WHEN MATCHED THEN UPDATE SET id = 100, region = s.r "
        "WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.r)"
    )
    assert set(db.after(all_three)) == {"1", "100", "2", "9"}


def test_a_merge_that_moves_rows_is_captured_with_ignore_and_lookups(db, merge):
    db.watch(
        {**WATCH, "ignore": ("seen",)},
        {"table": "docs", "key_sql": "'x' || id"},
        {"table": "docs", "keys": "SELECT v FROM changed"},
    )
    moving = "MERGE INTO docs d USING (VALUES (1, 5)) s (id, v) ON d.id = s.id WHEN MATCHED THEN UPDATE SET region = 'b', v = s.v"
    assert set(db.after(moving)) == {"1", "x1"}
    assert db.expanded() == ["0", "5"]


def test_row_triggers_sleep_but_while_a_row_may_move(db, merge):
    """The count of UPDATEs under way goes back to nothing, by their end, by a savepoint and by the transaction's end."""
    counted = "SELECT coalesce(nullif(current_setting('opensearch_indexing.moving', true), ''), '0')"
    with db.conn.raw.transaction():
        db.sql("UPDATE docs SET v = 5", "SAVEPOINT s")
        assert db.conn.execute(counted.encode()).fetchone() == ("0",)
        db.sql("DO $$ BEGIN UPDATE docs SET v = 1 / (v - v); EXCEPTION WHEN division_by_zero THEN NULL; END $$")
        assert db.conn.execute(counted.encode()).fetchone() == ("0",)
        db.ids()
        db.sql("INSERT INTO docs VALUES (50, 'a')")
    assert db.ids() == each_once(50)


def test_a_write_from_a_trigger_of_an_update_does_not_end_the_watch_for_moves(db, merge):
    """An UPDATE inside an UPDATE: the inner one's end must not put the row triggers to sleep."""
    db.sql(
        "CREATE TABLE other (LIKE docs) PARTITION BY LIST (region)",
        "CREATE TABLE other_a PARTITION OF other DEFAULT",
        "INSERT INTO other VALUES (1, 'a')",
        "CREATE FUNCTION nested() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE other SET v = 1; RETURN NEW; END $$",
        "CREATE TRIGGER nested BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION nested()",
    )
    db.watch(WATCH, {"table": "other", "key_sql": "'other' || id"})
    moving = "MERGE INTO docs d USING (VALUES (1), (2)) s (id) ON d.id = s.id WHEN MATCHED THEN UPDATE SET region = 'c'"
    assert set(db.after(moving)) == {"1", "2", "other1"}


def test_cascades_into_a_partitioned_table_are_captured_and_counted_down(db):
    db.sql(
        "CREATE TABLE owners (id int PRIMARY KEY)",
        "ALTER TABLE docs ADD COLUMN owner int REFERENCES owners ON UPDATE CASCADE ON DELETE CASCADE",
        "INSERT INTO owners VALUES (1), (2)",
        "UPDATE docs SET owner = 1",
    )
    db.ids()
    with db.conn.raw.transaction():
        db.sql("UPDATE owners SET id = id + 10")
        assert db.ids() == each_once(1, 2, 3)
        db.sql("INSERT INTO docs VALUES (60, 'b')")
        assert db.ids() == each_once(60)
        db.sql("DELETE FROM owners")
    assert db.ids() == each_once(1, 2, 3)


def test_truncate_of_a_partitioned_table_leaves_one_sweep(db):
    """C3."""
    db.sql("TRUNCATE docs")
    assert len(db.tasks("id", "sweep")) == 1
    db.sql("TRUNCATE docs_b")
    assert len(db.tasks("id", "sweep")) == 2


def test_a_new_partition_without_triggers_is_noticed_and_mended(db):
    db.sql("CREATE TABLE docs_d PARTITION OF docs FOR VALUES IN ('d')")
    (found,) = db.status(WATCH)
    assert (found.state, found.detail) == ("new partition", ("docs_d has no triggers yet",))
    assert db.after("INSERT INTO docs_d VALUES (70, 'd')") == {}  # that is what it means
    done = db.watch(WATCH)
    assert done.triggers == 4
    assert "docs_d" in done.warnings[0]
    assert db.after("INSERT INTO docs_d VALUES (71, 'd')") == each_once(71)
    assert [one.state for one in db.status(WATCH)] == ["ok"]


def test_the_owner_of_a_partitioned_table_adds_a_partition_and_nobody_else_may_execute_our_functions(db, unique_name):
    """PostgreSQL copies the row trigger in that role's name."""
    db.sql(
        f"CREATE ROLE {unique_name}",
        f"GRANT CREATE ON SCHEMA public TO {unique_name}",
        f"ALTER TABLE docs OWNER TO {unique_name}",
    )
    try:
        (found,) = db.status(WATCH)
        wait = f"docs belongs to {unique_name}, who cannot add a partition until idxctl watch install"
        assert (found.state, found.detail) == ("outdated", (wait,))
        assert db.after("INSERT INTO docs VALUES (70, 'a')") == each_once(70)  # it may write all the while
        db.watch(WATCH)
        db.sql(f"SET ROLE {unique_name}", "CREATE TABLE docs_d PARTITION OF docs FOR VALUES IN ('d')", "RESET ROLE")
    finally:
        db.sql("RESET ROLE", f"DROP OWNED BY {unique_name} CASCADE", f"DROP ROLE {unique_name}")


@pytest.mark.parametrize("how", ["given away", "attached"])
def test_a_partition_of_another_owner_is_captured_and_said_whose_it_is_where_triggers_are_missing(db, unique_name, how):
    theirs, ours = f"{unique_name}_theirs", f"{unique_name}_ours"
    db.sql(f"CREATE ROLE {theirs}", f"CREATE ROLE {ours} LOGIN", f"GRANT ALL ON SCHEMA public TO {theirs}")
    try:
        db.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ours}, {theirs}")
        if how == "given away":
            db.sql(f"ALTER TABLE docs_a OWNER TO {theirs}")
            assert [one.state for one in db.status(WATCH)] == ["ok"]
            db.sql(f"SET ROLE {theirs}")
        else:
            db.sql(f"SET ROLE {theirs}", "CREATE TABLE docs_a2 (LIKE docs)", "RESET ROLE")
            db.sql("ALTER TABLE docs ATTACH PARTITION docs_a2 FOR VALUES IN ('a2')")
            with Captured(make_conninfo(db.url, user=ours)).conn as conn:
                (found,) = status(conn, index(WATCH))
            asked = f"docs_a2 has no triggers yet, and belongs to {theirs}: idxctl watch sql prints what that role or a DBA is to run"
            assert (found.state, found.detail) == ("new partition", (asked,))
            db.watch(WATCH)
            db.sql(f"SET ROLE {theirs}")
        name, region = ("docs_a", "a") if how == "given away" else ("docs_a2", "a2")
        db.sql(f"INSERT INTO {name} (id, region) VALUES (71, '{region}')", f"UPDATE {name} SET v = 2 WHERE id = 71")
        db.sql("RESET ROLE")
        assert set(db.ids()) == {"71"}
    finally:
        db.sql(
            "RESET ROLE",
            *(f"DROP OWNED BY {one} CASCADE" for one in (theirs, ours)),
            f"DROP ROLE {theirs}",
            f"DROP ROLE {ours}",
        )


def test_a_detached_partition_is_let_go(db):
    db.sql("ALTER TABLE docs DETACH PARTITION docs_a")
    assert db.watch(WATCH).dropped == 4
    assert db.after("INSERT INTO docs_a VALUES (80, 'a')") == {}


def test_a_partition_with_its_columns_in_another_order(db):
    db.sql(
        "CREATE TABLE odd (extra int, v int, seen int, region text NOT NULL, id bigint NOT NULL)",
        "ALTER TABLE odd DROP COLUMN extra",
        "ALTER TABLE docs ATTACH PARTITION odd FOR VALUES IN ('o')",
    )
    db.watch({**WATCH, "ignore": ("seen",)})
    assert db.after("INSERT INTO odd VALUES (1, 1, 'o', 90)") == each_once(90)
    assert db.after("UPDATE docs SET seen = 3") == {}
    assert db.after("UPDATE odd SET v = 3") == each_once(90)


def test_a_disabled_copy_of_the_row_trigger_is_found_and_mended(db):
    db.sql("ALTER TABLE docs_b DISABLE TRIGGER opensearch_indexing_capture_moved")
    assert [one.state for one in db.status(WATCH)] == ["disabled"]
    db.watch(WATCH)
    assert [one.state for one in db.status(WATCH)] == ["ok"]


# Inheritance -----------------------------------------------------------------------------------------------------------


def test_children_by_inheritance_are_captured_with_their_parent(migrated):
    db = Captured(migrated)
    db.sql(
        "CREATE TABLE base (id int PRIMARY KEY, v int, seen int)",
        "CREATE TABLE child (extra text) INHERITS (base)",
        "CREATE TABLE grandchild () INHERITS (child)",
    ).watch({"table": "base", "key": ("id",), "ignore": ("seen",)})
    assert db.after(
        "INSERT INTO base VALUES (1)", "INSERT INTO child VALUES (2)", "INSERT INTO grandchild VALUES (3)"
    ) == (each_once(1, 2, 3))
    assert db.after("UPDATE base SET v = 1") == each_once(1, 2, 3)
    assert db.after("UPDATE base SET seen = 1") == {}
    assert db.after("UPDATE child SET extra = 'x' WHERE id = 2") == each_once(2)
    assert db.after("DELETE FROM base") == each_once(1, 2, 3)
    db.sql("CREATE TABLE late () INHERITS (base)")
    assert [one.state for one in db.status({"table": "base", "key": ("id",), "ignore": ("seen",)})] == ["new partition"]
    db.conn.close()


def test_partitions_without_triggers_are_seen_without_a_configuration(db):
    from idxctl.capture.status import unwatched

    assert unwatched(db.conn) == ()
    db.sql("CREATE TABLE docs_d PARTITION OF docs FOR VALUES IN ('d')")
    assert unwatched(db.conn) == ("docs_d",)
    db.install(index(WATCH))
    assert unwatched(db.conn) == ()
