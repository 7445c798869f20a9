"""
One at a time: migrations, and installations of triggers.

The lock is of a table of ours, and takes a right on it. It is one that stands in the way of nothing but itself, VACUUM and
changes of the table: neither reads nor writes of it wait. Programs of the release before know an advisory lock only, which
any role may take and keep: it is taken as well, and waited for only where a session that may work on our tables has it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from idxctl.core.errors import Locked, PostgresRefused
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load

SQL = load("idxctl.postgres", "own_lock.sql")
_LOCK_NOT_AVAILABLE = "55P03"
_OURS = "opensearch_indexing_"  # how the names of our tables begin
_LOOK_SECONDS = 1.0  # between looks at who holds the older lock


@dataclass(frozen=True)
class Holder:
    """A session that holds a lock; ``since`` is when its transaction began, None where its role hides that."""

    pid: int
    role: str
    application: str
    since: datetime | None

    def __str__(self) -> str:
        application = f", application {self.application}" if self.application else ""
        since = f", since {self.since:%H:%M:%S}" if self.since else ""
        return f"pid {self.pid}, role {self.role}{application}{since}"


def named(found: list[Holder]) -> str:
    """Return them in a line."""
    return "; ".join(str(one) for one in found) or "a session that has ended since"


def take(conn: Connection, table: str, doing: str, *, wait_seconds: float) -> None:
    """Be the only one at *doing* until the transaction ends; raises `Locked`, naming who is, after *wait_seconds*."""
    lock = sql.SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(sql.Identifier(conn.schema, table))
    try:
        with conn.savepoint(local={"lock_timeout": _milliseconds(wait_seconds)}):
            conn.pinned(lock)
    except PostgresRefused as error:
        if error.sqlstate != _LOCK_NOT_AVAILABLE:
            raise
        rows = conn.run(SQL["table_holders"], schema=conn.schema, table=table)
        raise _under_way(doing, [Holder(*row) for row in rows], wait_seconds) from error


def take_older(conn: Connection, key: int, table: str, doing: str, *, wait_seconds: float) -> tuple[str, ...]:
    """
    Take the advisory lock of programs of the release before; returns what is to be said where it is not to be had.

    Who may work on *table*, or make it, may be such a program, and is waited for; `Locked` is raised after *wait_seconds*.
    """
    if _scalar(conn, "try_older", key=key):
        return ()
    until = time.monotonic() + wait_seconds
    while True:
        rows = conn.run(SQL["older_holders"], key=key, schema=conn.schema, table=table).fetchall()
        held = [Holder(*row) for *row, _ in rows]
        if rows and not any(row[-1] for row in rows):
            return (
                f"{named(held)} holds the advisory lock of older releases, without a right on our tables: passed over",
            )
        left = until - time.monotonic()
        if left <= 0:
            raise _under_way(doing, held, wait_seconds)
        try:
            with conn.savepoint(local={"lock_timeout": _milliseconds(min(_LOOK_SECONDS, left))}):
                conn.run(SQL["older"], key=key)
        except PostgresRefused as error:
            if error.sqlstate != _LOCK_NOT_AVAILABLE:
                raise
        else:
            return ()


@contextlib.contextmanager
def not_waited_for(conn: Connection, doing: str, *, wait_seconds: float = 2.0) -> Iterator[None]:
    """Read without waiting long behind whoever has one of our tables to itself; raises `Locked`, naming them."""
    local = {"lock_timeout": _milliseconds(wait_seconds)}
    try:
        with conn.savepoint(local=local) if conn.in_transaction else conn.transaction(local=local, read_only=True):
            yield
    except PostgresRefused as error:
        if error.sqlstate != _LOCK_NOT_AVAILABLE:
            raise
        held = [Holder(*row) for row in conn.run(SQL["readers_wait_for"], schema=conn.schema, prefix=_OURS)]
        raise Locked(
            f"{doing} waits for a lock that not even a reader gets by: {named(held)}",
            hint="wait until its transaction ends, or end it: SELECT pg_terminate_backend(pid)",
        ) from error


def _under_way(doing: str, held: list[Holder], waited: float) -> Locked:
    return Locked(
        f"another {doing} has been under way for {waited:g} s: {named(held)}",
        hint="try again when it has ended, or end it: SELECT pg_terminate_backend(pid)",
    )


def _milliseconds(seconds: float) -> str:
    return f"{max(int(seconds * 1000), 1)}ms"


def _scalar(conn: Connection, statement: str, **parameters: object) -> object:
    row = conn.run(SQL[statement], **parameters).fetchone()
    return row[0] if row else None
