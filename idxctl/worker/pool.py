"""
The pool: threads around one synchronous path, one poller a process, a janitor beside them.

Whichever thread is free holds the baton: it polls and claims, hands the baton on, and carries its batch through read,
write and settle. So a process polls once at a time however many threads it has, and idle ones cost nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from idxctl.core import backoff
from idxctl.core.errors import (
    IdxctlError,
    OpenSearchRefused,
    OpenSearchUnreachable,
    PostgresRefused,
    PostgresUnreachable,
)
from idxctl.core.reasons import Kind, Reason
from idxctl.core.tally import Tally
from idxctl.indexes import generations, retire
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection, Pool
from idxctl.queue import SQL, claim, expand, gaps, pause, rescue, tokens
from idxctl.queue.claim import Batch, Head
from idxctl.queue.horizon import Horizon
from idxctl.worker import outcomes, registry, tombstones
from idxctl.worker.carry import Carrier
from idxctl.worker.load import Breaker
from idxctl.worker.options import Counters, Options, fact

__all__ = ["Counters", "Options", "Worker"]

log = logging.getLogger("idxctl.worker")

_SHORTEST_POLL = 0.025
_LONGEST_POLL = 1.0
_SWEEP_EVERY = 0.5  # seconds between looks below the floor: a change committed late waits that long
_LOWEST_EVERY = 8  # every eighth claim takes the lowest priority that waits, so that nothing starves
_TURN_SECONDS = registry.BEAT_SECONDS
_CLOSING_SECONDS = 5.0  # for putting things in order at the end; a server that is away does not keep us from leaving
_FACTS_EVERY = 60.0
_PROBE_TASKS = 5  # enough to see whether an index or the cluster takes writes again
_PROBE_SECONDS = 10.0  # within which a blocked index is not probed by others
_LOOK_AGAIN = 0.02  # seconds, while as many batches are under way as OpenSearch can take
_SWEEP_UP_EVERY = 30  # turns of the janitor


class Worker:
    """
    A worker process's pool. `run` blocks until it is stopped or, with ``until_empty``, until nothing is left.

    Thread-safe: `stop` may be called from a signal handler.
    """

    def __init__(self, pool: Pool, client: Client, options: Options, *, tally: Tally | None = None) -> None:
        self.id = registry.new_id()
        self.options = options
        self.tally = tally or Tally()
        self.seen_beside: Callable[[], Mapping[str, Any]] = (
            dict  # what heartbeats carry of what was found beside the work
        )
        self.kept = 0  # tasks left behind by --until-empty, kept by a pause or for want of a generation
        self._pool = pool
        self._client = client
        # How long PostgreSQL may be silent. Leases are renewed at a third of their time: a keeper that waits for half of it
        # beyond that still comes before they lapse.
        self._patience = options.lease_seconds / 2
        self._stopping = threading.Event()
        self._finished = threading.Event()
        self._carrier = Carrier(
            pool, client, options, self.id, stopping=self._stopping, finished=self._finished, tally=self.tally
        )
        self._baton = threading.Lock()
        self._guard = threading.Lock()
        self._held: dict[int, float] = {}  # token -> when it was last claimed or renewed
        self._probe: int | None = None  # token of the batch that tries whether the cluster works again
        self._floors: dict[tuple[str, int], datetime] = {}
        self._horizon = Horizon()
        self._swept_at = 0.0
        self._sweep_wait = _SWEEP_EVERY
        self._claims = 0
        self._idle = _SHORTEST_POLL
        self._remembered = False  # whether OpenSearch has said that it remembers deletions for long enough (T3)
        self._postgres_down = 0
        self._last_beat = (time.monotonic(), 0)
        self._told: set[tuple[str, Reason]] = set()
        self._searched: dict[
            str, tuple[str, ...]
        ] = {}  # indexes that are kept since aliases stand on them, as was said
        self._threads: list[threading.Thread] = []
        self._broken: BaseException | None = None

    @property
    def counters(self) -> Counters:
        """What it has done since it started."""
        return self._carrier.counters

    @counters.setter
    def counters(self, counters: Counters) -> None:
        """Have it count on where another has ended; before it runs."""
        self._carrier.counters = counters

    @property
    def breaker(self) -> Breaker:
        """Whether the cluster is known to fail."""
        return self._carrier.breaker

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
            self._rescue(conn)
        except PostgresRefused as error:  # what others have lost keeps nobody from beginning; the janitor tries again
            fact("failed", f"what others have lost cannot be taken back: {error}")
        self._beat(conn, "running")
        keeper, tidier = (
            threading.Thread(target=self._minded, args=(act,), name=name, daemon=True)
            for name, act in (("keeper", self._keep), ("janitor", self._tidy))
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
        return len(self._held)

    def _drain(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(timeout=max(deadline - time.monotonic(), 0.0))
        with self._guard:
            left = list(self._held)
        if left:
            fact(
                "released",
                f"{len(left)} batches were still in flight after {timeout:g} s; their tasks go back to the queue",
                batches=len(left),
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
            taken = self._next()
            if taken is not None:
                self.carry(*taken)

    def _next(self) -> tuple[Batch, Head] | None:
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
        if not self._postgres_down:
            fact("postgres", f"{error}; waiting for it, nothing is lost")
        self._postgres_down += 1
        self._stopping.wait(backoff.before_probe(self._postgres_down - 1))

    def _postgres_is_back(self, conn: Connection) -> None:
        """Put in order what the outage left: a claim whose answer was lost. Whoever holds the baton is the only claimer."""
        with self._guard:
            held = [*self._held, *self._carrier.unsettled]
        rescue.give_back(conn, self.id, held=held, why=Reason(Kind.UNCLAIMED))
        tokens.catch_up_with_clock(conn)  # a standby that was promoted may lag behind
        self._floors.clear()
        self._horizon.forget()
        self._postgres_down = 0
        fact("postgres", "PostgreSQL is back")

    def poll(self) -> tuple[Batch, Head] | None:
        """
        Claim a batch that is due; None when there was none, and a wait is over.

        One step of a thread of this pool, for whoever takes them one by one; `carry` is the other.
        """
        if self._held_back():
            return None
        taken = None
        try:
            taken = self._claim_if_due()
        finally:
            if self.breaker.probing and taken is None:  # it answers, and there is nothing to try more with
                self._carrier.close_breaker()
        return taken

    def _claim_if_due(self) -> tuple[Batch, Head] | None:
        conn = self._pool.mine()
        if self._postgres_down:
            self._postgres_is_back(conn)
        if not self._remembered:
            self._remembered = self._deletions_are_remembered(conn)
        below = time.monotonic() - self._swept_at >= self._sweep_wait
        floors = self._looks_below(conn) if below else self._floors
        began = time.monotonic()
        heads = claim.heads(conn, indexes=self.options.indexes, floors=floors)
        if below:
            self._swept_at = time.monotonic()
            self._sweep_wait = max(_SWEEP_EVERY, 4 * (self._swept_at - began))
            if not floors:
                self._horizon.saw_everything(self._swept_at - began)
            if not any(
                one.available_at < self._floors.get((one.index, one.priority), one.available_at) for one in heads
            ):
                self._horizon.nothing_below()
        if heads:
            self._idle = _SHORTEST_POLL
            return self._claim(conn, heads, floors)
        if self.options.until_empty and below and self._is_empty(conn):
            self._stopping.set()
            return None
        self._stopping.wait(self._idle)
        self._idle = min(self._idle * 1.3, _LONGEST_POLL if not self.options.until_empty else 0.1)
        return None

    def _held_back(self) -> bool:
        """
        Wait while OpenSearch has its hands full, or the breaker is open; False once this thread may claim.

        While the breaker is probing, what it then claims is the probe.
        """
        if self._carrier.load.batches < self.options.workers and len(self._held) >= self._carrier.load.batches:
            self._stopping.wait(_LOOK_AGAIN)
            return True
        wait = self.breaker.seconds_to_wait()
        if not wait:
            return False
        self._stopping.wait(wait)
        return not self.breaker.take_probe() or not self._answers()

    def _answers(self) -> bool:
        try:
            self._client.ping(timeout_seconds=5)
        except (OpenSearchUnreachable, OpenSearchRefused) as error:
            # A no to this question (403 where the role may only write) is an answer too, and so is a gateway's page: it may
            # be about this question alone. The small batch that is claimed then tells.
            if outcomes.of_request(error).is_silence:
                self.breaker.failed(Reason(Kind.UNREACHABLE, error.message))
                return False
        return True

    def _deletions_are_remembered(self, conn: Connection) -> bool:
        """
        T3: raise `ForgetsTooSoon` where an index forgets deletions too soon; False while OpenSearch cannot be asked.

        Asked before the first claim. A server that is away is no reason not to start: it is asked again at the next one.
        """
        served = self.options.indexes
        known = [one for one in generations.all_of_them(conn) if served is None or one.index in served]
        try:
            tombstones.require(
                self._client,
                known,
                age_limit_seconds=self.options.age_limit_seconds,
                request_timeout_seconds=self.options.request_timeout_seconds,
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
        horizon = self._horizon.look(conn)
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
        limit = _PROBE_TASKS if head.probing or self.breaker.probing else self.options.batch_size
        taken = claim.claim(
            conn,
            index=head.index,
            priority=head.priority,
            worker=self.id,
            limit=limit,
            lease_seconds=self.options.lease_seconds,
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
        with self._guard:
            self._held[taken.batch.token] = time.monotonic()
            if self.breaker.probing:
                self._probe = taken.batch.token
        return taken.batch

    def _is_empty(self, conn: Connection) -> bool:
        row = conn.run(
            SQL["remaining"], indexes=None if self.options.indexes is None else list(self.options.indexes)
        ).fetchone()
        assert row is not None
        waiting, kept, in_flight = row
        self.kept = int(kept)
        return not waiting and not in_flight

    def carry(self, batch: Batch, head: Head) -> None:
        """Take one batch to its end: the other step of a thread of this pool."""
        try:
            self._carrier.carry(batch, head)
        finally:
            with self._guard:
                self._held.pop(batch.token, None)
                was_probe, self._probe = self._probe == batch.token, None if self._probe == batch.token else self._probe
            if was_probe and self.breaker.probing:  # nothing was sent that could fail
                self._carrier.close_breaker()

    # --- the keeper and the janitor ---------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Renew leases and beat, every second until the pool is done; nothing slow is done in this thread."""
        turn = min(_TURN_SECONDS, self.options.lease_seconds / 6)
        wait = turn
        while not self._finished.wait(wait):
            try:
                self._renew(self._pool.mine())
                self._beat(self._pool.mine(), "draining" if self._stopping.is_set() else "running")
                wait = turn
            except IdxctlError as error:  # back at once where only the connection broke: others wait to see us
                log.debug("keeper: %s", error)
                wait = turn / 4

    def _tidy(self) -> None:
        """Rescue what others have lost, enqueue what time has made due; every second until the pool is done."""
        turn = 0
        spoke = time.monotonic()
        while not self._finished.wait(_TURN_SECONDS):
            turn += 1
            try:
                conn = self._pool.mine()
                self._carrier.give_back(conn)
                self._rescue(conn)
                self._enqueue_due(conn)
                if turn % _SWEEP_UP_EVERY == 0:
                    self._sweep_up(conn)
            except (
                IdxctlError
            ) as error:  # Postgres is away, or a statement was refused: the threads say so, leases stand
                log.debug("janitor: %s", error)
            if time.monotonic() - spoke >= _FACTS_EVERY:
                spoke = time.monotonic()
                self._say_how_it_goes()

    def _enqueue_due(self, conn: Connection) -> None:
        """Enqueue what time has made due; a watch that cannot be looked at is told of once."""
        if repaired := gaps.repair(conn):
            fact("gap", f"changes left no task while the queue was away: all of {repaired} indexes is looked at again")
        broken = set(expand.due(conn).broken)
        for index, why in sorted(broken - self._told, key=str):
            fact("broken", why.sentence, index=index)
        self._told = broken

    def _beat(self, conn: Connection, state: str) -> None:
        shown = self.breaker.state()
        breaker: Mapping[str, Any] | None = None
        if shown.state != "closed":
            breaker = {
                "state": shown.state,
                **_shown(conn, shown.why),
                "since": shown.since,
                "next_probe_seconds": shown.next_probe_seconds,
            }
        now, indexed = time.monotonic(), self.counters.indexed
        since, before = self._last_beat
        per_second = (indexed - before) / (now - since) if now > since else 0.0
        self._last_beat = (now, indexed)
        registry.beat(
            conn,
            self.id,
            state=state,
            threads=self.options.workers,
            queue_size=self.options.queue_size,
            indexes=self.options.indexes,
            counters={
                **self.counters.shown(),
                "per_second": round(per_second, 1),
                **self._carrier.load.state().shown(),
                "request_seconds": round(self._client.longest_under_way, 1),
                **({"conditions": told} if (told := self.seen_beside()) else {}),
            },
            breaker=breaker,
            patience_seconds=self.options.lease_seconds / 6,
        )

    def _renew(self, conn: Connection) -> None:
        lapse = self.options.lease_seconds
        with self._guard:
            due = [token for token, since in self._held.items() if time.monotonic() - since > lapse / 3]
        if due:
            renewed = claim.renew(conn, due, lease_seconds=lapse)
            with self._guard:
                for token in renewed & self._held.keys():
                    self._held[token] = time.monotonic()

    def _rescue(self, conn: Connection) -> None:
        lost = registry.gone(conn, self.id)
        for one in rescue.rescue(conn, max_attempts=self.options.max_attempts, gone=lost):
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
        if self.breaker.open:
            return
        # A request may take its time after the last look at its age (G3).
        zombies_gone = timedelta(seconds=self.options.bytes_gone_after_seconds)
        gone = retire.sweep_up(conn, self._client, age_limit=zombies_gone, kept=self._say_kept)
        for name in gone:
            fact("deleted", f"index {name}, retired", index=name)

    def _say_kept(self, name: str, held: Sequence[str]) -> None:
        if self._searched.get(name) != tuple(held):
            self._searched[name] = tuple(held)
            fact("kept", retire.still_searched(name, held), index=name)

    def _say_how_it_goes(self) -> None:
        p95 = self.counters.percentile(0.95)
        fact(
            "running",
            f"{self.counters.indexed:,} indexed, {self.counters.dead:,} dead"
            + (f", p95 {p95 * 1000:,.0f} ms" if p95 is not None else "")
            + "".join(
                f"; {index}: {times:,} batches in a row put back"
                for index, times in self.counters.put_back.copy().items()
            ),
            **self.counters.shown(),
        )


def _shown(conn: Connection, why: Reason | None) -> dict[str, Any]:
    """Return a reason as a heartbeat carries it: the sentence, and what programs look at."""
    if why is None:
        return {"reason": ""}
    why = conn.why(why)
    return {"reason": why.sentence, "why": why.stored()}
