"""
Tokens: numbers from one sequence, sent to OpenSearch as the external version of every write.

T1: a claim's token is drawn by the statement that takes the tasks (`queue.claim`). T2: every draw commits a row; there is no
bare draw here. T4: a version in OpenSearch that this sequence did not draw means that the sequence went back, or that
somebody else writes with versions; the sequence is then moved past it.
"""

from __future__ import annotations

from enum import Enum

from idxctl.postgres.connect import Connection
from idxctl.queue import SQL

_FAR_BEHIND_SECONDS = 3600.0


class Origin(Enum):
    """Whose number a version is."""

    OURS = "drawn by this sequence"
    AHEAD = "above this sequence"
    GAP = "in a gap that a jump left"


def origin_of(conn: Connection, version: int) -> Origin:
    """Tell whether this database drew *version* (T4)."""
    row = conn.run(SQL["token_state"], version=version).fetchone()
    assert row is not None
    last, in_gap = row
    if version > last:
        return Origin.AHEAD
    return Origin.GAP if in_gap else Origin.OURS


def advance(conn: Connection, past: int, why: str) -> int:
    """
    Move the sequence past *past*, unless it is there already; the jump is recorded. Returns the next token or the last one.

    In a statement of its own: it blocks every draw until its commit.
    """
    row = conn.run(SQL["advance_token"], past=past, why=why).fetchone()
    assert row is not None
    return int(row[0])


def catch_up_with_clock(conn: Connection) -> int | None:
    """
    Move the sequence to the wall clock in microseconds if it lies more than an hour behind; returns where to, if it did.

    A database restored from a backup then does not issue tokens that OpenSearch has already seen (T4).
    """
    row = conn.run(SQL["token_lag"]).fetchone()
    assert row is not None
    lag = float(row[0])
    if lag < _FAR_BEHIND_SECONDS:
        return None
    clock = conn.execute(b"SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()
    assert clock is not None
    return advance(conn, int(clock[0]), f"the sequence lay {lag:.0f} s behind the clock")
