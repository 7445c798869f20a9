"""Reindexes as processes: killed at a named point, resumed, and what must be in order at their end."""

from __future__ import annotations

import signal
import subprocess
import sys

from idxctl.indexes import generations
from idxctl.opensearch import aliases
from idxctl.rebuild import runs
from support.processes import HERE, PATIENCE, environment
from support.rig import Rig

SMALL = {"CHUNK": "50"}  # documents of a chunk
SILENT = "UPDATE opensearch_indexing_reindex_runs SET seen_at = now() - interval '1 minute' WHERE finished_at IS NULL"
LAPSED = "UPDATE opensearch_indexing_reindex_chunks SET lease_until = now() - interval '1 second' WHERE done_at IS NULL"


def killed_at(rig: Rig, point: str, nth: int, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "killed.py"), point, str(nth), "--config", str(rig.config), *arguments],
        env={**environment(rig), **SMALL},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, f"{point} was never reached: {done.stderr.decode()}"


def cli(rig: Rig, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "idxctl", "--config", str(rig.config), *arguments],
        env=environment(rig),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def tokens(rig: Rig) -> dict[int, int]:
    """The chunks of the last run that are done, each with the token that it was read under."""
    return dict(
        rig.sql(
            "SELECT number, token FROM opensearch_indexing_reindex_chunks WHERE done_at IS NOT NULL "
            "AND run = (SELECT max(id) FROM opensearch_indexing_reindex_runs)"
        )
    )


def put_in_order(rig: Rig) -> None:
    """One live generation on which the alias stands, no index but those of generations, every document as its row."""
    known = generations.of_index(rig.conn, rig.index)
    live = rig.generation()
    assert aliases.targets(rig.client, rig.index) == [live.name]
    assert [one.state for one in known].count("building") == 0
    there = set(rig.ask("GET", f"/{rig.index}-*"))
    assert there <= {one.name for one in known if one.state != "retired" or one.number >= live.number - 1}
    assert rig.differences() == []
    assert runs.open_run(rig.conn, rig.index) is None
