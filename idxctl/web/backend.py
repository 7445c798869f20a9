"""What the routes work with: connections, a client, threads for the engine, and the worker beside them if there is one."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from idxctl.config.settings import Settings
from idxctl.core.actor import Actor
from idxctl.core.errors import IdxctlError, OpenSearchRefused, PostgresUnreachable
from idxctl.core.metrics import Gauges
from idxctl.core.tally import Tally
from idxctl.opensearch.client import Client
from idxctl.opensearch.client import connect as connect_opensearch
from idxctl.postgres import migrate
from idxctl.postgres.connect import Connection, Pool
from idxctl.status import gauges
from idxctl.status.overview import Looks, overview
from idxctl.web.exporter import Exporter
from idxctl.web.problems import Problem
from idxctl.worker.pool import Worker

T = TypeVar("T")
_READY_SECONDS = 1.0  # an answer of /readyz is kept that long, so that asking costs the servers nothing
_PROBE_SECONDS = 3.0
_CONDITIONS_SECONDS = 5.0
_PATIENCE_SECONDS = 30.0


class Backend:
    """
    Runs the engine's functions in a few threads of its own, so that a slow server holds up nobody but who asked it.

    Three kinds of work share no thread: what people ask, retries that are waited for, and probes with scrapes.
    """

    def __init__(self, settings: Settings, *, worker: Worker | None = None) -> None:
        self.settings = settings
        self.worker = worker
        self._pool = Pool(settings.database, application_name="idxctl-http", actor=Actor("http"))
        self._client: Client = connect_opensearch(settings.opensearch)
        self.tally = worker.tally if worker is not None else Tally()
        self.tally.know(settings.indexes)
        self.exporter = Exporter(self.tally, self._gauges)
        self._threads = {
            name: ThreadPoolExecutor(count, thread_name_prefix=f"http-{name}")
            for name, count in (("asked", 4), ("waits", 2), ("probes", 2))
        }
        self._waiting: set[Pool] = set()
        self._closing = threading.Event()
        self._ready_lock = threading.Lock()
        self._ready: tuple[float, list[str]] | None = None
        self._conditions: tuple[float, list[str]] | None = None
        self.looks = Looks(lambda: self._client)

    async def call(self, act: Callable[[], T], *, among: str = "asked", patience: float = _PATIENCE_SECONDS) -> T:
        """Run *act* in a thread; `Problem` 503 when it does not end in time."""
        future = asyncio.get_running_loop().run_in_executor(self._threads[among], act)
        try:
            return await asyncio.wait_for(future, patience)
        except asyncio.TimeoutError:
            raise Problem(
                503, f"PostgreSQL did not answer within {patience:g} s", headers={"Retry-After": "5"}
            ) from None

    def connection(self) -> Connection:
        """Return this thread's connection to migrated tables; one that broke while it was idle is made again."""
        try:
            conn = self._pool.mine()
            migrate.require(conn)
        except PostgresUnreachable:
            conn = self._pool.mine()
            migrate.require(conn)
        return conn

    @contextlib.contextmanager
    def own_pool(self, who: str) -> Iterator[Pool]:
        """Make a pool for a retry of *who*, that may start threads of its own; closed at its end, or when the server stops."""
        pool = Pool(self.settings.database, application_name="idxctl-http-retry", actor=Actor("http", who))
        self._waiting.add(pool)
        try:
            yield pool
        finally:
            self._waiting.discard(pool)
            pool.close()

    def opensearch(self) -> Client:
        """Make a client, for a retry that closes it."""
        return connect_opensearch(self.settings.opensearch)

    def _gauges(self) -> Gauges:
        return gauges.read(self.connection(), self.settings)

    def unready(self) -> list[str]:
        """Return why documents cannot be indexed now: a server that is away, tables that are not there; [] for ready."""
        with self._ready_lock:
            if self._ready is None or time.monotonic() - self._ready[0] >= _READY_SECONDS:
                self._ready = (time.monotonic(), [*self._postgres_trouble(), *self._opensearch_trouble()])
            reasons = list(self._ready[1])
        return (["this worker is shutting down"] if self.stopping else []) + reasons

    def to_look_at(self) -> list[str]:
        """
        Return what is wrong with an index although documents can be indexed; a few seconds old at most.

        Whoever can connect may ask: kinds and indexes are named, and no table, role, error or value.
        """
        with self._ready_lock:
            kept = self._conditions
        if kept is None or time.monotonic() - kept[0] >= _CONDITIONS_SECONDS:
            try:
                found = overview(self.connection(), self.settings, self.looks).conditions
            except IdxctlError:
                found = ()
            kept = (time.monotonic(), list(dict.fromkeys(one.means for one in found)))
            with self._ready_lock:
                self._conditions = kept
        return list(kept[1])

    @property
    def stopping(self) -> bool:
        """Whether the process is about to end."""
        return self._closing.is_set() or (self.worker is not None and self.worker.stopping)

    def _postgres_trouble(self) -> list[str]:
        try:
            self.connection()
        except PostgresUnreachable:
            return ["PostgreSQL does not answer"]
        except IdxctlError as error:
            return [error.message]
        return []

    def _opensearch_trouble(self) -> list[str]:
        try:
            self._client.ping(timeout_seconds=_PROBE_SECONDS)
        except OpenSearchRefused as error:
            if error.status == 403:  # the role may write and no more: it is an answer
                return []
            return [f"OpenSearch answers with status {error.status}"]
        except IdxctlError:
            return ["OpenSearch does not answer"]
        return []

    def close(self) -> None:
        """End everything; a retry that someone waits for is left to the queue."""
        self._closing.set()
        for pool in [self._pool, *self._waiting]:
            pool.close()
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()


Given = dict[str, Any]
