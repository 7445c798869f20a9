"""A column that capture reads is renamed or dropped while the application writes: `was` names both, and nothing is coarse."""

from __future__ import annotations

import threading
from collections import Counter

import psycopg
import pytest

from idxctl.capture.plan import InvalidWatches, survey
from idxctl.core.errors import PostgresRefused
from support.capture import Captured, index
from support.rig import Rig, until


@pytest.fixture
def db(migrated):
    captured = Captured(migrated)
    yield captured
    captured.conn.close()


def each_once(*ids):
    return Counter(map(str, ids))


WAS = {"mother": "parent"}
WATCHES = {
    "key": {"key": ("mother",)},
    "ignore": {"key": ("mother",), "ignore": ("seen",)},
    "key_sql": {"key_sql": "mother + 1"},
    "whole row": {"key_sql": "(to_jsonb(docs) ->> 'mother')::int"},
    "keys": {"keys": "SELECT c.mother FROM changed c"},
    "keys of text": {"keys": "SELECT c.mother FROM changed c WHERE c.note <> 'x'"},
}
RENAME = "ALTER TABLE docs RENAME parent TO mother"


def made(db, watch, *, partitioned=False):
    more = " PARTITION BY LIST (region)" if partitioned else ""
    key = "PRIMARY KEY (id, region)" if partitioned else "PRIMARY KEY (id)"
    db.sql(
        f"CREATE TABLE docs (id int, parent int, note text DEFAULT 'n', seen int, region int DEFAULT 1, {key}){more}"
    )
    if partitioned:
        db.sql(
            "CREATE TABLE docs_1 PARTITION OF docs FOR VALUES IN (1)", "CREATE TABLE docs_2 PARTITION OF docs DEFAULT"
        )
    watch = {"table": "docs", "was": WAS, **watch}
    db.watch(watch)
    return watch


def left(db, *statements):
    """Run statements; return the ids that they lead to, and the reasons of coarse tasks."""
    db.sql(*statements)
    coarse = [each for each in db.tasks("payload ->> 'coarse'", "keys") if each]
    found = sorted({*db.tasks("document_id", "document"), *([] if coarse else db.expanded())})
    db.sql("TRUNCATE opensearch_indexing_queue")
    return found, coarse


@pytest.mark.parametrize("partitioned", [False, True], ids=["plain", "partitioned"])
@pytest.mark.parametrize("watch", WATCHES)
def test_either_name_is_captured_exactly(db, watch, partitioned):
    configured = made(db, WATCHES[watch], partitioned=partitioned)
    by = 1 if watch == "key_sql" else 0
    column = "parent"
    for step in (None, RENAME):
        if step:
            db.sql(step)
            column = "mother"
        assert left(db, f"INSERT INTO docs (id, {column}) VALUES (1, 10), (2, NULL)") == ([str(10 + by)], [])
        assert left(db, f"UPDATE docs SET {column} = 20 WHERE id = 1") == ([str(10 + by), str(20 + by)], [])
        assert left(db, "UPDATE docs SET note = 'm'") == ([str(20 + by)], [])
        if watch == "ignore":
            assert left(db, "UPDATE docs SET seen = 1") == ([], [])
        assert left(db, "DELETE FROM docs") == ([str(20 + by)], [])
        assert db.states(db.status(configured)) == ["ok"]  # as configured, on either side
    assert db.install(index(configured)).changed is False
    (gone,) = survey(db.conn, index(configured)).plan.warnings
    assert gone.startswith("column parent of docs is gone: take was out")


def test_a_session_that_has_its_plans_goes_on_after_the_rename_within_its_transaction_too(db):
    made(db, WATCHES["ignore"])
    with psycopg.connect(db.url, autocommit=True) as writer:
        for number in range(8):  # generic plans
            writer.execute("INSERT INTO docs (id, parent) VALUES (%s, %s)", (number, number))
        db.sql("TRUNCATE opensearch_indexing_queue", RENAME)
        writer.execute("UPDATE docs SET mother = 30 WHERE id = 3")
    assert left(db) == (["3", "30"], [])
    db.sql("BEGIN", "UPDATE docs SET mother = 31 WHERE id = 3", "ALTER TABLE docs RENAME mother TO parent")
    db.sql("UPDATE docs SET parent = 32 WHERE id = 3", "COMMIT")
    assert left(db) == (["30", "31", "32"], [])


@pytest.mark.parametrize("watch", ["key", "ignore", "keys"])
def test_while_the_table_has_both_columns_the_documents_of_both_count(db, watch):
    configured = made(db, WATCHES[watch])
    db.sql("INSERT INTO docs (id, parent) VALUES (1, 10)")
    assert left(db, "ALTER TABLE docs ADD mother int", "UPDATE docs SET note = 'm'") == (["10"], [])
    assert left(db, "UPDATE docs SET mother = 20") == (["10", "20"], [])
    db.install(index(configured))  # with both there
    assert left(db, "UPDATE docs SET note = 'o'") == (["10", "20"], [])
    assert left(db, "ALTER TABLE docs DROP parent", "UPDATE docs SET note = 'p'") == (["20"], [])


def test_two_columns_of_a_composite_key_are_renamed_one_after_the_other(db):
    db.sql('CREATE TABLE docs (a int, b text COLLATE "C", PRIMARY KEY (a, b))')
    watch = {"table": "docs", "key": ("x", "y"), "was": {"x": "a", "y": "b"}}
    db.watch(watch, key=("x", "y"))
    for number, step in enumerate(("SELECT 1", "ALTER TABLE docs RENAME b TO y", "ALTER TABLE docs RENAME a TO x")):
        assert left(db, step, f"INSERT INTO docs VALUES ({number}, 'q')") == ([f"{number}:q"], [])
        assert left(db, "DELETE FROM docs") == ([f"{number}:q"], [])


def test_a_column_that_is_renamed_and_retyped_is_coarse_and_the_write_goes_through(db):
    made(db, WATCHES["key"])
    db.sql(RENAME, "ALTER TABLE docs ALTER mother TYPE text")
    assert left(db, "INSERT INTO docs (id, mother) VALUES (1, '10')") == ([], ["columns"])
    db.sql("ALTER TABLE docs DROP mother")
    assert left(db, "INSERT INTO docs (id) VALUES (2)") == ([], ["columns"])


def test_a_column_that_is_compared_alone_and_gone_by_either_name_is_missed(db):
    db.sql("CREATE TABLE docs (id int PRIMARY KEY, text text, seen int)", "INSERT INTO docs VALUES (1, 'a', 1)")
    db.watch({"table": "docs", "key": ("id",), "ignore": ("seen",), "was": {"body": "text"}})
    assert left(db, "UPDATE docs SET seen = 2") == ([], [])
    assert left(db, "UPDATE docs SET text = 'b'") == (["1"], [])
    db.sql("ALTER TABLE docs RENAME text TO body")
    assert left(db, "UPDATE docs SET seen = 3") == ([], [])
    assert left(db, "UPDATE docs SET body = 'c'") == (["1"], [])
    db.sql("ALTER TABLE docs RENAME body TO words")  # as many columns as ever
    assert left(db, "UPDATE docs SET words = 'd'") == ([], ["columns"])


def test_an_old_program_that_still_writes_the_old_name_fails_by_itself_and_not_by_capture(db):
    made(db, WATCHES["key"])
    db.sql(RENAME)
    with pytest.raises(PostgresRefused, match='column "parent"'):
        db.sql("INSERT INTO docs (id, parent) VALUES (1, 1)")


def test_names_that_cannot_be_meant_are_refused_with_the_way_out(db):
    db.sql("CREATE TYPE mood AS ENUM ('a')", "CREATE TABLE docs (id int PRIMARY KEY, feeling mood)")
    for watch, what in (
        ({"key": ("id",), "was": {"mother": "parent"}}, 'neither a column "mother" nor "parent"'),
        ({"key": ("id",), "was": {"mood": "feeling"}}, "column mood is public.mood, not a type of PostgreSQL's own"),
    ):
        with pytest.raises(InvalidWatches, match=what):
            db.install(index({"table": "docs", **watch}))


def test_a_column_of_times_is_found_by_either_name(db):
    from idxctl.queue import due

    db.sql("CREATE TABLE docs (id int PRIMARY KEY, expires_at timestamptz)")
    db.watch({"table": "docs", "key": ("id",), "at": "ends_at", "was": {"ends_at": "expires_at"}})
    db.sql("INSERT INTO docs SELECT i, now() - interval '1 second' FROM generate_series(1, 2) i")
    db.sql(
        "TRUNCATE opensearch_indexing_queue",
        "UPDATE opensearch_indexing_watches SET at_watermark = now() - interval '1 hour'",
    )
    assert (due.due(db.conn).broken, db.ids()) == ((), each_once(1, 2))
    db.sql("ALTER TABLE docs RENAME expires_at TO ends_at")
    db.sql("UPDATE opensearch_indexing_watches SET at_watermark = now() - interval '1 hour'")
    assert (due.due(db.conn).broken, db.ids()) == ((), each_once(1, 2))


# With an index, and an application that never stops ----------------------------------------------------------------------

VIEW = "CREATE VIEW parts_now AS SELECT id, item_id AS item, name AS title FROM parts"


def by_view(document: str) -> str:
    return document.replace("FROM parts p WHERE p.item_id", "FROM parts_now p WHERE p.item").replace(
        "p.name", "p.title"
    )


_BETWEEN_WRITES_SECONDS = 0.1  # a document that always changes is never seen to equal its row


class Application(threading.Thread):
    """Writes parts by whichever names they have, as a program does that is deployed to know both; counts its errors."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.url, self.writes, self.errors, self.over = rig.database, 0, [], threading.Event()

    def run(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self.over.wait(_BETWEEN_WRITES_SECONDS):
                number = self.writes % 20 + 1
                names = [
                    name
                    for (name,) in connection.execute(
                        "SELECT attname FROM pg_attribute WHERE attrelid = 'parts'::regclass AND attnum > 0"
                    )
                ]
                item = "item" if "item" in names else "item_id"
                try:
                    connection.execute(
                        f"INSERT INTO parts ({item}, name) VALUES (%s, %s)", (number, f"new {self.writes}")
                    )
                    connection.execute(
                        f"UPDATE parts SET {item} = %s WHERE id = (SELECT max(id) FROM parts)", (number % 20 + 1,)
                    )
                    connection.execute(
                        f"DELETE FROM parts WHERE id = (SELECT min(id) FROM parts WHERE {item} = %s)", (number,)
                    )
                except psycopg.errors.UndefinedColumn:  # between its look and its write
                    continue
                except psycopg.Error as error:
                    self.errors.append(error)
                self.writes += 1

    def more(self, count: int = 5) -> None:
        wanted = self.writes + count
        until(lambda: self.writes >= wanted, "the application writes no more")


def test_a_rename_under_an_application_that_never_stops_loses_nothing_and_is_coarse_nowhere(items: Rig):
    application = Application(items)
    with items.working():
        application.start()
        try:
            application.more()
            # 1. The document query reads a view, which follows a rename by itself.
            items.sql(VIEW)
            items.configure(document=by_view(items.query))
            items.reindex()
            # 2. The watch knows both names.
            toml = items.config.read_text()
            items.configure(toml=toml.replace('key = "item_id"', 'key = "item"\nwas = { item = "item_id" }'))
            items.watch()
            application.more()
            # 3. The migration.
            items.sql("ALTER TABLE parts RENAME COLUMN item_id TO item")
            application.more()
            # 4. The old name goes from the configuration, and the view from the document query.
            items.configure(toml=toml.replace('key = "item_id"', 'key = "item"'))
            items.watch()
            items.configure(document=items.query.replace("parts_now", "parts").replace("p.title", "p.name"))
            items.reindex()
            items.sql("DROP VIEW parts_now")
            application.more()
        finally:
            application.over.set()
            application.join()
    items.drain()
    assert (application.errors, items.differences(), items.letters()) == ([], [], {})
    assert items.one("SELECT count(*) FROM opensearch_indexing_audit WHERE action = 'capture gap'") == 0
    assert not items.sql("SELECT FROM opensearch_indexing_queue WHERE payload ? 'coarse'")


def test_a_column_that_is_dropped_under_an_application_that_never_stops(items: Rig):
    """The order: out of the document query, out of the watches, out of the table."""
    items.sql("ALTER TABLE parts ADD code int DEFAULT 1")
    items.configure(document=items.query.replace("jsonb_agg(p.name", "jsonb_agg(p.name || p.code"))
    toml = items.config.read_text()
    items.configure(toml=toml.replace('key = "item_id"', "key_sql = 'item_id + code - 1'"))
    items.watch()
    items.reindex()
    coarse: list[int] = []
    application = Application(items)
    with items.working():
        application.start()
        try:
            application.more()
            items.configure(document=items.query.replace("p.name || p.code", "p.name"))
            items.reindex()
            items.configure(toml=toml)
            items.watch()
            items.sql("CREATE TABLE coarse (payload jsonb)")
            items.sql(
                "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO coarse VALUES (NEW.payload); RETURN NULL; END'"
            )
            items.sql(
                "CREATE TRIGGER seen AFTER INSERT ON opensearch_indexing_queue FOR EACH ROW WHEN (NEW.payload ? 'coarse') EXECUTE FUNCTION seen()"
            )
            application.more()
            items.sql("ALTER TABLE parts DROP COLUMN code")
            application.more(20)
            coarse = items.sql("SELECT payload FROM coarse")
        finally:
            application.over.set()
            application.join()
    items.drain()
    assert (application.errors, items.differences(), coarse) == ([], [], [])
