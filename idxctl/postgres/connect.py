"""
Connections to PostgreSQL: what every engine takes first, and a pool of them, one a thread.

A connection is in autocommit; a transaction is opened by `Connection.transaction`, READ COMMITTED in so many words (T1),
with its settings by ``SET LOCAL`` alone. Nothing is prepared and no session state is kept, so that PgBouncer in
transaction mode may stand in between.

Our own SQL is *pinned*: it runs under a search path of PostgreSQL's own functions and operators alone. An exact match in
another schema beats a polymorphic function of pg_catalog (``to_json(text)``, ``unnest(text[])``) or one that needs a cast
(``numeric * integer``): whoever may create functions in a schema of the session's path would otherwise run code as us. Only
what the application wrote, document queries and watches, sees the application's path; what we wrap around it names
pg_catalog in so many words.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from idxctl.config.settings import DatabaseSettings
from idxctl.core import redaction, texts
from idxctl.core.actor import Actor
from idxctl.core.reasons import Kind, Reason
from idxctl.postgres import any_bytes, pinned
from idxctl.postgres.opening import opened, schema_of
from idxctl.postgres.silence import PatientConnection
from idxctl.postgres.statements import Statement
from idxctl.postgres.translated import translated

Row = tuple[Any, ...]
_WITHIN_PATIENCE = 0.8  # of it: the server ends a statement, and says so, before we give the server up


class Connection:
    """
    One connection of idxctl: psycopg's, plus the schema of our tables and our errors.

    ``raw`` is the driver's connection, for COPY and for callers that bring SQL of their own.
    """

    def __init__(
        self,
        raw: PatientConnection,
        schema: str,
        *,
        keep_values: bool = True,
        keep_data: bool = True,
        actor: Actor | None = None,
        read_seconds: float = DatabaseSettings.read_timeout_seconds,
    ) -> None:
        self.raw = raw
        self.schema = schema
        self.keep_values = keep_values
        self.keep_data = keep_data
        self.actor = actor or Actor()  # who acts by it, for the audit
        self.read_seconds = read_seconds

    def run(self, statement: Statement, /, **parameters: Any) -> psycopg.Cursor[Row]:
        """Run a named statement, pinned; a server's or the network's no is raised as ours."""
        with translated(statement.name, statement.text):
            return self._pinned(statement.qualified(self.schema), parameters)

    def pinned(self, query: Any, parameters: Any = None) -> psycopg.Cursor[Row]:
        """Run SQL of ours that has no name, pinned as `run` does."""
        with translated("statement"):
            return self._pinned(query, parameters)

    def one(self, statement: Statement, /, **parameters: Any) -> Row:
        """Run a named statement that always returns a row, and return that."""
        row = self.run(statement, **parameters).fetchone()
        if row is None:
            raise AssertionError(f"{statement.name} returned no row")
        return row

    def value(self, statement: Statement, /, **parameters: Any) -> Any:
        """Run a named statement that always returns a row of one column, and return what stands there."""
        (value,) = self.one(statement, **parameters)
        return value

    def stream(self, statement: Statement, /, **parameters: Any) -> Iterator[Row]:
        """Yield the rows of a named statement as they are asked for, by a cursor of the server's: memory stays flat."""
        with self.transaction(read_only=True), self.raw.cursor(name=f"idxctl_{statement.name}") as cursor:
            with translated(statement.name):
                cursor.execute(statement.qualified(self.schema), parameters)
            while True:
                with translated(statement.name):
                    rows = cursor.fetchmany(1000)
                if not rows:
                    return
                yield from rows

    def execute(self, query: Any, parameters: Any = None) -> psycopg.Cursor[Row]:
        """Run SQL as it stands: under the search path of the transaction, outside of one under the session's own."""
        with translated("statement"):
            return self.raw.execute(self.query(query), parameters)

    def query(self, query: Any) -> Any:
        """Return a query as the driver can send it to this database."""
        return any_bytes.query(query, self.raw) if any_bytes.is_of(self.raw) else query

    def column_names(self, cursor: psycopg.Cursor[Row]) -> list[str]:
        """Return the names of a result's columns."""
        names = [column.name for column in cursor.description or ()]
        return [any_bytes.name(one) for one in names] if any_bytes.is_of(self.raw) else names

    def _pinned(self, query: Any, parameters: Any) -> psycopg.Cursor[Row]:
        """
        Run *query* under the pinned path, which an open transaction of ours has set.

        Outside of one the path travels with it, in one message, which the server carries out as one transaction: no round
        trip more, and nothing is left in the session. The protocol that sends parameters apart takes one statement a
        message, so they are written into the text, as `psycopg.sql.Literal` does.
        """
        if self.raw.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            return self.raw.execute(self.query(query), parameters)
        text = self.query(query)
        text = text if isinstance(text, bytes) else _text(text, self.raw)
        status = self.raw.info.parameter_status
        writes = status("default_transaction_read_only") == "on" and status("in_hot_standby") != "on"
        pins = pinned.pin_single(self.raw.info.server_version, writes=writes)
        cursor = psycopg.ClientCursor(self.raw)
        cursor.execute(b"".join([";\n".join(pins).encode(), b";\n", text]), parameters)
        for _ in pins:
            cursor.nextset()
        return cursor

    @property
    def pin(self) -> str:
        """What pins a transaction, to be said after BEGIN."""
        return "; ".join(pinned.pin(self.raw.info.server_version)) + self.let_go

    @contextlib.contextmanager
    def transaction(self, *, local: Mapping[str, str | None] | None = None, read_only: bool = False) -> Iterator[None]:
        """
        Open a READ COMMITTED transaction, whatever the server's default, pinned; roll back on an exception.

        *local* are settings in force until its end, a search path for the application's SQL among them; one that is None is
        as the session was given it.
        """
        with translated("transaction"):
            begin = "BEGIN ISOLATION LEVEL READ COMMITTED" + (" READ ONLY" if read_only else " READ WRITE")
            begin += f"; {self.pin}"
            self.raw.execute(begin.encode())
            try:
                self._set_locally(local or {})
                yield
            except BaseException:
                self.rollback()
                raise
            self.raw.execute("COMMIT")

    @contextlib.contextmanager
    def under(self, search_path: str) -> Iterator[None]:
        """Let SQL of the application's see *search_path* meanwhile, in an open transaction; an exception is to end that."""
        self._set_locally({"search_path": search_path})
        yield
        self._set_locally({"search_path": pinned.PINNED})

    @property
    def let_go(self) -> str:
        """
        What makes the server give us up as soon as we would give it up, to be said after BEGIN.

        A worker that is stopped, or cut off without a word, in the middle of a transaction would otherwise keep the tasks
        it has locked from all others for as long as that lasts: hours.
        """
        patience = self.raw.patience
        return "" if patience is None else f"; SET LOCAL idle_in_transaction_session_timeout = {int(patience * 1000)}"

    @contextlib.contextmanager
    def savepoint(self, *, local: Mapping[str, str | None] | None = None, read_only: bool = False) -> Iterator[None]:
        """
        Open a savepoint in the transaction; an exception rolls back to it, and *local* settings end with it.

        *read_only*: nothing inside can write, and nothing inside can end that.
        """
        with translated("savepoint"), self.raw.transaction():
            if read_only:
                self.raw.execute(b"SET TRANSACTION READ ONLY")
            before = self._settings(list(local or {}))
            self._set_locally(local or {})
            yield
            self._set_locally(before)

    @property
    def read_limit_ms(self) -> int:
        """How long one statement may read documents: less than we allow a server that says nothing."""
        patience = self.raw.patience
        seconds = self.read_seconds if patience is None else min(self.read_seconds, patience * _WITHIN_PATIENCE)
        return max(int(seconds * 1000), 1)

    @contextlib.contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Let the server be silent for *seconds* meanwhile, where `Pool.patient` would give it up sooner."""
        before = self.raw.patience
        self.raw.patience = None if before is None else max(before, seconds)
        try:
            yield
        finally:
            self.raw.patience = before

    @contextlib.contextmanager
    def acting(self, actor: Actor) -> Iterator[None]:
        """Let *actor* be who acts by it meanwhile."""
        before, self.actor = self.actor, actor
        try:
            yield
        finally:
            self.actor = before

    @contextlib.contextmanager
    def reading_within(self, seconds: float) -> Iterator[None]:
        """Have no statement read documents for longer than *seconds* meanwhile."""
        before = self.read_seconds
        self.read_seconds = min(before, seconds)
        try:
            yield
        finally:
            self.read_seconds = before

    def _set_locally(self, settings: Mapping[str, str | None]) -> None:
        """Set all of them in one statement: a batch's read has a dozen, and each round trip is paid by every batch."""
        if settings:
            calls = ", ".join(["pg_catalog.set_config(%s, %s, true)"] * len(settings))
            self.raw.execute(f"SELECT {calls}".encode(), [part for pair in settings.items() for part in pair])

    def _settings(self, names: Sequence[str]) -> dict[str, str | None]:
        """Return what settings are now, in one statement as well; None for one of the application's that is not set."""
        if not names:
            return {}
        calls = ", ".join(["pg_catalog.current_setting(%s, true)"] * len(names))
        row = self.raw.execute(f"SELECT {calls}".encode(), names).fetchone()
        assert row is not None
        return dict(zip(names, row, strict=True))

    def rollback(self) -> None:
        """Leave a transaction that failed; a connection that is gone has left it already."""
        with contextlib.suppress(psycopg.Error):
            self.raw.execute(b"ROLLBACK")

    def storable(self, text: str) -> str:
        """Return a sentence from outside as this database can hold it."""
        return texts.storable(text, self.encoding)

    def reason(self, text: str) -> str:
        """Return an error's sentence as it is stored: without the values that it quotes, where none may be kept."""
        return self.storable(text if self.keep_values else redaction.without_values(text))

    def why(self, reason: Reason) -> Reason:
        """Return a reason as it is stored: `Reason.stored` for programs, and for people the sentence that it makes."""
        said = reason.said
        if not self.keep_values and reason.kind is not Kind.OPERATOR:
            said = redaction.said_without_values(reason.error_type, said)
        return replace(
            reason,
            said=self.storable(said),
            error_type=self.storable(reason.error_type),
            about=self.storable(reason.about),
        )

    @property
    def encoding(self) -> str | None:
        """The database's own encoding, by PostgreSQL's name; None where a pooler does not tell."""
        return self.raw.info.parameter_status("server_encoding")

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open that has not failed."""
        return self.raw.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS

    @property
    def alive(self) -> bool:
        """Whether the connection can be used, also in the middle of a transaction; not in an abandoned COPY."""
        status = psycopg.pq.TransactionStatus
        return not self.raw.closed and self.raw.info.transaction_status in {status.IDLE, status.INTRANS, status.INERROR}

    def close(self) -> None:
        """Close it; an open transaction is rolled back by the server."""
        self.raw.close()

    def __enter__(self) -> Connection:  # noqa: PYI034 - Self is 3.11's
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(settings: DatabaseSettings, *, application_name: str = "idxctl", actor: Actor | None = None) -> Connection:
    """
    Connect, and find the schema of our tables: the configured one, otherwise the first of the search path.

    Raises `PostgresUnreachable` when the server does not answer or turns us away, `ConfigError` when what names it
    cannot be read, `PostgresRefused` for the rest.
    """
    raw = opened(settings, application_name=application_name)
    return Connection(
        raw,
        schema_of(raw, settings),
        keep_values=settings.keep_values,
        keep_data=settings.keep_data,
        actor=actor,
        read_seconds=settings.read_timeout_seconds,
    )


def _text(query: Any, raw: PatientConnection) -> bytes:
    return query.as_bytes(raw) if isinstance(query, sql.Composable) else str(query).encode()


class Pool:
    """
    A connection for each thread that asks, made when it first asks and made again when it broke.

    Those of threads that have ended are closed when the next one is made.
    """

    def __init__(
        self, settings: DatabaseSettings, *, application_name: str = "idxctl", actor: Actor | None = None
    ) -> None:
        self._make: Callable[[], Connection] = lambda: connect(settings, application_name=application_name, actor=actor)
        self._local = threading.local()
        self._all: dict[threading.Thread, Connection] = {}
        self._lock = threading.Lock()

    def mine(self) -> Connection:
        """Return this thread's connection."""
        mine: Connection | None = getattr(self._local, "connection", None)
        if mine is not None and mine.alive:
            return mine
        if mine is not None:
            mine.close()
        made = self._make()
        made.raw.patience = getattr(self._local, "patience", None)
        self._local.connection = made
        with self._lock:
            over = [self._all.pop(thread) for thread in list(self._all) if not thread.is_alive()]
            self._all[threading.current_thread()] = made
        for connection in over:
            connection.close()
        return made

    @contextlib.contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Give the server up, in this thread and block, once it has been silent for *seconds*; otherwise never."""
        before: float | None = getattr(self._local, "patience", None)
        self._be_patient(seconds)
        try:
            yield
        finally:
            self._be_patient(before)

    def _be_patient(self, seconds: float | None) -> None:
        self._local.patience = seconds
        mine: Connection | None = getattr(self._local, "connection", None)
        if mine is not None:
            mine.raw.patience = seconds

    def drop(self) -> None:
        """Close this thread's connection; the next `mine` makes another, perhaps to another server."""
        mine: Connection | None = getattr(self._local, "connection", None)
        if mine is not None:
            mine.close()

    def close(self) -> None:
        """Close every connection of every thread."""
        with self._lock:
            for connection in self._all.values():
                connection.close()
            self._all.clear()
