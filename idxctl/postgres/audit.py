"""
The audit: one row an act that changes state, in the transaction that does it.

The database fills in who logged in and from where; rows are written by a function that nobody needs a right on the table for,
so that roles which work and operate can neither change nor delete what was noted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from idxctl.core import texts
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load

SQL = load("idxctl.postgres", "audit.sql")


@dataclass(frozen=True)
class Entry:
    """One act. ``operator``, ``channel`` and ``reason`` are what the program said; NULLs are of rows from before they were kept."""

    id: int
    at: datetime
    action: str
    what: str
    count: int | None
    database_user: str | None
    operator: str | None
    channel: str | None
    address: str | None
    reason: str | None
    detail: Mapping[str, Any] = field(default_factory=dict)


def record(
    conn: Connection, *, action: str, what: str, count: int | None = None, detail: Mapping[str, Any] | None = None
) -> None:
    """Leave a row in the caller's transaction, by `Connection.actor`, so that it stands if and only if the act does."""
    by = conn.actor
    conn.run(
        SQL["record"],
        action=action,
        what=conn.storable(what),
        count=count,
        detail=json.dumps(texts.all_storable(dict(detail or {}), conn.encoding), default=str, ensure_ascii=False),
        operator=conn.storable(by.name),
        channel=by.channel,
        reason=None if by.reason is None else conn.storable(by.reason),
    )


def entries(
    conn: Connection, *, since: timedelta | None = None, action: str | None = None, limit: int | None = None
) -> list[Entry]:
    """Return acts, the newest first: those no older than *since*, of one *action*, *limit* of them at the most."""
    return [Entry(*row) for row in conn.run(SQL["entries"], since=since, action=action, limit=limit)]


def every_entry(
    conn: Connection, *, since: timedelta | None = None, action: str | None = None, limit: int | None = None
) -> Iterator[Entry]:
    """Yield what `entries` returns, read while it is taken, in one transaction: years of it have no place in memory."""
    return (Entry(*row) for row in conn.stream(SQL["entries"], since=since, action=action, limit=limit))


def total(conn: Connection, *, since: timedelta | None = None, action: str | None = None) -> int:
    """Count the acts that `entries` would return without a limit."""
    row = conn.run(SQL["total"], since=since, action=action).fetchone()
    return int(row[0]) if row else 0
