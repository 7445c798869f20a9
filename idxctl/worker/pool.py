"""
The pool: threads around one synchronous path, each given what it needs to know.

- the *poller* finds what is due and claims it: whichever thread is free holds its baton;
- the *carrier* takes a batch through read, write and settle;
- the *keeper* beats and renews leases, the *tidier* looks after what others have lost.

`poll` and `carry` are the two steps of a thread; whoever wants to take them one by one does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from idxctl.core.errors import IdxctlError, PostgresRefused
from idxctl.core.reasons import Kind, Reason
from idxctl.core.tally import Tally
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Pool
from idxctl.queue import rescue, tokens
from idxctl.queue.claim import Batch, Head
from idxctl.worker import registry
from idxctl.worker.carry import Carrier
from idxctl.worker.keeper import Keeper
from idxctl.worker.leases import Leases
from idxctl.worker.load import Breaker
from idxctl.worker.options import Counters, Options, fact
from idxctl.worker.poller import Poller
from idxctl.worker.tidier import Tidier

__all__ = ["Counters", "Options", "Worker"]

log = logging.getLogger("idxctl.worker")

_EASE_SECONDS = 30.0  # after OpenSearch refused something for overload
_CLOSING_SECONDS = 5.0  # for putting things in order at the end; a server that is away does not keep us from leaving


class Worker:
    """
    A worker process's pool. `run` blocks until it is stopped or, with ``until_empty``, until nothing is left.

    Thread-safe: `stop` may be called from a signal handler.
    """

    def __init__(self, pool: Pool, client: Client, options: Options, *, tally: Tally | None = None) -> None:
        self.id = registry.new_id()
        self.options = options
        self.tally = tally or Tally()
        self._pool = pool
        # How long PostgreSQL may be silent. Leases are renewed at a third of their time: a keeper that waits for half of it
        # beyond that still comes before they lapse.
        self._patience = options.lease_seconds / 2
        self._stopping = threading.Event()  # no more claims
        self._finished = threading.Event()  # nothing is under way any more
        self._leases = Leases()
        stopping, finished, leases = self._stopping, self._finished, self._leases
        self.carrier = Carrier(pool, client, options, self.id, stopping=stopping, finished=finished, tally=self.tally)
        carrier = self.carrier
        self.poller = Poller(pool, client, options, self.id, carrier=carrier, leases=leases, stopping=stopping)
        self.keeper = Keeper(
            pool, client, options, self.id, carrier=carrier, leases=leases, stopping=stopping, finished=finished
        )
        self.tidier = Tidier(pool, client, options, self.id, carrier=carrier, finished=finished)
        self._threads: list[threading.Thread] = []
        self._broken: BaseException | None = None

    @property
    def kept(self) -> int:
        """Tasks left behind by --until-empty, kept by a pause or for want of a generation."""
        return self.poller.kept

    @property
    def counters(self) -> Counters:
        """What it has done since it started."""
        return self.carrier.counters

    @counters.setter
    def counters(self, counters: Counters) -> None:
        """Have it count on where another has ended; before it runs."""
        self.carrier.counters = counters

    @property
    def breaker(self) -> Breaker:
        """Whether the cluster is known to fail."""
        return self.carrier.breaker

    @property
    def at_ease(self) -> bool:
        """Whether there is room for what can wait: nothing is due or under way, and OpenSearch takes what it is sent."""
        held = self.stopping or self.carrier.breaker.open or self.carrier.load.refused_within(_EASE_SECONDS)
        return not held and self.poller.idle and not self.in_flight

    # --- its steps --------------------------------------------------------------------------------------------------

    def poll(self) -> tuple[Batch, Head] | None:
        """Claim a batch that is due; None when there was none, and a wait is over."""
        return self.poller.poll()

    def carry(self, batch: Batch, head: Head) -> None:
        """Take a batch to its end."""
        try:
            self.carrier.carry(batch, head)
        finally:
            self.poller.ended(batch.token)

    # --- life -------------------------------------------------------------------------------------------------------

    def run(self, *, drain_timeout: float = 30.0) -> None:
        """Work until stopped or done, then drain; raises what broke a thread, if anything did."""
        with self._pool.patient(self._patience), self._running():
            self._stopping.wait()
            self._drain(drain_timeout)
        if self._broken is not None:
            raise self._broken

    @contextmanager
    def _running(self) -> Iterator[None]:
        conn = self._pool.mine()
        tokens.catch_up_with_clock(conn)
        try:
            self.tidier.rescue(conn)
        except PostgresRefused as error:  # what others have lost keeps nobody from beginning; the janitor tries again
            fact("failed", f"what others have lost cannot be taken back: {error}")
        self.keeper.beat(conn, "running")
        keeper, tidier = (
            threading.Thread(target=self._minded, args=(act,), name=name, daemon=True)
            for name, act in (("keeper", self.keeper.keep), ("tidier", self.tidier.tidy))
        )
        keeper.start()
        tidier.start()
        self._threads = [
            threading.Thread(target=self._minded, args=(self._work,), name=f"worker-{number}", daemon=True)
            for number in range(self.options.workers)
        ]
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._finished.set()
            closing = threading.Thread(target=self._close, args=(keeper,), name="closing", daemon=True)
            closing.start()
            closing.join(_CLOSING_SECONDS)

    def _close(self, keeper: threading.Thread) -> None:
        """Put back as it was what could not be settled, charging nobody, and take our row away."""
        keeper.join()  # a last beat would bring the row back
        try:
            conn = self._pool.mine()
            rescue.give_back(conn, self.id, held=(), why=Reason(Kind.RELEASED))
            registry.leave(conn, self.id)
        except IdxctlError as error:  # a crash would leave the same undone: the leases lapse
            log.debug("left undone: %s", error)

    def stop(self) -> None:
        """Claim no more; what is in flight is finished."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop, or is done."""
        return self._stopping.is_set()

    @property
    def in_flight(self) -> int:
        """Batches under way in this process."""
        return len(self._leases)

    def _drain(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(timeout=max(deadline - time.monotonic(), 0.0))
        left = len(self._leases)
        if left:
            fact(
                "released",
                f"{left} batches were still in flight after {timeout:g} s; their tasks go back to the queue",
                batches=left,
            )

    # --- threads ----------------------------------------------------------------------------------------------------

    def _minded(self, act: Callable[[], None]) -> None:
        try:
            with self._pool.patient(self._patience):
                act()
        except BaseException as error:  # noqa: BLE001 - a bug must end the process, not leave it with fewer threads
            self._broken = error
            self._stopping.set()

    def _work(self) -> None:
        while not self._stopping.is_set():
            taken = self.poller.next()
            if taken is not None:
                self.carry(*taken)
