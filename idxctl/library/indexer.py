"""The indexer: what an application calls."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg

from idxctl import dlq
from idxctl.config import trust
from idxctl.config.load import load
from idxctl.config.settings import Settings
from idxctl.core.errors import IdxctlError, PostgresUnreachable
from idxctl.core.tally import Tally
from idxctl.library import appending, callers, documents, living, switch, waiting
from idxctl.library.appending import Append, Appended, Pending
from idxctl.library.background import Background
from idxctl.library.connections import Connections
from idxctl.library.documents import DocumentId
from idxctl.library.inline import Inline
from idxctl.library.types import AnyConnection, Status
from idxctl.library.with_psycopg import PsycopgCaller
from idxctl.opensearch import aliases
from idxctl.opensearch.client import connect as connect_opensearch
from idxctl.opensearch.client import segment
from idxctl.postgres import migrate
from idxctl.postgres.connect import Connection, Pool
from idxctl.worker.pool import Counters

if TYPE_CHECKING:
    import sqlalchemy
    import sqlalchemy.orm
    from prometheus_client.registry import Collector

    from idxctl.core.metrics import Gauges

log = logging.getLogger("idxctl.library")

_START_AGAIN_SECONDS = 10.0


class Indexer:
    """
    Keeps an application's documents in step with its rows. Thread-safe; works on after a fork.

    `index` and `delete` append a task to the queue in the caller's own transaction: it commits with the row, or neither
    does. Asynchronous (`enable_async`), threads of this process index it, or any other worker. Synchronous, the default,
    the caller's thread does right after the commit; what cannot be indexed then stays queued for workers.

    A context manager: it shuts down at the end.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._wanted: tuple[int, int] | None = None  # asynchronous, from the next use on: workers and queue size
        self._start_at = 0.0
        self._sync, self._async = Counters(), Counters()
        self._tally = Tally(settings.indexes)
        self._begin()
        living.joined(self)

    def _begin(self) -> None:
        """Make what a process must have for itself; again in the child after a fork."""
        self._lock = threading.RLock()
        self._background: Background | None = None
        self._draining: list[Background] = []
        self._pending = Pending()
        self._open()

    def _open(self) -> None:
        self._own = Connections(self.settings.database, application_name="idxctl-library")
        self._inline = Inline(self.settings, self._own, self._sync, self._tally)
        self._closed = False

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | None = None) -> Indexer:
        """
        Make an indexer from the configuration file and the environment, as the command line reads them.

        Connects to nothing. ``ENABLE_ASYNC_INDEXING`` (true, 1, yes or on) makes it asynchronous from its first use on,
        with the workers and queue size of ``[worker]``. Raises `ConfigError` with all that is wrong.
        """
        made = cls(load(environ=os.environ, path=None if path is None else Path(path)))
        for remark in trust.not_said_yet(made.settings.remarks):
            log.warning("%s", remark)
        if switch.is_on(os.environ):
            made._wanted = (made.settings.worker.workers, made.settings.worker.queue_size)
        return made

    # --- writing ------------------------------------------------------------------------------------------------------

    def index(self, index: str, document_id: DocumentId, *, connection: AnyConnection | None = None) -> None:
        """
        Enqueue a document that was made or changed, in the transaction of *connection*; without one, in one of our own.

        The row decides what is written when it is read, after the commit: an index of a row that is gone deletes.
        *connection* is one of psycopg, a Session or Connection of SQLAlchemy, or a connection of Django. OpenSearch is
        not waited for while indexing is asynchronous. While it is synchronous the document is indexed after the commit,
        where the commit can be seen: in autocommit, with a Session, with Django, and within `transaction`; in a
        transaction of psycopg's own the task is left to workers.

        Raises `UsageError` or `WrongType` for what cannot be meant, and PostgreSQL's no; never because search is down.
        """
        self._append(index, [document_id], "index", connection)

    def delete(self, index: str, document_id: DocumentId, *, connection: AnyConnection | None = None) -> None:
        """Enqueue a document whose row was deleted; otherwise as `index`. A row that is there is indexed all the same."""
        self._append(index, [document_id], "delete", connection)

    def index_many(
        self, index: str, document_ids: Iterable[DocumentId], *, connection: AnyConnection | None = None
    ) -> None:
        """Enqueue many documents in one statement; otherwise as `index`."""
        self._append(index, document_ids, "index", connection)

    def delete_many(
        self, index: str, document_ids: Iterable[DocumentId], *, connection: AnyConnection | None = None
    ) -> None:
        """Enqueue many documents whose rows were deleted, in one statement; otherwise as `delete`."""
        self._append(index, document_ids, "delete", connection)

    @contextmanager
    def transaction(self, connection: psycopg.Connection[Any] | sqlalchemy.Connection) -> Iterator[None]:
        """
        Open a transaction on *connection*; what is enqueued in it is indexed after its commit, while indexing is synchronous.

        As ``connection.transaction()`` of psycopg and ``connection.begin()`` of SQLAlchemy, within another one a
        savepoint. Sessions and Django need it not. A transaction that is rolled back indexes nothing.
        """
        caller = callers.of(connection, self._pending)
        _ = self._own.schema  # looked up before a connection is held: pools that are used up would wait for each other
        with caller.transaction(self._index_now):
            yield

    def _append(self, index: str, ids: Iterable[DocumentId], action: str, connection: AnyConnection | None) -> None:
        texts = documents.texts(documents.known_index(self.settings.indexes, index), ids)
        caller = None if connection is None else callers.of(connection, self._pending)
        if not texts:
            return
        synchronous = self._is_synchronous()
        append = Append(self._own.schema, index, texts, action)
        if caller is None:
            done: Appended | None = self._append_alone(append)
            if synchronous and done is not None:
                self._index_now([done])
            return
        done = caller.append(append)
        if synchronous and done is not None and not caller.after_commit(done, self._index_now):
            log.debug("%s: the commit cannot be seen, left to the workers", index)

    def _append_alone(self, append: Append) -> Appended | None:
        """Append in a transaction of our own; a connection that was lost while it lay idle is made again."""
        for last in (False, True):
            try:
                with self._own.one() as conn, appending.ours():
                    return PsycopgCaller(conn.raw, self._pending).append(append)
            except PostgresUnreachable:
                if last:
                    raise
                self._own.drop()
        raise AssertionError

    def _index_now(self, done: Sequence[Appended]) -> None:
        background = self._background
        if self._closed or (background is not None and background.circuit_open):
            return  # it is in the queue
        self._inline.index(done)

    def _is_synchronous(self) -> bool:
        background = self._running()
        return background is None or background.full

    # --- modes --------------------------------------------------------------------------------------------------------

    def enable_async(self, workers: int = 5, queue_size: int = 1000) -> None:
        """
        Make indexing asynchronous: *workers* threads of this process index what is queued, whoever enqueued it.

        At *queue_size* waiting tasks indexing is synchronous again until they are fewer. Called again it changes nothing,
        or the numbers. Raises `SchemaError` when idxctl's tables are missing, older or newer than this program.
        """
        for name, value in (("workers", workers), ("queue_size", queue_size)):
            documents.count(name, value)
        with self._lock:
            if self._closed:
                self._open()
            running = self._background
            if running is not None and (running.workers, running.capacity) == (workers, queue_size):
                return
            with self._own.one() as conn:
                migrate.require(conn)
                started = Background(
                    self.settings, workers=workers, capacity=queue_size, counters=self._async, tally=self._tally
                )
                started.start(conn)
            self._retire(running)
            self._background = started
            self._wanted = None

    def disable_async(self) -> None:
        """
        Make indexing synchronous at once.

        What is in flight is settled in the background; what waits stays queued for other workers, or for `enable_async`.
        """
        with self._lock:
            running, self._background, self._wanted = self._background, None, None
            self._retire(running)

    def _retire(self, running: Background | None) -> None:
        self._draining = [one for one in self._draining if not one.join(0)]
        if running is not None:
            running.stop()
            self._draining.append(running)

    def _running(self) -> Background | None:
        """Return what runs in this process; what was asked for by the environment, or before a fork, is started now."""
        if self._wanted is None or self._closed:
            return self._background
        with self._lock:
            if self._wanted is not None and time.monotonic() >= self._start_at:
                try:
                    self.enable_async(*self._wanted)
                except IdxctlError as error:
                    self._start_at = time.monotonic() + _START_AGAIN_SECONDS
                    log.warning("asynchronous indexing cannot start, synchronous meanwhile: %s", error)
            return self._background

    def status(self) -> Status:
        """
        Tell how it indexes, as a health endpoint shows it.

        ``healthy`` is below nine tenths of the queue size, and not shutting down. The size is a second old at most.
        """
        running = self._running()
        if running is None:
            return {"status": "disabled", "mode": "synchronous"}
        return {
            "status": "enabled",
            "mode": "asynchronous",
            "healthy": running.healthy,
            "queue_size": running.size,
        }

    @property
    def counters(self) -> Mapping[Literal["sync", "async"], Counters]:
        """What this process has indexed since it began, by mode, with latencies from enqueued to indexed; for metrics."""
        return {"sync": self._sync, "async": self._async}

    def collector(self) -> Collector:
        """
        Return this process's metrics for the application's own registry: ``REGISTRY.register(indexer.collector())``.

        The names are those of `idxctl worker start --http`, with ``mode`` sync for what was indexed in the caller's thread.
        Needs the extra ``idxctl[http]``; made again after a fork.
        """
        from idxctl.status import gauges
        from idxctl.web.exporter import Exporter

        def read() -> Gauges:
            with self._own.one() as conn:
                return gauges.read(conn, self.settings)

        return Exporter(self._tally, read)

    # --- looking after it ---------------------------------------------------------------------------------------------

    def wait_for(
        self,
        ids: Iterable[DocumentId] | Iterable[tuple[str, DocumentId]],
        timeout: float = 10.0,
        *,
        index: str | None = None,
        refresh: bool = False,
    ) -> None:
        """
        Return when what was enqueued for these documents before this call is settled: indexed, or a dead letter.

        *ids* are document ids of *index*, or pairs of an index and a document id. Raises `WaitTimeout` after *timeout*
        seconds. With *refresh* a search finds them from now on. Call it after the commit: before it there is nothing to
        wait for.
        """
        documents.seconds("timeout", timeout)
        asked: dict[str, list[str]] = {}
        for name, one in documents.pairs(ids, index):
            known = documents.known_index(self.settings.indexes, name)
            asked.setdefault(name, []).append(documents.text(known, one))
        self._running()
        with self._migrated() as conn:
            waiting.wait(conn, asked, timeout=timeout)
        if refresh and asked:
            with connect_opensearch(self.settings.opensearch) as client:
                aliases.refresh(client, ",".join(map(segment, asked)))

    def retry_dlq(self, limit: int = 100) -> dlq.Retried:
        """
        Put up to *limit* dead letters back in the queue, the least recently attempted first.

        Where workers run (here, or anywhere) it returns at once; otherwise it indexes them, and tells how many failed again.
        """
        documents.count("limit", limit)
        self._running()
        with self._migrated():
            pass
        pool = Pool(self.settings.database, application_name="idxctl-library")
        try:
            with connect_opensearch(self.settings.opensearch) as client:
                return dlq.retry(
                    pool,
                    lambda: client,
                    self.settings,
                    dlq.Selection(),
                    limit=limit,
                    wait=False,
                    timeout=timedelta(seconds=self.settings.worker.drain_timeout_seconds),
                )
        finally:
            pool.close()

    @contextmanager
    def _migrated(self) -> Iterator[Connection]:
        with self._own.one() as conn:
            migrate.require(conn)
            yield conn

    def shutdown(self, timeout: float = 30.0) -> bool:
        """
        Finish what is in flight and stop; True when all of it was settled within *timeout* seconds.

        Nothing is lost otherwise: it is done by another worker once its lease has lapsed. `index` works afterwards too, and
        leaves its tasks to workers; `enable_async` begins again.
        """
        documents.seconds("timeout", timeout)
        deadline = time.monotonic() + timeout
        with self._lock:
            leaving = [*self._draining, *([self._background] if self._background else [])]
            self._closed = True
            for one in leaving:
                one.stop()
        late = [one for one in leaving if not one.join(max(deadline - time.monotonic(), 0.0))]
        with self._lock:
            self._background, self._wanted, self._draining = None, None, []
        self._own.close()
        self._inline.close()
        if late:
            log.warning("stopped before all was settled: what was in flight is left to its lease, nothing is lost")
        return not late

    def __enter__(self) -> Indexer:  # noqa: PYI034 - Self is 3.11's
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def leave(self, timeout: float) -> None:
        """Shut down if anything runs: what a program forgot that just ends."""
        if self._background is not None or self._draining:
            self.shutdown(timeout)

    def after_fork(self) -> None:
        """
        Begin again in a child process: the parent's threads are not here, and its sockets are the parent's.

        They are kept, not closed: closing would end the parent's sessions.
        """
        running = self._background
        living.abandoned((running, self._draining, self._own, self._inline, self._pending))
        wanted = self._wanted if running is None or running.stopping else (running.workers, running.capacity)
        closed = self._closed
        self._sync, self._async = Counters(), Counters()
        self._tally = Tally(self.settings.indexes)
        self._begin()
        self._wanted, self._closed = wanted, closed
