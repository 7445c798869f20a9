"""Fixtures of the engine's tests; conftest.py of each folder takes them in."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from support import stops as stops_
from support.rig import ITEMS_SCHEMA, Rig, write_items


@pytest.fixture(scope="session")
def items_template(templates, migrate) -> str:
    def fill(url: str) -> None:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(ITEMS_SCHEMA)

    return templates("items", fill)


@pytest.fixture
def items(clone, items_template, opensearch_url, unique_name, tmp_path) -> Iterator[Rig]:
    """Twenty items with their parts and categories: watched, indexed as generation 1, everything equal."""
    directory = tmp_path / "items"
    write_items(directory, unique_name)
    with clone(items_template) as url:
        rig = Rig(url, opensearch_url, unique_name, directory)
        try:
            rig.watch()
            rig.reindex()
            yield rig
        finally:
            rig.close()


@pytest.fixture
def many(items: Rig) -> Rig:
    """The items and four hundred more: several chunks, where `support.reindexing` makes them small."""
    items.sql("INSERT INTO items (id, name) SELECT i, 'more ' || i FROM generate_series(1001, 1400) i")
    items.drain()
    return items


@pytest.fixture
def untriggered(clone, items_template, opensearch_url, unique_name, tmp_path) -> Iterator[Rig]:
    """The same items without a trigger: whoever changes them says so."""
    directory = tmp_path / "items"
    write_items(directory, unique_name)
    with clone(items_template) as url:
        rig = Rig(url, opensearch_url, unique_name, directory)
        try:
            rig.put_in_place()
            yield rig
        finally:
            rig.close()


@pytest.fixture
def stops() -> Iterator[stops_.Stops]:
    """Named points of the real code, to stop at."""
    with stops_.installed() as installed:
        yield installed
