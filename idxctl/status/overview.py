"""
Everything that is told of an installation at once: figures, workers, conditions.

A worker looks beside its work at what takes a while (`watcher`), and its heartbeats carry what it found. Whoever asks takes
that over; where no worker tells of the same watches and generations, it looks itself, for seconds at the most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from idxctl.capture.watches import installed_watches
from idxctl.config.settings import Settings
from idxctl.core.conditions import Condition, Kind, worst_first
from idxctl.opensearch.client import Client
from idxctl.postgres import own_lock
from idxctl.postgres.connect import Connection
from idxctl.queue import stats
from idxctl.queue.stats import QueueStats
from idxctl.status import conditions, proofs, searched, thorough
from idxctl.status.conditions import Made
from idxctl.status.proofs import Proofs
from idxctl.worker import registry
from idxctl.worker.registry import WorkerRow

_THOROUGH_EVERY, _SEARCHED_EVERY = 60.0, 5.0  # seconds
_GOOD_FOR = 3  # times as long, of what another told: then it is no longer told, or its worker hangs
_LOOK_SECONDS = 2.0  # for OpenSearch to answer, and for looking at queries
_MOST_TOLD = 50  # conditions in a heartbeat


@dataclass(frozen=True)
class Overview:
    """What holds now; conditions the worst first."""

    found: QueueStats
    workers: list[WorkerRow]
    conditions: tuple[Condition, ...]
    proved: Proofs


@dataclass(frozen=True)
class _Look:
    """What a look found: what it was about, and when it was."""

    key: str
    at: float
    found: tuple[Condition, ...]


class Looks:
    """What one process found when it looked, kept for a while. Thread-safe; *connect* makes a client, for each look at OpenSearch."""

    def __init__(
        self, connect: Callable[[], Client], *, keep: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connect = connect
        self._keep = keep  # the client, which is another's to close
        self._clock = clock
        self._kept: dict[str, _Look] = {}
        self._lock = threading.Lock()

    def at_queries(self, conn: Connection, made: Sequence[Made], key: str) -> tuple[Condition, ...]:
        """Look at queries and watches, if that was not done lately."""
        return self._once(
            "thorough", key, _THOROUGH_EVERY, lambda: thorough.look(conn, made, within_seconds=_LOOK_SECONDS)
        )

    def at_opensearch(self, made: Sequence[Made], key: str) -> tuple[Condition, ...]:
        """Look at indexes and aliases, if that was not done lately."""
        return self._once("searched", key, _SEARCHED_EVERY, lambda: self._searched(made))

    def _searched(self, made: Sequence[Made]) -> list[Condition]:
        if not made:
            return []
        with ExitStack() as stack:
            client = self._connect()
            if not self._keep:
                stack.callback(client.close)
            return searched.look(client, made, timeout_seconds=_LOOK_SECONDS)

    def _once(
        self, what: str, key: str, every: float, look: Callable[[], Sequence[Condition]]
    ) -> tuple[Condition, ...]:
        with self._lock:
            kept = self._kept.get(what)
        if kept is not None and kept.key == key and self._clock() - kept.at < every:
            return kept.found
        found = tuple(look())
        if self._keep:  # who looks once cannot tell since when
            found = _with_since(found, kept.found if kept is not None else (), datetime.now(timezone.utc))
        made = _Look(key, self._clock(), found)
        with self._lock:
            self._kept[what] = made
        return made.found

    def told(self) -> dict[str, Any]:
        """Return what was found as a heartbeat carries it; {} before the first look."""
        with self._lock:
            kept = dict(self._kept)
        return {
            what: {"key": one.key, "age": round(self._clock() - one.at, 1), "found": [_stored(each) for each in one.found[:_MOST_TOLD]]}
            for what, one in kept.items()
        }  # fmt: skip


def overview(conn: Connection, settings: Settings, looks: Looks | None, *, index: str | None = None) -> Overview:
    """
    Return what holds now, of one index or all; outside of a transaction.

    Without *looks* nothing is looked at beyond the tables, but what workers tell is taken over.
    """
    with own_lock.not_waited_for(conn, "queue stats"):
        found, workers = stats.stats(conn, index=index, known=settings.indexes), registry.alive(conn)
        proved = proofs.read(conn, workers, scrub_of=settings.scrub_of)
        made, quick = _quick(conn, settings, found, workers, proved)
        key = thorough.key(made, installed_watches(conn))
    slow = [
        *(_told(workers, "thorough", key, _THOROUGH_EVERY) or (looks.at_queries(conn, made, key) if looks else ())),
        *(_told(workers, "searched", key, _SEARCHED_EVERY) or (looks.at_opensearch(made, key) if looks else ())),
    ]
    return Overview(found, workers, _of(index, _joined(quick, slow)), proved)


def in_transaction(
    conn: Connection, settings: Settings, found: QueueStats, workers: Sequence[WorkerRow], proved: Proofs
) -> tuple[Condition, ...]:
    """Return the conditions by one look at the tables, with what workers tell; within the caller's transaction."""
    made, quick = _quick(conn, settings, found, workers, proved)
    key = thorough.key(made, installed_watches(conn))
    slow = [
        *(_told(workers, "thorough", key, _THOROUGH_EVERY) or ()),
        *(_told(workers, "searched", key, _SEARCHED_EVERY) or ()),
    ]
    return _joined(quick, slow)


def _quick(
    conn: Connection, settings: Settings, found: QueueStats, workers: Sequence[WorkerRow], proved: Proofs
) -> tuple[list[Made], tuple[Condition, ...]]:
    made = conditions.generations(conn)
    capacity = settings.worker.queue_size
    return made, conditions.of_tables(conn, found, workers, made, proved, indexes=settings.indexes, capacity=capacity)


def _joined(quick: Sequence[Condition], slow: Sequence[Condition]) -> tuple[Condition, ...]:
    """Return both, the worst first; a server that a worker found failing need not be found failing again."""
    if any(one.kind in {Kind.CIRCUIT_OPEN, Kind.SILENT} for one in quick):
        slow = [one for one in slow if one.kind is not Kind.UNREACHABLE]
    return worst_first([*quick, *slow])


def _of(index: str | None, found: Sequence[Condition]) -> tuple[Condition, ...]:
    return tuple(one for one in found if index is None or one.index in {"", index})


def _told(workers: Sequence[WorkerRow], what: str, key: str, every: float) -> tuple[Condition, ...] | None:
    """Return what the worker that looked last found; None where none has looked at the same lately."""
    best: Mapping[str, Any] | None = None
    for one in workers:
        look = (one.counters.get("conditions") or {}).get(what)
        if not look or look.get("key") != key or float(look.get("age", "inf")) > _GOOD_FOR * every:
            continue
        best = look if best is None or float(look["age"]) < float(best["age"]) else best
    if best is None:
        return None
    return tuple(one for one in map(_restored, best.get("found", ())) if one is not None)


def _stored(one: Condition) -> dict[str, Any]:
    since = None if one.since is None else one.since.isoformat()
    return {"kind": one.kind.value, "index": one.index, "facts": dict(one.facts), "since": since, "mild": one.mild}


def _restored(stored: Mapping[str, Any]) -> Condition | None:
    """Return a condition that was told; None for a kind of a newer program."""
    try:
        kind = Kind(stored["kind"])
    except ValueError:
        return None
    since = datetime.fromisoformat(stored["since"]) if stored.get("since") else None
    one = Condition(kind, stored["index"], stored["facts"], since, bool(stored.get("mild")))
    try:
        _ = one.reason
    except (KeyError, ValueError, TypeError, IndexError):  # facts of another release
        return None
    return one


def _with_since(found: Sequence[Condition], before: Sequence[Condition], now: datetime) -> tuple[Condition, ...]:
    """Return conditions with the time at which they were first seen, where nothing else says when they began."""
    seen = {identity(one): one.since for one in before}
    return tuple(one if one.since is not None else replace(one, since=seen.get(identity(one)) or now) for one in found)


def identity(one: Condition) -> tuple[str, ...]:
    """Return what tells a condition from others, whatever its figures come to."""
    return (
        one.kind.value,
        one.index,
        *(str(one.facts.get(name, "")) for name in ("table", "partition", "what", "name")),
    )
