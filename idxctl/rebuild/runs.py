"""
The row of a reindex, and verbs over it: start, advance, beat, take over, leave, end.

    planned → created → backfilling → catching_up → checking → ready → swapped → finished
       any of them before swapped → failed, cancelled

No process owns a run for good: one carries it on, and says so every two seconds; another may once it has been silent for half
a minute, or has left. Each verb is one transaction and compares before it sets: a process that was taken over, or whose run
was cancelled, learns so from the next verb it calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from idxctl.core.errors import Locked, PostgresRefused
from idxctl.postgres.connect import Connection
from idxctl.rebuild import SQL

BEAT_SECONDS = 2.0
DEAD_AFTER_SECONDS = 30.0  # a run not heard of for longer is carried on by no process


@dataclass(frozen=True)
class Run:
    """
    A run that has not ended.

    ``intent``: the act about to be made, recorded before it is (G4). ``options``: what it aims at. ``total``: rows, about.
    """

    id: int
    index: str
    generation: int | None
    previous: int | None
    state: str
    intent: Mapping[str, Any]
    owner: str
    started_at: datetime
    silent_seconds: float
    options: Mapping[str, Any]
    total: int | None
    documents: int
    failed: int

    @property
    def alive(self) -> bool:
        """Whether a process carries it on."""
        return self.silent_seconds < DEAD_AFTER_SECONDS

    @property
    def held(self) -> bool:
        """Whether it is ready, and its swap waits for somebody to say so."""
        return self.state == "ready" and not self.options.get("swap", True) and "swap" not in self.intent

    @property
    def begun(self) -> bool:
        """Whether there is a generation that another process can go on with."""
        return self.generation is not None and "lifetime" in self.options


def open_run(conn: Connection, index: str) -> Run | None:
    """Return the run of *index* that has not ended, if there is one."""
    row = conn.run(SQL["open_run"], index=index).fetchone()
    if row is None:
        return None
    ident, name, generation, previous, state, intent, *rest = row
    return Run(ident, name, generation, previous, state, intent or {}, *rest)


def start(
    conn: Connection,
    index: str,
    *,
    previous: int | None,
    options: Mapping[str, Any],
    intent: Mapping[str, Any],
    owner: str,
    total: int | None = None,
    max_rate: float | None = None,
) -> Run | None:
    """Record a run; None while another one of *index* has not ended."""
    row = conn.run(
        SQL["start_run"],
        index=index,
        previous=previous,
        options=Jsonb(dict(options)),
        intent=Jsonb(dict(intent)),
        owner=owner,
        total=total,
        max_rate=max_rate,
    ).fetchone()
    if row is None:
        return None
    made = open_run(conn, index)
    return made if made is not None and made.id == row[0] else None


def state(conn: Connection, run: Run, owner: str) -> tuple[str, Mapping[str, Any]]:
    """Return how far a run is, and its intent; raises `Locked` when it is not *owner*'s any more."""
    row = conn.run(SQL["run_state"], id=run.id, owner=owner).fetchone()
    if row is None:
        raise taken_over(run.index)
    return str(row[0]), row[1] or {}


def advance(
    conn: Connection,
    run: Run,
    of: str,
    to: str,
    owner: str,
    *,
    generation: int | None = None,
    documents: int | None = None,
    failed: int | None = None,
) -> None:
    """Go on from one state to the next, with what is known by then. Raises `Locked` when the run is not *owner*'s in that state."""
    row = conn.run(
        SQL["advance_run"], id=run.id, of=of, to=to, owner=owner, generation=generation, documents=documents, failed=failed
    ).fetchone()  # fmt: skip
    if row is None:
        raise taken_over(run.index)


def intend(conn: Connection, run: Run, owner: str, intent: Mapping[str, Any]) -> None:
    """Record the act that *owner* is about to make (G4)."""
    if conn.run(SQL["intend"], id=run.id, owner=owner, intent=Jsonb(dict(intent))).fetchone() is None:
        raise taken_over(run.index)


def take_over(
    conn: Connection, run: Run, owner: str, options: Mapping[str, Any], *, max_rate: float | None = None
) -> bool:
    """Let *owner* carry on a run that was not heard of; False where another was first, or it was heard of after all."""
    row = conn.run(
        SQL["take_over"], id=run.id, before=run.owner, owner=owner, options=Jsonb(dict(options)), max_rate=max_rate,
        silent=DEAD_AFTER_SECONDS,
    ).fetchone()  # fmt: skip
    return row is not None


def taken_over(index: str) -> Locked:
    """Return the error for a run that is this process's no more."""
    return Locked(
        f"the reindex of {index} was taken over or cancelled by another process",
        hint="idxctl reindex status says by whom",
    )


def is_filling(conn: Connection, run: int) -> bool:
    """Whether chunks of a run may be taken."""
    row = conn.run(SQL["is_filling"], run=run).fetchone()
    return row is not None and bool(row[0])


def beat(conn: Connection, run: Run, owner: str) -> tuple[int, int] | None:
    """Say that *owner* carries the run on; returns documents written and refused, None when it is not *owner*'s any more."""
    row = conn.run(SQL["beat_run"], id=run.id, owner=owner).fetchone()
    return None if row is None else (int(row[0]), int(row[1]))


def leave(conn: Connection, run: Run, owner: str) -> None:
    """Say that *owner* is not at it any more: another process need not wait for it to be silent."""
    conn.run(SQL["release_chunks"], run=run.id, owner=owner)
    conn.run(SQL["leave_run"], id=run.id, owner=owner)


def end(conn: Connection, run: int, state: str, *, error: str | None = None) -> bool:
    """End a run as *state* says: swapped, finished, failed or cancelled; False where it had ended. *error* is stored as it may be kept."""
    row = conn.run(
        SQL["finish_run"], id=run, state=state, error=None if error is None else conn.reason(error)
    ).fetchone()  # fmt: skip
    return row is not None


def settle(conn: Connection, index: str) -> None:
    """Call swaps finished that cannot be undone any more, and drop chunks that nobody will ask for."""
    conn.run(SQL["settle_runs"], index=index)
    try:
        conn.run(SQL["tidy_chunks"], index=index)
    except PostgresRefused as error:
        if error.sqlstate != "42501":  # a role that was granted its rights by a release before may not
            raise


def throttle(conn: Connection, index: str, rate: float | None) -> Run | None:
    """Have all processes together fill so many documents a second; None: as fast as they can. Returns the run, if there is one."""
    conn.run(SQL["throttle"], index=index, rate=rate)
    return open_run(conn, index)
