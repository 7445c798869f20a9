"""
The poller: finds what is due and claims it, one thread of a process at a time.

Whoever holds the baton polls. It is handed on with each claim, so a process asks once at a time however many threads it has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from idxctl.core import backoff
from idxctl.core.errors import (
    IdxctlError,
    OpenSearchRefused,
    OpenSearchUnreachable,
    PostgresRefused,
    PostgresUnreachable,
)
from idxctl.core.reasons import Kind, Reason
from idxctl.indexes import generations
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection, Pool
from idxctl.queue import SQL, claim, pause, rescue, tokens
from idxctl.queue.claim import Batch, Head
from idxctl.queue.horizon import Horizon
from idxctl.worker import outcomes, tombstones
from idxctl.worker.carry import Carrier
from idxctl.worker.leases import Leases
from idxctl.worker.options import Options, fact

_SHORTEST_POLL = 0.025
_LONGEST_POLL = 1.0
_SWEEP_EVERY = 0.5  # seconds between looks below the floor: a change committed late waits that long
_LOWEST_EVERY = 8  # every eighth claim takes the lowest priority that waits, so that nothing starves
_PROBE_TASKS = 5  # enough to see whether an index or the cluster takes writes again
_PROBE_SECONDS = 10.0  # within which a blocked index is not probed by others
_LOOK_AGAIN = 0.02  # seconds, while as many batches are under way as OpenSearch can take


class Poller:
    """
    Claims for one process. Of the carrier it knows whether OpenSearch takes more, of the leases how many are out.

    *stopping* is set by whoever ends the pool, and by the poller itself once nothing is left (``until_empty``).
    """

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
    ) -> None:
        self.id = worker
        self.kept = 0  # tasks left behind by --until-empty, kept by a pause or for want of a generation
        self.postgres_down = 0  # times in a row that PostgreSQL did not answer
        self.swept_at = 0.0  # when it last looked below the floors
        self.horizon = Horizon()
        self._pool = pool
        self._client = client
        self._options = options
        self._carrier = carrier
        self._leases = leases
        self._stopping = stopping
        # Held while a thread polls, claims and waits: what is below is its holder's, and needs no other lock. It is taken
        # first: those of the leases and of the probe are taken within it, never the other way round.
        self._baton = threading.Lock()
        self._floors: dict[tuple[str, int], datetime] = {}
        self._sweep_wait = _SWEEP_EVERY
        self._claims = 0
        self._idle = _SHORTEST_POLL
        self._remembered = False  # whether OpenSearch has said that it remembers deletions for long enough (T3)
        # Guards the token of the batch that tries whether the cluster works again: set by who holds the baton, taken away by
        # the thread that carried it, when another one may be on its way already. Nothing is done while it is held.
        self._probe_guard = threading.Lock()
        self._probe: int | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing was due, anywhere, when it last looked."""
        return self._idle > _SHORTEST_POLL

    def ended(self, token: int) -> None:
        """Take note that a batch was carried to its end, whatever that was."""
        self._leases.let_go(token)
        with self._probe_guard:
            if self._probe != token:
                return
            self._probe = None
        if self._carrier.breaker.probing:  # nothing was sent that could fail
            self._carrier.close_breaker()

    def next(self) -> tuple[Batch, Head] | None:
        """Hold the baton until a batch is claimed or the pool stops."""
        with self._baton:
            while not self._stopping.is_set():
                try:
                    taken = self.poll()
                except PostgresUnreachable as error:
                    self._postgres_lost(error)
                    continue
                except PostgresRefused as error:
                    if not error.passing:
                        raise
                    self._postgres_lost(error)
                    self._pool.drop()  # of a primary that became a standby, to find the new one
                    continue
                if taken is not None:
                    return taken
        return None

    def _postgres_lost(self, error: IdxctlError) -> None:
        if not self.postgres_down:
            fact("postgres", f"{error}; waiting for it, nothing is lost")
        self.postgres_down += 1
        self._stopping.wait(backoff.before_probe(self.postgres_down - 1))

    def _postgres_is_back(self, conn: Connection) -> None:
        """Put in order what the outage left: a claim whose answer was lost. Whoever holds the baton is the only claimer."""
        held = [*self._leases.tokens(), *self._carrier.unsettled]
        rescue.give_back(conn, self.id, held=held, why=Reason(Kind.UNCLAIMED))
        tokens.catch_up_with_clock(conn)  # a standby that was promoted may lag behind
        self._floors.clear()
        self.horizon.forget()
        self.postgres_down = 0
        fact("postgres", "PostgreSQL is back")

    def poll(self) -> tuple[Batch, Head] | None:
        """Claim a batch that is due; None when there was none, and a wait is over. For who holds the baton."""
        if self._held_back():
            return None
        taken = None
        try:
            taken = self._claim_if_due()
        finally:
            if self._carrier.breaker.probing and taken is None:  # it answers, and there is nothing to try more with
                self._carrier.close_breaker()
        return taken

    def _claim_if_due(self) -> tuple[Batch, Head] | None:
        conn = self._pool.mine()
        if self.postgres_down:
            self._postgres_is_back(conn)
        if not self._remembered:
            self._remembered = self._deletions_are_remembered(conn)
        below = time.monotonic() - self.swept_at >= self._sweep_wait
        floors = self._looks_below(conn) if below else self._floors
        began = time.monotonic()
        heads = claim.heads(conn, indexes=self._options.indexes, floors=floors)
        if below:
            self.swept_at = time.monotonic()
            self._sweep_wait = max(_SWEEP_EVERY, 4 * (self.swept_at - began))
            if not floors:
                self.horizon.saw_everything(self.swept_at - began)
            if not any(
                one.available_at < self._floors.get((one.index, one.priority), one.available_at) for one in heads
            ):
                self.horizon.nothing_below()
        if heads:
            self._idle = _SHORTEST_POLL
            return self._claim(conn, heads, floors)
        if self._options.until_empty and below and self._is_empty(conn):
            self._stopping.set()
            return None
        self._stopping.wait(self._idle)
        self._idle = min(self._idle * 1.3, _LONGEST_POLL if not self._options.until_empty else 0.1)
        return None

    def _held_back(self) -> bool:
        """
        Wait while OpenSearch has its hands full, or the breaker is open; False once this thread may claim.

        While the breaker is probing, what it then claims is the probe.
        """
        if self._carrier.load.batches < self._options.workers and len(self._leases) >= self._carrier.load.batches:
            self._stopping.wait(_LOOK_AGAIN)
            return True
        wait = self._carrier.breaker.seconds_to_wait()
        if not wait:
            return False
        self._stopping.wait(wait)
        return not self._carrier.breaker.take_probe() or not self._answers()

    def _answers(self) -> bool:
        try:
            self._client.ping(timeout_seconds=5)
        except (OpenSearchUnreachable, OpenSearchRefused) as error:
            # A no to this question (403 where the role may only write) is an answer too, and so is a gateway's page: it may
            # be about this question alone. The small batch that is claimed then tells.
            if outcomes.of_request(error).is_silence:
                self._carrier.breaker.failed(Reason(Kind.UNREACHABLE, error.message))
                return False
        return True

    def _deletions_are_remembered(self, conn: Connection) -> bool:
        """
        T3: raise `ForgetsTooSoon` where an index forgets deletions too soon; False while OpenSearch cannot be asked.

        Asked before the first claim. A server that is away is no reason not to start: it is asked again at the next one.
        """
        served = self._options.indexes
        known = [one for one in generations.all_of_them(conn) if served is None or one.index in served]
        try:
            tombstones.require(
                self._client,
                known,
                age_limit_seconds=self._options.age_limit_seconds,
                request_timeout_seconds=self._options.request_timeout_seconds,
            )
        except tombstones.ForgetsTooSoon:
            raise
        except OpenSearchRefused as error:
            if error.status not in {401, 403}:  # a role that may only write is not told, and need not be asked again
                return False
            fact("settings", f"OpenSearch does not say how long it remembers deletions: {error.message}")
        except IdxctlError:  # no answer, or no credentials to ask with yet: the batches meet the same
            return False
        return True

    def _looks_below(self, conn: Connection) -> Mapping[tuple[str, int], datetime]:
        """Return where a look below the floors begins; nowhere in particular when it is to find everything."""
        horizon = self.horizon.look(conn)
        return {} if horizon is None else {place: min(floor, horizon) for place, floor in self._floors.items()}

    def _claim(self, conn: Connection, heads: Sequence[Head], floors: claim.Floors) -> tuple[Batch, Head] | None:
        """Claim from the first of *heads* that yields anything: of one, others may hold all that is due locked."""
        lowest_first = self._claims % _LOWEST_EVERY == _LOWEST_EVERY - 1
        self._claims += 1
        for head in reversed(heads) if lowest_first else heads:
            batch = self._claim_from(conn, head, floors)
            if batch is not None:
                return batch, head
        self._stopping.wait(_SHORTEST_POLL)
        return None

    def _claim_from(self, conn: Connection, head: Head, floors: claim.Floors) -> Batch | None:
        place = (head.index, head.priority)
        limit = _PROBE_TASKS if head.probing or self._carrier.breaker.probing else self._options.batch_size
        taken = claim.claim(
            conn,
            index=head.index,
            priority=head.priority,
            worker=self.id,
            limit=limit,
            lease_seconds=self._options.lease_seconds,
            floor=floors.get(place),
        )
        if taken is None:
            return None
        if head.probing:  # if this fails nobody holds the batch, and it is given back
            pause.put_off(conn, head.index, seconds=_PROBE_SECONDS)
        # A full claim from below the floor may have left more there; a smaller one has emptied it.
        full = taken.rows >= limit
        self._floors[place] = (
            taken.reached if full or place not in self._floors else max(taken.reached, self._floors[place])
        )
        self._leases.take(taken.batch.token)
        if self._carrier.breaker.probing:
            with self._probe_guard:
                self._probe = taken.batch.token
        return taken.batch

    def _is_empty(self, conn: Connection) -> bool:
        row = conn.one(SQL["remaining"], indexes=None if self._options.indexes is None else list(self._options.indexes))
        waiting, kept, in_flight = row
        self.kept = int(kept)
        return not waiting and not in_flight
