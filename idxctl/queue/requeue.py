"""Put tasks back in the queue, in the caller's transaction; and decide which of those that failed are tried again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from psycopg.types.json import Jsonb

from idxctl.core import backoff
from idxctl.core.reasons import Kind, Reason
from idxctl.postgres.connect import Connection
from idxctl.queue import SQL
from idxctl.queue.claim import Task
from idxctl.queue.history import kept, remember
from idxctl.queue.outcomes import Again, Failure


def divide(
    failed: Sequence[Failure], *, max_attempts: int, at: datetime | None = None, **more: str
) -> tuple[list[Failure], list[Again]]:
    """
    Split failures into the dead, and those that are tried again with the wait before it.

    The latter remember this attempt: *at*, now by default, and *more* of it.
    """
    dead: list[Failure] = []
    again: list[Again] = []
    for one in failed:
        attempts = one.task.attempts + (1 if one.charged else 0)
        spent = replace(one, task=replace(one.task, attempts=attempts))
        if one.permanent or attempts >= max_attempts:
            dead.append(spent)
        else:
            wait = backoff.before_attempt(attempts).total_seconds() if one.charged else backoff.BEFORE_NEXT_CLAIM
            task = remember(spent.task, one.error_type, one.reason, at=at, **more)
            again.append(Again(task, wait, Reason(Kind.FAILED, one.reason, one.error_type)))
    return dead, again


def requeue(
    conn: Connection,
    index: str,
    tasks: Sequence[Again],
    *,
    groups: Sequence[int | None] | None = None,
) -> None:
    """Put document tasks back, each after its wait in seconds and with the reason it is tried again."""
    if not tasks:
        return
    conn.run(
        SQL["requeue"],
        index=index,
        document_ids=[one.task.document_id for one in tasks],
        actions=[one.task.action for one in tasks],
        priorities=[one.task.priority for one in tasks],
        attempts=[one.task.attempts for one in tasks],
        delays=[one.wait for one in tasks],
        enqueued_at=[one.task.enqueued_at.isoformat() for one in tasks],
        last_errors=[conn.why(one.why).sentence for one in tasks],
        origins=[one.task.origin for one in tasks],
        split_groups=list(groups) if groups else [None] * len(tasks),
        payloads=[Jsonb(kept(conn, one.task.payload)) for one in tasks],
    )


def requeue_fan_outs(conn: Connection, index: str, tasks: Sequence[Task], *, wait: float, why: Reason) -> None:
    """Put fan-out tasks back as they were."""
    if not tasks:
        return
    conn.run(
        SQL["requeue_fan_outs"],
        index=index,
        priorities=[task.priority for task in tasks],
        attempts=[task.attempts for task in tasks],
        delays=[wait] * len(tasks),
        enqueued_at=[task.enqueued_at.isoformat() for task in tasks],
        last_errors=[conn.why(why).sentence] * len(tasks),
        origins=[task.origin for task in tasks],
        payloads=[Jsonb(dict(task.payload)) for task in tasks],
    )


def split_groups(conn: Connection, groups: Sequence[int | None]) -> list[int | None]:
    """Return numbers that no others share for *groups*; none for tasks that need not be claimed apart."""
    drawn = {one: split_group(conn) for one in dict.fromkeys(groups) if one is not None}
    return [None if one is None else drawn[one] for one in groups]


def split_group(conn: Connection) -> int:
    """Draw the number of a group of tasks that are claimed together, and apart from all others."""
    return int(conn.value(SQL["next_split_group"]))
