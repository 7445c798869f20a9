"""
Tokens: numbers from one sequence, sent to OpenSearch as the external version of every write.

T1: a claim's token is drawn by the statement that takes the tasks (`queue.claim`). T2: every draw commits a row; there is no
bare draw here. T4: a version in OpenSearch that this sequence did not draw means that the sequence went back, or that
someone else writes with versions; the sequence is then moved past it. That is seen only where a version lies above the
sequence: so the sequence is moved to the clock, past all that may have been drawn before, whenever the server was started
again, is another one, or is a copy, and nothing is claimed until then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from enum import Enum

from idxctl.postgres.connect import Connection
from idxctl.queue import SQL

log = logging.getLogger("idxctl.queue")

_FAR_BEHIND_SECONDS = 3600.0


class Origin(Enum):
    """Whose number a version is."""

    OURS = "drawn by this sequence"
    AHEAD = "above this sequence"
    GAP = "in a gap that a jump left"


def origin_of(conn: Connection, version: int) -> Origin:
    """Tell whether this database drew *version* (T4)."""
    last, in_gap = conn.one(SQL["token_state"], version=version)
    if version > last:
        return Origin.AHEAD
    return Origin.GAP if in_gap else Origin.OURS


def not_ours(conn: Connection, versions: Iterable[int]) -> set[int]:
    """Return those of *versions* that this database did not draw (T4)."""
    return {one for one in versions if origin_of(conn, one) is not Origin.OURS}


def advance(conn: Connection, past: int, why: str) -> int:
    """
    Move the sequence past *past*, unless it is there already; the jump is recorded. Returns the next token or the last one.

    In a statement of its own: it blocks every draw until its commit.
    """
    return int(conn.value(SQL["advance_token"], past=past, why=why))


def catch_up_with_clock(conn: Connection) -> int | None:
    """
    Move the sequence to the wall clock in microseconds where it may have gone back, and log it; returns where to, if it did.

    That is in a run of the server that has not seen a jump yet (a restored backup, a promoted standby, a crash), and when it
    lies more than an hour behind. A restored database then does not issue tokens that OpenSearch has already seen (T4).
    """
    row = conn.one(SQL["token_lag"])
    lag, known = float(row[0]), bool(row[1])
    if known and lag < _FAR_BEHIND_SECONDS:
        return None
    clock = conn.pinned(b"SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()
    assert clock is not None
    why = f"the sequence lay {lag:.0f} s behind the clock"
    why = why if known else f"PostgreSQL was restarted; {why}"
    jumped = advance(conn, int(clock[0]), why)
    log.info(
        "the token sequence was moved to the clock: %s", why, extra={"fact": "sequence", "fields": {"token": jumped}}
    )
    return jumped
