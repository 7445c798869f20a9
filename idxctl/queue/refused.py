"""What becomes of a task that PostgreSQL itself refuses to write: it stops no other, and is not lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from idxctl.core import fingerprints
from idxctl.core.errors import PostgresRefused
from idxctl.core.reasons import Kind, Reason
from idxctl.postgres.connect import Connection
from idxctl.queue.bury import blame, bury
from idxctl.queue.claim import Task
from idxctl.queue.document_names import ascii_only, short_name
from idxctl.queue.outcomes import Again, Blamed, Failure
from idxctl.queue.requeue import requeue

PUT_OFF_SECONDS = 3600.0  # until a task is tried again of which PostgreSQL takes neither a letter nor a note
_TYPE = 200  # characters of an error's type
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


def blame_each(conn: Connection, token: int, blamed: Sequence[Blamed]) -> None:
    """Do as `blame` does, and note one that PostgreSQL refuses in its plainest form; outside any transaction."""

    def alone(one: Blamed, error: PostgresRefused) -> None:
        reason = ascii_only(f"{one.reason} ({error.detail} [{error.sqlstate}])")
        plain = replace(one, error_type=ascii_only(one.error_type)[:_TYPE], reason=reason)
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


def _plain(one: Failure, name: str) -> Failure:
    """Return a failure with nothing but ASCII in it, its past left out."""
    task = replace(_stripped(one.task), document_id=name)
    return replace(one, task=task, error_type=ascii_only(one.error_type)[:_TYPE], reason=ascii_only(one.reason))


def _stripped(task: Task) -> Task:
    """Return a task with nothing of its past but the letter that it is."""
    letter = task.letter or {}
    kept = {name: letter[name] for name in ("id", "created_at", "retries", "retry") if name in letter}
    return replace(task, last_error="", payload={"letter": kept} if kept else {})


def _refused(text: str, error: PostgresRefused) -> Reason:
    """Return why a task is put back in its plainest form, with nothing but ASCII in it."""
    return Reason(Kind.UNWRITABLE, ascii_only(text), error_type=f"sql_{error.sqlstate}")


def _unsettled(task: Task, reason: str, error: PostgresRefused) -> Failure:
    kind = f"sql_{error.sqlstate}"
    return Failure(task, kind, fingerprints.of_error(kind, error.detail), reason, permanent=False)
