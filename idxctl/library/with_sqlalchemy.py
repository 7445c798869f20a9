"""
SQLAlchemy 2: sessions and connections, over psycopg or another driver.

A session tells of its commits by an event. A bare `Connection` does not; `Indexer.transaction` is for it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from idxctl.core.errors import PostgresRefused, UsageError, WrongType
from idxctl.library.appending import (
    NOT_MIGRATED,
    Append,
    Appended,
    Caller,
    Index,
    Pending,
    appended,
    not_migrated,
)
from idxctl.library.with_psycopg import PsycopgCaller

_PARAMETER = re.compile(r"%\((\w+)\)s")


def caller(connection: Any, pending: Pending) -> Caller:
    """Return how to speak with a session or connection of SQLAlchemy."""
    if isinstance(connection, scoped_session):
        connection = connection()
    if isinstance(connection, Session):
        return SessionCaller(connection, pending)
    if isinstance(connection, sqlalchemy.Connection):
        return ConnectionCaller(connection, pending)
    raise WrongType(
        f"connection is a {type(connection).__qualname__} of SQLAlchemy; a Session or a Connection is needed",
        hint="an asynchronous one has both: await session.run_sync(lambda session: indexer.index(..., connection=session))",
    )


@dataclass(frozen=True)
class ConnectionCaller:
    """A `Connection`; it is in a transaction once it has been used, as always."""

    connection: sqlalchemy.Connection
    pending: Pending

    def append(self, append: Append) -> Appended | None:
        """Over psycopg as without SQLAlchemy; over another driver with a savepoint of SQLAlchemy's."""
        if self.connection.dialect.name != "postgresql":
            raise WrongType(f"connection is one to {self.connection.dialect.name}, not to PostgreSQL")
        if not self.connection.in_transaction():
            self.connection.begin()  # what any statement would do
        driver = self._driver()
        if isinstance(driver, psycopg.Connection):
            return PsycopgCaller(driver, self.pending).append(append)
        statement = sqlalchemy.text(
            _PARAMETER.sub(r":\1", append.statement.decode().replace(":", r"\:")).replace("%%", "%")
        )
        try:
            with contextlib.nullcontext() if self._autocommit() else self.connection.begin_nested():
                row = self.connection.execute(statement, append.parameters).one()
        except OperationalError:
            raise
        except DBAPIError as error:
            if _sqlstate(error) in NOT_MIGRATED:
                raise not_migrated(append) from error
            raise PostgresRefused(
                f"PostgreSQL refused (append): {error.orig}", sqlstate=_sqlstate(error), detail=str(error.orig)
            ) from error
        return appended(append, row)

    def _driver(self) -> Any:
        return self.connection.connection.driver_connection

    def _autocommit(self) -> bool:
        return bool(getattr(self._driver(), "autocommit", False))

    def after_commit(self, done: Appended, index: Index) -> bool:
        """At once in autocommit, otherwise within `transaction` only."""
        if self._autocommit():
            index([done])
            return True
        return self.pending.add(self.connection, done)

    @contextlib.contextmanager
    def transaction(self, index: Index) -> Iterator[None]:
        """As ``connection.begin()``; within another transaction it is a savepoint, and the outer one counts."""
        outermost = not self.connection.in_transaction()
        if outermost:
            self.pending.open(self.connection)
        try:
            with self.connection.begin() if outermost else self.connection.begin_nested():
                yield
        finally:
            done = self.pending.take(self.connection) if outermost else []
        if done:
            index(done)


@dataclass(frozen=True)
class SessionCaller:
    """A `Session`, on whose connection the task goes."""

    session: Session
    pending: Pending

    def append(self, append: Append) -> Appended | None:
        """Append on the session's connection, within its transaction."""
        return ConnectionCaller(self.session.connection(), self.pending).append(append)

    def after_commit(self, done: Appended, index: Index) -> bool:
        """
        After the end of the session's outermost transaction, when its connection is free again.

        Rolled back or not: what was not committed cannot be claimed.
        """
        session, pending = self.session, self.pending
        if pending.meet(session):

            def ended(_session: Session, transaction: SessionTransaction) -> None:
                if transaction.parent is None and (committed := pending.take(session)):
                    index(committed)

            event.listen(session, "after_transaction_end", ended)
        pending.open(session)
        pending.add(session, done)
        return True

    @contextlib.contextmanager
    def transaction(self, index: Index) -> Iterator[None]:  # noqa: ARG002 - it needs none
        """Refuse: a session tells of its commits by itself."""
        raise UsageError(
            "a session needs no transaction() of ours: it reports its commits itself",
            hint="index(..., connection=session) is all",
        )
        yield


def _sqlstate(error: DBAPIError) -> str:
    original: Any = error.orig
    for name in ("sqlstate", "pgcode"):
        found = getattr(original, name, None)
        if isinstance(found, str):
            return found
    details = original.args[0] if getattr(original, "args", ()) else None
    return str(details.get("C", "XX000")) if isinstance(details, dict) else "XX000"
