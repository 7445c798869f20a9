"""From a batch's outcome to the process's counters: what was indexed, put back or given up, and why."""

from __future__ import annotations

import time
from collections import Counter

from idxctl.core import metrics, reasons
from idxctl.core.reasons import Reason
from idxctl.core.tally import Tally
from idxctl.queue.claim import Batch
from idxctl.queue.settle import Failure, Outcomes, Settled, divide
from idxctl.worker import outcomes as sorting


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
