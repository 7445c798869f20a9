"""
The tidier: takes back what others have lost, enqueues what time has made due, deletes what was retired long enough ago.

Each process has one; what they do is safe to be done by all of them at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import timedelta

from idxctl.core.errors import IdxctlError
from idxctl.core.reasons import Reason
from idxctl.indexes import generations, retire
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection, Pool
from idxctl.queue import due, gaps, rescue
from idxctl.worker import registry
from idxctl.worker.carry import Carrier
from idxctl.worker.options import Options, fact

log = logging.getLogger("idxctl.worker")

_TURN_SECONDS = registry.BEAT_SECONDS
_FACTS_EVERY = 60.0
_SWEEP_UP_EVERY = 30  # turns


class Tidier:
    """Tidies up from one process; of the carrier it puts back what could not be settled, and says what was counted."""

    def __init__(
        self, pool: Pool, client: Client, options: Options, worker: str, *, carrier: Carrier, finished: threading.Event
    ) -> None:
        self.id = worker
        self._pool = pool
        self._client = client
        self._options = options
        self._carrier = carrier
        self._finished = finished
        self._told: set[tuple[str, Reason]] = set()
        self._searched: dict[str, tuple[str, ...]] = {}  # indexes kept since aliases stand on them, as was said

    def tidy(self) -> None:
        """Rescue what others have lost, enqueue what time has made due; every second until the pool is done."""
        turn = 0
        spoke = time.monotonic()
        while not self._finished.wait(_TURN_SECONDS):
            turn += 1
            try:
                conn = self._pool.mine()
                self._carrier.give_back(conn)
                self.rescue(conn)
                self._enqueue_due(conn)
                if turn % _SWEEP_UP_EVERY == 0:
                    self._sweep_up(conn)
            except (
                IdxctlError
            ) as error:  # Postgres is away, or a statement was refused: the threads say so, leases stand
                log.debug("tidier: %s", error)
            if time.monotonic() - spoke >= _FACTS_EVERY:
                spoke = time.monotonic()
                self.say_how_it_goes()

    def _enqueue_due(self, conn: Connection) -> None:
        """Enqueue what time has made due; a watch that cannot be looked at is told of once."""
        if repaired := gaps.repair(conn):
            fact("gap", f"changes left no task while the queue was away: all of {repaired} indexes is looked at again")
        broken = set(due.due(conn).broken)
        for index, why in sorted(broken - self._told, key=str):
            fact("broken", why.sentence, index=index)
        self._told = broken

    def rescue(self, conn: Connection) -> None:
        """Take back what others have lost."""
        lost = registry.gone(conn, self.id)
        for one in rescue.rescue(conn, max_attempts=self._options.max_attempts, gone=lost):
            if one.stuck is not None:
                fact("stuck", f"the batch of token {one.token} cannot be taken back: {one.stuck}; tried again in a minute",
                     token=one.token, reason=one.stuck.sentence)  # fmt: skip
                continue
            ago = f"claimed at {one.claimed_at:%H:%M:%S}, " + ("which is gone" if one.gone else "whose lease lapsed")
            fact(
                "rescued",
                f"1 batch of {one.tasks} tasks from {one.worker}, {ago}",
                index=one.index,
                tasks=one.tasks,
                worker=one.worker,
            )

    def _sweep_up(self, conn: Connection) -> None:
        """Retire what was kept long enough, and delete the indexes of what was retired long enough ago (G3)."""
        registry.forget_the_silent(conn)
        generations.note_caught_up(conn)
        if self._carrier.breaker.open:
            return
        # A request may take its time after the last look at its age (G3).
        zombies_gone = timedelta(seconds=self._options.bytes_gone_after_seconds)
        gone = retire.sweep_up(conn, self._client, age_limit=zombies_gone, kept=self._say_kept)
        for name in gone:
            fact("deleted", f"index {name}, retired", index=name)

    def _say_kept(self, name: str, held: Sequence[str]) -> None:
        if self._searched.get(name) != tuple(held):
            self._searched[name] = tuple(held)
            fact("kept", retire.still_searched(name, held), index=name)

    def say_how_it_goes(self) -> None:
        """Log what this process has done."""
        p95 = self._carrier.counters.percentile(0.95)
        fact(
            "running",
            f"{self._carrier.counters.indexed:,} indexed, {self._carrier.counters.dead:,} dead"
            + (f", p95 {p95 * 1000:,.0f} ms" if p95 is not None else "")
            + "".join(
                f"; {index}: {times:,} batches in a row put back"
                for index, times in self._carrier.counters.put_back.copy().items()
            ),
            **self._carrier.counters.shown(),
        )
