"""The how-to pages: every command block is run, in the order of the page, as a reader would type it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import psycopg
import pytest

from support.rig import ITEMS_SCHEMA, Rig, write_items

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "how-to"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GOES_ON = ("idxctl worker start", "idxctl serve")  # until it is stopped


class Reader:
    """Types what a page says; its index's name stands for the page's."""

    def __init__(self, rig_index: str, database: str, opensearch: str, directory: Path, idxctl) -> None:
        self.index = rig_index
        self.directory = directory
        self.database = database
        programs = directory / "bin"
        programs.mkdir(parents=True)
        (programs / "idxctl").write_text(f'#!/bin/sh\nexec {sys.executable} -m idxctl "$@"\n')
        (programs / "idxctl").chmod(0o755)
        given = {"IDXCTL_DATABASE_URL": database, "IDXCTL_OPENSEARCH_URL": opensearch}
        self.environ = {**idxctl.environ, **given, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}

    def read(self, page: str) -> int:
        """Run the page's blocks; returns how many commands and statements that were."""
        text = (PAGES / page).read_text(encoding="utf-8")
        for word, ours in (("marketplace_listings", self.index), ("UPDATE listings", "UPDATE items"), ("12345", "5")):
            text = text.replace(word, ours)
        ran = 0
        for kind, block in BLOCK.findall(text):
            if kind == "sh":
                ran += sum(self.type(line) for line in block.replace("\\\n", " ").splitlines() if line.strip())
            elif kind == "sql":
                with psycopg.connect(self.database, autocommit=True) as connection:
                    connection.execute(block)
                ran += block.count(";")
            elif kind == "python":
                ran += self.type(shlex.join([sys.executable, "-W", "error", "-c", block]))
            else:
                assert kind == "toml", kind
                self.configure(block)
        return ran

    def configure(self, block: str) -> None:
        path = self.directory / "idxctl.toml"
        path.write_text(block + "\n" + path.read_text())

    def type(self, line: str) -> int:
        if line.startswith(GOES_ON):
            return self.start(line)
        if line.startswith("idxctl cron install"):
            line += " --print"  # a crontab is the system tests' business
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.directory, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return 1

    def start(self, line: str) -> int:
        words = f"exec {line} --log-format json"
        with subprocess.Popen(
            ["bash", "-c", words], cwd=self.directory, env=self.environ, stderr=subprocess.PIPE, text=True
        ) as process:
            facts = (json.loads(told) for told in process.stderr)
            assert next((fact for fact in facts if fact["fact"] in {"started", "http"}), None), f"{line} did not start"
            process.terminate()
            assert process.wait(60) == 0, line
        return 1


@pytest.fixture
def reader(items, idxctl, tmp_path):
    """A reader with an index in service."""
    directory = tmp_path / "shop"
    shutil.copytree(items.directory, directory)
    return Reader(items.index, items.database, items.opensearch, directory, idxctl)


def test_tuning(reader, items):
    assert reader.read("tuning.md") == 6
    assert items.queued() == 10


def test_canary(reader, items):
    assert reader.read("canary.md") == 6
    assert items.document(5)["price"] == "99"
    assert items.differences() == []


def test_rollback(reader, items):
    items.sql("UPDATE items SET price = 'dear' WHERE id <= 3")
    items.hand().rest()
    items.sql("UPDATE items SET price = '7' WHERE id <= 3")
    assert reader.read("rollback.md") == 8
    assert items.letters() == {}
    assert items.differences() == []


def test_renaming_a_column(reader, items):
    assert reader.read("rename-a-column.md") == 12
    assert "written in between" in str(items.document(7)["parts"])
    items.configure(document=(reader.directory / "document.sql").read_text())
    assert items.differences() == []


def test_what_to_do_about_alerts(reader, items):
    """The runbook's commands, with an index and a group of letters for its placeholders."""
    items.sql("UPDATE items SET price = 'dear' WHERE id <= 3")
    items.hand().rest()
    group = items.one("SELECT min(fingerprint) FROM opensearch_indexing_dlq")
    page = (PAGES / "alerts.md").read_text()
    commands = dict.fromkeys(re.findall(r"`(idxctl [^`]+)`", page))
    assert len(commands) > 12
    for line in commands:
        filled = line.replace("NAME", items.index).replace("FINGERPRINT", group)
        if not filled.startswith(("idxctl dlq retry", "idxctl reindex")):  # they fail again, as the page says
            reader.type(filled)


def test_restore_from_a_backup(items):
    """The page's claims are `test_triggers_were_off.py`; here the object names that its list leaves out."""
    assert "grep -v opensearch_indexing" in (PAGES / "restore-from-a-backup.md").read_text()
    names = items.sql("SELECT tgname FROM pg_trigger WHERE tgrelid = 'items'::regclass AND NOT tgisinternal")
    assert names
    assert all(name.startswith("opensearch_indexing") for (name,) in names)


def test_orm_migrations(items):
    """The filter of the page leaves out every table of ours, and none of the application's."""
    page = (PAGES / "orm-migrations.md").read_text()
    found: dict = {}
    code = re.search(r"    def include_name.*?\n\n", page, re.DOTALL)
    exec(textwrap.dedent(code[0]), found)
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
    reader = Reader(index_prefix, database, opensearch_url, directory, idxctl)
    _put_concrete_index(opensearch_url, index_prefix)
    assert reader.read("coming-from-an-older-indexer.md") == 13
    rig = Rig(database, opensearch_url, index_prefix, directory)
    try:
        assert rig.differences() == []
        assert rig.letters() == {}
    finally:
        rig.close()


def _put_concrete_index(url: str, name: str) -> None:
    from support import judge

    judge.call(url, "PUT", f"/{name}", {"settings": {"number_of_replicas": 0}})


def test_no_page_is_forgotten():
    read = set(re.findall(r'"([\w-]+\.md)"', Path(__file__).read_text()))
    assert {page.name for page in PAGES.glob("*.md")} <= read
