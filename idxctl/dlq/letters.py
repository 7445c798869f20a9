"""Dead letters as they lie there: which ones, how many, in groups of one error, one in full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load

SQL = load("idxctl.dlq", "dlq.sql")
MOST = 2**63 - 1  # no number and no count is greater


@dataclass(frozen=True)
class Selection:
    """Which letters: all conditions that are given must hold."""

    index: str | None = None
    error: str | None = None  # a fingerprint
    ids: tuple[int, ...] | None = None
    older_than: timedelta | None = None  # by created_at
    documents: tuple[str, ...] | None = None  # by their ids, whole or as letters name those that are too long

    @property
    def named(self) -> bool:
        """Whether letters were picked out, and not just the next ones of an index."""
        given = (self.error, self.ids, self.older_than, self.documents)
        return any(one is not None for one in given)

    @property
    def empty(self) -> bool:
        """Whether it covers everything."""
        return self.index is None and not self.named

    def parameters(self) -> dict[str, Any]:
        """Return it as the statements take it."""
        ids = None if self.ids is None else [one for one in self.ids if abs(one) <= MOST]
        documents = None if self.documents is None else list(self.documents)
        return {
            "index": self.index,
            "error": self.error,
            "ids": ids,
            "older_than": self.older_than,
            "documents": documents,
        }

    def described(self) -> dict[str, Any]:
        """Return it as the audit keeps it."""
        given = {**self.parameters(), "older_than": str(self.older_than) if self.older_than is not None else None}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Group:
    """Letters that failed alike."""

    fingerprint: str
    error_type: str
    count: int
    first_seen: datetime
    last_seen: datetime
    example: str | None
    document_id: str  # of the example
    indexes: list[str]
    retryable: bool


@dataclass(frozen=True)
class Stats:
    """All letters at a glance."""

    total: int
    oldest_task: datetime | None
    by_error: list[Group] = field(default_factory=list)


@dataclass(frozen=True)
class Letter:
    """One dead letter."""

    id: int
    index: str
    document_id: str
    action: str
    attempts: int
    error_type: str
    last_error: str | None
    created_at: datetime
    last_attempt_at: datetime
    retryable: bool
    fingerprint: str
    retries: int


@dataclass(frozen=True)
class LetterInFull(Letter):
    """One dead letter with its past."""

    not_before: datetime | None
    origin: str
    token: int
    history: list[dict[str, Any]]
    data: Any


def stats(conn: Connection, *, index: str | None = None) -> Stats:
    """Return the letters' number, their oldest and the groups of errors."""
    row = conn.one(SQL["summary"], index=index)
    return Stats(row[0], row[1], [Group(*group) for group in conn.run(SQL["groups"], index=index)])


def every_letter(conn: Connection, selection: Selection, *, limit: int | None = None) -> Iterator[Letter]:
    """Yield letters, the newest failure first, up to *limit* or all; read while they are taken, in one transaction."""
    rows = conn.stream(
        SQL["list"],
        **selection.parameters(),
        limit=None if limit is None else min(limit, MOST),
        after_at=None,
        after_id=None,
    )
    return (Letter(*row) for row in rows)


def count(conn: Connection, selection: Selection) -> int:
    """Count the letters that *selection* covers."""
    row = conn.run(SQL["count_chosen"], **selection.parameters()).fetchone()
    return 0 if row is None else int(row[0])


def letters(
    conn: Connection, selection: Selection, *, limit: int, after: tuple[datetime, int] | None = None
) -> list[Letter]:
    """Return up to *limit* letters, the newest failure first; *after* is the last attempt and number of the page before's last."""
    at, number = after or (None, None)
    given = selection.parameters()
    rows = conn.run(SQL["list"], **given, limit=min(limit, MOST), after_at=at, after_id=number)
    return [Letter(*row) for row in rows]


def show(conn: Connection, name: str) -> LetterInFull | None:
    """Return the letter of that number, or the newest of the group of that name, with its history; None for neither."""
    number = int(name) if name.isascii() and name.isdigit() and len(name) < 19 else None
    row = conn.run(SQL["show"], id=number, error=name).fetchone()
    return None if row is None else LetterInFull(*row)


def chosen(conn: Connection, selection: Selection, *, limit: int) -> list[int]:
    """Return the numbers of the letters a retry would take, the least recently attempted first; locked for the transaction."""
    rows = conn.run(SQL["choose"], **selection.parameters(), named=selection.named, limit=min(limit, MOST))
    return [row[0] for row in rows]


def total(conn: Connection) -> int:
    """Count all letters."""
    return int(conn.one(SQL["summary"], index=None)[0])
