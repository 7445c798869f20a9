"""The keeper: says once a second that its process lives, and renews its leases. Nothing slow is done in its thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from idxctl.core.errors import IdxctlError
from idxctl.core.reasons import Reason
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection, Pool
from idxctl.queue import claim
from idxctl.worker import registry
from idxctl.worker.carry import Carrier
from idxctl.worker.leases import Leases
from idxctl.worker.options import Options

log = logging.getLogger("idxctl.worker")

_TURN_SECONDS = registry.BEAT_SECONDS


class Keeper:
    """Keeps what one process holds; the carrier is looked at for what it has counted, no more."""

    def __init__(
        self,
        pool: Pool,
        client: Client,
        options: Options,
        worker: str,
        *,
        carrier: Carrier,
        leases: Leases,
        stopping: threading.Event,
        finished: threading.Event,
    ) -> None:
        self.id = worker
        self._pool = pool
        self._client = client
        self._options = options
        self._carrier = carrier
        self._leases = leases
        self._stopping = stopping
        self._finished = finished
        self._last_beat = (time.monotonic(), 0)
        # What heartbeats carry of what was found beside the work; set before the pool runs.
        self.seen_beside: Callable[[], Mapping[str, Any]] = dict
        self.periods: Callable[[], Mapping[str, float]] = dict  # of the indexes that are scrubbed beside it, in seconds

    def keep(self) -> None:
        """Renew leases and beat, every second until the pool is done; nothing slow is done in this thread."""
        turn = min(_TURN_SECONDS, self._options.lease_seconds / 6)
        wait = turn
        while not self._finished.wait(wait):
            try:
                self.renew(self._pool.mine())
                self.beat(self._pool.mine(), "draining" if self._stopping.is_set() else "running")
                wait = turn
            except IdxctlError as error:  # back at once where only the connection broke: others wait to see us
                log.debug("keeper: %s", error)
                wait = turn / 4

    def renew(self, conn: Connection) -> None:
        """Renew the leases of which a third is over."""
        lapse = self._options.lease_seconds
        due = self._leases.older_than(lapse / 3)
        if due:
            self._leases.renewed(claim.renew(conn, due, lease_seconds=lapse))

    def beat(self, conn: Connection, state: str) -> None:
        """Say that this process lives, and how it does."""
        shown = self._carrier.breaker.state()
        breaker: Mapping[str, Any] | None = None
        if shown.state != "closed":
            breaker = {
                "state": shown.state,
                **_shown(conn, shown.why),
                "since": shown.since,
                "next_probe_seconds": shown.next_probe_seconds,
            }
        now, indexed = time.monotonic(), self._carrier.counters.indexed
        since, before = self._last_beat
        per_second = (indexed - before) / (now - since) if now > since else 0.0
        self._last_beat = (now, indexed)
        registry.beat(
            conn,
            self.id,
            state=state,
            threads=self._options.workers,
            queue_size=self._options.queue_size,
            indexes=self._options.indexes,
            counters={
                **self._carrier.counters.shown(),
                "per_second": round(per_second, 1),
                **self._carrier.load.state().shown(),
                "request_seconds": round(self._client.longest_under_way, 1),
                **({"conditions": told} if (told := self.seen_beside()) else {}),
                **({"scrub": periods} if (periods := self.periods()) else {}),
            },
            breaker=breaker,
            patience_seconds=self._options.lease_seconds / 6,
        )


def _shown(conn: Connection, why: Reason | None) -> dict[str, Any]:
    """Return a reason as a heartbeat carries it: the sentence, and what programs look at."""
    if why is None:
        return {"reason": ""}
    why = conn.why(why)
    return {"reason": why.sentence, "why": why.stored()}
