"""What is told of queue, workers and indexer, as JSON has it: one shape for the command line and for HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from idxctl.core.conditions import Condition, states
from idxctl.core.metrics import OTHER
from idxctl.core.to_json import plain_value
from idxctl.queue.stats import IndexStats, QueueStats
from idxctl.status.proofs import Proofs
from idxctl.worker.registry import WorkerRow

_HEALTHY_SHARE = 0.9  # of the capacity, below which the queue is not full


def queue(
    found: QueueStats, workers: Sequence[WorkerRow], conditions: Sequence[Condition], proved: Proofs
) -> dict[str, Any]:
    """
    Return the queue with the number of live workers, the breaker of one that found OpenSearch failing, and the conditions.

    An index has with it the last whole comparison with its rows, None where there was none.
    """
    shown = plain_value(found)
    for one in shown["by_index"]:
        last = proved.last.get(one["index"])
        one["compared"] = None if last is None else plain_value(last.shown())
    return {
        **shown,
        "workers": len(workers),
        "breaker": plain_value(breaker(workers)),
        "states": states(conditions),
        "conditions": [plain_value(one.shown()) for one in conditions],
    }


QUEUE_COLUMNS = (
    "index", "queued", "due", "queue_size", "later", "fan_outs", "in_flight", "oldest_age_seconds", "dead", "indexable",
    "state", "pause", "pause_reason", "pause_since", "workers", "compared_at", "differing",
)  # fmt: skip


def queue_rows(found: QueueStats, workers: Sequence[WorkerRow], proved: Proofs) -> Iterator[dict[str, Any]]:
    """Yield a row an index, with its state and its pause; names that are no index are one row, `other`."""
    for one in found.by_index:
        row = plain_value(one)
        pause = (row.pop("pauses") or [{}])[0]
        held = {"pause": pause.get("cause"), "pause_reason": pause.get("reason"), "pause_since": pause.get("since")}
        last = proved.last.get(one.index)
        compared = {
            "compared_at": None if last is None else plain_value(last.at),
            "differing": None if last is None else last.differing,
        }
        yield {**row, "state": state(one, workers), **held, "workers": len(workers), **compared}
    if found.other is not None:
        row = {**dict.fromkeys(QUEUE_COLUMNS), **plain_value(found.other)}
        yield {**row, "index": OTHER, "indexable": False, "state": "no such index", "workers": len(workers)}


def state(one: IndexStats, workers: Sequence[WorkerRow]) -> str:
    """Return in a few words whether an index's tasks flow, and what keeps them."""
    if one.pauses:
        held = one.pauses[0]
        if held["cause"] == "operator":
            return f"paused: {held['reason']}"
        return f"blocked, next try in {max(float(held['next_probe_seconds'] or 0), 0.0):.0f} s"
    if not one.indexable:
        return "no generation yet"
    if one.stuck:
        return f"{one.stuck:,} batch{'' if one.stuck == 1 else 'es'} stuck"
    broken = breaker(workers)
    if broken is None and one.coarse:
        return "all of it is looked at again"
    if broken is None:
        return "flowing" if workers else ""
    probe = broken.get("next_probe_seconds")
    return f"circuit {broken['state']}" + (f", next probe in {float(probe):.0f} s" if probe is not None else "")


def breaker(workers: Sequence[WorkerRow]) -> Mapping[str, Any] | None:
    """Return the breaker of a worker that found OpenSearch failing, if one did."""
    return next((one.breaker for one in workers if one.breaker), None)


def worker(one: WorkerRow) -> dict[str, Any]:
    """Return one worker process: its row, with the counters of its last heartbeat beside."""
    told = f"{one.breaker['state']}: {one.breaker['reason']}" if one.breaker else "closed"
    return {
        "worker": one.id, "host": one.host, "pid": one.pid, "version": one.version, "state": one.state, "threads": one.threads,
        "queue_size": one.queue_size, "indexes": one.indexes, "started_at": one.started_at, "seen_at": one.seen_at,
        "breaker": told, "concurrency": None, "batch_bytes": None, "size_limit": None,
        **{name: value for name, value in one.counters.items() if name != "conditions"},
    }  # fmt: skip


def indexer(found: QueueStats, workers: Sequence[WorkerRow], *, capacity: int) -> dict[str, Any]:
    """
    Return whether documents are indexed behind the application's back, and whether the queue keeps up.

    Healthy: below nine tenths of the capacity, and someone who is not about to leave takes the tasks.
    """
    capacity = max((one.queue_size for one in workers), default=capacity)
    running = [one for one in workers if one.state == "running"]
    return {
        "status": "enabled" if workers else "disabled",
        "mode": "asynchronous" if workers else "synchronous",
        "healthy": bool(running) and found.queue_size < _HEALTHY_SHARE * capacity,
        "queue_size": found.queue_size,
        "queue_capacity": capacity,
        "queued": found.queued,
        "in_flight": found.in_flight,
        "oldest_age_seconds": found.oldest_age_seconds,
        "dead": found.dead,
        "workers": len(workers),
        "circuits_open": sum(one.breaker is not None for one in workers),
        "paused": [one.index for one in found.by_index if one.pauses],
    }
