"""Enqueue: tasks for documents, in the caller's own transaction where there is one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from idxctl.postgres.connect import Connection
from idxctl.queue import SQL

PRIORITIES = {"low": -1, "normal": 0, "high": 1}


def enqueue_sweep(conn: Connection, *, index: str, priority: int, origin: str) -> None:
    """Add a task for every document that the index holds: those without a row are found by no query over rows."""
    conn.run(SQL["enqueue_sweep"], index=index, priority=priority, origin=origin)


def enqueue(
    conn: Connection,
    *,
    index: str,
    ids: Iterable[str],
    action: str = "index",
    priority: int = 0,
    available_at: datetime | None = None,
    origin: str = "api",
) -> int:
    """Add a task for each distinct id; returns how many. *action* is advice: the row decides when it is read."""
    return conn.run(
        SQL["enqueue"],
        index=index,
        ids=list(ids),
        action=action,
        priority=priority,
        available_at=available_at,
        origin=origin,
    ).rowcount
