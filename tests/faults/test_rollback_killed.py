"""``kill -9`` at every step of a rollback: the alias decides what happened, and the same command brings it to its end (G4)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from support import judge
from support.processes import HERE, PATIENCE, environment
from support.rig import ITEMS_DOCUMENT, Rig

NEW_SHAPE = ITEMS_DOCUMENT.replace("'name', i.name", "'name', i.name || ' (new)'")
POINTS = ["rollback.intended", "rollback.made", "rollback.recorded"]


@pytest.fixture
def twice(items: Rig) -> Rig:
    """Generation 2 of a new shape is live, with an alias beside its own; 1 of the old shape its standby."""
    items.configure(document=NEW_SHAPE)
    items.reindex()
    more = {"index": f"{items.index}-000002", "alias": f"{items.index}-public", "is_write_index": True}
    items.ask("POST", "/_aliases", {"actions": [{"add": more}]})
    return items


def idxctl(rig: Rig, *arguments: str, point: str | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a command; killed at *point* if one is given."""
    program = ["-m", "idxctl"] if point is None else [str(HERE / "killed.py"), point, "1"]
    return subprocess.run(
        [sys.executable, *program, "--config", str(rig.config), *arguments],
        env=environment(rig), capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def current(rig: Rig, *, live: int) -> None:
    """One generation is live, the alias and its neighbour stand on it alone, and both generations hold every row."""
    rig.sql("UPDATE items SET name = name || '!' WHERE id < 5")
    rig.drain()
    assert dict(rig.sql("SELECT number, state FROM opensearch_indexing_generations ORDER BY number")) == {
        live: "live", 3 - live: "standby",
    }  # fmt: skip
    assert rig.sql("SELECT id FROM opensearch_indexing_generations WHERE intent IS NOT NULL") == []
    name = f"{rig.index}-{live:06d}"
    assert list(rig.ask("GET", f"/_alias/{rig.index}")) == [name]
    assert rig.ask("GET", f"/_alias/{rig.index}-public") == {
        name: {"aliases": {f"{rig.index}-public": {"is_write_index": True}}}
    }
    shapes = {f"{rig.index}-000001": ITEMS_DOCUMENT, f"{rig.index}-000002": NEW_SHAPE}
    for index, query in shapes.items():
        assert judge.differences(rig.database, query, rig.opensearch, index) == []


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(("verb", "live"), [("rollback", 1), ("forward", 2)])
def test_killed_rollback_is_brought_to_its_end_by_the_same_command(twice: Rig, verb, live, point):
    if verb == "forward":
        assert idxctl(twice, "reindex", "rollback").returncode == 0
    assert idxctl(twice, "reindex", verb, point=point).returncode == -signal.SIGKILL
    twice.sql("UPDATE items SET name = name || '?' WHERE id > 15")
    twice.drain()  # whatever the alias stands on is current
    stands = list(twice.ask("GET", f"/_alias/{twice.index}"))
    shape = ITEMS_DOCUMENT if stands == [f"{twice.index}-000001"] else NEW_SHAPE
    assert judge.differences(twice.database, shape, twice.opensearch, twice.index) == []
    done = idxctl(twice, "reindex", verb, "-o", "json")
    if point == "rollback.recorded":  # it was over: it is not done twice
        assert done.returncode == 1
        assert b"already" in done.stderr
    else:
        assert done.returncode == 0, done.stderr.decode()
        assert json.loads(done.stdout)["generation"] == f"{twice.index}-{live:06d}"
    acts = twice.one("SELECT count(*) FROM opensearch_indexing_audit WHERE action = %s", f"reindex {verb}")
    assert acts == 1
    current(twice, live=live)


def test_a_reindex_after_a_rollback_that_died_says_how_it_is_recorded(twice: Rig):
    assert idxctl(twice, "reindex", "rollback", point="rollback.made").returncode == -signal.SIGKILL
    refused = idxctl(twice, "reindex")
    assert refused.returncode == 4
    assert f"idxctl reindex rollback --index {twice.index} records".encode() in refused.stderr
    assert idxctl(twice, "reindex", "finish", "--yes").returncode == 0  # it records first: what served is not finished
    assert dict(twice.sql("SELECT number, state FROM opensearch_indexing_generations")) == {1: "live", 2: "retired"}
