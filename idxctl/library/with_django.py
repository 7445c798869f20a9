"""Django: a connection of `django.db.connections`, over psycopg 3 or 2; `transaction.on_commit` tells of its commits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

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


def caller(connection: Any, pending: Pending) -> Caller:
    """Return how to speak with a connection of Django."""
    from django.db import connections

    alias = getattr(connection, "alias", None)
    if alias not in connections or not hasattr(connection, "ensure_connection"):
        raise WrongType(
            f"connection is a {type(connection).__qualname__} of Django; one of django.db.connections is needed"
        )
    wrapper = connections[alias]
    if wrapper.vendor != "postgresql":
        raise WrongType(f"connection {alias!r} is one to {wrapper.vendor}, not to PostgreSQL")
    return DjangoCaller(wrapper, pending)


@dataclass(frozen=True)
class DjangoCaller:
    """The connection of one alias, in this thread."""

    wrapper: Any  # django.db.backends.postgresql.base.DatabaseWrapper
    pending: Pending

    def append(self, append: Append) -> Appended | None:
        """Append within the ``atomic`` block under way, if one is."""
        self.wrapper.ensure_connection()
        self.wrapper.validate_no_broken_transaction()
        driver = self.wrapper.connection
        if isinstance(driver, psycopg.Connection):
            with self.wrapper.wrap_database_errors:
                return PsycopgCaller(driver, self.pending).append(append)
        return self._by_cursor(append)

    def _by_cursor(self, append: Append) -> Appended:
        from django.db import DatabaseError, OperationalError, transaction

        try:
            with contextlib.ExitStack() as within:
                if self.wrapper.in_atomic_block:
                    within.enter_context(transaction.atomic(using=self.wrapper.alias))
                cursor = within.enter_context(self.wrapper.cursor())
                cursor.execute(append.statement.decode(), append.parameters)
                row = cursor.fetchone()
        except OperationalError:
            raise
        except DatabaseError as error:
            state = getattr(error.__cause__, "pgcode", None) or "XX000"
            if state in NOT_MIGRATED:
                raise not_migrated(append) from error
            raise PostgresRefused(f"PostgreSQL refused (append): {error}", sqlstate=state, detail=str(error)) from error
        return appended(append, row)

    def after_commit(self, done: Appended, index: Index) -> bool:
        """As ``transaction.on_commit``: at once in autocommit, never after a rollback. One call indexes them all."""
        wrapper, pending = self.wrapper, self.pending

        def committed() -> None:
            index(pending.take(wrapper))

        pending.open(wrapper)
        pending.add(wrapper, done)
        wrapper.on_commit(committed, robust=True)
        return True

    @contextlib.contextmanager
    def transaction(self, index: Index) -> Iterator[None]:  # noqa: ARG002 - it needs none
        """Refuse: Django tells of its commits by itself."""
        raise UsageError(
            "Django's connections need no transaction() of ours: transaction.atomic() is all",
            hint="with transaction.atomic(): ... indexer.index(..., connection=connection)",
        )
        yield
