"""
Asynchronous indexing: a worker's pool in threads of the application's process, and a gauge of the queue beside it.

What ends a pool (PostgreSQL away at its start, a fault of ours) does not end the application: another is started after a while.
Tasks stay in the queue meanwhile, for it and for any other worker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from idxctl.config.settings import Settings
from idxctl.core import backoff
from idxctl.core.errors import IdxctlError
from idxctl.core.tally import Tally
from idxctl.library.appending import SQL
from idxctl.opensearch.client import connect
from idxctl.postgres.connect import Connection, Pool
from idxctl.worker.pool import Counters, Options, Worker

log = logging.getLogger("idxctl.library")

_GAUGE_SECONDS = 1.0


def queue_size(conn: Connection, indexes: Sequence[str], *, most: int) -> int:
    """Count the due document tasks of high and normal priority, up to *most* for each index and priority."""
    return int(conn.value(SQL["queue_size"], indexes=list(indexes), most=most))


class Background:
    """One run of asynchronous indexing: `start`, then `stop` and perhaps `join`. Never started again."""

    def __init__(self, settings: Settings, *, workers: int, capacity: int, counters: Counters, tally: Tally) -> None:
        self.workers = workers
        self.capacity = capacity
        self.size = 0  # as it was a second ago
        self._indexes = list(settings.indexes)
        self._counters = counters
        self._tally = tally
        self._drain_seconds = settings.worker.drain_timeout_seconds
        self._options = Options.of(settings, workers=workers, queue_size=capacity)
        self._pool = Pool(settings.database, application_name="idxctl-library")
        self._client = connect(settings.opensearch)
        self._stopping = threading.Event()
        self._guard = threading.Lock()
        self._worker: Worker | None = None
        self._was_full = False
        self._threads = [
            threading.Thread(target=self._work, name="idxctl-background", daemon=True),
            threading.Thread(target=self._gauge, name="idxctl-gauge", daemon=True),
        ]

    def start(self, conn: Connection) -> None:
        """Start the threads; *conn* is for a first look at the queue."""
        self.size = queue_size(conn, self._indexes, most=self._most)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Claim no more; what is in flight is finished by the threads. Returns at once."""
        self._stopping.set()
        with self._guard:
            if self._worker is not None:
                self._worker.stop()

    def join(self, timeout: float) -> bool:
        """Wait until what was in flight is settled; False when it was not in time. It is left to its lease then."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    @property
    def healthy(self) -> bool:
        """Below nine tenths of its capacity, and not shutting down."""
        return self.size < 0.9 * self.capacity and not self.stopping

    @property
    def full(self) -> bool:
        """Whether the queue is at its capacity; what is said about that is said once."""
        full = self.size >= self.capacity
        if full and not self._was_full:
            log.warning(
                "the queue is full (%s tasks, queue size %s): indexing in requests meanwhile",
                f"{self.size:,}",
                f"{self.capacity:,}",
            )
        self._was_full = full
        return full

    @property
    def circuit_open(self) -> bool:
        """Whether the pool has found that OpenSearch is away."""
        worker = self._worker
        return worker is not None and worker.breaker.open

    @property
    def _most(self) -> int:
        return max(2 * self.capacity, 10_000)

    def _work(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._run_once()
            except IdxctlError as error:
                log.warning("the workers of this process stopped, and start again: %s", error)
            except Exception:  # a fault of ours must not end the application, nor indexing for good
                log.exception("the workers of this process stopped, and start again")
            failures = 0 if time.monotonic() - began > 60 else failures + 1
            self._stopping.wait(backoff.before_probe(failures))
        self._threads[1].join()  # it asks by the pool
        self._pool.close()
        self._client.close()

    def _run_once(self) -> None:
        worker = Worker(self._pool, self._client, self._options, tally=self._tally)
        worker.counters = self._counters
        with self._guard:
            self._worker = worker
        if self._stopping.is_set():
            return
        worker.run(drain_timeout=self._drain_seconds)

    def _gauge(self) -> None:
        while not self._stopping.wait(_GAUGE_SECONDS):
            try:
                self.size = queue_size(self._pool.mine(), self._indexes, most=self._most)
            except IdxctlError as error:
                log.debug("the queue was not counted: %s", error)
