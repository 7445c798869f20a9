"""Capture over columns, expressions and writers that are seldom met together."""

from __future__ import annotations

from collections import Counter

import pytest

from idxctl.capture.plan import InvalidWatches
from idxctl.core.errors import ConfigError
from idxctl.postgres import migrate
from support.capture import Captured, index


@pytest.fixture
def db(migrated):
    captured = Captured(migrated)
    yield captured
    captured.conn.close()


@pytest.fixture
def virtual(db):
    if db.conn.raw.info.server_version < 180000:
        pytest.skip("virtual columns came with PostgreSQL 18")
    return db


def each_once(*ids):
    return Counter(map(str, ids))


# Virtual columns: a transition table holds no value of them -------------------------------------------------------------


def test_a_virtual_column_as_key(virtual):
    virtual.sql("CREATE TABLE docs (code text PRIMARY KEY, slug text GENERATED ALWAYS AS (lower(code)))")
    virtual.watch({"table": "docs", "key": ("slug",)}, {"table": "docs", "key_sql": "slug || '!'"})
    assert virtual.after("INSERT INTO docs (code) VALUES ('A'), ('B')") == each_once("a", "a!", "b", "b!")
    assert virtual.after("UPDATE docs SET code = 'C' WHERE code = 'A'") == each_once("a", "a!", "c", "c!")
    assert virtual.after("DELETE FROM docs WHERE code = 'B'") == each_once("b", "b!")


def test_a_virtual_column_counts_where_the_one_it_is_made_of_is_ignored(virtual):
    virtual.sql("CREATE TABLE docs (id int PRIMARY KEY, price int, dear bool GENERATED ALWAYS AS (price > 10))")
    virtual.watch({"table": "docs", "key": ("id",), "ignore": ("price",)})
    virtual.after("INSERT INTO docs (id, price) VALUES (1, 1), (2, 2)")
    assert virtual.after("UPDATE docs SET price = 3") == {}
    assert virtual.after("UPDATE docs SET price = 30 WHERE id = 2") == each_once(2)


def test_a_lookup_reads_a_virtual_column(virtual):
    virtual.sql(
        "CREATE TABLE docs (id int PRIMARY KEY, tag text)",
        "CREATE TABLE tags (id int PRIMARY KEY, name text, tag text GENERATED ALWAYS AS (upper(name)))",
        "INSERT INTO docs VALUES (1, 'A'), (2, 'B'), (3, 'C')",
        "INSERT INTO tags (id, name) VALUES (1, 'a')",
    )
    virtual.watch({"table": "tags", "keys": "SELECT d.id FROM docs d JOIN changed c ON c.tag = d.tag"})
    virtual.sql("UPDATE tags SET name = 'b'")
    assert virtual.expanded() == ["1", "2"]


def test_a_virtual_column_of_a_partitioned_table(virtual):
    virtual.sql(
        "CREATE TABLE docs (id int, p int, slug text GENERATED ALWAYS AS ('s' || id), PRIMARY KEY (id, p)) PARTITION BY LIST (p)",
        "CREATE TABLE docs_1 PARTITION OF docs FOR VALUES IN (1)",
        "CREATE TABLE docs_2 PARTITION OF docs FOR VALUES IN (2)",
    ).watch({"table": "docs", "key": ("slug",)})
    assert virtual.after("INSERT INTO docs VALUES (1, 1)", "INSERT INTO docs_2 VALUES (2, 2)") == each_once("s1", "s2")
    merge = "MERGE INTO docs d USING (VALUES (1)) s (id) ON d.id = s.id WHEN MATCHED THEN UPDATE SET p = 2"
    assert set(virtual.after(merge)) == {"s1"}


# Keys -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expression", ["max(id)", "first_value(id) OVER ()"])
def test_a_key_that_takes_many_rows_together_is_refused(db, expression):
    db.sql("CREATE TABLE docs (id int PRIMARY KEY)")
    with pytest.raises(InvalidWatches, match=r"functions are not allowed") as refused:
        db.watch({"table": "docs", "key_sql": expression})
    assert expression in str(refused.value)


def test_a_key_of_several_values_a_row_leads_to_each(db):
    db.sql("CREATE TABLE lists (id int PRIMARY KEY, docs int[], seen int)")
    db.watch({"table": "lists", "key_sql": "unnest(docs)", "ignore": ("seen",)})
    assert db.after("INSERT INTO lists VALUES (1, '{4,5}'), (2, '{}'), (3, NULL)") == each_once(4, 5)
    assert db.after("UPDATE lists SET docs = '{5,6}' WHERE id = 1") == each_once(4, 5, 6)
    assert db.after("UPDATE lists SET seen = 1") == {}


# Writers ----------------------------------------------------------------------------------------------------------------


def test_what_a_lookup_stores_does_not_depend_on_the_writers_settings(db):
    db.sql(
        "CREATE TABLE docs (id int, at timestamptz, f float8, i interval)",
        "CREATE TABLE spans (id int, span tstzrange, f float8, i interval)",
        "INSERT INTO docs VALUES (1, '2024-01-15 23:30+00', 0, '1 s'), (2, '2000-01-01', 0.1::float8 + 0.2, '2 s'), "
        "(3, '2000-01-01', 0, '-1 day -2:03:04')",
        "INSERT INTO spans VALUES (1, '[2024-01-02 00:00+00,2024-02-03 00:00+00)', 0.1::float8 + 0.2, '-1 day -2:03:04')",
    )
    db.watch(
        {"table": "spans", "keys": "SELECT d.id FROM docs d JOIN changed c ON d.at <@ c.span OR d.f = c.f OR d.i = c.i"}
    )
    odd = (
        "DateStyle = 'SQL, DMY'",
        "TimeZone = 'Asia/Kathmandu'",
        "IntervalStyle = sql_standard",
        "extra_float_digits = 0",
    )
    db.sql(*(f"SET {one}" for one in odd), "UPDATE spans SET id = 2")
    db.sql("RESET ALL")
    assert db.expanded() == ["1", "2", "3"]


def test_a_backslash_in_a_key_expression_means_the_same_to_every_writer(db):
    db.sql("CREATE TABLE docs (id int PRIMARY KEY, path text)")
    db.watch({"table": "docs", "key_sql": r"CASE WHEN strpos(path, 'a\b') > 0 THEN id END"})
    db.sql("SET standard_conforming_strings = off", "SET escape_string_warning = off")
    assert db.after(r"INSERT INTO docs VALUES (1, E'x/a\\b'), (2, 'y')") == each_once(1)


def test_a_table_that_another_idxctl_captures_is_refused_and_stays_captured(db):
    db.sql("CREATE TABLE docs (id int PRIMARY KEY)", "CREATE SCHEMA other").watch({"table": "docs", "key": ("id",)})
    second = Captured(db.url)
    second.conn.close()
    second.conn = second.connect(schema="other")
    migrate.up(second.conn)
    with pytest.raises(ConfigError, match="docs is captured already, by the idxctl in schema public"):
        second.install(index({"table": "docs", "key": ("id",)}))
    second.conn.close()
    assert db.after("INSERT INTO docs VALUES (7)") == each_once(7)
