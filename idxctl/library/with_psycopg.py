"""psycopg 3: a connection in whatever state it is. It tells nobody of its commits; `Indexer.transaction` is for that."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import Escaping, PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from idxctl.core.errors import UsageError
from idxctl.library.appending import NOT_MIGRATED, Append, Appended, Index, Pending, appended, not_migrated
from idxctl.postgres import any_bytes
from idxctl.postgres.translated import translated


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
