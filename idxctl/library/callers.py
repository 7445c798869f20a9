"""
The caller's own connection: append in its transaction, and know when that has committed.

`of` finds out what it is; SQLAlchemy and Django are looked at only where the caller brings an object of theirs.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

import psycopg
from psycopg.pq import Escaping, PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from idxctl.core.errors import SchemaError, UsageError, WrongType
from idxctl.postgres import any_bytes
from idxctl.postgres.connect import translated
from idxctl.postgres.statements import load

SQL = load("idxctl.library", "library.sql")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
NOT_MIGRATED = frozenset({"42883", "3F000"})  # no such function, no such schema
_MOST_PENDING = 10_000  # appends of one transaction that are indexed after its commit; beyond it they are the workers'


@dataclass(frozen=True)
class Append:
    """Tasks to be appended to the queue."""

    schema: str
    index: str
    ids: Sequence[str]
    action: str

    @property
    def statement(self) -> bytes:
        """The statement, with ``%(name)s`` where its parameters go."""
        return SQL["append"].qualified(self.schema)

    @property
    def parameters(self) -> dict[str, Any]:
        """What goes there."""
        return {"index": self.index, "ids": list(self.ids), "action": self.action}


@dataclass(frozen=True)
class Appended:
    """Tasks that were appended: their documents, and the time within which they were enqueued (the server's clock)."""

    index: str
    ids: Sequence[str]
    began: datetime
    ended: datetime


def appended(append: Append, row: Sequence[Any]) -> Appended:
    """Return what the statement's answer says."""
    began, ended = (_EPOCH + timedelta(microseconds=int(one)) for one in row)
    return Appended(append.index, append.ids, began, ended)


def not_migrated(append: Append) -> SchemaError:
    """Return the error for a database without the function that appends, as it is before ``idxctl migrate up``."""
    return SchemaError(
        f"schema \"{append.schema}\" of the connection's database is not migrated: idxctl's functions are not there",
        hint="idxctl migrate up; or [database] schema, if they live elsewhere; or a connection to another database",
    )


def ours() -> contextlib.AbstractContextManager[None]:
    """Turn into our errors what `Caller.append` leaves as the driver's, on a connection of our own."""
    return translated("append")


Index = Callable[[Sequence[Appended]], None]


class Caller(Protocol):
    """A connection that somebody else made and owns."""

    def append(self, append: Append) -> Appended | None:
        """Append in the caller's transaction, in a savepoint; None where the answer will be known only later."""

    def after_commit(self, done: Appended, index: Index) -> bool:
        """Have *index* called once the transaction has committed; False where nobody can tell us."""

    def transaction(self, index: Index) -> contextlib.AbstractContextManager[None]:
        """Open a transaction that calls *index* once it has committed."""


class Pending:
    """What was appended and is indexed after the commit, for each connection or session under way. Thread-safe."""

    def __init__(self) -> None:
        self._of: WeakKeyDictionary[Any, deque[Appended]] = WeakKeyDictionary()
        self._met: WeakSet[Any] = WeakSet()
        self._lock = threading.Lock()

    def open(self, whose: object) -> None:
        """Take notes for *whose* from now on."""
        with self._lock:
            self._of.setdefault(whose, deque(maxlen=_MOST_PENDING))

    def meet(self, whose: object) -> bool:
        """Tell whether it is the first time, for what is done once for each of them."""
        with self._lock:
            first = whose not in self._met
            self._met.add(whose)
            return first

    def add(self, whose: object, done: Appended) -> bool:
        """Take a note; False where nobody asked for notes."""
        with self._lock:
            notes = self._of.get(whose)
            if notes is None:
                return False
            notes.append(done)
            return True

    def take(self, whose: object) -> list[Appended]:
        """Return the notes, and take no more."""
        with self._lock:
            return list(self._of.pop(whose, ()))


def of(connection: Any, pending: Pending) -> Caller:
    """Return how to speak with *connection*; raises `WrongType` for what is no connection that can be used here."""
    if isinstance(connection, psycopg.Connection):
        return PsycopgCaller(connection, pending)
    roots = {kind.__module__.partition(".")[0] for kind in type(connection).__mro__}
    if "sqlalchemy" in roots:
        from idxctl.library import with_sqlalchemy

        return with_sqlalchemy.caller(connection, pending)
    if "django" in roots:
        from idxctl.library import with_django

        return with_django.caller(connection, pending)
    if isinstance(connection, psycopg.AsyncConnection):
        raise WrongType(
            "connection is asynchronous, and the library is not",
            hint="SELECT opensearch_indexing_enqueue(index, document_id) in the transaction does the same",
        )
    raise WrongType(
        "connection is one of psycopg, a Session or Connection of SQLAlchemy, or a connection of Django, "
        f"not {type(connection).__module__}.{type(connection).__qualname__}"
    )


@dataclass(frozen=True)
class PsycopgCaller:
    """A connection of psycopg, in whatever state it is."""

    connection: psycopg.Connection[Any]
    pending: Pending

    def append(self, append: Append) -> Appended | None:
        """One round trip: the savepoint travels with the statement."""
        connection = self.connection
        cursor = psycopg.Cursor(connection, row_factory=tuple_row)
        if connection.pgconn.pipeline_status != PipelineStatus.OFF:
            cursor.execute(append.statement, append.parameters, prepare=False)
            return None  # the answer comes with the caller's next sync
        statement = append.statement % self._literals(append)
        alone = connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE
        if not alone:
            statement = b"SAVEPOINT idxctl;\n" + statement + b";\nRELEASE SAVEPOINT idxctl"
        try:
            # What befalls the whole transaction (a conflict, a lost connection) stays the driver's error: the caller's
            # own code that tries again must know it.
            with contextlib.nullcontext() if alone else self._given_back():
                cursor.execute(statement, prepare=False)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            if error.sqlstate in NOT_MIGRATED:
                raise not_migrated(append) from error
            with translated("append"):
                raise error from None
        if not alone:
            cursor.nextset()
        row = cursor.fetchone()
        assert row is not None
        return appended(append, row)

    @contextlib.contextmanager
    def _given_back(self) -> Iterator[None]:
        """Give the caller a transaction that still works where ours did not."""
        before = self.connection.info.transaction_status
        try:
            yield
        except psycopg.Error:
            if (
                before != TransactionStatus.INERROR
                and self.connection.info.transaction_status == TransactionStatus.INERROR
            ):
                cursor = psycopg.Cursor(self.connection, row_factory=tuple_row)
                with contextlib.suppress(psycopg.Error):
                    cursor.execute(b"ROLLBACK TO SAVEPOINT idxctl; RELEASE SAVEPOINT idxctl", prepare=False)
            raise

    def _literals(self, append: Append) -> dict[bytes, bytes]:
        """Return the parameters as SQL, whatever dumpers the caller has registered."""
        escape, encoding = Escaping(self.connection.pgconn), self.connection.info.encoding
        if encoding == "ascii" or any_bytes.is_passed_by(self.connection):  # SQL_ASCII: the server takes any bytes
            encoding = "utf-8"

        def literal(text: str) -> bytes:
            try:
                return bytes(escape.escape_literal(text.encode(encoding)))
            except UnicodeEncodeError as error:
                raise UsageError(
                    f"document id {text[:80]!r} cannot be written in the connection's client_encoding, {encoding}",
                    hint="client_encoding=UTF8",
                ) from error

        ids = b"ARRAY[" + b",".join([literal(one) for one in append.ids]) + b"]"
        return {b"index": literal(append.index), b"ids": ids, b"action": literal(append.action)}

    def after_commit(self, done: Appended, index: Index) -> bool:
        """At once in autocommit; otherwise within `transaction` only, since psycopg tells nobody of a commit."""
        if self.connection.info.transaction_status == TransactionStatus.IDLE:
            index([done])
            return True
        return self.pending.add(self.connection, done)

    @contextlib.contextmanager
    def transaction(self, index: Index) -> Iterator[None]:
        """As ``connection.transaction()``; within another one it is a savepoint, and the outer one counts."""
        outermost = self.connection.info.transaction_status == TransactionStatus.IDLE
        if outermost:
            self.pending.open(self.connection)
        try:
            with self.connection.transaction():
                yield
        finally:
            # Rolled back or not: what was not committed cannot be claimed.
            done = self.pending.take(self.connection) if outermost else []
        if done:
            index(done)
