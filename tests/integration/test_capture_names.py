"""
Names that collide: a table, or its columns, called what the generated functions call things.

The words are read from the functions themselves, so a name that is new in them is tried from then on.
"""

from __future__ import annotations

import re

import pytest

from support.capture import Captured

SYSTEM_COLUMNS = {"ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"}
OWN = ("id", "one", "two", "seen")
SHORT = 7  # aliases are
WATCHED = (("new", "old"), ("d", "s"), ("value", "t"), ("tg_op", "opensearch_indexing_fit"), ("p0", "image"))


@pytest.fixture
def db(migrated):
    captured = Captured(migrated)
    yield captured
    captured.conn.close()


def watches(table: str, one: str, two: str) -> tuple[dict, ...]:
    """One of each kind over these two columns."""
    bare = table.rpartition(".")[2]
    return (
        {"table": table, "key": (one,), "ignore": ("seen",)},
        {"table": table, "key_sql": f'"{one}" + {bare}."{two}"'},
        {"table": table, "key_sql": f'{bare}."{two}" * 1000', "ignore": ("seen",)},
        {"table": table, "keys": f'SELECT c."{one}" + 5000 FROM changed c WHERE c."{two}" IS NOT NULL', "ignore": ("seen",)},
    )  # fmt: skip


def ids(one: int, two: int) -> set[str]:
    return {str(one), str(one + two), str(two * 1000), str(one + 5000)}


def words(db: Captured, *tables: str) -> list[str]:
    """Every word in the functions and triggers of these tables."""
    found = db.conn.execute(
        b"SELECT pg_get_functiondef(t.tgfoid) || pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE t.tgrelid = ANY(%s::regclass[])",
        (list(tables),),
    )
    every = {word for (text,) in found for word in re.findall(r"[a-z_][a-z0-9_]*", text.lower())}
    return sorted(word for word in every if len(word) < 64 and word not in {*SYSTEM_COLUMNS, *OWN})


def left_by(db: Captured, statement: str) -> set[str]:
    """The documents that a statement touches; with the reason, what of it could not be told apart."""
    db.sql(statement)
    coarse = [payload["coarse"] for payload in db.tasks("payload", "keys") if "coarse" in payload]
    found = set(db.tasks("document_id", "document")) | set(coarse or db.expanded())
    db.sql("DELETE FROM opensearch_indexing_queue")
    return found


TREE = ") PARTITION BY LIST (id)"
LEAVES = (
    "CREATE TABLE docs_1 PARTITION OF docs FOR VALUES IN (1)",
    "CREATE TABLE docs_2 PARTITION OF docs FOR VALUES IN (2)",
)


@pytest.mark.parametrize("tree", [False, True], ids=["plain", "partitioned"])
def test_columns_named_as_every_word_of_the_functions(db, tree):
    db.sql(
        f"CREATE TABLE docs (id int PRIMARY KEY, one int, two int, seen int{TREE if tree else ')'}",
        *(LEAVES if tree else ()),
    )
    db.watch(*watches("docs", "one", "two"))
    every = words(db, "docs")
    assert {"new", "old", "tg_op", "value", "image", "p0", "opensearch_indexing_ids"} <= set(every)
    db.sql("ALTER TABLE docs " + ", ".join(f'ADD COLUMN "{word}" int DEFAULT {n}' for n, word in enumerate(every, 1)))
    values = {word: n for n, word in enumerate(every, 1)}
    db.watch(*(watch for pair in WATCHED for watch in watches("docs", *pair)))
    whole = set().union(*(ids(values[one], values[two]) for one, two in WATCHED))
    assert left_by(db, "INSERT INTO docs (id) VALUES (1)") == whole
    assert left_by(db, "UPDATE docs SET seen = 1") == {str(values[one] + values[two]) for one, two in WATCHED}
    assert left_by(db, "UPDATE docs SET id = 2") == whole
    if tree and db.conn.raw.info.server_version >= 150000:
        assert left_by(db, "MERGE INTO docs USING (SELECT) s ON true WHEN MATCHED THEN UPDATE SET id = 1") == whole
    assert left_by(db, "DELETE FROM docs") == whole


def test_tables_named_as_every_short_word_of_the_functions(db):
    db.sql("CREATE TABLE docs (id int PRIMARY KEY, one int, two int, seen int)").watch(*watches("docs", "one", "two"))
    every = [word for word in words(db, "docs") if len(word) < SHORT or word.startswith("opensearch_indexing_")]
    db.sql(
        "CREATE SCHEMA theirs",
        *(f'CREATE TABLE theirs."{word}" (id int PRIMARY KEY, one int, two int, seen int)' for word in every),
    )
    db.watch(*(watch for word in every for watch in watches(f'theirs."{word}"', "one", "two")))
    for n, word in enumerate(every, 1):
        whole = ids(n, 7)
        assert (word, left_by(db, f'INSERT INTO theirs."{word}" VALUES (1, {n}, 7, 0)')) == (word, whole)
        assert (word, left_by(db, f'UPDATE theirs."{word}" SET seen = 1')) == (word, {str(n + 7)})
        assert (word, left_by(db, f'DELETE FROM theirs."{word}"')) == (word, whole)
