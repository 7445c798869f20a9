"""
Watches derived from a document query: each document that a change alters is among the keys that they give.

Judged in SQL: documents before and after a change, against the ids that a derived watch leads to from the rows that changed.
"""

from __future__ import annotations

import random

import psycopg
import pytest
from psycopg import sql

from idxctl.capture import suggest as engine
from idxctl.config.settings import DatabaseSettings
from idxctl.core.secret import Secret
from idxctl.demo.shop import load_shop
from idxctl.postgres.connect import connect

LETTERS = "tuvwxyz"
LOCAL = {"search_path": "public"}


def suggested(url: str, document: str, key=("document_id",)) -> engine.Found:
    with connect(DatabaseSettings(url=Secret(url))) as conn:
        return engine.suggest(conn, document, key, local=LOCAL)


def by_table(found: engine.Found) -> dict[str, list]:
    tables: dict[str, list] = {}
    for one in found.watches:
        tables.setdefault(one.table, []).append(one.keys or list(one.key))
    return tables


# --- random schemas and queries --------------------------------------------------------------------------------------


def make_schema(connection: psycopg.Connection, chance: random.Random) -> None:
    """Tables that point at one another by columns of few values, some of them NULL."""
    for letter in LETTERS:
        connection.execute(
            sql.SQL(
                "CREATE TABLE {} (id int PRIMARY KEY, a int, b int, many int[] NOT NULL DEFAULT '{{}}', v text)"
            ).format(sql.Identifier(letter))
        )
        for number in range(12):
            a, b = (chance.choice([None, *range(12)]) for _ in range(2))
            many = chance.sample(range(12), 2)
            connection.execute(
                sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s, %s)").format(sql.Identifier(letter)),
                (number, a, b, many, f"{letter}{number}"),
            )


class Writer:
    """Writes a document query at random: each table below the root tied to what stands around it in one of many forms."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.count = 0
        self.ctes: list[str] = []
        self.joins: list[str] = []

    def alias(self) -> str:
        self.count += 1
        return f"q{self.count}"

    def tie(self, own: str, parent: str) -> str:
        c = self.chance
        return c.choice(
            [
                f"{own}.a = {parent}.id", f"{own}.id = {parent}.a", f"{parent}.b = {own}.a", f"{own}.id = {parent}.b",
                f"{own}.id = ANY ({parent}.many)", f"{parent}.id = ANY ({own}.many)", f"{own}.a = {parent}.a AND {own}.b = {parent}.b",
                f"{own}.id = {parent}.a AND {own}.v <> 'x'",
            ]
        )  # fmt: skip

    def value(self, parent: str, depth: int) -> str:
        """Return an expression over *parent* that shows another table's rows."""
        table, own = self.chance.choice(LETTERS), self.alias()
        tie = self.tie(own, parent)
        inner = f"{own}.v" if depth == 0 or self.chance.random() < 0.4 else f"({own}.v || {self.value(own, depth - 1)})"
        form = self.chance.randrange(7)
        if form == 0:
            return f"coalesce((SELECT string_agg({inner}, ',' ORDER BY {own}.id) FROM {table} {own} WHERE {tie}), '')"
        if form == 1:
            return f"coalesce((SELECT max({inner}) FROM (SELECT * FROM {table}) {own} WHERE {tie}), '')"
        if form == 2:
            return f"(EXISTS (SELECT FROM {table} {own} WHERE {tie} AND {inner} > 'm'))::text"
        if form == 3:
            column = self.chance.choice(["a", "b", "id"])
            return f"({parent}.{column} IN (SELECT {own}.{self.chance.choice(['a', 'id'])} FROM {table} {own} WHERE {inner} > 'c'))::text"
        if form == 4:
            more, third = self.alias(), self.chance.choice(LETTERS)
            kind = self.chance.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN"])
            if kind == "RIGHT JOIN":
                join = f"{third} {more} RIGHT JOIN {table} {own} ON {self.tie(more, own)}"
            else:
                join = f"{table} {own} {kind} {third} {more} ON {self.tie(more, own)}"
            return f"coalesce((SELECT string_agg({inner} || coalesce({more}.v, ''), ',' ORDER BY {own}.id, {more}.id) FROM {join} WHERE {tie}), '')"
        if form == 5:
            arms = " UNION ALL ".join(
                f"SELECT id, a, b, many, v FROM {each}" for each in self.chance.sample(LETTERS, 2)
            )
            return f"coalesce((SELECT string_agg({own}.v, ',' ORDER BY {own}.v) FROM ({arms}) {own} WHERE {tie}), '')"
        name = f"c{len(self.ctes)}"
        self.ctes.append(f"{name} AS (SELECT a, max(v) AS v, count(*) AS n FROM {table} GROUP BY a)")
        return f"coalesce((SELECT {own}.v || {own}.n FROM {name} {own} WHERE {own}.a = {parent}.id), '')"

    def document(self) -> str:
        fields = [f"'f{number}', {self.value('r', 2)}" for number in range(self.chance.randint(1, 3))]
        joins = ""
        if self.chance.random() < 0.6:
            own, table = self.alias(), self.chance.choice(LETTERS)
            lateral = f"LEFT JOIN LATERAL (SELECT string_agg({own}.v, '' ORDER BY {own}.id) AS v FROM {table} {own} WHERE {self.tie(own, 'r')}) l ON true"
            joins += " " + lateral
            fields.append("'l', l.v")
        if self.chance.random() < 0.6:
            own, table = self.alias(), self.chance.choice(LETTERS)
            joins += f" LEFT JOIN {table} {own} ON {own}.id = r.b AND {own}.v <> 'x'"
            fields.append(f"'j', {own}.v || {self.value(own, 1)}")
        head = f"WITH {', '.join(self.ctes)} " if self.ctes else ""
        return f"{head}SELECT r.id AS document_id, jsonb_build_object('v', r.v, {', '.join(fields)}) AS document FROM r{joins}"


def change(connection: psycopg.Connection, chance: random.Random, table: str) -> bool:
    """Change one row of a table; `changed` holds it as it was and as it is."""
    name = sql.Identifier(table)
    number = chance.randrange(14)
    connection.execute("DROP TABLE IF EXISTS changed")
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE changed AS SELECT * FROM {} WHERE id = %s").format(name), (number,)
    )
    kind = chance.random()
    if kind < 0.15:
        statement, values = "DELETE FROM {} WHERE id = %s", (number,)
    elif kind < 0.3:
        statement = "INSERT INTO {} VALUES (%s, %s, %s, '{{1,2}}', 'new') ON CONFLICT (id) DO NOTHING"
        values = (number, chance.randrange(12), chance.randrange(12))
    else:
        column, value = chance.choice(
            [
                ("a", chance.choice([None, *range(12)])),
                ("b", chance.randrange(12)),
                ("v", f"z{chance.random()}"),
                ("many", chance.sample(range(12), 2)),
            ]
        )
        statement, values = f"UPDATE {{}} SET {column} = %s WHERE id = %s", (value, number)
    if not connection.execute(sql.SQL(statement).format(name), values).rowcount:
        return False
    connection.execute(sql.SQL("INSERT INTO changed SELECT * FROM {} WHERE id = %s").format(name), (number,))
    return True


def documents(connection: psycopg.Connection, document: str) -> dict:
    return dict(connection.execute(document.encode()).fetchall())


def touched(connection: psycopg.Connection, watches: list[engine.Suggested]) -> set:
    found = set()
    for one in watches:
        query = one.keys or sql.SQL("SELECT {} FROM changed").format(sql.Identifier(*one.key))
        found |= {key for (key,) in connection.execute(query if not isinstance(query, str) else query.encode())}
    return found


@pytest.mark.sampled
@pytest.mark.parametrize("seed", range(40))
def test_every_document_that_a_change_alters_is_found(database, seed):
    chance = random.Random(seed)
    with psycopg.connect(database, autocommit=True) as connection:
        make_schema(connection, chance)
        connection.execute("CREATE TABLE r AS SELECT * FROM t")
        connection.execute("ALTER TABLE r ADD PRIMARY KEY (id)")
        document = Writer(chance).document()
        found = suggested(database, document)
        assert found.unknown == (), document
        tables = {one.table for one in found.watches}
        altered = 0
        for _ in range(60):
            table = chance.choice(sorted(tables))
            before = documents(connection, document)
            if not change(connection, chance, table):
                continue
            after = documents(connection, document)
            differ = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
            altered += len(differ)
            mine = [one for one in found.watches if one.table == table]
            assert differ <= touched(connection, mine), (document, table, mine)
        assert altered


# --- forms, each with what is wanted ------------------------------------------------------------------------------------


@pytest.fixture
def market(database):
    with psycopg.connect(database, autocommit=True) as connection:
        load_shop(connection, 20)
        connection.execute("CREATE TABLE settings (name text PRIMARY KEY, value text)")
        connection.execute(
            "CREATE MATERIALIZED VIEW counts AS SELECT listing_id, count(*) AS n FROM listing_images GROUP BY 1"
        )
        connection.execute(
            "CREATE VIEW pictures AS SELECT i.listing_id, i.url, c.name FROM listing_images i JOIN listings l ON l.id = i.listing_id "
            "JOIN categories c ON c.id = l.category_id"
        )
    return database


def of(shown: str, more: str = "") -> str:
    return f"SELECT l.id AS document_id, jsonb_build_object('x', {shown}) AS document FROM listings l {more}"


@pytest.mark.parametrize(
    ("document", "table", "wanted"),
    [
        (of("(SELECT max(i.url) FROM listing_images i WHERE i.listing_id = l.id)"), "listing_images", [["listing_id"]]),
        (of("c.name", "LEFT JOIN categories c ON c.id = l.category_id"), "categories", ["SELECT t1.id FROM changed c JOIN listings t1 ON c.id = t1.category_id"]),
        (of("i.url", "JOIN listing_images i ON i.listing_id = l.id"), "listing_images", [["listing_id"]]),
        (of("(SELECT max(p.name) FROM pictures p WHERE p.listing_id = l.id)"), "listing_images", [["listing_id"]]),
        (of("(SELECT max(p.name) FROM pictures p WHERE p.listing_id = l.id)"), "categories", ["SELECT t2.listing_id FROM changed c JOIN listings t1 ON c.id = t1.category_id JOIN listing_images t2 ON t1.id = t2.listing_id"]),
    ],
)  # fmt: skip
def test_a_condition_is_turned_round(market, document, table, wanted):
    assert by_table(suggested(market, document))[table] == wanted


@pytest.mark.parametrize(
    ("document", "table", "why"),
    [
        (of("(SELECT value FROM settings WHERE name = 'x')"), "settings", "no equality ties"),
        (of("(SELECT max(i.url) FROM listing_images i WHERE i.listing_id = l.id OR i.position = l.stock)"), "listing_images", "no equality ties"),
        (of("(SELECT max(i.url) FROM listing_images i WHERE i.listing_id = l.id + 1)"), "listing_images", "no equality ties"),
        (of("(SELECT max(CASE WHEN i.listing_id = l.id THEN i.url END) FROM listing_images i)"), "listing_images", "no equality ties"),
        (of("(SELECT n FROM counts WHERE counts.listing_id = l.id)"), "counts", "materialized view"),
        (of("i.url", "FULL JOIN listing_images i ON i.listing_id = l.id"), "listing_images", "no equality ties"),
        (of("(WITH RECURSIVE up AS (SELECT c.* FROM categories c WHERE c.id = l.category_id UNION ALL SELECT c.* FROM up JOIN categories c ON c.id = up.parent_id) SELECT max(name) FROM up)"), "categories", "recursive"),
        (of("(SELECT max(c.name) FROM categories c JOIN (SELECT listing_id AS id, position AS p FROM listing_images UNION ALL SELECT listing_id, 1 FROM listing_attributes) u ON u.p = c.id WHERE u.id = l.id)"), "categories", "no equality ties"),
        ("SELECT l.id || '' AS document_id, to_jsonb(l) AS document FROM listings l", "listings", "no plain column"),
    ],
)  # fmt: skip
def test_what_cannot_be_turned_round_is_said_and_never_guessed(market, document, table, why):
    found = suggested(market, document)
    assert table not in by_table(found)
    assert [one.why for one in found.unknown if one.table == table and why in one.why], found


def test_columns_that_no_document_shows_are_to_be_ignored(market):
    found = suggested(market, of("(SELECT max(i.url) FROM listing_images i WHERE i.listing_id = l.id)"))
    ignored = {one.table: one.ignore for one in found.watches}
    assert ignored["listing_images"] == ("id", "is_main", "position")
    assert "title" in ignored["listings"]
    whole = suggested(market, "SELECT l.id AS document_id, to_jsonb(l) AS document FROM listings l")
    assert whole.watches[0].ignore == ()


# --- the command ------------------------------------------------------------------------------------------------------


def test_missing_watches_are_printed_and_written(market, idxctl, opensearch_url):
    idxctl.use(database=market, opensearch=opensearch_url)
    assert idxctl("init", "listings").status == 0
    config = idxctl.cwd / "idxctl.toml"
    whole = config.read_text()
    first = whole.index("[[indexes.listings.watch]]")
    short = whole[: whole.index("[[indexes.listings.watch]]", first + 1)]
    config.write_text(short)
    assert idxctl("config", "validate").stderr.count("which no watch of this index covers") == 5
    shown = idxctl("watch", "suggest", "-o", "json").json
    assert {one["table"] for one in shown[0]["watches"]} == {
        "categories",
        "storefronts",
        "listing_images",
        "listing_attributes",
        "listing_translations",
    }
    assert [one["table"] for one in shown[0]["by_hand"]] == ["categories"]
    assert config.read_text() == short
    assert idxctl("watch", "suggest", "--write").status == 0
    assert config.read_text().startswith(short)
    again = idxctl("watch", "suggest")
    assert again.stdout.startswith("ok Nothing to suggest")
    assert "WITH RECURSIVE" in again.stderr
    assert idxctl("config", "validate").stderr == ""


def test_watches_that_somebody_wrote_are_not_suggested_again(market, idxctl, opensearch_url):
    idxctl.use(database=market, opensearch=opensearch_url)
    assert idxctl("init", "listings").status == 0
    done = idxctl("watch", "suggest")
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith("ok Nothing to suggest")
