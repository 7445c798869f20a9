"""Claim: take a batch of due tasks under one lease and one token."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from idxctl.core.errors import PostgresRefused
from idxctl.core.failpoints import reach
from idxctl.indexes import generations
from idxctl.postgres.connect import Connection
from idxctl.postgres.translated import translated
from idxctl.queue import SQL, holders, tokens

# One round trip. A weaker synchronous_commit would let a token be drawn twice after a crash of the server (T2).
_BEGIN = """BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {pin};
SET LOCAL lock_timeout = {wait};
SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') IN ('off', 'local');
LOCK TABLE {home}.opensearch_indexing_barrier IN ROW SHARE MODE;
SELECT pg_try_advisory_xact_lock_shared(hashtextextended('opensearch_indexing generations ' || {schema}, 0))"""


_LOCKED = "55P03"
MOST_BYTES = 4 * 1024 * 1024  # of ids, payloads and errors in a batch; a thousand ordinary tasks have a fiftieth of it


@dataclass(frozen=True)
class Task:
    """What a claim knows of one document, its duplicates merged; of a fan-out, ``document_id`` is its kind."""

    document_id: str
    action: str
    priority: int
    attempts: int  # failed ones
    enqueued_at: datetime
    origin: str
    last_error: str
    payload: Mapping[str, Any]

    @property
    def letter(self) -> Mapping[str, Any] | None:
        """The dead letter it was made from, if it was."""
        letter: Mapping[str, Any] | None = self.payload.get("letter")
        return letter


@dataclass(frozen=True)
class Batch:
    """The tasks of one claim, under one lease and one token."""

    token: int
    index: str
    kind: str  # document, or fan_out
    generations: tuple[int, ...]  # the active ones, read by the claim itself (G2)
    tasks: tuple[Task, ...]
    claimed_at: datetime  # the server's clock
    born: float = field(default_factory=time.monotonic)  # ours, from which the age of the bytes is counted (T3)


@dataclass(frozen=True)
class Claimed:
    """A claim's batch, the `available_at` before which it left nothing, and how many rows it looked at; the limit where it left some for their size."""

    batch: Batch
    reached: datetime
    rows: int


@dataclass(frozen=True)
class Head:
    """The oldest due task of one index and priority."""

    index: str
    priority: int
    available_at: datetime
    probing: bool = False  # the index was blocked, and is tried again


Floors = Mapping[tuple[str, int], datetime]


def heads(conn: Connection, *, indexes: Sequence[str] | None = None, floors: Floors | None = None) -> list[Head]:
    """
    Return where claimable tasks wait, the most urgent and then the oldest first.

    *floors*: where the last claim of an index and priority ended; rows below it are not looked at, so that dead rows
    held by an old snapshot cost nothing. Look without floors now and then, for tasks of transactions that committed late.
    """
    below = floors or {}
    rows = conn.run(
        SQL["heads"],
        indexes=None if indexes is None else list(indexes),
        floor_indexes=[index for index, _ in below],
        floor_priorities=[priority for _, priority in below],
        floors=[floor.isoformat() for floor in below.values()],
    )
    return [Head(*row) for row in rows]


def claim(
    conn: Connection,
    *,
    index: str,
    priority: int,
    worker: str,
    limit: int,
    lease_seconds: float,
    floor: datetime | None = None,
    upto: datetime | None = None,
    documents: Sequence[str] | None = None,
) -> Claimed | None:
    """
    Take up to *limit* due tasks of *index* and *priority*; None when there is none to take.

    One transaction: the set of generations is locked by an earlier statement than the one that reads it (G2), the token
    is drawn by the statement that takes the tasks (T1), and the commit is durable (T2). From a server whose sequence may
    have gone back nothing is taken before it has been moved (T4). *upto* and *documents* narrow it to tasks just enqueued,
    as *floor* does from the other side: a range of the claims' own index.
    """
    take = _Take(index, priority, worker, limit, lease_seconds, floor, upto, documents)
    taken = _taken(conn, take)
    if taken is None and tokens.catch_up_with_clock(conn) is not None:
        taken = _taken(conn, take)
    return taken


@dataclass(frozen=True)
class _Take:
    """What is asked of a claim."""

    index: str
    priority: int
    worker: str
    limit: int
    lease_seconds: float
    floor: datetime | None
    upto: datetime | None
    documents: Sequence[str] | None


def _taken(conn: Connection, take: _Take) -> Claimed | None:
    begin = _BEGIN.format(
        home='"' + conn.schema.replace('"', '""') + '"',
        schema="'" + conn.schema.replace("'", "''") + "'",
        pin=conn.pin,
        wait=int(holders.WAIT_SECONDS * 1000),
    )
    born = time.monotonic()  # before the token is drawn: bytes may seem older than they are, never younger (T3)
    try:
        with translated("claim"):
            locks = conn.raw.execute(begin.encode())
            while locks.nextset():
                pass
            shared = locks.fetchone()
        if shared is None or not shared[0]:
            generations.share_older_lock(conn)
        reach("claim.locked")
        row = conn.run(
            SQL["claim"],
            index=take.index,
            priority=take.priority,
            floor=take.floor,
            upto=take.upto,
            documents=None if take.documents is None else list(take.documents),
            limit=take.limit,
            bytes=MOST_BYTES,
            worker=take.worker,
            lease=f"{take.lease_seconds} seconds",
        ).fetchone()
        reach("claim.taken")
    except PostgresRefused as error:
        conn.rollback()
        if error.sqlstate != _LOCKED:
            raise
        why = f"claims of {take.index} wait for a lock: {holders.named(holders.holders(conn))}"
        raise PostgresRefused(why, sqlstate=_LOCKED, detail=why, hint="end its transaction") from error
    except BaseException:
        conn.rollback()
        raise
    with translated("claim"):
        conn.raw.execute(b"COMMIT")
    reach("claim.committed")
    if row is None:
        return None
    token, kind, active, *arrays, reached, rows, claimed_at = row
    tasks = tuple(Task(*task) for task in zip(*arrays, strict=True))
    return Claimed(Batch(token, take.index, kind, tuple(active), tasks, claimed_at, born), reached, rows)


def renew(conn: Connection, held: Sequence[int], *, lease_seconds: float) -> set[int]:
    """Hold leases for *lease_seconds* from now; returns those that are, without waiting for any that is just being ended."""
    rows = conn.run(SQL["renew"], tokens=list(held), lease=f"{lease_seconds} seconds")
    return {row[0] for row in rows}
