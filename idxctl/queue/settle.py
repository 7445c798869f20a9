"""
Settle: end a batch's lease with an outcome for every task, in one transaction.

A lease that is gone was lost: nothing is written then, and others have the tasks.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, TypeVar

from psycopg.types.json import Jsonb

from idxctl.core import backoff, fingerprints, keys, redaction, texts
from idxctl.core.errors import PostgresRefused
from idxctl.core.failpoints import reach
from idxctl.core.reasons import Kind, Reason
from idxctl.indexes import generations
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import Statement
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


@dataclass(frozen=True)
class Again:
    """A task that goes back to the queue, to be tried after ``wait`` seconds."""

    task: Task
    wait: float
    why: Reason


log = logging.getLogger("idxctl.queue")

_REMEMBERED = 30  # entries of a letter's history
_TYPE = 200  # characters of an error's type
_SHORT_NAME = 600  # bytes
_SHOWN = 100  # characters of an id in a log
PUT_OFF_SECONDS = 3600.0  # until a task is tried again of which PostgreSQL takes neither a letter nor a note
_LETTER_TRIES = 5
_UNIQUE_VIOLATION = "23505"
MISSED = "missed_write"  # the type of a failure that is no refusal: the document is written again at the swap


@dataclass(frozen=True)
class Outcomes:
    """What became of a batch's tasks; every task is in exactly one of the first three."""

    done: Sequence[Task] = ()
    again: Sequence[Again] = ()  # no attempt is spent (P4)
    failed: Sequence[Failure] = ()
    blamed: Sequence[Failure] = ()  # refused by generations that are not live; the task itself is in `done`
    missed: Sequence[
        Failure
    ] = ()  # not written to generations that are not live, for a cause of their own; as `blamed`
    apart: Mapping[str, int] = field(default_factory=dict)  # documents claimed with those of the same number alone


@dataclass(frozen=True)
class Settled:
    """What settling did. ``held`` is False when the lease was lost and nothing was written."""

    held: bool
    done: int = 0
    retried: int = 0
    dead: int = 0
    healed: int = 0


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
                row = conn.run(SQL["settle_done"], token=batch.token, index=batch.index, ids=ids).fetchone()
                assert row is not None
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
    groups = _split_groups(conn, [group for _, group in waiting])
    requeue(conn, batch.index, [task for task, _ in waiting], split_groups=groups)
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


# What PostgreSQL refuses of one task ----------------------------------------------------------------------------------

_Item = TypeVar("_Item")


def in_parts(
    conn: Connection,
    items: Sequence[_Item],
    together: Callable[[Sequence[_Item]], int | None],
    alone: Callable[[_Item, PostgresRefused], None],
) -> int:
    """
    Do *together* for all *items*, in the caller's transaction; what is refused is halved until the culprit is left to *alone*.

    Returns the sum of what *together* returned. What passes by itself (a deadlock, a lock) is raised.
    """
    if not items:
        return 0
    try:
        with conn.savepoint():
            return together(items) or 0
    except PostgresRefused as error:
        if error.passing:
            raise
        if len(items) == 1:
            alone(items[0], error)
            return 0
    middle = len(items) // 2
    return in_parts(conn, items[:middle], together, alone) + in_parts(conn, items[middle:], together, alone)


def put_back_or_bury(conn: Connection, index: str, token: int, one: Again, error: PostgresRefused) -> None:
    """Put back a task whose own content is refused: stripped of all but its document, otherwise as a letter."""
    task = one.task
    refused = f"{one.why.said or one.why.sentence}; {error.detail} [{error.sqlstate}]"

    def stripped() -> None:
        requeue(conn, index, [Again(_stripped(task), one.wait, _refused(refused, error))])

    def buried() -> None:
        bury(conn, index, token, [_plain(_unsettled(task, refused, error), task.document_id)])

    _first_that_works(conn, error, (stripped, buried))


def bury_somehow(conn: Connection, index: str, token: int, one: Failure, error: PostgresRefused) -> None:
    """
    Make a letter of a task whose letter is refused as it is: in its plainest form, then under a short name of its id.

    Where no letter can be made at all the task is put off, with the reason: it is seen in the queue, and stops nothing.
    """
    refused = f"{one.reason} (its letter could not be written as it was: {error.detail} [{error.sqlstate}])"
    plain = replace(one, reason=refused)

    def put_off() -> None:
        requeue(conn, index, [Again(_stripped(one.task), PUT_OFF_SECONDS, _refused(refused, error))])

    _first_that_works(
        conn,
        error,
        (
            lambda: bury(conn, index, token, [_plain(plain, one.task.document_id)]),
            lambda: bury(conn, index, token, [_plain(plain, short_name(one.task.document_id))]),
            put_off,
        ),
    )


def _first_that_works(conn: Connection, error: PostgresRefused, ways: Sequence[Callable[[], None]]) -> None:
    """Do the first of *ways* that PostgreSQL does not refuse; raises *error* when it refuses all."""
    for way in ways:
        try:
            with conn.savepoint():
                way()
        except PostgresRefused as another:
            if another.passing:
                raise
        else:
            return
    raise error


def short_name(document_id: str) -> str:
    """
    Return a name for an id that cannot be kept as it is: the same for the same id, and no other's.

    Longer than any id that is kept as it is, so that none of these can be taken for it. Migration 000004 makes the same.
    """
    try:
        data = document_id.encode(
            "utf-8", "surrogateescape"
        )  # of a database without an encoding: the bytes that it has
    except UnicodeEncodeError:
        data = document_id.encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(data).hexdigest()
    return f"sha256 {digest} ".ljust(_SHORT_NAME, ".")


def kept_name(document_id: str) -> str:
    """Return what the tables of letters and of notes have in document_id for an id: itself, unless an index cannot hold it."""
    return short_name(document_id) if keys.too_long(document_id) else document_id


def _name_and_whole(document_id: str) -> tuple[str, str | None]:
    """Return the name of a document in these tables, and its whole id where that is another."""
    if (
        document_id.startswith("sha256 ") and len(document_id) == _SHORT_NAME
    ):  # the last resort's: all that is kept of it
        return document_id, document_id
    name = kept_name(document_id)
    return name, None if name == document_id else document_id


def shown(task: Task) -> str:
    """Return a task's document for a line of a log."""
    name = _ascii(task.document_id)
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."


def _ascii(text: str) -> str:
    return texts.storable(text, None)


def _plain(one: Failure, name: str) -> Failure:
    """Return a failure with nothing but ASCII in it, its past left out."""
    task = replace(_stripped(one.task), document_id=name)
    return replace(one, task=task, error_type=_ascii(one.error_type)[:_TYPE], reason=_ascii(one.reason))


def _stripped(task: Task) -> Task:
    """Return a task with nothing of its past but the letter that it is."""
    letter = task.letter or {}
    kept = {name: letter[name] for name in ("id", "created_at", "retries", "retry") if name in letter}
    return replace(task, last_error="", payload={"letter": kept} if kept else {})


def _refused(text: str, error: PostgresRefused) -> Reason:
    """Return why a task is put back in its plainest form, with nothing but ASCII in it."""
    return Reason(Kind.UNWRITABLE, _ascii(text), error_type=f"sql_{error.sqlstate}")


def _unsettled(task: Task, reason: str, error: PostgresRefused) -> Failure:
    kind = f"sql_{error.sqlstate}"
    return Failure(task, kind, fingerprints.of_error(kind, error.detail), reason, permanent=False)


def _split_groups(conn: Connection, groups: Sequence[int | None]) -> list[int | None]:
    """Return numbers that no others share for *groups*; none for tasks that need not be claimed apart."""
    drawn = {one: split_group(conn) for one in dict.fromkeys(groups) if one is not None}
    return [None if one is None else drawn[one] for one in groups]


def split_group(conn: Connection) -> int:
    """Draw the number of a group of tasks that are claimed together, and apart from all others."""
    row = conn.run(SQL["next_split_group"]).fetchone()
    assert row is not None
    return int(row[0])


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
    split_groups: Sequence[int | None] | None = None,
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
        split_groups=list(split_groups) if split_groups else [None] * len(tasks),
        payloads=[Jsonb(_kept(conn, one.task.payload)) for one in tasks],
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
    named = {one.task.document_id: _name_and_whole(one.task.document_id) for one in dead}
    write_letters(
        conn,
        SQL["bury"],
        index=index,
        token=token,
        document_ids=[named[one.task.document_id][0] for one in dead],
        whole_ids=[named[one.task.document_id][1] for one in dead],
        actions=[one.task.action for one in dead],
        attempts=[one.task.attempts for one in dead],
        last_errors=[conn.reason(one.reason) for one in dead],
        error_types=[conn.storable(one.error_type) for one in dead],
        fingerprints=[one.fingerprint for one in dead],
        retryable=[not one.permanent for one in dead],
        waits=[_wait(one) for one in dead],
        origins=[one.task.origin for one in dead],
        payloads=[Jsonb(_kept(conn, payload)) for payload in payloads],
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


def _kept(conn: Connection, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a payload with what is remembered of failures as the database can hold it; the rest of it came from there."""
    kept = {name: _kept_history(conn, one) if name == "history" else one for name, one in payload.items()}
    if kept.get("letter", {}).get("history"):
        kept["letter"] = {**kept["letter"], "history": _kept_history(conn, kept["letter"]["history"])}
    if kept.get("letter", {}).get("data") is not None and not conn.keep_data:
        kept["letter"] = {**kept["letter"], "data": None}
    return kept


def _kept_history(conn: Connection, history: Any) -> Any:
    if not conn.keep_values:
        history = [{**one, "reason": redaction.without_values(str(one.get("reason", "")))} for one in history]
    return texts.all_storable(history, conn.encoding)


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


@dataclass(frozen=True)
class Blamed:
    """A document that a generation refused while it was not live."""

    generation: int
    document_id: str
    action: str
    error_type: str
    fingerprint: str
    reason: str


def blame(conn: Connection, token: int, blamed: Sequence[Blamed]) -> None:
    """Note what generations have refused; they become letters at the swap."""
    if not blamed:
        return
    named = [_name_and_whole(one.document_id) for one in blamed]
    conn.run(
        SQL["blame"],
        token=token,
        generations=[one.generation for one in blamed],
        document_ids=[name for name, _ in named],
        whole_ids=[whole for _, whole in named],
        actions=[one.action for one in blamed],
        error_types=[conn.storable(one.error_type) for one in blamed],
        fingerprints=[one.fingerprint for one in blamed],
        last_errors=[conn.reason(one.reason) for one in blamed],
    )


def blame_each(conn: Connection, token: int, blamed: Sequence[Blamed]) -> None:
    """Do as `blame` does, and note one that PostgreSQL refuses in its plainest form; outside any transaction."""

    def alone(one: Blamed, error: PostgresRefused) -> None:
        reason = _ascii(f"{one.reason} ({error.detail} [{error.sqlstate}])")
        plain = replace(one, error_type=_ascii(one.error_type)[:_TYPE], reason=reason)
        named = replace(plain, document_id=short_name(one.document_id))
        _first_that_works(
            conn, error, (partial(blame, conn, token, [plain]), partial(blame, conn, token, [named]))
        )  # fmt: skip

    try:
        blame(conn, token, blamed)
    except PostgresRefused as error:
        if error.passing:
            raise
        in_parts(conn, blamed, partial(blame, conn, token), alone)


def _blamed(one: Failure) -> Blamed:
    return Blamed(
        one.generation or 0, one.task.document_id, one.task.action, one.error_type, one.fingerprint, one.reason
    )
