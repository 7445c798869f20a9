"""
Carry: bring one claimed batch to its end, and draw the consequences for its index, the cluster and the load.

What cannot be settled, because PostgreSQL is away for one, is remembered and put back as it was (`give_back`); an outage of
either server spends no attempt (P4).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from idxctl.core import backoff, reasons
from idxctl.core.errors import (
    IdxctlError,
    OpenSearchRefused,
    OpenSearchUnreachable,
    PostgresRefused,
    PostgresUnreachable,
)
from idxctl.core.reasons import Reason
from idxctl.core.tally import Tally
from idxctl.indexes.generations import Generation
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection, Pool
from idxctl.queue import expand, pause, requeue, settle
from idxctl.queue.claim import Batch, Head
from idxctl.queue.outcomes import Again
from idxctl.worker import outcomes, way
from idxctl.worker.accounting import Ledger
from idxctl.worker.index_health import Refusals
from idxctl.worker.load import Breaker, Load
from idxctl.worker.options import Counters, Options, fact
from idxctl.worker.outcomes import Kind
from idxctl.worker.path import Carried, Path
from idxctl.worker.sort import Sorted
from idxctl.worker.written import Learnt, Limits, Written

T = TypeVar("T")

_BLOCK_PROBE_SECONDS = (2.0, 60.0)
_SETTLE_TRIES = 6
_SHORT_WAIT = 0.025
_SAID_EVERY = 10  # batches put back in a row
_LARGE_DOCUMENT = 4 * 1024 * 1024


class Carrier:
    """What the threads of a pool share while each carries a batch of its own."""

    def __init__(
        self,
        pool: Pool,
        client: Client,
        options: Options,
        worker: str,
        *,
        stopping: threading.Event,
        finished: threading.Event,
        tally: Tally,
    ) -> None:
        self.breaker = Breaker()
        self.load = Load(batches=options.workers, body_bytes=options.batch_bytes)
        self._pool = pool
        self._client = client
        self._options = options
        self._worker = worker
        self._stopping = stopping
        self._finished = finished
        limits, attempts = Limits(options.batch_bytes, options.age_limit_seconds), options.max_attempts
        self.path = Path(
            client, limits, Learnt(load=self.load), Ledger(tally, max_attempts=attempts), max_attempts=attempts
        )
        self._refusals = Refusals()
        self._said = self.load.state()
        self._guard = threading.Lock()  # guards the list below, and nothing is asked of a server while it is held
        self._unsettled: list[Batch] = []  # their outcome was lost; the tidier puts them back

    @property
    def counters(self) -> Counters:
        """What it has done."""
        return self.path.ledger.counters

    @counters.setter
    def counters(self, counters: Counters) -> None:
        self.path.ledger.counters = counters

    @property
    def unsettled(self) -> list[int]:
        """Tokens of the batches that wait to be put back."""
        with self._guard:
            return [batch.token for batch in self._unsettled]

    def carry(self, batch: Batch, head: Head) -> None:
        """Take one batch to its end; a batch that cannot be settled is left to its lease."""
        try:
            if batch.kind == "document":
                self._documents(batch, head)
            else:
                self._fan_outs(batch, head)
        except (PostgresUnreachable, PostgresRefused) as error:
            passing = isinstance(error, PostgresUnreachable) or error.passing
            self._leave(batch, error, give_back=passing)
        except IdxctlError as error:  # no credentials to sign with, for one: nothing that a document is to blame for
            self._leave(batch, error, give_back=True)

    def give_back(self, conn: Connection) -> None:
        """Put back what could not be settled for no fault of its own; no attempt is spent."""
        with self._guard:
            batches = list(self._unsettled)
        for batch in batches:
            self._put_back(conn, batch, Reason(reasons.Kind.UNSETTLED), wait=0.0)
            with self._guard:
                self._unsettled.remove(batch)

    # --- documents and fan-outs --------------------------------------------------------------------------------------

    def _documents(self, batch: Batch, head: Head) -> None:
        conn = self._pool.mine()
        blocked_for = _reason_of_block(conn, batch.index) if head.probing else None

        def judge(sorted_: Sorted, states: Mapping[int, str]) -> Sorted:
            building = "building" in states.values()
            return self._refusals.judge(batch.index, sorted_, blocked_for=blocked_for, rebuilding=building)

        done = self.path.take(conn, batch, insist=self._insist, judge=judge, reading=self._reading)
        self._say(batch, done)
        self._mind_the_index(batch, head, done.sorted)
        self._mind_the_cluster(done.sorted, done.written)
        self._mind_the_load(done.sorted)
        if done.written.largest > _LARGE_DOCUMENT:  # the driver's buffer has grown with it, and never shrinks
            self._pool.drop()

    @contextmanager
    def _reading(self, conn: Connection) -> Iterator[None]:
        limit = self._options.age_limit_seconds  # what takes longer to read may not be sent (T3)
        with conn.patient(limit), conn.reading_within(limit / 3):
            yield

    def _fan_outs(self, batch: Batch, head: Head) -> None:
        conn = self._pool.mine()
        generations = self.path.generations(conn, batch)
        gone_after = self._options.bytes_gone_after_seconds
        try:
            done = expand.expand(conn, self._client, batch, generations, bytes_gone_after_seconds=gone_after)
        except (OpenSearchUnreachable, OpenSearchRefused) as error:
            why = Reason(reasons.Kind.UNREACHABLE, error.message)
            self._insist(lambda conn: self._put_back(conn, batch, why))
            if outcomes.of_request(error).kind is Kind.TRANSIENT and not self._takes_writes(generations):
                self._open(why)
            else:  # the index's own trouble, not the cluster's
                fact("failed", f"{error.message}; {len(batch.tasks)} fan-outs of {batch.index} wait", index=batch.index)
            return
        self.path.ledger.expanded(done.enqueued)
        if done.broken is not None:
            fact("broken", done.broken.sentence, index=batch.index)
        if head.probing and done.waiting < len(
            batch.tasks
        ):  # nothing was written, so nothing was tried: the next one at once
            pause.put_off(conn, batch.index, seconds=0.0)
        if done.waiting == len(batch.tasks):
            self._stopping.wait(_SHORT_WAIT)

    def _takes_writes(self, generations: Sequence[Generation]) -> bool:
        """Tell whether the way is open for documents, although not for what a fan-out asked."""
        return any(way.Controls(self._client, one).pass_() for one in generations if one.state == "live")

    def _leave(self, batch: Batch, error: IdxctlError, *, give_back: bool) -> None:
        """
        Leave a batch that cannot be settled: to the janitor, or to its lease where its own content may be what is refused.

        The janitor puts it back as it was: an outage charges nobody an attempt, as the lapse of a lease may do.
        """
        away = give_back and isinstance(error, (PostgresUnreachable, PostgresRefused))
        self.path.ledger.lost()
        if give_back:
            with self._guard:
                self._unsettled.append(batch)
        fact(
            "postgres" if away else "failed",
            f"{error}; a batch of {len(batch.tasks)} tasks is "
            + ("put back once PostgreSQL answers" if give_back else "left to its lease")
            + ", nothing is lost",
            token=batch.token,
        )
        self._stopping.wait(_SHORT_WAIT if away else 1.0)

    def _put_back(
        self, conn: Connection, batch: Batch, why: Reason, *, wait: float = backoff.BEFORE_NEXT_CLAIM
    ) -> None:
        """Put a batch back as it was, unless its lease was lost and others have its tasks."""
        with conn.transaction():
            if not settle.end_lease(conn, batch):
                return
            if batch.kind == "document":
                requeue.requeue(conn, batch.index, [Again(task, wait, why) for task in batch.tasks])
            else:
                requeue.requeue_fan_outs(conn, batch.index, batch.tasks, wait=wait, why=why)

    def _insist(self, act: Callable[[Connection], T]) -> T:
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

    # --- consequences ------------------------------------------------------------------------------------------------

    def _say(self, batch: Batch, done: Carried) -> None:
        """Log what a batch has shown."""
        outcomes = done.sorted.outcomes
        if done.written.slow:
            limit = self._options.age_limit_seconds / 3
            fact("slow", f"{batch.index}: the document query is slow: {done.written.slow} documents took longer than "
                 f"{limit:g} s at once; it is read in smaller parts", index=batch.index, documents=done.written.slow)  # fmt: skip
        if done.sorted.jumped_past is not None:
            past = done.sorted.jumped_past
            fact("sequence", f"OpenSearch holds version {past}, which this database did not draw; the sequence was moved past it",
                 version=past)  # fmt: skip
        if not done.settled.held:
            fact("lost", f"the lease of a batch of {len(batch.tasks)} tasks had lapsed; others have the tasks",
                 token=batch.token)  # fmt: skip
            return
        if done.in_a_row and done.in_a_row % _SAID_EVERY == 0:
            why = outcomes.again[0].why.sentence
            fact("repeats", f"{batch.index}: {done.in_a_row} batches in a row were put back: {why}",
                 index=batch.index, put_back=done.in_a_row, reason=why)  # fmt: skip
        for one in outcomes.failed[:3]:
            fact("dead" if one.permanent else "failing", f"{batch.index} {one.task.document_id}: {one.reason} ({one.fingerprint})",
                 index=batch.index, document_id=one.task.document_id, error_type=one.error_type, fingerprint=one.fingerprint)  # fmt: skip

    def _mind_the_index(self, batch: Batch, head: Head, sorted_: Sorted) -> None:
        """Pause an index whose writes are refused as a whole; end its pause when one goes through."""
        if sorted_.blocked is not None:
            known = {one.index: one.probes for one in pause.pauses(self._pool.mine()) if one.cause == "blocked"}
            wait = backoff.before_probe(
                known.get(batch.index, 0), shortest=_BLOCK_PROBE_SECONDS[0], longest=_BLOCK_PROBE_SECONDS[1]
            )
            pause.block(
                self._pool.mine(), batch.index, why=sorted_.blocked, by=self._worker, probe_after_seconds=wait,
                probed=head.probing,
            )  # fmt: skip
            fact("blocked", f"{batch.index} is paused, next try in {wait:g} s: {sorted_.blocked}", index=batch.index)
        elif head.probing and _answered_for(sorted_) and pause.unblock(self._pool.mine(), batch.index):
            fact("resumed", f"{batch.index} takes writes again", index=batch.index)

    def _mind_the_cluster(self, sorted_: Sorted, written: Written) -> None:
        """Open the breaker when the cluster as a whole fails; close it when something got through."""
        if sorted_.unreachable is not None:
            self._open(sorted_.unreachable)
        elif sorted_.overloaded is not None and not written.passed and self.load.refuses_all:
            self._open(sorted_.overloaded)
        elif written.passed:
            self.close_breaker()

    def _open(self, why: Reason) -> None:
        if self.breaker.failed(why):
            told = why.sentence
            fact("circuit", f"open: {told}; nothing is lost, no attempt was spent", state="open", reason=told)

    def close_breaker(self) -> None:
        """Claims go on, if they were held back."""
        if self.breaker.worked():
            fact("circuit", "closed: OpenSearch answers again", state="closed")

    def _mind_the_load(self, sorted_: Sorted) -> None:
        """Say when less is sent than before, and when all of it is again; not each step between."""
        now, said = self.load.state(), self._said
        less = now.concurrency < said.concurrency or now.body_bytes < said.body_bytes
        if not less and not (now != said and self.load.full):
            return
        self._said = now
        why = f": {sorted_.overloaded}" if less and sorted_.overloaded else ""
        limit = " (a larger one was refused for its size)" if now.size_limit is not None else ""
        fact("load", f"{now.concurrency} batches at once, bodies of {now.body_bytes / 1e6:.1f} MB{limit}{why}",
             concurrency=now.concurrency, batch_bytes=now.body_bytes, size_limit=now.size_limit)  # fmt: skip


def _answered_for(sorted_: Sorted) -> bool:
    """Whether a probe has told anything: of nothing but tasks that wait, it has not."""
    return bool(sorted_.outcomes.done or sorted_.outcomes.failed)


def _reason_of_block(conn: Connection, index: str) -> Reason:
    """Return why an index is blocked; once it no longer is, what no error matches."""
    found = pause.blocked(conn, index)
    return Reason(reasons.Kind.REFUSED) if found is None else found.why
