"""Make dead letters, and notes of what generations that are not live have refused, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from idxctl.core import backoff
from idxctl.core.errors import PostgresRefused
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import Statement
from idxctl.queue import SQL
from idxctl.queue.document_names import name_and_whole
from idxctl.queue.history import REMEMBERED, kept, letter
from idxctl.queue.outcomes import Blamed, Failure

_LETTER_TRIES = 5
_UNIQUE_VIOLATION = "23505"


def bury(
    conn: Connection, index: str, token: int, dead: Sequence[Failure], *, at: datetime | None = None, **more: str
) -> None:
    """Make dead letters; one an index, document and action, and the greater token stays (T5)."""
    if not dead:
        return
    dead = list({(one.task.document_id, one.task.action): one for one in dead}.values())
    payloads = [letter(one, at, **more) for one in dead]
    named = {one.task.document_id: name_and_whole(one.task.document_id) for one in dead}
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
        payloads=[Jsonb(kept(conn, payload)) for payload in payloads],
        remembered=REMEMBERED,
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


def _wait(one: Failure) -> float | None:
    """Return the seconds that a letter which failed permanently again stays out of bulk retries."""
    retries = int((one.task.letter or {}).get("retries", 0))
    wait: timedelta | None = backoff.before_letter_retry(retries - 1) if one.permanent else None
    return None if wait is None else wait.total_seconds()


def blame(conn: Connection, token: int, blamed: Sequence[Blamed]) -> None:
    """Note what generations have refused; they become letters at the swap."""
    if not blamed:
        return
    named = [name_and_whole(one.document_id) for one in blamed]
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
