"""docs/tables.md: the tables as migrations make them, each with what it is for."""

from pathlib import Path

import psycopg
import pytest

from making import tables

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"


@pytest.fixture
def found(migrated):
    with psycopg.connect(migrated) as connection:
        return tables.found_in(connection)


def test_the_page_is_what_the_database_has(found):
    assert PAGE.read_text(encoding="utf-8") == tables.tables_page(found), "make docs writes tables.md"


def test_every_table_and_every_column_that_people_use_has_a_text(found):
    assert set(found) == set(tables.TABLES)
    for name, texts in tables.COLUMNS.items():
        assert {column for column, *_ in found[name]} == set(texts), name
