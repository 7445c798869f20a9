"""
Settle: end a batch's lease with an outcome for every task, in one transaction.

A lease that is gone was lost: nothing is written then, and others have the tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from psycopg.types.json import Jsonb

from idxctl.core import backoff
from idxctl.core.errors import PostgresRefused
from idxctl.core.points import reach
from idxctl.indexes import generations
from idxctl.postgres.connect import Connection
from idxctl.postgres.named import Statement
from idxctl.queue import SQL
from idxctl.queue.claim import Batch, Task


@dataclass(frozen=True)
class Failure:
    """Why a document could not be written. ``generation`` is None when it could not even be read."""

    task: Task
    error_type: str
    fingerprint: str
    reason: str
    permanent: bool
    generation: int | None = None
    charged: bool = True  # an attempt of the document is spent


_REMEMBERED = 30  # entries of a letter's history
_LETTER_TRIES = 5
_UNIQUE_VIOLATION = "23505"
MISSED = "missed_write"  # the type of a failure that is no refusal: the document is written again at the swap


@dataclass(frozen=True)
class Outcomes:
    """What became of a batch's tasks; every task is in exactly one of the first three."""

    done: Sequence[Task] = ()
    again: Sequence[tuple[Task, float, str]] = ()  # (task, seconds to wait, why); no attempt is spent (P4)
    failed: Sequence[Failure] = ()
    blamed: Sequence[Failure] = ()  # refused by generations that are not live; the task itself is in `done`
    missed: Sequence[
        Failure
    ] = ()  # not written to generations that are not live, for a cause of their own; as `blamed`


@dataclass(frozen=True)
class Settled:
    """What settling did. ``held`` is False when the lease was lost and nothing was written."""

    held: bool
    done: int = 0
    retried: int = 0
    dead: int = 0
    healed: int = 0


def settle(conn: Connection, batch: Batch, outcomes: Outcomes, *, max_attempts: int) -> Settled:
    """End the lease of *batch* with *outcomes*; one statement when all went well, one transaction otherwise."""
    ids = [task.document_id for task in outcomes.done]
    reach("settle.before")
    if not (outcomes.again or outcomes.failed or outcomes.blamed or outcomes.missed):
        blamed = conn.run(SQL["any_blamed"], generations=list(batch.generations)).fetchone()
        if blamed is not None and not blamed[0]:
            reach("settle.checked")
            row = conn.run(SQL["settle_done"], token=batch.token, index=batch.index, ids=ids).fetchone()
            assert row is not None
            reach("settle.done")
            return Settled(held=bool(row[0]), done=len(ids), healed=row[1])
    with conn.transaction():
        settled = _settle(conn, batch, outcomes, max_attempts)
        if not settled.held:
            return settled
        reach("settle.written")
    reach("settle.done")
    return settled


def _settle(conn: Connection, batch: Batch, outcomes: Outcomes, max_attempts: int) -> Settled:
    # The states of generations decide between a letter and a note: hold them still until the commit (G2).
    generations.lock_set(conn)
    if conn.run(SQL["end_lease"], token=batch.token).fetchone() is None:
        return Settled(held=False)
    states = generations.states(conn, list(batch.generations))
    aside = [*outcomes.blamed, *outcomes.missed]
    blamed = [one for one in aside if states.get(one.generation or 0) in ("building", "standby")]
    # A generation that went live while the batch was under way: what it refused is the index's letter after all, and
    # what it missed is written again.
    risen = {one.task.document_id: one for one in aside if states.get(one.generation or 0) == "live"}
    done = [task for task in outcomes.done if task.document_id not in risen]
    missed = [one for one in risen.values() if one.error_type == MISSED]
    failed = [*outcomes.failed, *(one for one in risen.values() if one.error_type != MISSED)]
    dead, again = divide(failed, max_attempts=max_attempts)
    again += [(one.task, 1.0, one.reason) for one in missed]
    requeue(conn, batch.index, [*((task, wait, why) for task, wait, why in outcomes.again), *again])
    bury(conn, batch.index, batch.token, dead)
    reach("settle.moved")
    names = [task.document_id for task in done]
    conn.run(SQL["absolve"], generations=list(batch.generations), ids=names, token=batch.token)
    _blame(conn, batch.token, blamed)
    healed = conn.run(SQL["heal"], index=batch.index, ids=names, token=batch.token).rowcount if names else 0
    if blamed:
        generations.mark_behind(conn, [one.generation for one in blamed if one.generation])
    return Settled(True, len(done), len(again) + len(outcomes.again), len(dead), healed)


def divide(
    failed: Sequence[Failure], *, max_attempts: int, at: datetime | None = None, **more: str
) -> tuple[list[Failure], list[tuple[Task, float, str]]]:
    """
    Split failures into the dead, and those that are tried again with the wait before it.

    The latter remember this attempt: *at*, now by default, and *more* of it.
    """
    dead: list[Failure] = []
    again: list[tuple[Task, float, str]] = []
    for one in failed:
        attempts = one.task.attempts + (1 if one.charged else 0)
        spent = replace(one, task=replace(one.task, attempts=attempts))
        if one.permanent or attempts >= max_attempts:
            dead.append(spent)
        else:
            wait = backoff.before_attempt(attempts).total_seconds() if one.charged else 1.0
            again.append((remember(spent.task, one.error_type, one.reason, at=at, **more), wait, one.reason))
    return dead, again


def requeue(
    conn: Connection,
    index: str,
    tasks: Sequence[tuple[Task, float, str]],
    *,
    split_groups: Sequence[int | None] | None = None,
) -> None:
    """Put document tasks back, each after its wait in seconds and with the reason it is tried again."""
    if not tasks:
        return
    conn.run(
        SQL["requeue"],
        index=index,
        document_ids=[task.document_id for task, _, _ in tasks],
        actions=[task.action for task, _, _ in tasks],
        priorities=[task.priority for task, _, _ in tasks],
        attempts=[task.attempts for task, _, _ in tasks],
        delays=[wait for _, wait, _ in tasks],
        enqueued_at=[task.enqueued_at for task, _, _ in tasks],
        last_errors=[why for _, _, why in tasks],
        origins=[task.origin for task, _, _ in tasks],
        split_groups=list(split_groups) if split_groups else [None] * len(tasks),
        payloads=[Jsonb(dict(task.payload)) for task, _, _ in tasks],
    )


def requeue_fan_outs(conn: Connection, index: str, tasks: Sequence[Task], *, wait: float, why: str) -> None:
    """Put fan-out tasks back as they were."""
    if not tasks:
        return
    conn.run(
        SQL["requeue_fan_outs"],
        index=index,
        priorities=[task.priority for task in tasks],
        attempts=[task.attempts for task in tasks],
        delays=[wait] * len(tasks),
        enqueued_at=[task.enqueued_at for task in tasks],
        last_errors=[why] * len(tasks),
        origins=[task.origin for task in tasks],
        payloads=[Jsonb(dict(task.payload)) for task in tasks],
    )


def end_lease(conn: Connection, batch: Batch) -> bool:
    """End the lease in the caller's transaction; False when it was lost, and the caller rolls back."""
    return conn.run(SQL["end_lease"], token=batch.token).fetchone() is not None


def bury(
    conn: Connection, index: str, token: int, dead: Sequence[Failure], *, at: datetime | None = None, **more: str
) -> None:
    """Make dead letters; one an index, document and action, and the greater token stays (T5)."""
    if not dead:
        return
    dead = list({(one.task.document_id, one.task.action): one for one in dead}.values())
    payloads = [_letter(one, at, **more) for one in dead]
    write_letters(
        conn,
        SQL["bury"],
        index=index,
        token=token,
        document_ids=[one.task.document_id for one in dead],
        actions=[one.task.action for one in dead],
        attempts=[one.task.attempts for one in dead],
        last_errors=[one.reason for one in dead],
        error_types=[one.error_type for one in dead],
        fingerprints=[one.fingerprint for one in dead],
        retryable=[not one.permanent for one in dead],
        waits=[_wait(one) for one in dead],
        origins=[one.task.origin for one in dead],
        payloads=[Jsonb(payload) for payload in payloads],
        remembered=_REMEMBERED,
    )


def write_letters(conn: Connection, statement: Statement, **parameters: Any) -> int:
    """
    Run a statement that inserts letters or updates those that are there; returns how many it wrote. In a transaction.

    An adopted table has a second unique constraint, (listing_id, action), which such a statement does not ask: another
    letter of the same document that comes between its look and its insert is then an error. The second look sees it.
    """
    for tried in range(_LETTER_TRIES):
        try:
            with conn.savepoint():
                return conn.run(statement, **parameters).rowcount
        except PostgresRefused as error:
            if error.sqlstate != _UNIQUE_VIOLATION or tried == _LETTER_TRIES - 1:
                raise
    raise AssertionError


def remember(task: Task, error_type: str, reason: str, *, at: datetime | None = None, **more: str) -> Task:
    """Return *task* with a failure in its history, which its letter shows should it become one."""
    entry = {
        "at": (at or datetime.now(timezone.utc)).isoformat(),
        "error_type": error_type,
        "reason": reason[:500],
        "attempts": task.attempts,
        "origin": task.origin,
        **more,
    }
    past = [*task.payload.get("history", []), entry][-_REMEMBERED:]
    return replace(task, payload={**task.payload, "history": past})


def _letter(one: Failure, at: datetime | None, **more: str) -> dict[str, Any]:
    """Return the payload of a letter's task, with all that is remembered of its failures, this one the last."""
    task = remember(one.task, one.error_type, one.reason, at=at, **more)
    payload = dict(task.payload)
    letter = dict(payload.get("letter", {}))
    letter["history"] = [*letter.get("history", []), *payload.pop("history")][-_REMEMBERED:]
    payload["letter"] = letter
    return payload


def _wait(one: Failure) -> float | None:
    """Return the seconds that a letter which failed permanently again stays out of bulk retries."""
    retries = int((one.task.letter or {}).get("retries", 0))
    wait: timedelta | None = backoff.before_letter_retry(retries - 1) if one.permanent else None
    return None if wait is None else wait.total_seconds()


def _blame(conn: Connection, token: int, blamed: Sequence[Failure]) -> None:
    if not blamed:
        return
    conn.run(
        SQL["blame"],
        token=token,
        generations=[one.generation for one in blamed],
        document_ids=[one.task.document_id for one in blamed],
        actions=[one.task.action for one in blamed],
        error_types=[one.error_type for one in blamed],
        fingerprints=[one.fingerprint for one in blamed],
        last_errors=[one.reason for one in blamed],
    )
