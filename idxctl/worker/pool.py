"""
The pool: threads around one synchronous path, one poller a process, a janitor beside them.

Whichever thread is free holds the baton: it polls and claims, hands the baton on, and carries its batch through read,
write and settle. So a process polls once at a time however many threads it has, and idle ones cost nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from idxctl.indexes import generations as generations_
from idxctl.indexes import retire
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection, Pool
from idxctl.queue import SQL, claim, expand, pause, rescue, settle, tokens
from idxctl.queue.claim import Batch, Head
from idxctl.queue.settle import Settled
from idxctl.worker import batch as steps
from idxctl.worker import janitor, outcomes
from idxctl.worker.batch import Limits, Sorted
from idxctl.worker.load import Breaker
from idxctl.worker.outcomes import Kind

log = logging.getLogger("idxctl.worker")

_SHORTEST_POLL = 0.025
_LONGEST_POLL = 1.0
_SWEEP_EVERY = 0.5  # seconds between looks below the floor: a change committed late waits that long
_LOWEST_EVERY = 8  # every eighth claim takes the lowest priority that waits, so that nothing starves
_TURN_SECONDS = janitor.BEAT_SECONDS
_CLOSING_SECONDS = 5.0  # for putting things in order at the end; a server that is away does not keep us from leaving
_FACTS_EVERY = 60.0
_BLOCK_PROBE_SECONDS = (2.0, 60.0)
_SETTLE_TRIES = 6
_SWEEP_UP_EVERY = 30  # turns of the janitor


def fact(name: str, text: str, **fields: Any) -> None:
    """Log one fact: its name, the sentence for people and the fields for machines."""
    log.info("%s", text, extra={"fact": name, "fields": fields})


@dataclass(frozen=True)
class Options:
    """How a pool runs."""

    workers: int = 5
    queue_size: int = 1000
    batch_size: int = 1000
    batch_bytes: int = 8 * 1024 * 1024
    max_attempts: int = 3
    lease_seconds: float = 30.0
    age_limit_seconds: float = 60.0
    request_timeout_seconds: float = 30.0
    until_empty: bool = False
    indexes: tuple[str, ...] | None = None  # None: every index that has a generation


@dataclass
class Counters:
    """What a pool has done since it started. Latencies are seconds from enqueued to indexed, the last few thousand."""

    indexed: int = 0
    dead: int = 0
    retried: int = 0
    healed: int = 0
    superseded: int = 0
    expanded: int = 0
    batches: int = 0
    lost: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=4096))

    def percentile(self, share: float) -> float | None:
        """Return the latency below which *share* of the last tasks were, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else None

    def shown(self) -> dict[str, Any]:
        """Return the numbers as a heartbeat carries them."""
        p95 = self.percentile(0.95)
        return {"indexed": self.indexed, "dead": self.dead, "retried": self.retried, "batches": self.batches,
                "healed": self.healed, "superseded": self.superseded, "expanded": self.expanded, "lost": self.lost,
                "p95_seconds": None if p95 is None else round(p95, 4)}  # fmt: skip


class Worker:
    """
    A worker process's pool. `run` blocks until it is stopped or, with ``until_empty``, until nothing is left.

    Thread-safe: `stop` may be called from a signal handler.
    """

    def __init__(self, pool: Pool, client: Client, options: Options) -> None:
        self.id = janitor.new_id()
        self.options = options
        self.counters = Counters()
        self.breaker = Breaker()
        self.kept = 0  # tasks left behind by --until-empty, kept by a pause or for want of a generation
        self._pool = pool
        self._client = client
        self._cache = generations_.Cache()
        self._limits = Limits(options.batch_bytes, options.age_limit_seconds)
        self._stopping = threading.Event()
        self._finished = threading.Event()
        self._baton = threading.Lock()
        self._guard = threading.Lock()
        self._held: dict[int, float] = {}  # token -> when it was last claimed or renewed
        self._unsettled: list[Batch] = []  # their outcome was lost with PostgreSQL; the janitor puts them back
        self._floors: dict[tuple[str, int], datetime] = {}
        self._swept_at = 0.0
        self._claims = 0
        self._idle = _SHORTEST_POLL
        self._postgres_down = 0
        self._last_beat = (time.monotonic(), 0)
        self._told: set[tuple[str, str]] = set()
        self._threads: list[threading.Thread] = []
        self._broken: BaseException | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    def run(self, *, drain_timeout: float = 30.0) -> None:
        """Work until stopped or done, then drain; raises what broke a thread, if anything did."""
        with self._running():
            self._stopping.wait()
            self._drain(drain_timeout)
        if self._broken is not None:
            raise self._broken

    @contextmanager
    def _running(self) -> Iterator[None]:
        conn = self._pool.mine()
        tokens.catch_up_with_clock(conn)
        self._rescue(conn)
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
            rescue.give_back(conn, self.id, held=(), why="its worker ended before the outcome was known")
            janitor.leave(conn, self.id)
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
            act()
        except BaseException as error:  # noqa: BLE001 - a bug must end the process, not leave it with fewer threads
            self._broken = error
            self._stopping.set()

    def _work(self) -> None:
        while not self._stopping.is_set():
            taken = self._next()
            if taken is not None:
                self._carry(*taken)

    def _next(self) -> tuple[Batch, Head] | None:
        """Hold the baton until a batch is claimed or the pool stops."""
        with self._baton:
            while not self._stopping.is_set():
                try:
                    taken = self._claim_or_wait()
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
            held = [*self._held, *(batch.token for batch in self._unsettled)]
        rescue.give_back(conn, self.id, held=held, why="the answer to its claim was lost")
        tokens.catch_up_with_clock(conn)  # a standby that was promoted may lag behind
        self._floors.clear()
        self._postgres_down = 0
        fact("postgres", "PostgreSQL is back")

    def _claim_or_wait(self) -> tuple[Batch, Head] | None:
        if self._held_back():
            return None
        conn = self._pool.mine()
        if self._postgres_down:
            self._postgres_is_back(conn)
        below = time.monotonic() - self._swept_at >= _SWEEP_EVERY
        if below:
            self._swept_at = time.monotonic()
        heads = claim.heads(conn, indexes=self.options.indexes, floors=None if below else self._floors)
        if heads:
            self._idle = _SHORTEST_POLL
            return self._claim(conn, heads, below=below)
        if self.options.until_empty and below and self._is_empty(conn):
            self._stopping.set()
            return None
        self._stopping.wait(self._idle)
        self._idle = min(self._idle * 1.3, _LONGEST_POLL if not self.options.until_empty else 0.1)
        return None

    def _held_back(self) -> bool:
        """Wait while the breaker is open; the thread that gets the probe makes it."""
        wait = self.breaker.seconds_to_wait()
        if not wait:
            return False
        self._stopping.wait(wait)
        if self.breaker.take_probe():
            try:
                self._client.request("GET", "/", timeout_seconds=5)
            except (OpenSearchUnreachable, OpenSearchRefused) as error:
                # A no to this question (403 where the role may only write) is an answer too.
                if outcomes.of_request(error).kind is Kind.TRANSIENT:
                    self.breaker.failed(error.message)
                    return True
            if self.breaker.worked():
                fact("circuit", "closed: OpenSearch answers again", state="closed")
        return self.breaker.open

    def _claim(self, conn: Connection, heads: Sequence[Head], *, below: bool) -> tuple[Batch, Head] | None:
        head = heads[-1] if self._claims % _LOWEST_EVERY == _LOWEST_EVERY - 1 else heads[0]
        place = (head.index, head.priority)
        taken = claim.claim(
            conn,
            index=head.index,
            priority=head.priority,
            worker=self.id,
            limit=self.options.batch_size,
            lease_seconds=self.options.lease_seconds,
            floor=None if below else self._floors.get(place),
        )
        self._claims += 1
        if taken is None:  # others were quicker, or hold all of it locked
            self._stopping.wait(_SHORTEST_POLL)
            return None
        # A full claim from below the floor may have left more there; a smaller one has emptied it.
        full = taken.rows >= self.options.batch_size
        self._floors[place] = (
            taken.reached if full or place not in self._floors else max(taken.reached, self._floors[place])
        )
        with self._guard:
            self._held[taken.batch.token] = time.monotonic()
        return taken.batch, head

    def _is_empty(self, conn: Connection) -> bool:
        row = conn.run(
            SQL["remaining"], indexes=None if self.options.indexes is None else list(self.options.indexes)
        ).fetchone()
        assert row is not None
        waiting, kept, in_flight = row
        self.kept = int(kept)
        return not waiting and not in_flight

    # --- one batch --------------------------------------------------------------------------------------------------

    def _carry(self, batch: Batch, head: Head) -> None:
        """Take one batch to its end; a batch that cannot be settled is left to its lease."""
        try:
            if batch.kind == "document":
                self._documents(batch, head)
            else:
                self._fan_outs(batch)
        except (PostgresUnreachable, PostgresRefused) as error:
            passing = isinstance(error, PostgresUnreachable) or error.passing
            self._leave(batch, error, give_back=passing)
        except IdxctlError as error:
            self._leave(batch, error, give_back=False)
        finally:
            with self._guard:
                self._held.pop(batch.token, None)

    def _leave(self, batch: Batch, error: IdxctlError, *, give_back: bool) -> None:
        """
        Leave a batch that cannot be settled: to the janitor where PostgreSQL was away, to its lease otherwise.

        The janitor puts it back as it was: an outage charges nobody an attempt, as the lapse of a lease may do.
        """
        self.counters.lost += 1
        if give_back:
            with self._guard:
                self._unsettled.append(batch)
        fact(
            "postgres" if give_back else "failed",
            f"{error}; a batch of {len(batch.tasks)} tasks is "
            + ("put back once PostgreSQL answers" if give_back else "left to its lease")
            + ", nothing is lost",
            token=batch.token,
        )
        self._stopping.wait(_SHORTEST_POLL if give_back else 1.0)

    def _give_back(self, conn: Connection) -> None:
        """Put back what could not be settled while PostgreSQL was away; no attempt is spent."""
        with self._guard:
            batches = list(self._unsettled)
        for batch in batches:
            self._put_back(conn, batch, "PostgreSQL was away before the outcome was known", wait=0.0)
            with self._guard:
                self._unsettled.remove(batch)

    def _documents(self, batch: Batch, head: Head) -> None:
        conn = self._pool.mine()
        generations = self._cache.get(conn, list(batch.generations))
        written = steps.read_and_write(conn, self._client, batch, generations, self._limits)
        sorted_: Sorted = self._insist(
            lambda conn: steps.sort(
                conn, batch, generations, written, generations_.states(conn, list(batch.generations))
            )
        )
        if sorted_.jumped_past is not None:
            fact(
                "sequence",
                f"OpenSearch holds version {sorted_.jumped_past}, which this database did not draw; the sequence was moved past it",
                version=sorted_.jumped_past,
            )
        settled: Settled = self._insist(
            lambda conn: settle.settle(conn, batch, sorted_.outcomes, max_attempts=self.options.max_attempts)
        )
        self._count(batch, sorted_, settled)
        self._mind_the_index(batch, head, sorted_)
        self._mind_the_cluster(sorted_)

    def _fan_outs(self, batch: Batch) -> None:
        conn = self._pool.mine()
        generations = self._cache.get(conn, list(batch.generations))
        gone_after = self.options.age_limit_seconds + self.options.request_timeout_seconds
        try:
            done = expand.expand(conn, self._client, batch, generations, bytes_gone_after_seconds=gone_after)
        except (OpenSearchUnreachable, OpenSearchRefused) as error:
            why = error.message
            self._insist(lambda conn: self._put_back(conn, batch, why))
            if outcomes.of_request(error).kind is not Kind.TRANSIENT:  # the index's own trouble, not the cluster's
                fact("failed", f"{why}; {len(batch.tasks)} fan-outs of {batch.index} wait", index=batch.index)
            elif self.breaker.failed(why):
                fact("circuit", f"open: {why}; nothing is lost", state="open")
            return
        self.counters.expanded += done.enqueued
        if done.broken is not None:
            fact("broken", done.broken, index=batch.index)
        if done.waiting == len(batch.tasks):
            self._stopping.wait(_SHORTEST_POLL)

    def _put_back(self, conn: Connection, batch: Batch, why: str, *, wait: float = 1.0) -> None:
        """Put a batch back as it was, unless its lease was lost and others have its tasks."""
        with conn.transaction():
            if not settle.end_lease(conn, batch):
                return
            if batch.kind == "document":
                settle.requeue(conn, batch.index, [(task, wait, why) for task in batch.tasks])
            else:
                settle.requeue_fan_outs(conn, batch.index, batch.tasks, wait=wait, why=why)

    def _insist(self, act: Callable[[Connection], Any]) -> Any:
        """Do it on a connection that works: a lost one, a deadlock or a failover is tried again a few times."""
        for failed in range(_SETTLE_TRIES):
            try:
                return act(self._pool.mine())
            except PostgresRefused as error:
                if not error.passing or failed == _SETTLE_TRIES - 1:
                    raise
                if error.sqlstate[:2] != "40":  # a deadlock, or a conflict: at once
                    self._pool.drop()
                    self._finished.wait(backoff.before_probe(failed, shortest=0.1, longest=3.0))
            except PostgresUnreachable:
                if failed == _SETTLE_TRIES - 1:
                    raise
                self._finished.wait(backoff.before_probe(failed, shortest=0.1, longest=3.0))
        raise AssertionError

    # --- consequences -----------------------------------------------------------------------------------------------

    def _count(self, batch: Batch, sorted_: Sorted, settled: Settled) -> None:
        with self._guard:
            self.counters.batches += 1
            if not settled.held:
                self.counters.lost += 1
                fact(
                    "lost",
                    f"the lease of a batch of {len(batch.tasks)} tasks had lapsed; others have the tasks",
                    token=batch.token,
                )
                return
            self.counters.indexed += settled.done
            self.counters.retried += settled.retried
            self.counters.dead += settled.dead
            self.counters.healed += settled.healed
            self.counters.superseded += sorted_.superseded
            now = batch.claimed_at.timestamp() + (time.monotonic() - batch.born)
            for task in sorted_.outcomes.done[:: max(len(sorted_.outcomes.done) // 64, 1)]:
                self.counters.latencies.append(max(now - task.enqueued_at.timestamp(), 0.0))
        for one in sorted_.outcomes.failed[:3]:
            fact("dead" if one.permanent else "failing", f"{batch.index} {one.task.document_id}: {one.reason} ({one.fingerprint})",
                 index=batch.index, document_id=one.task.document_id, error_type=one.error_type, fingerprint=one.fingerprint)  # fmt: skip

    def _mind_the_index(self, batch: Batch, head: Head, sorted_: Sorted) -> None:
        """Pause an index whose writes are refused as a whole; end its pause when one goes through."""
        if sorted_.blocked is not None:
            known = {one.index: one.probes for one in pause.pauses(self._pool.mine()) if one.cause == "blocked"}
            wait = backoff.before_probe(
                known.get(batch.index, 0), shortest=_BLOCK_PROBE_SECONDS[0], longest=_BLOCK_PROBE_SECONDS[1]
            )
            pause.block(self._pool.mine(), batch.index, reason=sorted_.blocked, by=self.id, probe_after_seconds=wait)
            fact("blocked", f"{batch.index} is paused, next try in {wait:g} s: {sorted_.blocked}", index=batch.index)
        elif head.probing and sorted_.unreachable is None and pause.unblock(self._pool.mine(), batch.index):
            fact("resumed", f"{batch.index} takes writes again", index=batch.index)

    def _mind_the_cluster(self, sorted_: Sorted) -> None:
        if sorted_.unreachable is None:
            return
        if self.breaker.failed(sorted_.unreachable):
            fact("circuit", f"open: {sorted_.unreachable}; nothing is lost, no attempt was spent", state="open")

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
                self._give_back(conn)
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
        broken = set(expand.due(conn).broken)
        for index, why in sorted(broken - self._told):
            fact("broken", why, index=index)
        self._told = broken

    def _beat(self, conn: Connection, state: str) -> None:
        shown = self.breaker.state()
        breaker: Mapping[str, Any] | None = None
        if shown.state != "closed":
            breaker = {
                "state": shown.state,
                "reason": shown.reason,
                "since": shown.since,
                "next_probe_seconds": shown.next_probe_seconds,
            }
        now, indexed = time.monotonic(), self.counters.indexed
        since, before = self._last_beat
        per_second = (indexed - before) / (now - since) if now > since else 0.0
        self._last_beat = (now, indexed)
        janitor.beat(
            conn,
            self.id,
            state=state,
            threads=self.options.workers,
            queue_size=self.options.queue_size,
            indexes=self.options.indexes,
            counters={**self.counters.shown(), "per_second": round(per_second, 1)},
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
        lost = janitor.gone(conn, self.id)
        for one in rescue.rescue(conn, max_attempts=self.options.max_attempts, gone=lost):
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
        janitor.forget_the_silent(conn)
        if self.breaker.open:
            return
        gone = retire.sweep_up(conn, self._client, age_limit=timedelta(seconds=self.options.age_limit_seconds))
        for name in gone:
            fact("deleted", f"index {name}, retired", index=name)

    def _say_how_it_goes(self) -> None:
        p95 = self.counters.percentile(0.95)
        fact(
            "running",
            f"{self.counters.indexed:,} indexed, {self.counters.dead:,} dead"
            + (f", p95 {p95 * 1000:,.0f} ms" if p95 is not None else ""),
            **self.counters.shown(),
        )
