"""The gauges, read from PostgreSQL: every process that is asked tells the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from idxctl.config.settings import Settings
from idxctl.core import metrics
from idxctl.core.conditions import Condition, State
from idxctl.core.metrics import Gauges
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load
from idxctl.queue import stats
from idxctl.status import proofs
from idxctl.status.overview import in_transaction
from idxctl.worker import registry

SQL = load("idxctl.status", "gauges.sql")
_STATEMENT_TIMEOUT = "5s"  # a scrape is over by then; a queue that long to count is alarming enough


def read(conn: Connection, settings: Settings) -> Gauges:
    """
    Return every gauge of every index; those configured and empty are there at 0, and names that are no index are one, `other`.

    The capacity is the configured one where no live worker names one. One transaction that reads only.
    """
    indexes, capacity = settings.indexes, settings.worker.queue_size
    with conn.transaction(read_only=True, local={"statement_timeout": _STATEMENT_TIMEOUT}):
        found = stats.stats(conn, known=indexes)
        workers = registry.alive(conn)
        proved = proofs.read(conn, workers, scrub_of=settings.scrub_of)
        wrong = in_transaction(conn, settings, found, workers, proved)
        runs = {index: (documents, failed) for index, documents, failed in conn.run(SQL["reindexes"])}
    rows = _bounded(found, {*runs, *indexes})
    return {
        metrics.POSTGRES_UP.name: {(): 1.0},
        metrics.QUEUE_SIZE.name: {(name,): one.queue_size for name, one in rows.items()},
        metrics.QUEUE_CAPACITY.name: {(): max((one.queue_size for one in workers), default=capacity)},
        metrics.QUEUED.name: {(name,): one.queued for name, one in rows.items()},
        metrics.IN_FLIGHT.name: {(name,): one.in_flight for name, one in rows.items()},
        metrics.DLQ_SIZE.name: {(name,): one.dead for name, one in rows.items()},
        metrics.OLDEST_AGE.name: {(name,): max(one.oldest_age_seconds or 0.0, 0.0) for name, one in rows.items()},
        metrics.PAUSED.name: {
            (name, cause): float(any(pause["cause"] == cause for pause in one.pauses))
            for name, one in rows.items()
            for cause in metrics.PAUSED.reasons
        },
        metrics.COARSE.name: {(name,): one.coarse for name, one in rows.items()},
        metrics.GAPS.name: {(): found.gaps},
        metrics.BREAKER_OPEN.name: {(): sum(one.breaker is not None for one in workers)},
        metrics.WORKERS_ALIVE.name: {(): len(workers)},
        metrics.CONDITION.name: _conditions(wrong, rows),
        metrics.UNVERIFIED.name: {(name,): age for name, age in proved.oldest_seconds.items() if name in rows},
        metrics.SCRUB_PERIOD.name: {
            (name,): one.every_seconds for name, one in proved.scrubbed.items() if name in rows
        },
        metrics.REINDEX_RUNNING.name: {(name,): float(name in runs) for name in rows},
        metrics.REINDEX_DOCUMENTS.name: {(name,): runs.get(name, (0, 0))[0] for name in rows},
        metrics.REINDEX_FAILED.name: {(name,): runs.get(name, (0, 0))[1] for name in rows},
    }


def _conditions(found: Iterable[Condition], rows: Collection[str]) -> dict[tuple[str, ...], float]:
    """Return 1 for what is to be looked at, 2 for what is to be acted on; each kind stands there at 0 for no index in particular."""
    made: dict[tuple[str, ...], float] = {("", kind): 0.0 for kind in metrics.CONDITION.reasons}
    for one in found:
        place = (one.index if not one.index or one.index in rows else metrics.OTHER, one.kind.value)
        made[place] = max(made.get(place, 0.0), 2.0 if one.state is State.ACT else 1.0)
    return made


def _bounded(found: stats.QueueStats, more: Iterable[str]) -> dict[str, stats.IndexStats]:
    """
    Return what is told of each index, and of all that would be too many labels under one name: `metrics.OTHER`.

    That is what stands under names that are no index, and indexes beyond `metrics.MOST_INDEXES`.
    """
    queue = {one.index: one for one in found.by_index}
    empty = stats.IndexStats("", 0, 0, 0, 0, 0, 0, None, 0, indexable=False)
    names = sorted({*queue, *more})
    rows = {name: queue.get(name, empty) for name in names[: metrics.MOST_INDEXES]}
    folded: list[stats.IndexStats | stats.OtherNames] = [
        queue[one] for one in names[metrics.MOST_INDEXES :] if one in queue
    ]
    folded += [found.other] if found.other is not None else []
    if not folded:
        return rows
    folded += [rows[metrics.OTHER]] if metrics.OTHER in rows else []  # an index that is called so
    rows[metrics.OTHER] = stats.IndexStats(
        metrics.OTHER,
        queued=sum(one.queued for one in folded), due=0, queue_size=sum(one.queue_size for one in folded if isinstance(one, stats.IndexStats)), later=0, fan_outs=0,
        in_flight=sum(one.in_flight for one in folded),
        oldest_age_seconds=max((one.oldest_age_seconds or 0.0 for one in folded), default=None),
        dead=sum(one.dead for one in folded), indexable=False,
        pauses=[pause for one in folded if isinstance(one, stats.IndexStats) for pause in one.pauses],
    )  # fmt: skip
    return rows


UNREADABLE: Gauges = {metrics.POSTGRES_UP.name: {(): 0.0}}
