"""
What a process counts, from the outcome of each batch: the numbers of its heartbeats, and the metrics of a scrape.

One ledger for both; nobody else adds to either.
"""

from __future__ import annotations

import threading
import time
from collections import Counter

from idxctl.core import metrics, reasons
from idxctl.core.reasons import Reason
from idxctl.core.tally import Tally
from idxctl.queue.claim import Batch
from idxctl.queue.outcomes import Failure, Outcomes, Settled
from idxctl.queue.requeue import divide
from idxctl.worker import outcomes as sorting
from idxctl.worker.options import Counters

_SAMPLED = 64  # latencies of a batch that are kept for the heartbeat's percentile


class Ledger:
    """What one process has done, in one *mode*: "async" in a worker's threads, "sync" in the caller's. Thread-safe."""

    def __init__(
        self, tally: Tally, counters: Counters | None = None, *, max_attempts: int, mode: str = "async"
    ) -> None:
        self.counters = counters or Counters()
        self.tally = tally
        self._max_attempts = max_attempts
        self._mode = mode
        # Guards the counters, whose sums several threads add to. The tally has a lock of its own, taken after this one ends.
        self._guard = threading.Lock()

    def settled(self, batch: Batch, outcomes: Outcomes, settled: Settled, *, superseded: int, sent_bytes: int) -> int:
        """Count a batch; returns how many of its index in a row were put back whole."""
        with self._guard:
            in_a_row = self._add(batch, outcomes, settled, superseded)
        count(
            self.tally, batch, outcomes, settled,
            max_attempts=self._max_attempts, sent_bytes=sent_bytes, mode=self._mode,
        )  # fmt: skip
        return in_a_row

    def _add(self, batch: Batch, outcomes: Outcomes, settled: Settled, superseded: int) -> int:
        counters = self.counters
        counters.batches += 1
        if not settled.held:
            counters.lost += 1
            return 0
        counters.indexed += settled.done
        counters.retried += settled.retried
        counters.dead += settled.dead
        counters.healed += settled.healed
        counters.superseded += superseded
        now = batch.claimed_at.timestamp() + (time.monotonic() - batch.born)
        for task in outcomes.done[:: max(len(outcomes.done) // _SAMPLED, 1)]:
            counters.latencies.append(max(now - task.enqueued_at.timestamp(), 0.0))
        return counters.note_batch(batch.index, moved=bool(outcomes.done or outcomes.failed or not outcomes.again))

    def lost(self) -> None:
        """Count a batch whose outcome could not be settled."""
        with self._guard:
            self.counters.lost += 1

    def expanded(self, tasks: int) -> None:
        """Count what fan-outs were expanded to."""
        with self._guard:
            self.counters.expanded += tasks


def count(
    tally: Tally,
    batch: Batch,
    outcomes: Outcomes,
    settled: Settled,
    *,
    max_attempts: int,
    sent_bytes: int = 0,
    mode: str = "async",
) -> None:
    """Count a settled batch. A lease that was lost has no outcome: whoever has the tasks now counts them."""
    if not settled.held:
        return
    dead, again = divide(outcomes.failed, max_attempts=max_attempts)
    put_back = Counter((one.task.action, reason_of_retry(one.why)) for one in outcomes.again)
    put_back.update((one.task.action, "attempt") for one in again)
    given_up = Counter((one.task.action, reason_of_failure(one)) for one in dead)
    _add(tally, metrics.RETRY, batch.index, put_back)
    _add(tally, metrics.FAILURE, batch.index, given_up)
    # A generation that went live meanwhile takes some of the done back: its refusals are letters, what it missed waits.
    done = list(outcomes.done)[: settled.done]
    for action, number in Counter(task.action for task in done).items():
        tally.add(metrics.SUCCESS, batch.index, action, mode, amount=number)
    if settled.dead > len(dead):
        tally.add(metrics.FAILURE, batch.index, "index", "refused", amount=settled.dead - len(dead))
    if settled.retried > sum(put_back.values()):
        tally.add(metrics.RETRY, batch.index, "index", "blocked", amount=settled.retried - sum(put_back.values()))
    now = batch.claimed_at.timestamp() + (time.monotonic() - batch.born)
    ages = (max(now - task.enqueued_at.timestamp(), 0.0) for task in done)
    tally.observe(metrics.LATENCY, ages, batch.index, mode)
    tally.observe(metrics.BATCH_SIZE, [len(batch.tasks)], batch.index)
    tally.observe(metrics.BATCH_BYTES, [sent_bytes], batch.index)


def _add(tally: Tally, metric: metrics.Metric, index: str, numbers: Counter[tuple[str, str]]) -> None:
    for (action, reason), number in numbers.items():
        tally.add(metric, index, action, reason, amount=number)


def reason_of_failure(one: Failure) -> str:
    """Return why a document was given up, as one of the few reasons that are counted apart."""
    if not one.permanent:
        return "attempts"
    if one.error_type.startswith("sql_"):
        return "unreadable"
    if one.error_type == "duplicate_document":
        return "duplicate"
    # A body for which all the memory that bulks may take is too little is refused as an overload would be.
    return (
        "too_large" if one.error_type in {"http_413", "http_429"} or one.error_type in sorting.OVERLOAD else "refused"
    )


_RETRIES = {
    reasons.Kind.OUTDATED: "outdated",
    reasons.Kind.OVERLOADED: "overload",
    reasons.Kind.UNREACHABLE: "unreachable",
    reasons.Kind.SHARDS_AWAY: "unreachable",
    reasons.Kind.APART: "unreachable",
}


def reason_of_retry(why: Reason) -> str:
    """Return why a task was put back without an attempt spent, as one of the few reasons that are counted apart."""
    return _RETRIES.get(why.kind, "blocked")
