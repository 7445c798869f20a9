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
from functools import partial

from psycopg.types.json import Jsonb

from idxctl.core import fingerprints
from idxctl.core.errors import PostgresRefused
from idxctl.core.failpoints import reach
from idxctl.core.reasons import Kind, Reason
from idxctl.postgres.connect import Connection
from idxctl.queue import SQL
from idxctl.queue.bury import bury
from idxctl.queue.claim import Task
from idxctl.queue.history import remember
from idxctl.queue.outcomes import Again, Failure
from idxctl.queue.refused import bury_somehow, in_parts, put_back_or_bury
from idxctl.queue.requeue import divide, requeue, requeue_fan_outs, split_group

LOST = "worker_lost"
_MOST_BATCHES = 20  # in one round
_HELD_SECONDS = 60.0  # until a batch that could not be put back is tried again
_APART_SECONDS = 2.0  # longer than a worker that polls rarely takes to find what is due


@dataclass(frozen=True)
class Rescued:
    """One batch taken back; ``stuck`` says why it could not be, and is tried again later."""

    token: int
    index: str
    worker: str
    tasks: int
    claimed_at: datetime | None
    gone: bool  # its worker was; otherwise the lease had lapsed
    stuck: Reason | None = None


def rescue(conn: Connection, *, max_attempts: int, gone: Sequence[str] = ()) -> list[Rescued]:
    """
    Put back the batches whose lease has lapsed or whose worker is one of *gone*, each in a transaction of its own.

    A crash in the middle leaves a batch as it was. One that cannot be put back is held, and keeps nobody from the others.
    """
    rescued: list[Rescued] = []
    back: Counter[str] = Counter()  # groups put back, by the worker that lost them
    for _ in range(_MOST_BATCHES):
        done = _next(conn, _Rescue(max_attempts, gone, back, [one.token for one in rescued]))
        if done is None:
            break
        rescued.append(done)
    return rescued


@dataclass(frozen=True)
class _Rescue:
    """What is known of one round: *seen* are the batches that it has looked at."""

    max_attempts: int
    gone: Sequence[str]
    back: Counter[str]
    seen: Sequence[int]


def _next(conn: Connection, a_round: _Rescue) -> Rescued | None:
    """Take back the oldest batch not yet seen in this round; None when there is none."""
    token: int | None = None
    refused: PostgresRefused | None = None
    for apart in (False, True):
        try:
            with conn.transaction():
                row = conn.run(SQL["lapsed"], gone=list(a_round.gone), but=list(a_round.seen)).fetchone()
                if row is None:
                    return None
                if token not in (None, row[0]):  # taken by someone else meanwhile
                    return None
                token = int(row[0])
                done = _take_back(conn, token, a_round, apart=apart)
                reach("rescue.moved")
                return done
        except PostgresRefused as error:
            if error.passing or token is None:
                raise
            refused = error
    assert token is not None
    assert refused is not None
    why = conn.why(Reason(Kind.STUCK, refused.detail, f"sql_{refused.sqlstate}"))
    conn.run(SQL["hold_lapsed"], token=token, seconds=_HELD_SECONDS, trouble=why.sentence, why=Jsonb(why.stored()))
    return Rescued(token, "", "", 0, None, gone=False, stuck=why)


def _take_back(conn: Connection, token: int, a_round: _Rescue, *, apart: bool) -> Rescued:
    row = conn.one(SQL["take_lapsed"], token=token)
    index, kind, worker, claimed_at, lost_at, *arrays = row
    tasks = [Task(*task) for task in zip(*arrays, strict=True)]
    lost = _Lost(index, token, worker, lost_at, apart=a_round.back[worker] * _APART_SECONDS)
    a_round.back[worker] += _put_back(conn, kind, tasks, lost, a_round.max_attempts, task_by_task=apart)
    return Rescued(token, index, worker, len(tasks), claimed_at, worker in a_round.gone)


def give_back(conn: Connection, worker: str, *, held: Sequence[int], why: Reason) -> int:
    """
    Put back, as they were, batches of *worker* that are not among *held*; returns their tasks.

    A connection that broke in a claim's commit leaves such a batch, and so does a drain that ran out of time. Nobody is
    charged. For a worker that claims nothing meanwhile.
    """
    try:
        return _give_back(conn, worker, held, why, task_by_task=False)
    except PostgresRefused as error:
        if error.passing:
            raise
        return _give_back(conn, worker, held, why, task_by_task=True)


def _give_back(conn: Connection, worker: str, held: Sequence[int], why: Reason, *, task_by_task: bool) -> int:
    put_back = 0
    with conn.transaction():
        rows = conn.run(SQL["take_unheld"], worker=worker, held=list(held)).fetchall()
        for token, index, kind, _, claimed_at, *arrays in rows:
            tasks = [Task(*task) for task in zip(*arrays, strict=True)]
            put_back += len(tasks)
            if kind == "document":
                lost = _Lost(index, token, worker, claimed_at, apart=0.0)
                _requeue(conn, lost, [Again(task, 0.0, why) for task in tasks], [None] * len(tasks), task_by_task)
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
        why = f"{self.why.sentence}, it held the document {beside}"
        return remember(task, LOST, why, at=self.at, worker=self.worker)

    @property
    def why(self) -> Reason:
        return Reason(Kind.LOST, about=self.worker)


def _put_back(
    conn: Connection, kind: str, tasks: list[Task], lost: _Lost, max_attempts: int, *, task_by_task: bool
) -> int:
    """Put the tasks of one batch back, documents in halves; returns how many groups they make."""
    if kind != "document":
        requeue_fan_outs(conn, lost.index, tasks, wait=0.0, why=lost.why)
        return 0
    if len(tasks) == 1:
        _charge(conn, tasks[0], lost, max_attempts, task_by_task=task_by_task)
        return 1
    suspected = any("history" in task.payload for task in tasks)  # it failed before: perhaps no worker killed by chance
    middle = (len(tasks) + 1) // 2
    for place, half in enumerate((tasks[:middle], tasks[middle:])):
        wait = lost.apart + place * _APART_SECONDS if suspected else 0.0
        again = [Again(lost.remembered_by(task, len(tasks)), wait, lost.why) for task in half]
        _requeue(conn, lost, again, [split_group(conn)] * len(half), task_by_task)
    return 2


def _charge(conn: Connection, task: Task, lost: _Lost, max_attempts: int, *, task_by_task: bool) -> None:
    """Charge the loss to a document that was alone; one that has spent its attempts is dead."""
    failure = Failure(task, LOST, fingerprints.of_error(LOST, ""), lost.why.sentence, permanent=False)
    dead, again = divide([failure], max_attempts=max_attempts, at=lost.at, worker=lost.worker)
    buried = partial(bury, conn, lost.index, lost.token, at=lost.at, worker=lost.worker)
    if task_by_task:
        in_parts(conn, dead, buried, partial(bury_somehow, conn, lost.index, lost.token))
    else:
        buried(dead)
    alone = [
        replace(one, task=replace(one.task, last_error=one.why.sentence), wait=one.wait + lost.apart) for one in again
    ]
    _requeue(conn, lost, alone, [split_group(conn)] * len(alone), task_by_task)


def _requeue(
    conn: Connection, lost: _Lost, tasks: Sequence[Again], groups: Sequence[int | None], task_by_task: bool
) -> None:
    """Put tasks of one split group back; *task_by_task*, what PostgreSQL refuses of one keeps no other."""
    if not task_by_task:
        requeue(conn, lost.index, tasks, groups=groups)
        return

    def together(some: Sequence[Again]) -> None:
        requeue(conn, lost.index, some, groups=[*groups][: len(some)])

    def alone(one: Again, error: PostgresRefused) -> None:
        put_back_or_bury(conn, lost.index, lost.token, one, error)

    in_parts(conn, tasks, together, alone)
