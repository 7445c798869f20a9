"""The queue for people: what waits, what is under way, and why it does not move."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from idxctl.postgres import audit, own_lock
from idxctl.postgres.connect import Connection, Row
from idxctl.postgres.statements import load
from idxctl.queue import gaps
from idxctl.queue.holders import Holder, holders

SQL = load("idxctl.queue", "stats.sql")
_NOTED = 20  # tasks or documents that the audit keeps, of those that were named
_HELD_SECONDS = 2.0  # a change of the set of generations is over by then


@dataclass(frozen=True)
class IndexStats:
    """One index's share of the queue. ``queue_size`` counts due document tasks of high and normal priority."""

    index: str
    queued: int
    due: int
    queue_size: int
    later: int  # enqueued for a later moment
    fan_outs: int
    in_flight: int
    oldest_age_seconds: float | None
    dead: int
    indexable: bool  # it has an active generation
    pauses: list[Mapping[str, Any]] = field(default_factory=list)
    stuck: int = 0  # batches long past their lease, or that could not be taken back
    trouble: str | None = None  # why not
    coarse: int = 0  # tasks after which all of it is looked at again (C6)


@dataclass(frozen=True)
class OtherNames:
    """Tasks and letters under names that are no index: neither configured nor built. Whoever may enqueue may make them up."""

    names: int
    queued: int
    queue_size: int
    in_flight: int
    oldest_age_seconds: float | None
    dead: int
    examples: list[str]


@dataclass(frozen=True)
class QueueStats:
    """
    The whole queue. ``queue_size`` is what the capacity of workers and library is measured against: tasks that nobody takes,
    under names that are no index, have no part in it.

    ``by_index`` has every index that is configured or was built; what stands under any other name is in ``other``.
    """

    queued: int
    in_flight: int
    oldest_age_seconds: float | None
    queue_size: int
    dead: int
    by_index: list[IndexStats]
    other: OtherNames | None = None
    stuck: int = 0
    gaps: int = 0  # statements that left no task: their queue was away (C6)
    held_by: list[Holder] = field(default_factory=list)  # sessions whose locks keep claims waiting


@dataclass(frozen=True)
class QueuedTask:
    """One task that waits."""

    id: int
    index: str
    document_id: str | None
    kind: str
    action: str
    priority: int
    attempts: int
    available_at: datetime
    enqueued_at: datetime
    origin: str
    last_error: str | None


def stats(conn: Connection, *, index: str | None = None, known: Iterable[str] = ()) -> QueueStats:
    """
    Return what waits and what is under way, of one index or all; documents in flight are counted one by one.

    *known*: names that are configured, beside those that the database knows. An index that is asked for is known.
    """
    names = [*known, index] if index is not None else list(known)
    with own_lock.not_waited_for(conn, "queue stats"):
        held_by = holders(conn, for_seconds=_HELD_SECONDS)
        found = conn.run(SQL["by_index"], index=index, known=names).fetchall()
        unseen = gaps.unseen(conn)
    rows = [_index(row) for row in found if row[0] is not None]
    other = next((_other(row) for row in found if row[0] is None), None)
    counted: list[IndexStats | OtherNames] = [*rows, *([other] if other is not None else [])]
    ages = [one.oldest_age_seconds for one in counted if one.oldest_age_seconds is not None]
    return QueueStats(
        queued=sum(one.queued for one in counted),
        in_flight=sum(one.in_flight for one in counted),
        oldest_age_seconds=max(ages, default=None),
        queue_size=sum(one.queue_size for one in rows),
        dead=sum(one.dead for one in counted),
        by_index=rows,
        other=other,
        stuck=sum(row.stuck for row in rows),
        gaps=unseen,
        held_by=held_by,
    )


def _index(row: Row) -> IndexStats:
    (
        name,
        queued,
        due,
        size,
        later,
        fan_outs,
        in_flight,
        oldest,
        dead,
        indexable,
        pauses,
        _,
        _,
        stuck,
        trouble,
        coarse,
    ) = row
    return IndexStats(
        name, int(queued), int(due), int(size), int(later), int(fan_outs), int(in_flight), oldest, int(dead), indexable,
        pauses or [], int(stuck), trouble, int(coarse),
    )  # fmt: skip


def _other(row: Row) -> OtherNames:
    _, queued, _, size, _, _, in_flight, oldest, dead, _, _, names, examples, *_ = row
    return OtherNames(names, int(queued), int(size), int(in_flight), oldest, int(dead), examples)


def every_task(
    conn: Connection, *, index: str | None = None, documents: Sequence[str] | None = None, limit: int | None = None
) -> Iterator[QueuedTask]:
    """Yield waiting tasks, of some *documents* or all, in the order they are claimed, up to *limit* or all; read while they are taken."""
    most = None if limit is None else min(limit, 2**63 - 1)
    rows = conn.stream(SQL["list"], index=index, documents=_list(documents), limit=most)
    return (QueuedTask(*row) for row in rows)


def tasks(
    conn: Connection, *, index: str | None = None, documents: Sequence[str] | None = None, limit: int
) -> list[QueuedTask]:
    """Return up to *limit* waiting tasks, of some *documents* or all, in the order they are claimed."""
    rows = conn.run(SQL["list"], index=index, documents=_list(documents), limit=min(limit, 2**63 - 1))
    return [QueuedTask(*row) for row in rows]


def count(conn: Connection, *, index: str | None, ids: Sequence[int] | None, documents: Sequence[str] | None) -> int:
    """Count the tasks that `cancel` would take away."""
    return int(conn.value(SQL["count_matching"], index=index, ids=_list(ids), documents=_list(documents)))


def cancel(conn: Connection, *, index: str | None, ids: Sequence[int] | None, documents: Sequence[str] | None) -> int:
    """Take waiting tasks out of the queue, with an audit row; returns how many."""
    with conn.transaction():
        gone = conn.run(SQL["cancel"], index=index, ids=_list(ids), documents=_list(documents)).rowcount
        if gone:
            named = {"tasks": _list(ids), "documents": _list(documents)}
            detail = {name: values[:_NOTED] for name, values in named.items() if values is not None}
            audit.record(conn, action="queue cancel", what=index or "all", count=gone, detail=detail)
    return gone


def _list(values: Sequence[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)
