"""Pauses: indexes that nobody claims from, by an operator's word or because OpenSearch blocks them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from idxctl.core import reasons
from idxctl.core.reasons import Kind, Reason
from idxctl.postgres.connect import Connection, Row
from idxctl.queue import SQL


@dataclass(frozen=True)
class Pause:
    """One pause. ``probe_at`` is when a blocked index is tried again; None waits for an operator."""

    index: str
    cause: str  # operator, blocked
    reason: str  # for people; `why` is for programs
    by: str
    paused_at: datetime
    probe_at: datetime | None
    probes: int
    why: Reason


def block(
    conn: Connection, index: str, *, why: Reason, by: str, probe_after_seconds: float, probed: bool = False
) -> None:
    """
    Pause *index* because its writes are refused; claims try it again after *probe_after_seconds*.

    One that is blocked already is tried when it was to be, unless this was that try (*probed*).
    """
    why = conn.why(why)
    conn.run(
        SQL["block"], index=index, reason=why.sentence, why=Jsonb(why.stored()), by=by,
        probe_after=probe_after_seconds, probed=probed,
    )  # fmt: skip


def put_off(conn: Connection, index: str, *, seconds: float) -> None:
    """Keep others from probing a blocked *index* while a probe is under way."""
    conn.run(SQL["put_off"], index=index, seconds=seconds)


def unblock(conn: Connection, index: str) -> str | None:
    """End a block after a write went through; returns the reason it had, None when there was none."""
    row = conn.run(SQL["resume"], index=index, cause="blocked").fetchone()
    return None if row is None else str(row[0])


def pause(conn: Connection, index: str, *, reason: str, by: str) -> None:
    """Stop claims from *index* until someone resumes it."""
    conn.run(SQL["pause"], index=index, reason=conn.storable(reason), by=by)


def resume(conn: Connection, index: str) -> bool:
    """End an operator's pause and a block; False when there was neither."""
    ended = [conn.run(SQL["resume"], index=index, cause=cause).fetchone() for cause in ("operator", "blocked")]
    return any(row is not None for row in ended)


def pauses(conn: Connection) -> list[Pause]:
    """Return what is paused now."""
    return [_pause(row) for row in conn.run(SQL["pauses"])]


def blocked(conn: Connection, index: str) -> Pause | None:
    """Return the pause of an index that refuses what is written to it; None when it does not."""
    return next((one for one in pauses(conn) if one.index == index and one.cause == "blocked"), None)


def _pause(row: Row) -> Pause:
    index, cause, sentence, by, paused_at, probe_at, probes, stored = row
    why = Reason(Kind.OPERATOR, sentence) if cause == "operator" else reasons.of(stored, sentence)
    return Pause(index, cause, sentence, by, paused_at, probe_at, probes, why)
