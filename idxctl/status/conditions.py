"""
Which conditions hold now: the one list from which queue stats, /readyz, metrics, the worker's log and watch status are made.

Three ways to know, by their cost. What the tables and the catalog tell is asked each time, in a few milliseconds. What takes a
look at OpenSearch (`searched`) or at queries and functions (`thorough`) a worker finds beside its work, and tells with its
heartbeat; where no worker does, whoever asks looks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from idxctl.capture import triggers
from idxctl.capture.catalog import label
from idxctl.config.settings import IndexSettings
from idxctl.core.conditions import Condition, Kind, worst_first
from idxctl.indexes.definitions import Definition
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load
from idxctl.queue.stats import IndexStats, QueueStats
from idxctl.status import changed
from idxctl.status.proofs import Proofs
from idxctl.worker.registry import WorkerRow

SQL = load("idxctl.status", "conditions.sql")
FULL = 0.9  # of the capacity
_SILENT_SECONDS = 5.0  # a request under way for longer: a bulk of 8 MB takes one
_REPEATS = 10  # batches in a row that were put back
_GROWING = 20  # dead letters of ten minutes; fewer where they come in both halves
_MOST_NAMED = 20  # of partitions


@dataclass(frozen=True)
class Made:
    """A generation as far as conditions ask: its index is there."""

    index: str
    name: str
    state: str
    behind_since: datetime | None
    live_at: datetime | None
    definition: Definition | None  # of a live one


def generations(conn: Connection) -> list[Made]:
    """Return the generations whose index should be in OpenSearch."""
    rows = conn.run(SQL["generations"])
    return [
        Made(index, name, state, behind, live_at, None if made is None else Definition.restore(made))
        for index, name, state, behind, live_at, made in rows
    ]


def of_tables(
    conn: Connection,
    found: QueueStats,
    workers: Sequence[WorkerRow],
    made: Sequence[Made],
    proved: Proofs,
    *,
    indexes: Mapping[str, IndexSettings],
    capacity: int,
) -> tuple[Condition, ...]:
    """Return what the tables and the catalog tell; the worst first. A few milliseconds, in the caller's transaction."""
    return worst_first(
        [
            *of_queue(found, workers, capacity=capacity),
            *_of_workers(workers),
            *_of_capture(conn, indexes, {one.index for one in made if one.state == "live"}),
            *_of_generations(made, indexes),
            *_of_sequence(conn),
            *_of_letters(conn),
            *_of_proofs(proved),
        ]
    )


# What the queue tells ------------------------------------------------------------------------------------------------
def of_queue(found: QueueStats, workers: Sequence[WorkerRow], *, capacity: int) -> Iterator[Condition]:
    """Yield what the figures of the queue tell."""
    for one in found.by_index:
        yield from _of_index(one, workers)
    if found.held_by:
        since = min((one.since for one in found.held_by if one.since is not None), default=None)
        yield Condition(Kind.HELD, facts={"holders": "; ".join(map(str, found.held_by))}, since=since)
    if found.gaps:
        yield Condition(Kind.GAP, facts={"statements": found.gaps})
    waiting = any(one.queued for one in found.by_index)
    if found.other is not None and found.other.queued and not waiting:
        yield Condition(Kind.NO_SUCH_INDEX, facts={"names": found.other.names})
    if not workers and found.queued:
        yield Condition(Kind.NO_WORKER)
    capacity = max((one.queue_size for one in workers), default=capacity)
    if capacity and found.queue_size >= FULL * capacity:
        yield Condition(
            Kind.QUEUE_FULL,
            facts={"size": found.queue_size, "capacity": capacity, "share": found.queue_size / capacity},
        )


def _of_index(one: IndexStats, workers: Sequence[WorkerRow]) -> Iterator[Condition]:
    for pause in one.pauses:
        kind = Kind.PAUSED if pause["cause"] == "operator" else Kind.BLOCKED
        since = datetime.fromisoformat(pause["since"]) if isinstance(pause["since"], str) else pause["since"]
        yield Condition(kind, one.index, {"reason": pause["reason"]}, since, mild=not one.queued)
    if one.stuck and (workers or one.trouble):
        yield Condition(Kind.STUCK, one.index, {"batches": one.stuck, "trouble": one.trouble})
    if one.coarse:
        yield Condition(Kind.COARSE, one.index, {"tasks": one.coarse})
    if one.queued and not one.indexable:
        yield Condition(Kind.NO_GENERATION, one.index)
    served = [worker for worker in workers if worker.indexes is None or one.index in worker.indexes]
    if one.queued and workers and not served:
        yield Condition(Kind.NO_WORKER, one.index)


def _of_workers(workers: Sequence[WorkerRow]) -> Iterator[Condition]:
    broken = next((one.breaker for one in workers if one.breaker), None)
    if broken is not None:
        since = datetime.fromtimestamp(broken["since"]).astimezone() if broken.get("since") else None
        yield Condition(Kind.CIRCUIT_OPEN, facts={"reason": broken.get("reason") or "OpenSearch fails"}, since=since)
        return
    silent = max((float(one.counters.get("request_seconds") or 0.0) for one in workers), default=0.0)
    if silent >= _SILENT_SECONDS:
        yield Condition(Kind.SILENT, facts={"seconds": silent})
    again: dict[str, int] = {}
    for one in workers:
        for index, times in (one.counters.get("put_back") or {}).items():
            again[index] = max(again.get(index, 0), int(times))
    for index, times in again.items():
        if times >= _REPEATS:
            yield Condition(Kind.REPEATS, index, {"batches": times})


# What the catalog and our tables tell --------------------------------------------------------------------------------
def _of_capture(conn: Connection, indexes: Mapping[str, IndexSettings], live: Collection[str]) -> Iterator[Condition]:
    watched = conn.run(SQL["watched"]).fetchall()
    tables = sorted({(schema, table) for schema, table, _ in watched})
    captured = {index for _, _, index in watched}
    for name, index in indexes.items():
        if index.watches and name not in captured and name in live:
            yield Condition(Kind.NOT_INSTALLED, name)
    rows = conn.run(
        SQL["captured"],
        schema=conn.schema,
        schemas=[schema for schema, _ in tables],
        tables=[table for _, table in tables],
        functions=[triggers.function_name(table) for table in tables],
    ).fetchall()
    named: dict[tuple[str, str], int] = {}
    for schema, table, of, member_schema, member, depth, have, disabled, wanted, elsewhere in rows:
        place = named[schema, table] = named.get((schema, table), 0) + 1
        if place > _MOST_NAMED:
            continue
        kind, facts = _capture_of(
            label(schema, table),
            None if member is None else label(member_schema, member),
            below=depth > 0, have=have, lost=have < wanted, disabled=disabled, elsewhere=elsewhere,
        )  # fmt: skip
        for index in of:
            yield Condition(kind, index, facts)


def _capture_of(
    table: str, member: str | None, *, below: bool, have: int, lost: bool, disabled: int, elsewhere: str | None
) -> tuple[Kind, dict[str, Any]]:
    """Say how one table of a watched tree stands."""
    if member is None:
        return Kind.TABLE_GONE, {"table": table}
    if below and not have:
        return Kind.PARTITION_UNCAPTURED, {"table": table, "partition": member}
    if elsewhere is not None and not have:
        return Kind.TABLE_SWAPPED, {"table": table, "elsewhere": elsewhere.removeprefix("public.")}
    if disabled and not lost:
        return Kind.TRIGGERS_DISABLED, {"table": member}
    return Kind.TRIGGERS_MISSING, {"table": member}


def _of_generations(made: Sequence[Made], indexes: Mapping[str, IndexSettings]) -> Iterator[Condition]:
    for one in made:
        if one.behind_since is not None and one.state != "retired":
            yield Condition(Kind.BEHIND, one.index, {"name": one.name, "state": one.state}, one.behind_since)
        if one.definition is not None and one.index in indexes:
            what = changed.since(one.definition, indexes[one.index])
            if what:
                yield Condition(Kind.DEFINITION_CHANGED, one.index, {"what": ", ".join(what)})


def _of_sequence(conn: Connection) -> Iterator[Condition]:
    if conn.run(SQL["may_read_sequence"]).fetchone() != (True,):
        return
    for last, given in conn.run(SQL["sequence"]):
        yield Condition(Kind.SEQUENCE_BEHIND, facts={"last": last, "given": given})


def _of_letters(conn: Connection) -> Iterator[Condition]:
    for index, count, before, since in conn.run(SQL["letters"]):
        if count >= _GROWING or 0 < before < count:
            yield Condition(Kind.DEAD_LETTERS_GROWING, index, {"letters": int(count)}, since)


def _of_proofs(proved: Proofs) -> Iterator[Condition]:
    """Yield what comparisons found; a scrub under way is newer than the last whole one."""
    for name in sorted({*proved.last, *proved.drifting}):
        last = proved.last.get(name)
        documents = proved.drifting.get(name, 0) or (last.differing if last is not None else 0)
        if documents:
            yield Condition(Kind.DRIFT, name, {"documents": documents}, last.at if last is not None else None)
    for name, one in proved.scrubbed.items():
        if one.behind:
            yield Condition(Kind.SCRUB_BEHIND, name, {"every_seconds": one.every_seconds})
