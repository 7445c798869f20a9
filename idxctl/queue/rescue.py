"""
Rescue: take back batches whose lease has lapsed, or whose worker is gone.

A batch is put back in two halves that are claimed apart (split groups), so that a document which kills its worker is soon
alone; only alone is the lost lease charged to it as an attempt. What a worker lost together comes back one after the other,
once it has been lost before: or the threads of the next worker would hold it together again, and the innocent would be
charged with the culprit. The tasks get a new token with their next claim (T3), and remember each loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from idxctl.core import fingerprints
from idxctl.core.points import reach
from idxctl.postgres.connect import Connection
from idxctl.queue import SQL
from idxctl.queue.claim import Task
from idxctl.queue.settle import Failure, bury, divide, remember, requeue, requeue_fan_outs

LOST = "worker_lost"
_MOST_BATCHES = 20  # in one transaction
_APART_SECONDS = 2.0  # longer than a worker that polls rarely takes to find what is due


@dataclass(frozen=True)
class Rescued:
    """One batch taken back."""

    token: int
    index: str
    worker: str
    tasks: int
    claimed_at: datetime
    gone: bool  # its worker was; otherwise the lease had lapsed


def rescue(conn: Connection, *, max_attempts: int, gone: Sequence[str] = ()) -> list[Rescued]:
    """
    Put back every batch whose lease has lapsed or whose worker is one of *gone*, in one transaction.

    A crash in the middle leaves the batches as they were.
    """
    with conn.transaction():
        rows = conn.run(SQL["take_lapsed"], gone=list(gone), limit=_MOST_BATCHES).fetchall()
        rescued = []
        back: Counter[str] = Counter()  # groups put back, by the worker that lost them
        for token, index, kind, worker, claimed_at, lost_at, *arrays in rows:
            tasks = [Task(*task) for task in zip(*arrays, strict=True)]
            lost = _Lost(index, token, worker, lost_at, apart=back[worker] * _APART_SECONDS)
            back[worker] += _put_back(conn, kind, tasks, lost, max_attempts)
            rescued.append(Rescued(token, index, worker, len(tasks), claimed_at, worker in gone))
        reach("rescue.moved")
    return rescued


def give_back(conn: Connection, worker: str, *, held: Sequence[int], why: str) -> int:
    """
    Put back, as they were, batches of *worker* that are not among *held*; returns their tasks.

    A connection that broke in a claim's commit leaves such a batch, and so does a drain that ran out of time. Nobody is
    charged. For a worker that claims nothing meanwhile.
    """
    put_back = 0
    with conn.transaction():
        for _, index, kind, _, _, *arrays in conn.run(SQL["take_unheld"], worker=worker, held=list(held)).fetchall():
            tasks = [Task(*task) for task in zip(*arrays, strict=True)]
            put_back += len(tasks)
            if kind == "document":
                requeue(conn, index, [(task, 0.0, why) for task in tasks])
            else:
                requeue_fan_outs(conn, index, tasks, wait=0.0, why=why)
    return put_back


@dataclass(frozen=True)
class _Lost:
    """A batch whose lease was lost; *apart*: seconds after those that its worker lost with it."""

    index: str
    token: int
    worker: str
    at: datetime
    apart: float

    def remembered_by(self, task: Task, company: int) -> Task:
        """Return the task with this loss in its history."""
        beside = "alone" if company == 1 else f"with {company - 1:,} others"
        why = f"{self.why}, it held the document {beside}"
        return remember(task, LOST, why, at=self.at, worker=self.worker)

    @property
    def why(self) -> str:
        return f"the worker that held it ({self.worker}) was lost"


def _put_back(conn: Connection, kind: str, tasks: list[Task], lost: _Lost, max_attempts: int) -> int:
    """Put the tasks of one batch back, documents in halves; returns how many groups they make."""
    if kind != "document":
        requeue_fan_outs(conn, lost.index, tasks, wait=0.0, why=lost.why)
        return 0
    if len(tasks) == 1:
        _charge(conn, tasks[0], lost, max_attempts)
        return 1
    suspected = any("history" in task.payload for task in tasks)  # it failed before: perhaps no worker killed by chance
    middle = (len(tasks) + 1) // 2
    for place, half in enumerate((tasks[:middle], tasks[middle:])):
        wait = lost.apart + place * _APART_SECONDS if suspected else 0.0
        again = [(lost.remembered_by(task, len(tasks)), wait, lost.why) for task in half]
        requeue(conn, lost.index, again, split_groups=[_split_group(conn)] * len(half))
    return 2


def _charge(conn: Connection, task: Task, lost: _Lost, max_attempts: int) -> None:
    """Charge the loss to a document that was alone; one that has spent its attempts is dead."""
    failure = Failure(task, LOST, fingerprints.of_error(LOST, ""), lost.why, permanent=False)
    dead, again = divide([failure], max_attempts=max_attempts, at=lost.at, worker=lost.worker)
    bury(conn, lost.index, lost.token, dead, at=lost.at, worker=lost.worker)
    alone = [(replace(task, last_error=why), wait + lost.apart, why) for task, wait, why in again]
    requeue(conn, lost.index, alone, split_groups=[_split_group(conn)] * len(alone))


def _split_group(conn: Connection) -> int:
    row = conn.run(SQL["next_split_group"]).fetchone()
    assert row is not None
    return int(row[0])
