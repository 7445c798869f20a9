"""
Heartbeats: a worker's row says that it lives and what it does; who is silent for long is not counted on.

A row also names the session that its beats come by. A process that is killed takes its sessions with it, so others know at
once that its batches are nobody's, without waiting for the leases. Behind a pooler sessions say nothing, and none is named.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from idxctl import __version__
from idxctl.core import texts
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load

SQL = load("idxctl.worker", "registry.sql")
BEAT_SECONDS = 1.0
ALIVE_SECONDS = 10.0  # unseen for longer, a worker is not counted on
GONE_SECONDS = 3.0  # time to connect again and beat, for one whose connection merely broke


@dataclass(frozen=True)
class WorkerRow:
    """One worker process as its heartbeats show it."""

    id: str
    host: str
    pid: int
    version: str
    state: str  # running, draining
    threads: int
    queue_size: int
    started_at: datetime
    seen_at: datetime
    indexes: list[str] | None
    counters: Mapping[str, Any]
    breaker: Mapping[str, Any] | None


def new_id() -> str:
    """Return a name that no other worker has: host, process and something random."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def beat(
    conn: Connection,
    worker: str,
    *,
    state: str,
    threads: int,
    queue_size: int,
    indexes: Sequence[str] | None,
    counters: Mapping[str, Any],
    breaker: Mapping[str, Any] | None,
    patience_seconds: float,
) -> None:
    """
    Say that *worker* lives, and by which session; in a transaction of its own.

    Given up after *patience_seconds*: a lock on the workers' table must not keep leases from being renewed.
    """
    host, pid, _ = worker.rsplit(":", 2)
    with conn.transaction(local={"statement_timeout": f"{patience_seconds * 1000:.0f}"}):
        conn.run(
            SQL["beat"],
            session=conn.raw.info.backend_pid,
            id=worker,
            host=host,
            pid=int(pid),
            version=__version__,
            state=state,
            threads=threads,
            queue_size=queue_size,
            indexes=None if indexes is None else list(indexes),
            counters=Jsonb(dict(counters)),
            breaker=None if breaker is None else Jsonb(texts.all_storable(dict(breaker), conn.encoding)),
        )


def leave(conn: Connection, worker: str) -> None:
    """Take the worker's row away."""
    conn.run(SQL["leave"], id=worker)


def gone(conn: Connection, worker: str) -> list[str]:
    """Return the workers that hold batches and are provably gone, as *worker* sees it."""
    return [row[0] for row in conn.run(SQL["gone"], me=worker, grace=GONE_SECONDS)]


def forget_the_silent(conn: Connection) -> None:
    """Take away rows of workers not seen for a day."""
    conn.run(SQL["forget"])


def alive(conn: Connection, *, index: str | None = None, within_seconds: float = ALIVE_SECONDS) -> list[WorkerRow]:
    """Return the workers seen lately, those that serve *index* if one is named."""
    return [WorkerRow(*row) for row in conn.run(SQL["live"], index=index, within=within_seconds)]
