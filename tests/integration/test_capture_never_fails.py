"""C6: whatever a row holds and whatever becomes of a table, the application's write goes through, and nothing is lost."""

from __future__ import annotations

from collections import Counter

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from idxctl.capture.status import of_installed
from idxctl.capture.watches import installed_watches
from idxctl.core.errors import PostgresRefused
from idxctl.postgres import migrate
from idxctl.queue import gaps
from support.capture import Captured, index

pytestmark = pytest.mark.sampled


@pytest.fixture
def db(migrated):
    captured = Captured(migrated)
    yield captured
    captured.conn.close()


def each_once(*ids):
    return Counter(map(str, ids))


# Values that a task's JSON would refuse ---------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [r'"x\u0000y"', r'"\ud800"', "1e400000", "null", r'"\"quoted\\"'])
def test_a_json_column_that_jsonb_refuses_is_captured(db, odd):
    db.sql("CREATE TABLE articles (id int)", "INSERT INTO articles VALUES (1), (2)")
    db.sql("CREATE TABLE hooks (payload json, note text)")
    db.watch({"table": "hooks", "keys": "SELECT a.id FROM articles a JOIN changed c ON c.payload::text LIKE '%: 1,%'"})
    db.conn.execute("INSERT INTO hooks VALUES (%s)", (f'{{"article": 1, "body": {odd}}}',))
    db.sql("UPDATE hooks SET note = 'n'", "DELETE FROM hooks")
    assert all("coarse" not in payload for payload in db.tasks("payload", "keys"))
    assert db.expanded() == ["1", "2"]


def test_json_values_come_back_as_they_were(db):
    db.sql("CREATE TABLE articles (id int)", "INSERT INTO articles VALUES (1), (2)")
    db.sql("CREATE TABLE hooks (payload json, more jsonb)")
    query = "SELECT a.id FROM articles a JOIN changed c ON a.id = (c.payload ->> 'article')::int AND c.more ? 'yes'"
    db.watch({"table": "hooks", "keys": query})
    db.sql("""INSERT INTO hooks VALUES ('{"article": 1}', '["yes"]'), ('{"article": 2}', '"no"'), (NULL, NULL)""")
    assert db.expanded() == ["1"]


def test_rows_of_hundreds_of_megabytes_in_all_make_several_tasks(db):
    db.sql("CREATE TABLE articles (id int)", "INSERT INTO articles VALUES (7)")
    db.sql("CREATE TABLE hooks (id int, body text)", "ALTER TABLE hooks ALTER body SET STORAGE EXTERNAL")
    db.sql("INSERT INTO hooks SELECT i, repeat(md5(i::text), 9000) FROM generate_series(1, 100) i")
    db.watch({"table": "hooks", "keys": "SELECT a.id FROM articles a JOIN changed c ON length(c.body) > a.id"})
    db.sql("UPDATE hooks SET id = id")
    sizes = [size for (size,) in db.conn.execute(b"SELECT octet_length(payload::text) FROM opensearch_indexing_queue")]
    assert len(sizes) > 5
    assert max(sizes) < 6_000_000
    assert db.expanded() == ["7"]


def test_a_value_too_large_for_any_task_leaves_a_coarse_one(db):
    db.sql("CREATE TABLE hooks (body text)")
    db.watch({"table": "hooks", "keys": "SELECT length(body) FROM changed"})
    (found,) = db.coarse("INSERT INTO hooks VALUES (repeat('x', 300000000))")
    assert found[1] == "54000"


def test_an_expression_that_a_value_does_not_fit_leaves_a_coarse_task_and_takes_the_other_watches_along(db):
    db.sql("CREATE TABLE docs (id int, code text)")
    db.watch({"table": "docs", "key_sql": "code::int"}, {"table": "docs", "key": ("id",)})
    db.sql("INSERT INTO docs VALUES (1, '5'), (2, 'none')")
    assert db.tasks("payload ->> 'coarse'", "keys") == ["22P02"]
    assert db.ids() == each_once(1, 2)
    db.sql("TRUNCATE opensearch_indexing_queue")
    assert db.after("INSERT INTO docs VALUES (3, '6')") == each_once(3, 6)


def test_a_transaction_leaves_one_coarse_task_however_many_statements_it_has(db):
    db.sql("CREATE TABLE docs (id int, code text)").watch({"table": "docs", "key_sql": "code::int"})
    db.sql("BEGIN", *["INSERT INTO docs VALUES (1, 'none')"] * 20, "COMMIT")
    assert len(db.tasks("id", "keys")) == 1
    db.sql("BEGIN", "SAVEPOINT s", "UPDATE docs SET id = 2", "ROLLBACK TO s", "UPDATE docs SET id = 3", "COMMIT")
    assert len(db.tasks("id", "keys")) == 2


# Columns, types and functions that change -------------------------------------------------------------------------------

CHANGES = [
    "ALTER TABLE docs RENAME COLUMN parent TO mother",
    "ALTER TABLE docs DROP COLUMN parent",
    "ALTER TABLE docs ALTER parent TYPE text",
    "ALTER TABLE docs DROP COLUMN parent, ADD COLUMN parent json",
    "ALTER TABLE docs ALTER parent TYPE float8",
]
WATCHES = [
    {"table": "docs", "key": ("parent",)},
    {"table": "docs", "key": ("parent",), "ignore": ("seen",)},
    {"table": "docs", "key_sql": "parent + 1"},
    {"table": "docs", "keys": "SELECT parent FROM changed"},
    {"table": "docs", "keys": "SELECT (to_jsonb(c) ->> 'parent')::int FROM changed c"},
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("watch", WATCHES, ids=lambda watch: " ".join(map(str, watch)))
def test_writes_go_through_and_leave_a_coarse_task_when_a_column_changes(db, change, watch):
    db.sql("CREATE TABLE docs (id int PRIMARY KEY, parent int, seen int)", "INSERT INTO docs VALUES (0, 1, 1)")
    db.watch({"table": "docs", "key": ("id",)}, watch)
    db.sql("UPDATE docs SET seen = 2, parent = 2", "TRUNCATE opensearch_indexing_queue")
    db.sql(change)
    for write in ("INSERT INTO docs (id) VALUES (1)", "UPDATE docs SET id = 2 WHERE id = 1", "DELETE FROM docs"):
        db.sql(write)
        assert db.tasks("payload ->> 'coarse'", "keys") == ["columns"]
        assert db.ids()  # the other watch goes on
        db.sql("TRUNCATE opensearch_indexing_queue")


def test_an_old_snapshot_does_not_hide_a_column_that_changed(db):
    """REPEATABLE READ sees the catalog as it was; the table is as it is."""
    db.sql("CREATE TABLE docs (id int PRIMARY KEY, parent int)", "INSERT INTO docs VALUES (1, 1)")
    db.watch({"table": "docs", "key": ("parent",)})
    with psycopg.connect(db.url) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("SELECT count(*) FROM pg_class")
        db.sql("ALTER TABLE docs RENAME COLUMN parent TO mother")
        old.execute("INSERT INTO docs VALUES (2, 2)")
        old.commit()
    assert db.tasks("payload ->> 'coarse'", "keys") == ["columns"]


def test_a_partitioned_table_and_its_leaves_whose_columns_change(db):
    db.sql("CREATE TABLE docs (id int, parent int, region text) PARTITION BY LIST (region)")
    db.sql("CREATE TABLE docs_a PARTITION OF docs FOR VALUES IN ('a')", "CREATE TABLE docs_b PARTITION OF docs DEFAULT")
    watch = {"table": "docs", "key": ("parent",)}
    db.watch(watch)
    db.sql("INSERT INTO docs VALUES (1, 1, 'a')")
    moving = "MERGE INTO docs d USING (VALUES (1)) s (id) ON d.id = s.id WHEN MATCHED THEN UPDATE SET region = '{}'"
    writes = ["UPDATE docs SET id = 1", "UPDATE docs_a SET id = 1", "UPDATE docs SET region = 'z'"]
    if db.conn.raw.info.server_version >= 150000:
        writes += [moving.format("a"), moving.format("y")]
    db.sql(*writes, "ALTER TABLE docs RENAME parent TO mother", "TRUNCATE opensearch_indexing_queue")
    for write in writes:
        assert set(db.coarse(write)), write


def test_a_lookup_of_a_function_that_was_dropped_waits_with_its_worker_and_not_in_the_writer(db):
    db.sql("CREATE FUNCTION code(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1'", "CREATE TABLE docs (id int)")
    db.watch({"table": "docs", "key_sql": "code(id)"})
    db.sql("INSERT INTO docs VALUES (1)")
    assert db.expanded() == ["2"]
    db.sql("DROP FUNCTION code(int)", "INSERT INTO docs VALUES (2)")
    assert sorted(map(sorted, db.payloads())) == [[[1]], [[2]]]


def test_strict_capture_fails_the_writer(db):
    db.sql("CREATE TABLE docs (id int, code text)")
    db.watch({"table": "docs", "key_sql": "code::int", "capture": "strict"})
    with pytest.raises(PostgresRefused, match="idxctl cannot capture this change of docs"):
        db.sql("INSERT INTO docs VALUES (1, 'none')")
    db.sql("ALTER TABLE docs RENAME code TO codes")
    with pytest.raises(PostgresRefused, match="columns"):
        db.sql("INSERT INTO docs VALUES (1, '1')")


# Our own tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        "DROP TABLE opensearch_indexing_queue",
        "ALTER TABLE opensearch_indexing_queue RENAME TO away",
        "ALTER TABLE opensearch_indexing_queue DROP COLUMN origin",
        "ALTER TABLE opensearch_indexing_queue RENAME COLUMN payload TO body",
    ],
)
def test_without_the_queue_writes_go_through_and_a_gap_is_marked(db, loss):
    db.sql("CREATE TABLE docs (id int, code text)")
    db.watch({"table": "docs", "key": ("id",)}, {"table": "docs", "keys": "SELECT code FROM changed"})
    assert gaps.unseen(db.conn) == 0
    db.sql(loss)
    db.sql("INSERT INTO docs VALUES (1, 'a')", "UPDATE docs SET id = 2", "DELETE FROM docs", "TRUNCATE docs")
    assert gaps.unseen(db.conn) == 4


QUEUE = "opensearch_indexing_queue"
ALTERED = [  # what capture then meets: its queue is there, and refuses the task
    [f"ALTER TABLE {QUEUE} ADD COLUMN tenant text NOT NULL"],
    [f"ALTER TABLE {QUEUE} ADD CHECK (origin <> 'trigger')"],
    [f"ALTER TABLE {QUEUE} ALTER document_id TYPE varchar(3), ALTER index_name TYPE varchar(2)"],
    [f"ALTER TABLE {QUEUE} ALTER id DROP IDENTITY"],
    [f"ALTER TABLE {QUEUE} ALTER available_at DROP DEFAULT"],
    [f"ALTER TABLE {QUEUE} ALTER origin TYPE uuid USING NULL, ALTER origin DROP NOT NULL, ALTER origin DROP DEFAULT"],
    [
        "CREATE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'boom'; END $$",
        f"CREATE TRIGGER boom BEFORE INSERT ON {QUEUE} FOR EACH STATEMENT EXECUTE FUNCTION boom()",
    ],
    [f"CREATE UNIQUE INDEX ON {QUEUE} ((1))", f"INSERT INTO {QUEUE} (index_name, document_id) VALUES ('other', '1')"],
    [f"CREATE INDEX ON {QUEUE} ((1 / (length(origin) - 7)))"],
    [f"ALTER TABLE {QUEUE} RENAME TO away", f"CREATE VIEW {QUEUE} AS SELECT * FROM away UNION SELECT * FROM away"],
]


@pytest.mark.parametrize("made", ALTERED, ids=range(len(ALTERED)))
def test_a_queue_that_others_altered_fails_no_write_and_marks_gaps(db, made):
    db.sql("CREATE TABLE docs (id int, code text)")
    db.watch({"table": "docs", "key": ("id",)}, {"table": "docs", "keys": "SELECT code FROM changed"})
    assert db.after("INSERT INTO docs VALUES (1000, 'a')") == each_once(1000)  # this session has its plans
    db.sql(f"TRUNCATE {QUEUE}", *made)
    db.sql("INSERT INTO docs VALUES (1, 'a')", "UPDATE docs SET id = 20000", "DELETE FROM docs", "TRUNCATE docs")
    assert gaps.unseen(db.conn) >= 3  # a TRUNCATE's one task fits some of them
    (warning,) = migrate.status(db.conn).warnings
    assert "not as it was made" in warning or f"missing in schema public: table {QUEUE}" in warning


SWALLOWED = [  # nothing is refused, and no task is there
    [f"CREATE RULE swallow AS ON INSERT TO {QUEUE} DO INSTEAD NOTHING"],
    [f"CREATE RULE swallow AS ON INSERT TO {QUEUE} WHERE NEW.origin = 'trigger' DO INSTEAD NOTHING"],
    ["CREATE TABLE away (index_name text)", f"CREATE RULE move AS ON INSERT TO {QUEUE} DO INSTEAD INSERT INTO away VALUES (NEW.index_name)"],
    [
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        f"CREATE TRIGGER swallow BEFORE INSERT ON {QUEUE} FOR EACH ROW EXECUTE FUNCTION swallow()",
    ],
]  # fmt: skip


@pytest.mark.parametrize("made", SWALLOWED, ids=range(len(SWALLOWED)))
@pytest.mark.parametrize("watches", [({"table": "docs", "key": ("id",)},), ({"table": "docs", "keys": "SELECT code FROM changed"},), ({"table": "docs", "key_sql": "1 / id"},)], ids=["key", "keys", "guarded"])  # fmt: skip
def test_a_queue_that_swallows_tasks_marks_a_gap_for_each_write(db, made, watches):
    db.sql("CREATE TABLE docs (id int, code text)", "INSERT INTO docs VALUES (7, 'z')")
    db.watch(*watches)
    db.sql("INSERT INTO docs VALUES (1000, 'a')", f"TRUNCATE {QUEUE}")  # this session has its plans
    db.sql(*made)
    writes = ["INSERT INTO docs VALUES (1, 'a'), (2, 'b')", "UPDATE docs SET id = id + 1", "DELETE FROM docs"]
    writes += ["INSERT INTO docs VALUES (0, 'none')", "TRUNCATE docs"]  # a coarse task, a sweep
    for number, write in enumerate(writes, 1):
        db.sql(write)
        assert gaps.unseen(db.conn) == number, write
    db.sql("DELETE FROM docs")  # of no row
    assert gaps.unseen(db.conn) == len(writes)


def test_without_the_sequence_of_gaps_status_says_so_and_an_installation_makes_it_again(db):
    watch = {"table": "docs", "key": ("id",)}
    db.sql("CREATE TABLE docs (id int)").watch(watch)
    db.sql("DROP SEQUENCE opensearch_indexing_gap")
    (found,) = db.status(watch)
    assert (found.state, found.losing) == ("outdated", False)
    assert "opensearch_indexing_gap is not there" in found.detail[0]
    assert db.after("INSERT INTO docs VALUES (1)") == each_once(1)
    db.install(index(watch))
    assert [one.state for one in db.status(watch)] == ["ok"]
    db.sql(f"CREATE RULE swallow AS ON INSERT TO {QUEUE} DO INSTEAD NOTHING", "INSERT INTO docs VALUES (2)")
    assert gaps.unseen(db.conn) == 1


@pytest.mark.parametrize("made", [SWALLOWED[0], SWALLOWED[-1]], ids=["rule", "trigger"])
def test_a_gap_stays_one_while_the_queue_swallows_what_would_repair_it(db, made):
    db.sql("CREATE TABLE docs (id int)").watch({"table": "docs", "key": ("id",)})
    db.sql(*made, "INSERT INTO docs VALUES (1)")
    assert (gaps.repair(db.conn), gaps.unseen(db.conn)) == (0, 1)
    db.sql(f"DROP {'RULE' if 'RULE' in made[-1] else 'TRIGGER'} swallow ON {QUEUE}")
    assert (gaps.repair(db.conn), gaps.unseen(db.conn)) == (1, 0)
    assert len(db.tasks("id", "keys")) == 1


def test_a_queue_that_swallows_some_tasks_marks_a_gap(db):
    db.sql("CREATE TABLE docs (id int)").watch({"table": "docs", "key": ("id",)})
    db.sql(f"CREATE RULE swallow AS ON INSERT TO {QUEUE} WHERE NEW.document_id = '2' DO INSTEAD NOTHING")
    db.sql("INSERT INTO docs VALUES (1), (2), (3)")
    assert (db.ids(), gaps.unseen(db.conn)) == (each_once(1, 3), 1)


def test_a_queue_that_swallows_tasks_fails_the_writer_of_strict_capture(db):
    db.sql("CREATE TABLE docs (id int)").watch({"table": "docs", "key": ("id",), "capture": "strict"})
    db.sql(f"CREATE RULE swallow AS ON INSERT TO {QUEUE} DO INSTEAD NOTHING")
    for write in ("INSERT INTO docs VALUES (1)", "TRUNCATE docs"):
        with pytest.raises(PostgresRefused, match="idxctl cannot capture this change"):
            db.sql(write)


@pytest.mark.parametrize("made", SWALLOWED, ids=range(len(SWALLOWED)))
def test_an_application_that_enqueues_into_a_queue_that_swallows_gets_an_error_that_says_so(db, made):
    enqueue = "SELECT opensearch_indexing_enqueue('docs', i::text) FROM generate_series(1, 3) i"
    db.sql(enqueue, *(step.replace("'trigger'", "'api'") for step in made))
    with pytest.raises(PostgresRefused, match="task of document '1' is not in the queue") as refused:
        db.sql(enqueue)
    assert refused.value.hint == "idxctl migrate status says what was put on the queue"
    assert db.ids() == each_once(1, 2, 3)


LONG = "INSERT INTO docs SELECT 1, string_agg(md5(i::text), '') FROM generate_series(1, 300) i"
TOO_SMALL = [  # for a long id, or the rows that a lookup stores
    f"CREATE INDEX ON {QUEUE} (document_id)",
    f"CREATE INDEX ON {QUEUE} (priority) INCLUDE (document_id)",
    f"CREATE INDEX ON {QUEUE} (payload)",
    f"ALTER TABLE {QUEUE} ALTER document_id SET STORAGE PLAIN",
    f"ALTER TABLE {QUEUE} ALTER payload SET STORAGE PLAIN",
]


@pytest.mark.parametrize("made", TOO_SMALL)
def test_a_queue_that_others_made_too_small_for_long_tasks_fails_no_write_and_marks_gaps(db, made):
    db.sql("CREATE TABLE docs (id int, code text)")
    key = {"key": ("code",)} if "document_id" in made else {"keys": "SELECT length(code) FROM changed"}
    db.watch({"table": "docs", **key})
    db.sql("INSERT INTO docs VALUES (1, 'a')", f"TRUNCATE {QUEUE}", made, LONG)  # this session has its plans
    assert gaps.unseen(db.conn) == 1
    (warning,) = migrate.status(db.conn).warnings
    assert "not as it was made" in warning
    db.sql("INSERT INTO docs VALUES (2, 'b')")
    assert (len(db.tasks("id", "document") + db.tasks("id", "keys")), gaps.unseen(db.conn)) == (1, 1)


def test_an_index_that_holds_no_whole_values_costs_a_writer_nothing(db):
    db.sql("CREATE TABLE docs (id int, code text)").watch({"table": "docs", "key": ("code",)})
    db.sql(f"CREATE INDEX ON {QUEUE} USING hash (document_id)", f"CREATE INDEX ON {QUEUE} USING gin (payload)")
    assert migrate.status(db.conn).warnings == ()
    db.sql(LONG)
    assert (len(db.ids()), gaps.unseen(db.conn)) == (1, 0)


def test_a_queue_that_others_look_at_takes_every_task(db):
    """A rule that does something beside it, a trigger that lets the row pass."""
    db.sql("CREATE TABLE docs (id int, code text)", "CREATE TABLE seen (index_name text)")
    db.watch({"table": "docs", "key": ("id",)}, {"table": "docs", "keys": "SELECT code FROM changed"})
    db.sql(f"CREATE RULE also AS ON INSERT TO {QUEUE} DO ALSO INSERT INTO seen VALUES (NEW.index_name)")
    db.sql("CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$")
    db.sql(f"CREATE TRIGGER pass BEFORE INSERT ON {QUEUE} FOR EACH ROW EXECUTE FUNCTION pass()")
    db.sql(
        "INSERT INTO docs VALUES (1, 'a'), (2, 'b')", "TRUNCATE docs", "SELECT opensearch_indexing_enqueue('docs', '3')"
    )
    assert (db.ids(), len(db.tasks("id", "keys")), len(db.tasks("id", "sweep"))) == (each_once(1, 2, 3), 1, 1)
    assert gaps.unseen(db.conn) == 0


def test_a_queue_that_others_altered_without_harm_takes_every_task(db):
    db.sql("CREATE TABLE docs (id int, code text)")
    db.watch({"table": "docs", "key": ("id",)})
    db.sql(f"ALTER TABLE {QUEUE} ADD CHECK (priority < 2)", f"ALTER TABLE {QUEUE} ADD note text")
    assert db.after("INSERT INTO docs VALUES (1, 'a')", "UPDATE docs SET id = 2") == Counter({"1": 2, "2": 1})
    assert gaps.unseen(db.conn) == 0


def test_the_queue_is_known_to_be_as_it_was_made_and_a_writer_pays_no_subtransaction(db):
    db.sql("CREATE TABLE docs (id int)").watch({"table": "docs", "key": ("id",)})
    assert migrate.status(db.conn).warnings == ()
    db.sql("BEGIN", "INSERT INTO docs VALUES (1)")
    used = "SELECT count(DISTINCT xmin::text) FROM (SELECT xmin FROM docs UNION ALL SELECT xmin FROM opensearch_indexing_queue) t"
    assert db.conn.execute(used.encode()).fetchone() == (1,)
    db.sql(
        "COMMIT",
        f"ALTER TABLE {QUEUE} ADD CHECK (priority < 2)",
        "BEGIN",
        "DELETE FROM docs",
        "INSERT INTO docs VALUES (2)",
    )
    assert db.conn.execute(used.encode()).fetchone() != (1,)
    db.sql("COMMIT")


def test_functions_that_may_read_the_queue_and_not_write_it_fail_no_write(db, unique_name):
    db.sql("CREATE TABLE docs (id int)").watch({"table": "docs", "key": ("id",)})
    (name,) = db.conn.execute(
        b"SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE '%%_capture_%%'"
    ).fetchone()
    db.sql(f"CREATE ROLE {unique_name}", f"GRANT ALL ON SCHEMA public TO {unique_name}")
    try:
        db.sql(f"ALTER FUNCTION {name} OWNER TO {unique_name}", f"GRANT SELECT ON {QUEUE} TO {unique_name}")
        db.sql(f"GRANT USAGE ON SEQUENCE opensearch_indexing_gap TO {unique_name}")
        db.sql("INSERT INTO docs VALUES (1)")
        assert gaps.unseen(db.conn) == 1
    finally:
        db.sql(f"DROP OWNED BY {unique_name} CASCADE", f"DROP ROLE {unique_name}")


def test_a_table_swapped_by_rename_for_one_of_another_owner_takes_writes_and_leaves_a_coarse_task(db, unique_name):
    db.sql("CREATE TABLE docs (id int)").watch({"table": "docs", "key": ("id",)})
    db.sql(f"CREATE ROLE {unique_name}", "ALTER TABLE docs RENAME TO docs_old", "CREATE TABLE docs (id int)")
    try:
        db.sql(f"ALTER TABLE docs OWNER TO {unique_name}")
        (found,) = db.coarse("BEGIN", "INSERT INTO docs_old VALUES (1)", "UPDATE docs_old SET id = 2", "COMMIT")
        assert found[1] == "table"
    finally:
        db.sql(f"DROP OWNED BY {unique_name} CASCADE", f"DROP ROLE {unique_name}")


@pytest.mark.parametrize("value", ["abc", "99999999999", "-1", "1.5"])
def test_whatever_a_session_makes_of_our_settings_its_writes_go_through(db, value):
    db.sql("CREATE TABLE docs (id int) PARTITION BY LIST (id)", "CREATE TABLE docs_1 PARTITION OF docs DEFAULT")
    db.watch({"table": "docs", "key": ("id",)})
    db.sql(f"SET opensearch_indexing.moving = '{value}'", "INSERT INTO docs VALUES (1)", "UPDATE docs SET id = 2")
    assert set(db.ids()) == {"1", "2"}


def test_what_a_session_has_in_our_settings_silences_nothing(db):
    """ALTER ROLE and ALTER DATABASE SET it as well."""
    db.sql("CREATE TABLE docs (id int, code text)").watch({"table": "docs", "key_sql": "code::int"})
    every = " ".join(f" {number} " for number in range(50))
    db.sql(*(f"SET opensearch_indexing.{name} = '{every}'" for name in ("swept", "coarse")))
    (found,) = db.coarse("INSERT INTO docs VALUES (1, 'none')")
    assert found[1] == "22P02"
    db.sql("BEGIN", "TRUNCATE docs", "TRUNCATE docs", "COMMIT")
    assert len(db.tasks("id", "sweep")) == 1


def test_without_any_table_of_ours_writes_go_through(db):
    db.sql("CREATE TABLE docs (id int)").watch({"table": "docs", "key": ("id",)})
    names = db.conn.execute(
        b"SELECT string_agg(format('DROP TABLE %I CASCADE', tablename), ';') FROM pg_tables WHERE tablename LIKE 'opensearch%%'"
    ).fetchone()
    db.sql(names[0], "DROP SEQUENCE opensearch_indexing_gap")
    db.sql("INSERT INTO docs VALUES (1)", "UPDATE docs SET id = 2", "DELETE FROM docs", "TRUNCATE docs")


# Strangers (trust/01, trust/12) -----------------------------------------------------------------------------------------

SPRING = "BEGIN INSERT INTO loot VALUES (current_user); RETURN '2'; END"
LURE = (
    "CREATE TYPE {name} AS {kind}",
    f"CREATE FUNCTION {{schema}}.spring({{name}}) RETURNS {{to}} LANGUAGE plpgsql AS $$ {SPRING} $$",
    "CREATE CAST ({name} AS {to}) WITH FUNCTION {schema}.spring({name}) {implicit}",
)


@pytest.mark.parametrize("kind", ["(n int)", "ENUM ('2', '3')"])
@pytest.mark.parametrize(
    ("to", "implicit"), [("json", ""), ("text", "AS IMPLICIT"), ("jsonb", ""), ("bigint", "AS IMPLICIT")]
)
def test_a_retyped_column_runs_nobodys_code(db, unique_name, kind, to, implicit):
    db.sql("CREATE TABLE loot (who text)", "GRANT INSERT ON loot TO PUBLIC", "CREATE SCHEMA shop")
    db.sql("CREATE TABLE shop.img (id int PRIMARY KEY, item int, seen int)", f"CREATE ROLE {unique_name}")
    db.sql(f"GRANT ALL ON SCHEMA shop TO {unique_name}", f"ALTER TABLE shop.img OWNER TO {unique_name}")
    watches = [{**one, "table": "shop.img"} for one in (
        {"key": ("item",), "ignore": ("seen",)}, {"keys": "SELECT item FROM changed"}, {"key_sql": "item + 1"},
    )]  # fmt: skip
    try:
        db.watch(*watches)
        db.sql(f"SET ROLE {unique_name}")
        db.sql(*(each.format(name="shop.lure", schema="shop", kind=kind, to=to, implicit=implicit) for each in LURE))
        db.sql("ALTER TABLE shop.img DROP COLUMN item, ADD COLUMN item shop.lure")
        value = "ROW(2)::shop.lure" if kind == "(n int)" else "'2'"
        db.sql(
            f"INSERT INTO shop.img (id, item) VALUES (1, {value})", "UPDATE shop.img SET id = 2", "DELETE FROM shop.img"
        )
        db.sql("RESET ROLE")
        assert db.conn.execute(b"SELECT * FROM loot").fetchall() == []
        # And what is installed over such a column reads it without its casts.
        db.install(index({"table": "shop.img", "keys": "SELECT count(item) FROM changed"}))
        db.sql(f"INSERT INTO shop.img (id, item) VALUES (3, {value})")
        db.sql("UPDATE shop.img SET id = 4")
        assert db.tasks("payload ->> 'coarse'", "keys")[-1] is None
        db.sql("DELETE FROM opensearch_indexing_queue WHERE payload ? 'coarse'")
        assert db.expanded() == ["1"]
        assert db.conn.execute(b"SELECT * FROM loot").fetchall() == []
    finally:
        db.sql("RESET ROLE", f"DROP OWNED BY {unique_name} CASCADE", f"DROP ROLE {unique_name}")


def test_a_stranger_cannot_put_a_trigger_function_on_a_table_of_his_own(db, unique_name):
    db.sql("CREATE TABLE docs (id int)").watch({"table": "docs", "key": ("id",)})
    (name,) = db.conn.execute(
        b"SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE '%%_capture_%%'"
    ).fetchone()
    db.sql(f"CREATE ROLE {unique_name} LOGIN PASSWORD 'x'")
    trap = f"CREATE TRIGGER t AFTER INSERT ON bait REFERENCING NEW TABLE AS opensearch_indexing_new FOR EACH STATEMENT EXECUTE FUNCTION {name}"
    try:
        with psycopg.connect(make_conninfo(db.url, user=unique_name, password="x"), autocommit=True) as stranger:
            stranger.execute("CREATE TEMP TABLE bait (id int)")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                stranger.execute(trap)
            db.sql(f"GRANT EXECUTE ON FUNCTION {name} TO {unique_name}")
            stranger.execute(trap)
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"captures changes of table public\.docs"):
                stranger.execute("INSERT INTO bait VALUES (1)")
        assert db.ids() == {}
    finally:
        db.sql(f"DROP OWNED BY {unique_name} CASCADE", f"DROP ROLE {unique_name}")


@pytest.mark.parametrize("change", ["RESET ALL", "SET search_path = public", "SET work_mem = '1GB'", "RESET jit"])
def test_a_function_that_runs_under_other_settings_is_outdated(db, change):
    """Without its search path, names in it would be looked for where others may make them."""
    db.sql("CREATE TABLE docs (id int)").watch({"table": "docs", "key": ("id",)})
    db.sql(f"ALTER FUNCTION {capture_function(db)} {change}")
    assert [one.state for one in db.status({"table": "docs", "key": ("id",)})] == ["outdated"]
    assert db.install(index({"table": "docs", "key": ("id",)})).functions == 1
    assert [one.state for one in db.status({"table": "docs", "key": ("id",)})] == ["ok"]


def test_a_function_whose_owner_may_not_write_the_queue_is_said_to_lose_changes_and_is_taken_back(db, unique_name):
    watch = {"table": "docs", "key": ("id",)}
    db.sql("CREATE TABLE docs (id int)").watch(watch)
    db.sql(f"CREATE ROLE {unique_name}", f"GRANT USAGE ON SCHEMA public TO {unique_name}")
    try:
        db.sql(
            f"GRANT CREATE ON SCHEMA public TO {unique_name}",
            f"ALTER FUNCTION {capture_function(db)} OWNER TO {unique_name}",
        )
        db.sql("INSERT INTO docs VALUES (1)")
        (found,) = db.status(watch)
        assert (found.state, found.losing) == ("powerless", True)
        assert found.detail[0].startswith(
            f"the trigger function of docs belongs to {unique_name}, who may not write the queue"
        )
        assert [state for _, state, _ in of_installed(db.conn, installed_watches(db.conn))] == ["powerless"]
        (warning,) = db.install(index(watch)).warnings
        assert "changes made meanwhile were not captured" in warning
        assert [one.state for one in db.status(watch)] == ["ok"]
        assert db.after("INSERT INTO docs VALUES (2)") == each_once(2)
    finally:
        db.sql(f"DROP OWNED BY {unique_name} CASCADE", f"DROP ROLE {unique_name}")


def capture_function(db):
    (name,) = db.conn.execute(
        b"SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE 'opensearch\\_indexing\\_capture\\_%%'"
    ).fetchone()
    return name


def test_a_function_that_everybody_may_execute_is_outdated(db):
    watch = {"table": "docs", "key": ("id",)}
    db.sql("CREATE TABLE docs (id int)").watch(watch)
    (name,) = db.conn.execute(
        b"SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE '%%_capture_%%'"
    ).fetchone()
    db.sql(f"GRANT EXECUTE ON FUNCTION {name} TO PUBLIC")
    assert db.states(db.status(watch)) == ["outdated"]
    db.watch(watch)
    assert db.states(db.status(watch)) == ["ok"]


def test_a_renamed_table_and_a_detached_partition_are_captured_as_before(db):
    db.sql(
        "CREATE TABLE docs (id int) PARTITION BY LIST (id)", "CREATE TABLE docs_1 PARTITION OF docs FOR VALUES IN (1)"
    )
    db.watch({"table": "docs", "key": ("id",)})
    db.sql("ALTER TABLE docs RENAME TO docs_old")
    assert db.after("INSERT INTO docs_old VALUES (1)", "UPDATE docs_1 SET id = 1") == Counter({"1": 2})
    db.sql("ALTER TABLE docs_old RENAME TO docs", "ALTER TABLE docs DETACH PARTITION docs_1")
    assert db.after("INSERT INTO docs_1 VALUES (5)") == each_once(5)


# What people are told ---------------------------------------------------------------------------------------------------


def test_status_says_which_column_is_gone_and_that_nothing_is_lost(db):
    watches = ({"table": "docs", "key": ("parent",)}, {"table": "docs", "keys": "SELECT seen FROM changed"})
    db.sql("CREATE TABLE docs (id int, parent int, seen int)").watch(*watches)
    db.sql("ALTER TABLE docs RENAME parent TO mother", "ALTER TABLE docs ALTER seen TYPE float8")
    one, two = db.status(*watches)
    assert (one.state, one.losing, two.state, two.losing) == ("coarse", False, "coarse", False)
    assert "column parent of docs is gone: every change leaves a coarse task" in one.detail[-1]
    assert "column seen of docs is double precision now" in two.detail[-1]
    (one, _) = db.status({**watches[0], "key": ("mother",)}, watches[1])
    assert one.state == "coarse"
    db.watch({**watches[0], "key": ("mother",)})
    assert db.states(db.status({**watches[0], "key": ("mother",)})) == ["ok"]
    assert db.after("INSERT INTO docs VALUES (1, 2, 3)") == each_once(2)


def test_a_watch_that_cannot_be_installed_any_more_goes_on_as_it_was(db):
    db.sql("CREATE TABLE docs (id int)").watch({"table": "docs", "key": ("id",)})
    (found,) = db.status({"table": "docs", "key": ("idd",)})
    assert (found.state, found.losing) == ("outdated", False)
    assert "goes on" in found.detail[-1]


def test_status_says_that_strict_writes_fail(db):
    watch = {"table": "docs", "key": ("parent",), "capture": "strict"}
    db.sql("CREATE TABLE docs (id int, parent int)").watch(watch)
    db.sql("ALTER TABLE docs DROP parent")
    assert db.states(db.status(watch)) == ["writes fail"]


def test_without_temp_lookups_are_looked_at_in_our_own_schema_or_the_hint_names_the_right(db, unique_name):
    watches = (
        {"table": "shop.grps", "keys": "SELECT id FROM changed"},
        {"table": "shop.grps", "key_sql": "lower(name)"},
    )
    new = {"table": "shop.grps", "keys": "SELECT id + 1 FROM changed"}
    db.sql("CREATE SCHEMA shop", "CREATE TABLE shop.grps (id int, name text)", f"CREATE ROLE {unique_name}")
    (database,) = db.conn.execute(b"SELECT current_database()").fetchone()
    db.sql(f"REVOKE TEMP ON DATABASE {database} FROM PUBLIC", f"GRANT USAGE ON SCHEMA shop TO {unique_name}")
    db.sql(f"GRANT SELECT, TRIGGER ON ALL TABLES IN SCHEMA shop, public TO {unique_name}")
    db.watch(*watches)
    tables = set(db.conn.execute(b"SELECT relname FROM pg_class WHERE relkind = 'v'").fetchall())
    try:
        db.sql(f"SET ROLE {unique_name}")
        assert db.states(db.status(*watches)) == ["ok", "ok"]
        found = db.status(*watches, new)[2]
        assert (found.state, "TEMPORARY nor CREATE" in found.detail[0]) == ("invalid", True)
        db.sql("RESET ROLE", f"GRANT CREATE ON SCHEMA public TO {unique_name}", f"SET ROLE {unique_name}")
        assert db.status(*watches, new)[2].state == "not installed"
        assert set(db.conn.execute(b"SELECT relname FROM pg_class WHERE relkind = 'v'").fetchall()) == tables
    finally:
        db.sql("RESET ROLE", f"DROP OWNED BY {unique_name} CASCADE", f"DROP ROLE {unique_name}")
