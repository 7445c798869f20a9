"""
The row of a reindex, and verbs over it: start, advance, beat, end.

No process owns a run. Each verb is one transaction, and compares before it sets: a process that was taken over or cancelled
learns so from the next verb it calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from idxctl.core.errors import IdxctlError
from idxctl.postgres.connect import Connection
from idxctl.rebuild import SQL

BEAT_SECONDS = 2.0
DEAD_AFTER_SECONDS = 30.0  # a run not heard of for longer is carried on by no process


@dataclass(frozen=True)
class Run:
    """A run that has not ended. ``intent``: the act about to be made, recorded before it is (G4)."""

    id: int
    index: str
    generation: int | None
    previous: int | None
    phase: str
    intent: Mapping[str, Any]
    owner: str
    started_at: datetime
    silent_seconds: float

    @property
    def alive(self) -> bool:
        """Whether a process carries it on."""
        return self.silent_seconds < DEAD_AFTER_SECONDS


def open_run(conn: Connection, index: str) -> Run | None:
    """Return the run of *index* that has not ended, if there is one."""
    row = conn.run(SQL["open_run"], index=index).fetchone()
    if row is None:
        return None
    ident, name, generation, previous, phase, intent, owner, started_at, silent = row
    return Run(ident, name, generation, previous, phase, intent or {}, owner, started_at, float(silent))


def start(
    conn: Connection,
    index: str,
    *,
    previous: int | None,
    options: Mapping[str, Any],
    intent: Mapping[str, Any],
    owner: str,
) -> int | None:
    """Record a run and return its number; None while another one of *index* has not ended."""
    row = conn.run(
        SQL["start_run"],
        index=index,
        previous=previous,
        options=Jsonb(dict(options)),
        intent=Jsonb(dict(intent)),
        owner=owner,
    ).fetchone()
    return None if row is None else int(row[0])


def advance(
    conn: Connection, run: int, phase: str, *, generation: int | None = None, intent: Mapping[str, Any] | None = None
) -> None:
    """Go on to *phase*, with the generation or the intent that belongs to it. Raises when the run has ended."""
    row = conn.run(
        SQL["advance_run"],
        id=run,
        phase=phase,
        generation=generation,
        intent=None if intent is None else Jsonb(dict(intent)),
    ).fetchone()
    if row is None:
        raise taken_over()


def taken_over() -> IdxctlError:
    """Return the error for a run that another process has ended."""
    return IdxctlError("this reindex was taken over or cancelled by another run")


def is_open(conn: Connection, run: int) -> bool:
    """Whether a run has not ended."""
    row = conn.run(SQL["run_is_open"], run=run).fetchone()
    return row is not None and bool(row[0])


def beat(conn: Connection, run: int, *, documents: int, failed: int) -> None:
    """Say that a process carries the run on, and how far it has come."""
    conn.run(SQL["beat_run"], id=run, documents=documents, failed=failed)


def end(
    conn: Connection,
    run: int,
    phase: str,
    *,
    error: str | None = None,
    documents: int | None = None,
    failed: int | None = None,
) -> None:
    """End a run as *phase* says: done, failed or cancelled. *error* is stored as it may be kept."""
    conn.run(
        SQL["finish_run"],
        id=run,
        phase=phase,
        error=None if error is None else conn.reason(error),
        documents=documents,
        failed=failed,
    )
