"""Heartbeats: a worker's row says that it lives and what it does; who is silent for long is taken for gone."""

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
from idxctl.postgres.connect import Connection
from idxctl.postgres.named import load

SQL = load("idxctl.worker", "janitor.sql")
BEAT_SECONDS = 2.0
ALIVE_SECONDS = 10.0  # unseen for longer, a worker is not counted on


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
) -> None:
    """Say that *worker* lives."""
    host, pid, _ = worker.rsplit(":", 2)
    conn.run(
        SQL["beat"],
        id=worker,
        host=host,
        pid=int(pid),
        version=__version__,
        state=state,
        threads=threads,
        queue_size=queue_size,
        indexes=None if indexes is None else list(indexes),
        counters=Jsonb(dict(counters)),
        breaker=None if breaker is None else Jsonb(dict(breaker)),
    )


def leave(conn: Connection, worker: str) -> None:
    """Take the worker's row away."""
    conn.run(SQL["leave"], id=worker)


def forget_the_silent(conn: Connection) -> None:
    """Take away rows of workers not seen for a day."""
    conn.run(SQL["forget"])


def release(conn: Connection, tokens: Sequence[int]) -> None:
    """Give up leases; the batches are rescued by whoever looks next."""
    conn.run(SQL["release"], tokens=list(tokens))


def alive(conn: Connection, *, index: str | None = None, within_seconds: float = ALIVE_SECONDS) -> list[WorkerRow]:
    """Return the workers seen lately, those that serve *index* if one is named."""
    return [WorkerRow(*row) for row in conn.run(SQL["live"], index=index, within=within_seconds)]
