"""
C6 over random tables: columns of every type there is, random watches, random ALTERs between writes.

Beside each watched table stands its twin without triggers: a write fails there, or nowhere. What a write changed is in
the queue by its key, or a coarse task or a gap says that it may be.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import psycopg
import pytest

from idxctl.capture.plan import InvalidWatches
from idxctl.core.errors import ConfigError
from idxctl.queue import gaps
from support.capture import Captured, index

pytestmark = pytest.mark.sampled

STEPS = 30
SAMPLES = (
    "1", "0", "-7", "1.5", "NaN", "infinity", "a", "", "true", "{}", "{1,2}", "{a,NULL}", "2026-11-02", "1 day", "(1,2)", "[1,2)", "{[1,2)}",
    "((1,2),(3,4))", "<(1,2),3>", '{"a": 1, "b": "x\\u0000y"}', '{"a": 1e400000}', '"\\ud800"', "null", "<a/>", "127.0.0.1/8",
    "08:00:2b:01:02:03", "0/16", "101", "glad", "{glad,NULL}", '(5,"x, y")', "b & c", "12:00:00+02", "$1.50", "pg_class", "\\x00ff",
)  # fmt: skip
THEIRS = (
    "CREATE TYPE mood AS ENUM ('sad', 'glad')",
    "CREATE DOMAIN counted AS int CHECK (VALUE <> 13)",
    "CREATE DOMAIN counted_again AS counted",
    "CREATE DOMAIN worded AS text",
    "CREATE TYPE pair AS (n counted, t text)",
    "CREATE TYPE moods AS RANGE (subtype = mood)",
    "CREATE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2'",
    "CREATE FUNCTION spoken(mood) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT CASE $1 WHEN 'sad' THEN 'x' ELSE 'y' END $$",
    "CREATE CAST (mood AS text) WITH FUNCTION spoken(mood) AS IMPLICIT",
)
TYPES = """
    SELECT t.oid::regtype::text FROM pg_type t
    WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm') AND t.typisdefined AND t.typcategory NOT IN ('Z', 'P')
      AND t.typname NOT LIKE 'pg\\_%' AND t.typname NOT LIKE '\\_pg\\_%' AND t.typname NOT LIKE 'reg%' AND t.typrelid = 0
      AND NOT EXISTS (SELECT FROM pg_type e JOIN pg_class c ON c.reltype = e.oid WHERE e.oid = t.typelem)
    ORDER BY 1"""
PRIVATE = ("mood", "mood[]", "counted", "counted[]", "counted_again", "worded", "pair", "pair[]", "moods")


@pytest.fixture
def db(migrated) -> Iterator[Captured]:
    captured = Captured(migrated)
    captured.sql(*THEIRS)
    yield captured
    captured.conn.close()


class World:
    """A table, its twin, and what is watched."""

    def __init__(self, db: Captured, seed: int) -> None:
        self.db = db
        self.chance = random.Random(seed)
        self.other = psycopg.connect(db.url, autocommit=True)
        self.values = self._values()
        self.columns: dict[str, str] = {"id": "int", "g": "int"}
        self.number = 0
        self.rows = 0
        self.away = False
        self.ran: list[str] = []

    def _values(self) -> dict[str, list[str]]:
        """Say which of the samples each type takes."""
        types = [of for (of,) in self.other.execute(TYPES)] + list(PRIVATE)
        found: dict[str, list[str]] = {}
        for of in types:
            found[of] = []
            for sample in SAMPLES:
                try:
                    self.other.execute(f"SELECT %s::{of}", (sample,))
                except psycopg.Error:
                    continue
                found[of].append(sample)
        return {of: values for of, values in found.items() if values}

    def both(self, statement: str) -> bool:
        """Run it on the twin and on the table; it fails on both or on neither. Returns whether it went through."""
        said = []
        for table in ("twin", "docs"):
            written = statement.replace("{t}", table)
            self.ran.append(written)
            try:
                self.other.execute(written)
            except psycopg.Error as error:
                said.append(f"{error.sqlstate} {error}")
            else:
                said.append("")
        states = [each[:5] for each in said]
        assert states[0] == states[1], f"{said}\n" + "\n".join(self.ran[-30:])
        return said[1] == ""

    def a_type(self) -> str:
        return self.chance.choice([*self.values, *PRIVATE, "int", "bigint", "text", "uuid", "json"])

    def a_value(self, of: str) -> str:
        if self.chance.random() < 0.2 or of not in self.values:
            return "NULL"
        return "'" + self.chance.choice(self.values[of]).replace("'", "''") + "'"

    def a_column(self) -> str:
        return self.chance.choice(list(self.columns))

    def begin(self) -> None:
        self.other.execute("CREATE TABLE docs (id int PRIMARY KEY, g int)")
        self.other.execute("CREATE TABLE twin (id int PRIMARY KEY, g int)")
        for _ in range(6):
            self.add()

    def watches(self) -> list[dict]:
        """Return those of some random ones that can be installed."""
        one, two = self.a_column(), self.a_column()
        possible = [
            {"key": ("id",)},
            {"key": (one,)},
            {"key": ("id",), "ignore": (two,)},
            {"key_sql": f'"{one}"::text'},
            {"key_sql": f'length("{two}"::text)'},
            {"key_sql": "12 / g"},
            {"key_sql": f'"{one}"::text::int'},
            {"key_sql": f'"{two}"::text::jsonb ->> 0'},
            {"key_sql": "doubled(id)"},
            {"keys": f'SELECT id FROM changed WHERE "{one}" IS NOT NULL'},
            {"keys": "SELECT (to_jsonb(c) ->> 'id')::int FROM changed c"},
            {"keys": f"SELECT id FROM changed WHERE \"{two}\"::text <> 'none'", "ignore": (one,)},
        ]
        taken = []
        for watch in self.chance.sample(possible, 5):
            try:
                self.db.install(index(*taken, {"table": "docs", **watch}))
            except InvalidWatches:
                continue
            taken.append({"table": "docs", **watch})
        self.ran.append(f"-- watch {taken}")
        return taken

    # What happens -----------------------------------------------------------------------------------------------------
    def add(self) -> None:
        self.number += 1
        name, of = f"c{self.number}", self.a_type()
        if self.both(f"ALTER TABLE {{t}} ADD COLUMN {name} {of}"):
            self.columns[name] = of

    def drop(self) -> None:
        name = self.a_column()
        if name != "id" and self.both(f'ALTER TABLE {{t}} DROP COLUMN "{name}"'):
            del self.columns[name]

    def rename(self) -> None:
        name = self.a_column()
        self.number += 1
        if self.both(f'ALTER TABLE {{t}} RENAME COLUMN "{name}" TO c{self.number}'):
            self.columns[f"c{self.number}"] = self.columns.pop(name)

    def retype(self) -> None:
        name, of = self.a_column(), self.a_type()
        if self.both(f'ALTER TABLE {{t}} ALTER COLUMN "{name}" TYPE {of} USING NULL::{of}'):
            self.columns[name] = of

    def lose(self) -> None:
        """The queue goes away, or comes back; or a function does."""
        if self.away:
            self.other.execute("ALTER TABLE away RENAME TO opensearch_indexing_queue")
        elif self.chance.random() < 0.3:
            self.other.execute("DROP FUNCTION IF EXISTS doubled(int)")
            return
        else:
            self.other.execute("ALTER TABLE opensearch_indexing_queue RENAME TO away")
        self.away = not self.away

    def insert(self) -> None:
        self.rows += 1
        given = {name: self.a_value(of) for name, of in self.columns.items()}
        if "id" in given:
            given["id"] = str(self.rows)
        names = ", ".join(f'"{name}"' for name in given)
        self.write(f"INSERT INTO {{t}} ({names}) VALUES ({', '.join(given.values())})")

    def update(self) -> None:
        name = self.a_column()
        if name != "id":
            self.write(f'UPDATE {{t}} SET "{name}" = {self.a_value(self.columns[name])}')

    def delete(self) -> None:
        if "id" in self.columns and self.columns["id"] == "int":
            self.write(f"DELETE FROM {{t}} WHERE id = {self.chance.randint(1, max(self.rows, 1))}")

    def write(self, statement: str) -> None:
        before = (self.tasks(), gaps.unseen(self.db.conn))
        if not self.both(statement):
            return
        (rows,) = self.other.execute("SELECT count(*) FROM docs").fetchone()
        inserted = statement.startswith("INSERT") and rows
        if inserted and self.always:  # a new row has an id, so its task is there
            assert (self.tasks(), gaps.unseen(self.db.conn)) != before, "\n".join(self.ran[-30:])

    def tasks(self) -> int:
        name = "away" if self.away else "opensearch_indexing_queue"
        return self.other.execute(f"SELECT count(*) FROM {name}").fetchone()[0]

    def go(self, steps: int) -> None:
        acts = (
            [self.insert] * 6
            + [self.update] * 5
            + [self.delete] * 2
            + [self.add, self.drop, self.rename, self.retype, self.lose]
        )
        taken = self.watches()
        self.always = any(watch.get("key") == ("id",) for watch in taken)
        for step in range(steps):
            self.chance.choice(acts)()
            if step % 10 == 9 and not self.away:
                try:
                    taken = self.watches()
                except ConfigError:
                    continue
                self.always = any(watch.get("key") == ("id",) for watch in taken)


@pytest.mark.parametrize("seed", range(16))
def test_no_write_fails_that_would_not_fail_without_triggers(db, seed):
    world = World(db, seed)
    world.begin()
    try:
        world.go(STEPS)
    finally:
        world.other.close()
