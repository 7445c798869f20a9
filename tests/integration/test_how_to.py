"""The how-to pages: every command block is run, in the order of the page, as a reader would type it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import psycopg
import pytest

from idxctl.embedded.postgres import packaged_bin
from support.reader import Reader, blocks
from support.rig import ITEMS_SCHEMA, Rig, write_items

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "how-to"


def reader_of(index, database, opensearch, directory, idxctl):
    words = {"marketplace_listings": index, "UPDATE listings": "UPDATE items", "12345": "5", "-t listings": "-t items"}
    return Reader(database, opensearch, directory, idxctl, words)


@pytest.fixture
def reader(items, idxctl, tmp_path):
    """A reader with an index in service."""
    directory = tmp_path / "shop"
    shutil.copytree(items.directory, directory)
    return reader_of(items.index, items.database, items.opensearch, directory, idxctl)


def test_tuning(reader, items):
    assert reader.read("docs/how-to/tuning.md") == 6
    assert items.queued() == 10


def test_canary(reader, items):
    assert reader.read("docs/how-to/canary.md") == 6
    assert items.document(5)["price"] == "99"
    assert items.differences() == []


def test_why_a_document_is_wrong(reader, items):
    assert reader.read("docs/how-to/why-is-a-document-wrong.md") == 2


def test_drift(reader, items):
    """The page is a table, which test_drift holds to what verify says; its commands are run as the reader would."""
    page = (PAGES / "drift.md").read_text()
    for line in dict.fromkeys(re.findall(r"`(idxctl [^`\[A-Z]+)`", page)):
        reader.type(line.replace("--wait", "").strip())
    assert items.differences() == []


def test_rollback(reader, items):
    items.sql("UPDATE items SET price = 'dear' WHERE id <= 3")
    items.hand().rest()
    items.sql("UPDATE items SET price = '7' WHERE id <= 3")
    assert reader.read("docs/how-to/rollback.md") == 11
    assert items.letters() == {}
    assert items.differences() == []


def test_renaming_a_column(reader, items):
    assert reader.read("docs/how-to/rename-a-column.md") == 27
    assert "written after it" in str(items.document(6)["parts"])
    assert "written in between" in str(items.document(7)["parts"])
    items.configure(document=(reader.directory / "document.sql").read_text())
    assert items.differences() == []


def test_what_to_do_about_alerts(reader, items):
    """The runbook's commands, with an index and a group of letters for its placeholders."""
    items.sql("UPDATE items SET price = 'dear' WHERE id <= 3")
    items.hand().rest()
    group = items.one("SELECT min(fingerprint) FROM opensearch_indexing_dlq")
    role = items.one("SELECT current_user")
    page = (PAGES / "alerts.md").read_text()
    commands = dict.fromkeys(re.findall(r"`(idxctl [^`]+)`", page))
    assert len(commands) > 12
    for line in commands:
        filled = line.replace("NAME", items.index).replace("FINGERPRINT", group).replace("ROLE", role)
        if not filled.startswith(
            ("idxctl dlq retry", "idxctl reindex", "idxctl verify", "idxctl watch remove")
        ):  # three fail again; the last asks
            reader.type(filled)


def test_restore_from_a_backup(reader, items):
    """One table comes back from its dump as it was; what was written since is gone from the index too."""
    reader.environ["PATH"] = f"{packaged_bin()}{os.pathsep}{reader.environ['PATH']}"
    reader.type('pg_dump --format=custom -t items --file=dump "$IDXCTL_DATABASE_URL"')
    items.sql("INSERT INTO items (id, name) VALUES (99, 'written after the backup')")
    items.hand().rest()
    items.sql("DROP TABLE items CASCADE")
    assert reader.read("docs/how-to/restore-from-a-backup.md") == 4
    items.hand().rest()
    assert items.differences() == []


def test_orm_migrations(items):
    """The filter of the page leaves out every table of ours, and none of the application's."""
    ((_, code, _),) = blocks((PAGES / "orm-migrations.md").read_text())
    found: dict = {}
    exec(code, found)
    tables = [name for (name,) in items.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    kept = {name for name in tables if found["include_name"](name, "table", {})}
    assert kept == {"items", "parts", "categories"}


def test_coming_from_an_older_indexer(database, opensearch_url, index_prefix, idxctl, tmp_path):
    directory = tmp_path / "shop"
    write_items(directory, index_prefix)
    older = re.search(r'OLDER = """(.*?)"""', (Path(__file__).parent / "test_adoption.py").read_text(), re.DOTALL)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(ITEMS_SCHEMA)
        connection.execute(older.group(1))
        connection.execute(
            "INSERT INTO opensearch_indexing_dlq (listing_id, action, attempts, last_error) VALUES (3, 'index', 3, 'x'), (4, 'index', 3, 'x')"
        )
    reader = reader_of(index_prefix, database, opensearch_url, directory, idxctl)
    _put_concrete_index(opensearch_url, index_prefix)
    assert reader.read("docs/how-to/coming-from-an-older-indexer.md") == 13
    rig = Rig(database, opensearch_url, index_prefix, directory)
    try:
        assert rig.differences() == []
        assert rig.letters() == {}
    finally:
        rig.close()


def _put_concrete_index(url: str, name: str) -> None:
    from support import judge

    judge.call(url, "PUT", f"/{name}", {"settings": {"number_of_replicas": 0}})


def test_an_index_of_ones_own_table(database, opensearch_url, index_prefix, idxctl, tmp_path):
    from idxctl.demo.shop import load_shop

    with psycopg.connect(database, autocommit=True) as connection:
        load_shop(connection, 30)
        connection.execute(f"ALTER TABLE listings RENAME TO {index_prefix}")  # the index is named like its table
    (directory := tmp_path / "shop").mkdir()
    reader = Reader(database, opensearch_url, directory, idxctl, {"listings": index_prefix})
    assert reader.read("docs/how-to/index-a-table.md") == 14
    rig = Rig(database, opensearch_url, index_prefix, directory)
    try:
        assert rig.document(7)["title"] == "a new title"
        assert rig.differences() == []
    finally:
        rig.close()


def test_no_page_is_forgotten():
    read = set(re.findall(r'[/"]([\w-]+\.md)"', Path(__file__).read_text()))
    assert {page.name for page in PAGES.glob("*.md")} <= read
