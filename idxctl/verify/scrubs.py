"""The row of a scrub, which is a comparison that begins again for ever, and verbs over it; the rest of them are those of `runs`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from idxctl.postgres.connect import Connection
from idxctl.verify import SQL, runs
from idxctl.verify.runs import Run
from idxctl.worker import registry


@dataclass(frozen=True)
class Progress:
    """How far a scrub is: seconds since it began, its state, rows compared and ids looked up."""

    seconds: float
    state: str
    rows: int
    ids: int


def under_way(conn: Connection, index: str, generation: int) -> Run | None:
    """Return the scrub to take part in; one of another generation is over."""
    found = runs.open_run(conn, index, scrub=True)
    if found is not None and found.generation != generation:
        runs.abandon(conn, found)
        return None
    return found


def seconds_since_last(conn: Connection, index: str, generation: int) -> float | None:
    """Return how long ago the last scrub began that came to its end; None where there was none."""
    row = conn.run(SQL["since_scrub"], index=index, generation=generation).fetchone()
    return None if row is None or row[0] is None else float(row[0])


def begin(conn: Connection, index: str, generation: int, *, documents: int, owner: str) -> Run | None:
    """Begin one, of about so many *documents*, or return the one that another process has begun meanwhile."""
    runs.insert(conn, index, generation, {"documents": documents}, owner, scrub=True)
    return runs.open_run(conn, index, scrub=True)


def progress(conn: Connection, run: Run) -> Progress | None:
    """Return how far it is; None when it is over."""
    row = conn.run(SQL["progress"], run=run.id).fetchone()
    return None if row is None else Progress(*row)


def silent_owners(conn: Connection, run: Run, owner: str) -> list[str]:
    """Return the processes that have parts of it and are not heard of: killed ones."""
    return [row[0] for row in conn.run(SQL["silent_owners"], run=run.id, owner=owner, alive=registry.ALIVE_SECONDS)]


def give_back(conn: Connection, run: Run, owner: str) -> None:
    """Let others take the ranges of this process."""
    conn.run(SQL["release"], run=run.id, owner=owner)


def dead_among(conn: Connection, index: str, names: Sequence[str]) -> set[str]:
    """Return which of *names* are dead letters."""
    known = [one for one in names if conn.storable(one) == one]
    return {row[0] for row in conn.run(SQL["dead_among"], index=index, ids=known)} if known else set()
