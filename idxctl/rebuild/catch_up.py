"""Catch up: wait until the queue has passed what was enqueued before a moment, and work it off where nobody else does."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime

from idxctl.config.settings import Settings
from idxctl.core import backoff
from idxctl.indexes.generations import Generation
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection, Pool
from idxctl.queue import SQL as QUEUE
from idxctl.queue import pause
from idxctl.rebuild import stuck
from idxctl.rebuild.steps import Steps
from idxctl.worker import registry
from idxctl.worker.in_background import beside
from idxctl.worker.pool import Options as WorkerOptions
from idxctl.worker.pool import Worker

_POLL_SECONDS = 0.2


def catch_up(pool: Pool, client: Client, settings: Settings, index: str, live: Generation | None, steps: Steps) -> None:
    """Wait until the queue has passed all that was enqueued until now, unless that waits for the swap itself."""
    conn = pool.mine()
    before = now(conn)
    waiting = _open_tasks(conn, index, before)
    steps.begin("catch up", waiting)
    if wait_until_passed(pool, client, settings, index, live, before, total=waiting, steps=steps):
        steps.end(f"{waiting:,} changes" if waiting else "nothing had changed")
    else:
        steps.end(f"{waiting:,} changes wait for the swap, since the live generation cannot be read")


def wait_until_passed(
    pool: Pool,
    client: Client,
    settings: Settings,
    index: str,
    live: Generation | None,
    before: datetime,
    *,
    total: int,
    steps: Steps,
) -> bool:
    """
    Return once every task enqueued before *before* is settled, fan-outs and batches in flight included; False where
    they wait for this very reindex, since the *live* generation can no longer be read.

    While no worker serves the index, one of our own does; others may die, or come, at any time. *total* is how many there were.
    """
    conn = pool.mine()
    with ExitStack() as ours:
        check: Callable[[], None] | None = None
        looked = time.monotonic()
        while left := _open_tasks(conn, index, before):
            if stuck.unreadable(conn, live):
                return False
            if check is not None:
                check()
            elif not registry.alive(conn, index=index):
                check = ours.enter_context(beside(_worker(pool, client, settings, index)))
            steps.move(max(total - left, 0), _why_it_waits(conn, index))
            time.sleep(backoff.before_look(time.monotonic() - looked, shortest=_POLL_SECONDS))
            looked = time.monotonic()
    return True


def now(conn: Connection) -> datetime:
    """Return the time by the clock that tasks are enqueued by."""
    row = conn.pinned(b"SELECT clock_timestamp()").fetchone()
    assert row is not None
    at: datetime = row[0]
    return at


def _worker(pool: Pool, client: Client, settings: Settings, index: str) -> Worker:
    return Worker(pool, client, WorkerOptions.of(settings, workers=2, indexes=[index]))


def _why_it_waits(conn: Connection, index: str) -> str:
    held = [one for one in pause.pauses(conn) if one.index == index]
    if held:
        return f"{index} is paused: {held[0].reason}"
    row = conn.run(QUEUE["broken_lookup"], index=index).fetchone()
    if row:
        return f"a lookup cannot be run, fix it or idxctl queue cancel: {row[0]}"
    broken = next((one.breaker for one in registry.alive(conn, index=index) if one.breaker), None)
    return "" if broken is None else f"workers wait for OpenSearch: {broken.get('reason')}"


def _open_tasks(conn: Connection, index: str, before: datetime) -> int:
    return int(conn.value(QUEUE["open_tasks"], index=index, before=before))
