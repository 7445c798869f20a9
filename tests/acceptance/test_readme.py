"""README.md as a newcomer follows it: their own database, its files, its commands, in the order of the page."""

import re
from pathlib import Path

import psycopg
import pytest

from idxctl.demo.shop import load_shop
from support import judge
from support.reader import Reader, blocks, commands
from support.rig import until

README = Path(__file__).parents[2] / "README.md"
NOT_TYPED = ("make ", "pip install ", "export ")  # CI does; the test names servers of its own


@pytest.fixture
def newcomer(database, opensearch_url, index_prefix, idxctl, tmp_path):
    with psycopg.connect(database, autocommit=True) as connection:
        load_shop(connection, 200)
    words = {"marketplace_listings": index_prefix}
    return Reader(database, opensearch_url, tmp_path / "shop", idxctl, words)


def test_every_block_runs_and_the_index_is_what_the_rows_are(newcomer, opensearch_url, index_prefix):
    assert newcomer.read("README.md", leave_out=NOT_TYPED) == 7
    newcomer.type("idxctl worker start --until-empty")
    query = (newcomer.directory / "search" / "listings.sql").read_text()
    until(
        lambda: judge.differences(newcomer.database, query, opensearch_url, index_prefix) == [],
        "documents differ from their rows",
    )
    with psycopg.connect(newcomer.database) as connection:
        assert str(connection.execute("SELECT price FROM listings WHERE id = 7").fetchone()[0]) == "12.50"


def test_the_commands_of_every_day_run(newcomer, index_prefix):
    """Those of the table that are whole: without a ROLE, a DIR or a wait for ever."""
    newcomer.read("README.md", leave_out=NOT_TYPED)
    table = README.read_text().partition("## Every day")[2].partition("\n## ")[0]
    lines = [
        line
        for line in re.findall(r"`(idxctl [^`]+)`", table)
        if not re.search(r"[A-Z]{3}|[\[\]]|serve|worker start", line)
    ]
    assert len(lines) > 8
    for line in lines:
        if "explain" not in line:  # of a listing that is not there it says so, with 7: test_explain has both ends
            newcomer.type(line.replace("queue add 12345", f"queue add --index {index_prefix} 12345"))


def test_what_is_not_typed_is_there():
    """The targets of make, and the variables that name servers."""
    typed = [line for kind, block, _ in blocks(README.read_text()) if kind == "sh" for line in commands(block)]
    left = [line for line in typed if line.startswith(NOT_TYPED)]
    targets = (README.parent / "Makefile").read_text()
    assert all(f"\n{line.split()[1]}:" in targets for line in left if line.startswith("make "))
    assert [line for line in left if line.startswith("pip ")] == ["pip install ."]
    assert {word.split("=")[0] for line in left for word in line.split() if "=" in word} == {
        "IDXCTL_DATABASE_URL",
        "IDXCTL_OPENSEARCH_URL",
    }
