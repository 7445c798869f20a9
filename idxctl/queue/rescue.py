"""
Rescue: take back batches whose lease has lapsed.

A batch is put back in two halves that are claimed apart (split groups), so that a document which kills its worker is soon
alone; only alone is the lost lease charged to it as an attempt. The tasks get a new token with their next claim (T3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from idxctl.core import fingerprints
from idxctl.core.points import reach
from idxctl.postgres.connect import Connection
from idxctl.queue import SQL
from idxctl.queue.claim import Task
from idxctl.queue.settle import Failure, bury, divide, requeue, requeue_fan_outs

LOST = "worker_lost"
_MOST_BATCHES = 20  # in one transaction


@dataclass(frozen=True)
class Rescued:
    """One batch taken back."""

    token: int
    index: str
    worker: str
    tasks: int
    claimed_at: datetime


def rescue(conn: Connection, *, max_attempts: int, gone: Sequence[str] = ()) -> list[Rescued]:
    """
    Put back every batch whose lease has lapsed or whose worker is one of *gone*, in one transaction.

    A crash in the middle leaves the batches as they were.
    """
    with conn.transaction():
        rows = conn.run(SQL["take_lapsed"], gone=list(gone), limit=_MOST_BATCHES).fetchall()
        rescued = []
        for token, index, kind, worker, claimed_at, *arrays in rows:
            tasks = [Task(*task) for task in zip(*arrays, strict=True)]
            _divide(conn, index, kind, token, tasks, worker, max_attempts)
            rescued.append(Rescued(token, index, worker, len(tasks), claimed_at))
        reach("rescue.moved")
    return rescued


def give_back(conn: Connection, worker: str, *, held: Sequence[int]) -> int:
    """
    Put back, as they were, batches of *worker* that are not among *held*; returns their tasks.

    A connection that broke in a claim's commit leaves such a batch. For a worker that claims nothing meanwhile.
    """
    put_back = 0
    with conn.transaction():
        for _, index, kind, _, _, *arrays in conn.run(SQL["take_unheld"], worker=worker, held=list(held)).fetchall():
            tasks = [Task(*task) for task in zip(*arrays, strict=True)]
            put_back += len(tasks)
            why = "the answer to its claim was lost"
            if kind == "document":
                requeue(conn, index, [(task, 0.0, why) for task in tasks])
            else:
                requeue_fan_outs(conn, index, tasks, wait=0.0, why=why)
    return put_back


def _divide(
    conn: Connection, index: str, kind: str, token: int, tasks: list[Task], worker: str, max_attempts: int
) -> None:
    why = f"the worker that held it ({worker}) was lost"
    if kind != "document":
        requeue_fan_outs(conn, index, tasks, wait=0.0, why=why)
    elif len(tasks) > 1:
        middle = (len(tasks) + 1) // 2
        first, second = _split_group(conn), _split_group(conn)
        groups = [first] * middle + [second] * (len(tasks) - middle)
        requeue(conn, index, [(task, 0.0, why) for task in tasks], split_groups=groups)
    else:
        lost = Failure(tasks[0], LOST, fingerprints.of_error(LOST, ""), why, permanent=False)
        dead, again = divide([lost], max_attempts=max_attempts)
        bury(conn, index, token, dead)
        alone = [(replace(task, last_error=reason), wait, reason) for task, wait, reason in again]
        requeue(conn, index, alone, split_groups=[_split_group(conn)] * len(alone))


def _split_group(conn: Connection) -> int:
    row = conn.run(SQL["next_split_group"]).fetchone()
    assert row is not None
    return int(row[0])
