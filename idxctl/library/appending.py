"""
Appending to the queue in a transaction that is the caller's: what connections of every kind have in common.

`callers.of` finds out which kind one is; each has a module of its own (`with_psycopg`, `with_sqlalchemy`, `with_django`).
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from idxctl.core.errors import SchemaError
from idxctl.postgres.statements import load
from idxctl.postgres.translated import translated

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
    """A connection that someone else made and owns."""

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
