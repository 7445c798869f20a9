"""
Settle: end a batch's lease with an outcome for every task, in one transaction.

A lease that is gone was lost: nothing is written then, and others have the tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from idxctl.core import backoff
from idxctl.core.errors import PostgresRefused
from idxctl.core.failpoints import reach
from idxctl.core.reasons import Kind, Reason
from idxctl.indexes import generations
from idxctl.postgres.connect import Connection
from idxctl.queue import SQL
from idxctl.queue.bury import blame, bury
from idxctl.queue.claim import Batch, Task
from idxctl.queue.document_names import kept_name, shown
from idxctl.queue.outcomes import MISSED, Again, Blamed, Failure, Outcomes, Settled
from idxctl.queue.refused import PUT_OFF_SECONDS, bury_somehow, in_parts, put_back_or_bury
from idxctl.queue.requeue import divide, requeue, split_groups

log = logging.getLogger("idxctl.queue")


def settle(conn: Connection, batch: Batch, outcomes: Outcomes, *, max_attempts: int) -> Settled:
    """
    End the lease of *batch* with *outcomes*; one statement when all went well, one transaction otherwise.

    Where PostgreSQL refuses something of one task, the others are settled all the same (`in_parts`).
    """
    ids = [kept_name(task.document_id) for task in outcomes.done]
    reach("settle.before")
    try:
        if not (outcomes.again or outcomes.failed or outcomes.blamed or outcomes.missed):
            blamed = conn.run(SQL["any_blamed"], generations=list(batch.generations)).fetchone()
            if blamed is not None and not blamed[0]:
                reach("settle.checked")
                row = conn.one(SQL["settle_done"], token=batch.token, index=batch.index, ids=ids)
                reach("settle.done")
                return Settled(held=bool(row[0]), done=len(ids), healed=row[1])
        settled = _settle(conn, batch, outcomes, max_attempts, apart=False)
    except PostgresRefused as error:
        if error.passing:
            raise
        log.debug("batch %d is settled task by task: %s", batch.token, error)
        settled = _settle(conn, batch, outcomes, max_attempts, apart=True)
    if settled.held:
        reach("settle.done")
    return settled


@dataclass(frozen=True)
class _Step:
    """What a settle does with one task: one of the four is given."""

    done: Task | None = None
    again: Again | None = None
    dead: Failure | None = None
    blamed: Failure | None = None
    group: int | None = None  # what is done again is claimed with the tasks of the same number alone


def _settle(conn: Connection, batch: Batch, outcomes: Outcomes, max_attempts: int, *, apart: bool) -> Settled:
    with conn.transaction():
        # The states of generations decide between a letter and a note: hold them still until the commit (G2).
        generations.lock_set(conn)
        if conn.run(SQL["end_lease"], token=batch.token).fetchone() is None:
            return Settled(held=False)
        steps = _steps(outcomes, generations.states(conn, list(batch.generations)), max_attempts)
        if apart:
            healed = in_parts(conn, steps, partial(_take, conn, batch), partial(_take_alone, conn, batch))
        else:
            healed = _take(conn, batch, steps)
        reach("settle.written")
    return Settled(
        held=True,
        done=sum(one.done is not None for one in steps),
        retried=sum(one.again is not None for one in steps),
        dead=sum(one.dead is not None for one in steps),
        healed=healed,
    )


def _steps(outcomes: Outcomes, states: Mapping[int, str], max_attempts: int) -> list[_Step]:
    """Decide what becomes of each task, by the *states* of generations as they are now."""
    aside = [*outcomes.blamed, *outcomes.missed]
    blamed = [one for one in aside if states.get(one.generation or 0) in ("building", "standby")]
    # A generation that went live while the batch was under way: what it refused is the index's letter after all, and
    # what it missed is written again.
    risen = {one.task.document_id: one for one in aside if states.get(one.generation or 0) == "live"}
    done = [task for task in outcomes.done if task.document_id not in risen]
    missed = [one for one in risen.values() if one.error_type == MISSED]
    failed = [*outcomes.failed, *(one for one in risen.values() if one.error_type != MISSED)]
    dead, again = divide(failed, max_attempts=max_attempts)
    again += [Again(one.task, backoff.BEFORE_NEXT_CLAIM, Reason(Kind.MISSED, one.reason)) for one in missed]
    return [
        *(_Step(again=one, group=outcomes.apart.get(one.task.document_id)) for one in (*outcomes.again, *again)),
        *(_Step(dead=one) for one in dead),
        *(_Step(done=task) for task in done),
        *(_Step(blamed=one) for one in blamed),
    ]


def _take(conn: Connection, batch: Batch, steps: Sequence[_Step]) -> int:
    """Take steps together; returns how many letters were healed."""
    waiting = [(one.again, one.group) for one in steps if one.again is not None]
    groups = split_groups(conn, [group for _, group in waiting])
    requeue(conn, batch.index, [task for task, _ in waiting], groups=groups)
    bury(conn, batch.index, batch.token, [one.dead for one in steps if one.dead is not None])
    reach("settle.moved")
    names = [kept_name(one.done.document_id) for one in steps if one.done is not None]
    blamed = [one.blamed for one in steps if one.blamed is not None]
    if names:
        conn.run(SQL["absolve"], generations=list(batch.generations), ids=names, token=batch.token)
    blame(conn, batch.token, [_blamed(one) for one in blamed])
    healed = conn.run(SQL["heal"], index=batch.index, ids=names, token=batch.token).rowcount if names else 0
    if blamed:
        generations.mark_behind(conn, [one.generation for one in blamed if one.generation])
    return healed


def _take_alone(conn: Connection, batch: Batch, step: _Step, error: PostgresRefused) -> None:
    """End a step that PostgreSQL refuses, whatever is done together with it."""
    if step.done is not None:  # it is indexed; an older letter of it stays, to be purged by hand
        log.warning("%s %s: what is known of it could not be cleared: %s", batch.index, shown(step.done), error.detail)
    elif step.again is not None:
        put_back_or_bury(conn, batch.index, batch.token, step.again, error)
    elif step.dead is not None:
        bury_somehow(conn, batch.index, batch.token, step.dead, error)
    elif step.blamed is not None:  # not to be noted: its generation is checked before anything relies on it, and told
        if step.blamed.generation:
            generations.mark_behind(conn, [step.blamed.generation])
        why = Reason(Kind.UNSETTLED, step.blamed.reason, step.blamed.error_type)
        put_back_or_bury(conn, batch.index, batch.token, Again(step.blamed.task, PUT_OFF_SECONDS, why), error)


def end_lease(conn: Connection, batch: Batch) -> bool:
    """End the lease in the caller's transaction; False when it was lost, and the caller rolls back."""
    return conn.run(SQL["end_lease"], token=batch.token).fetchone() is not None


def _blamed(one: Failure) -> Blamed:
    return Blamed(
        one.generation or 0, one.task.document_id, one.task.action, one.error_type, one.fingerprint, one.reason
    )
