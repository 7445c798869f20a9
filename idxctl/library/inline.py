"""
Indexing in the caller's thread, after the commit: claim what was just appended, read, write, settle.

Another driver of a worker's own path, by the same rules: the claim takes tasks from the queue under a token (T1, T2, G2), so a
transaction that was rolled back indexes nothing, and a worker that was quicker leaves nothing to do. What fails stays queued.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace

from idxctl.config.settings import Settings
from idxctl.core.errors import IdxctlError, OpenSearchRefused, OpenSearchUnreachable
from idxctl.core.reasons import Kind, Reason
from idxctl.core.tally import Tally
from idxctl.library.appending import Appended
from idxctl.library.connections import Connections
from idxctl.opensearch.client import connect
from idxctl.postgres.connect import Connection
from idxctl.queue import claim
from idxctl.queue.claim import Batch
from idxctl.worker import outcomes, registry
from idxctl.worker.accounting import Ledger
from idxctl.worker.load import Breaker
from idxctl.worker.options import Counters
from idxctl.worker.path import Path
from idxctl.worker.written import Learnt, Limits

log = logging.getLogger("idxctl.library")

LONGEST_SECONDS = 2.0  # that a request waits for OpenSearch; what takes longer is the workers'


class Inline:
    """Indexes what callers have committed, in their own threads. Nothing here raises."""

    def __init__(self, settings: Settings, connections: Connections, counters: Counters, tally: Tally) -> None:
        self.breaker = Breaker()
        self._settings = settings.worker
        self._connections = connections
        patience = min(settings.opensearch.request_timeout_seconds, LONGEST_SECONDS)
        self._client = connect(replace(settings.opensearch, request_timeout_seconds=patience))
        limits = Limits(
            settings.worker.batch_bytes, settings.worker.age_limit_seconds, search_seconds=LONGEST_SECONDS, waits=False
        )
        attempts = settings.worker.max_attempts
        ledger = Ledger(tally, counters, max_attempts=attempts, mode="sync")
        self._path = Path(self._client, limits, Learnt(), ledger, max_attempts=attempts)
        self._worker = registry.new_id()

    def index(self, appended: Sequence[Appended]) -> None:
        """Index what was appended, as far as it was committed; what cannot be indexed now stays queued."""
        try:
            if not self._held_back():
                for together in _joined(appended):
                    self._index(together)
        except IdxctlError as error:
            log.warning("not indexed in the request, left to the workers: %s", error)
        except Exception:  # the caller's data is committed: a fault of ours must not fail the request
            log.exception("not indexed in the request, left to the workers")

    def close(self) -> None:
        """Let go of OpenSearch."""
        self._client.close()

    def _index(self, done: Appended) -> None:
        full = True
        with self._connections.one() as conn:
            while full and not self.breaker.open:
                taken = claim.claim(
                    conn,
                    index=done.index,
                    priority=0,
                    worker=self._worker,
                    limit=self._settings.batch_size,
                    lease_seconds=self._settings.lease_seconds,
                    floor=done.began,
                    upto=done.ended,
                    documents=done.ids,
                )
                if taken is None:  # rolled back, paused, or a worker was quicker
                    return
                self._carry(conn, taken.batch)
                full = taken.rows >= self._settings.batch_size

    def _carry(self, conn: Connection, batch: Batch) -> None:
        done = self._path.take(conn, batch, insist=lambda act: act(conn), judge=lambda sorted_, _: sorted_)
        self._mind_the_cluster(
            batch, done.sorted.unreachable or (None if done.written.passed else done.sorted.overloaded)
        )
        if done.sorted.blocked is not None:
            log.warning("%s stays queued: %s", batch.index, done.sorted.blocked)

    # --- OpenSearch away ----------------------------------------------------------------------------------------------

    def _mind_the_cluster(self, batch: Batch, failed: Reason | None) -> None:
        if failed is None:
            if self.breaker.worked():
                log.info("OpenSearch answers again: indexing in requests goes on")
        elif self.breaker.failed(failed):
            log.warning("OpenSearch does not answer, %s stays queued: %s", batch.index, failed)

    def _held_back(self) -> bool:
        """Tell whether OpenSearch is known to be away; no request is spent on asking it again."""
        if self.breaker.open and self.breaker.take_probe():
            threading.Thread(target=self._probe, name="idxctl-probe", daemon=True).start()
        return self.breaker.open

    def _probe(self) -> None:
        try:
            self._client.ping()
        except (OpenSearchUnreachable, OpenSearchRefused) as error:
            if outcomes.of_request(error).is_silence:
                self.breaker.failed(Reason(Kind.UNREACHABLE, error.message))
                return
        if self.breaker.worked():
            log.info("OpenSearch answers again: indexing in requests goes on")


def _joined(appended: Sequence[Appended]) -> list[Appended]:
    """Join what one transaction appended, by index: its tasks lie between its first append and its last."""
    groups: dict[str, list[Appended]] = {}
    for done in appended:
        groups.setdefault(done.index, []).append(done)
    return [
        Appended(
            index,
            list(dict.fromkeys(one for done in group for one in done.ids)),
            min(done.began for done in group),
            max(done.ended for done in group),
        )
        for index, group in groups.items()
    ]
