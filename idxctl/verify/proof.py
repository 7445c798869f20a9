"""
Prove a built index: each document is read once, and only what is not as it was sent is compared with its row.

Reads wait through outages of either server and through overload: a range of sequence numbers can be asked for again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from idxctl.core import backoff
from idxctl.core.errors import IdxctlError, OpenSearchRefused, OpenSearchUnreachable, PostgresUnreachable
from idxctl.indexes.generations import Generation
from idxctl.indexes.ids import ids_where
from idxctl.indexes.key_sql import between
from idxctl.indexes.sizes import Sizes
from idxctl.opensearch import by_sequence
from idxctl.opensearch.by_sequence import Span
from idxctl.opensearch.client import Client
from idxctl.opensearch.hits import Hit
from idxctl.postgres.connect import Pool
from idxctl.verify import compare
from idxctl.verify.compare import Compared
from idxctl.verify.digests import Ledger, Left, of_id
from idxctl.worker import outcomes, way
from idxctl.worker.outcomes import Cause, Kind, Verdict

T = TypeVar("T")

_PAGE_BYTES = 8 * 1024 * 1024  # of documents asked for at once
_PAGE_DOCUMENTS = 2_000
_AT_ONCE = 1_000  # documents compared with their rows at once
_TICK_SECONDS = 0.2
_PATIENT = 3  # answers of overload, before less is asked for
_ENOUGH_SEEN = 1_000  # documents, to tell that an index does not hold what was sent


class NotAsSent(Exception):  # noqa: N818 - it is what was found
    """Most documents are not, byte by byte, what was sent, so rows are compared at less cost than documents proved."""


@dataclass(frozen=True)
class Range:
    """Where documents sent under one token have their keys: after *after*, up to *upto*; None: to either end."""

    after: Sequence[str] | None
    upto: Sequence[str] | None


@dataclass(frozen=True)
class Built:
    """A built index: its shards as of its last refresh, how many documents one answer may have, and what was sent to it."""

    generation: Generation
    shards: int
    most_hits: int
    ranges: Mapping[int, Range]  # by token


@dataclass
class Proof:
    """What was found: documents ``seen`` in the index and ``proved``, and the comparison of all others with their rows."""

    seen: int = 0
    proved: int = 0
    unread: int = 0  # documents that the way fails on
    compared: Compared = field(default_factory=Compared)

    @property
    def documents(self) -> int:
        """How many documents there are that have a row, whether they agree or not."""
        return self.proved + self.compared.checked - len(self.compared.orphans)


@dataclass
class _Job:
    """What the readers of one proof share."""

    pool: Pool
    client: Client
    built: Built
    ledger: Ledger
    sizes: Sizes
    contents: bool
    spans: Iterator[Span] = field(default_factory=lambda: iter(()))
    proof: Proof = field(default_factory=Proof)
    waiting: str = ""
    error: BaseException | None = None  # the first that ended a reader
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_span(self) -> Span | None:
        with self.lock:
            return None if self.over.is_set() else next(self.spans, None)


def prove(
    pool: Pool,
    client: Client,
    built: Built,
    load: Callable[[int], bytes],
    *,
    contents: bool,
    readers: int,
    sizes: Sizes,
    tick: Callable[[int, str], None],
) -> Proof:
    """
    Read all documents of *built* as of its last refresh, and compare with their rows those that are not as they were sent.

    *load* reads the packed digests of a token. Without *contents*, ids and tokens alone prove. *tick* is called some times a
    second with the documents seen, and why nothing moves. Raises `NotAsSent` where most documents differ, and what the servers
    raise, but for outages.
    """
    generation = built.generation
    ledger = Ledger(built.ranges.keys(), lambda token: _patiently(job, partial(load, token)), contents=contents)
    job = _Job(pool, client, built, ledger, sizes, contents)
    job.spans = by_sequence.spans(_newest(job), lambda: _page(generation, sizes, built.most_hits))
    with ThreadPoolExecutor(readers, "check") as threads:
        reading = [threads.submit(_read_spans, job) for _ in range(readers)]
        try:
            while not all(one.done() for one in reading):
                tick(job.proof.seen, job.waiting)
                job.over.wait(_TICK_SECONDS)
        finally:
            job.over.set()
    if job.error is not None:
        raise job.error
    job.over.clear()
    for left in job.ledger.rest():
        _look_up(job, left)
        tick(job.proof.seen, job.waiting)
    if job.proof.unread > len(job.proof.compared.unanswered):
        raise IdxctlError(
            f"{job.proof.unread} documents of {generation.name} cannot be read: the way to OpenSearch fails on them, and on no other",
            hint="what stands between here and OpenSearch (a gateway, a firewall) does not let them pass",
        )
    tick(job.proof.seen, "")
    return job.proof


def _newest(job: _Job) -> list[int | None]:
    name = job.built.generation.name
    return [_patiently(job, partial(by_sequence.newest, job.client, name, shard)) for shard in range(job.built.shards)]


def _page(generation: Generation, sizes: Sizes, most_hits: int) -> int:
    return min(sizes.at_once(generation.definition, _PAGE_BYTES), _PAGE_DOCUMENTS, most_hits)


def _read_spans(job: _Job) -> None:
    try:
        while (span := job.next_span()) is not None:
            for hits in _read(job, span):
                _take(job, hits)
    except BaseException as error:  # noqa: BLE001 - raised again by prove(), in the thread that waits
        with job.lock:
            job.error = job.error or error
        job.over.set()


def _take(job: _Job, hits: Sequence[Hit]) -> None:
    definition = job.built.generation.definition
    if hits and job.sizes.average(definition) is None:
        job.sizes.note(definition, len(hits), sum(len(memoryview(one.source)) for one in hits))
    taken = _patiently(job, lambda: job.ledger.take(hits))
    with job.lock:
        job.proof.seen += len(hits)
        job.proof.proved += taken.proved
        differing = job.proof.seen - job.proof.proved
        if job.contents and job.proof.seen >= _ENOUGH_SEEN and 2 * differing > job.proof.seen:
            raise NotAsSent
    _compare(job, taken.others)
    for left in taken.closed:
        _look_up(job, left)


def _compare(job: _Job, ids: Sequence[str]) -> None:
    """Compare documents with their rows, and keep what differs."""
    generation = job.built.generation
    for at in range(0, len(ids), _AT_ONCE):
        found = _patiently(job, partial(_compared, job, generation, ids[at : at + _AT_ONCE]))
        with job.lock:
            job.proof.compared.add(found)


def _compared(job: _Job, generation: Generation, ids: Sequence[str]) -> Compared:
    return compare.compare_ids(job.pool.mine(), job.client, generation, ids, sizes=job.sizes)


def _look_up(job: _Job, left: Left) -> None:
    """Find the rows of documents that were sent and are not there as they were; those without a row were rightly deleted."""
    definition, where = job.built.generation.definition, job.built.ranges[left.token]
    condition = between(definition, where.after, where.upto)
    rows = _patiently(job, lambda: ids_where(job.pool.mine(), definition, condition))
    _compare(job, [one for one in rows if of_id(one) in left.ids])


# --- waiting, and smaller pieces -------------------------------------------------------------------------------------


def _read(job: _Job, span: Span) -> Iterator[Sequence[Hit]]:
    """Yield the documents of a range; in pieces where they are too many at once, or one of them does not pass."""
    failed = 0
    while True:
        try:
            hits = by_sequence.read(job.client, job.built.generation.name, span, sources=job.contents)
        except (OpenSearchRefused, OpenSearchUnreachable) as error:
            verdict, halves = outcomes.of_request(error), span.halves()
            failed += 1
            if halves and _less_may_pass(job, verdict, failed):
                for half in halves:
                    yield from _read(job, half)
                return
            if halves is None and _guilty(job, span, verdict):
                with job.lock:
                    job.proof.unread += 1
                return
            _wait(job, error, verdict.kind, failed)
        else:
            job.waiting = ""
            yield hits
            return


def _less_may_pass(job: _Job, verdict: Verdict, failed: int) -> bool:
    if verdict.cause is Cause.OVERLOAD:
        return failed >= _PATIENT
    return verdict.cause is Cause.TOO_LARGE or (verdict.suspect and _controls(job).pass_())


def _guilty(job: _Job, span: Span, verdict: Verdict) -> bool:
    """Whether the way fails on the one document of *span*, and on no other (`worker.way`)."""
    if not verdict.suspect:
        return False

    def again() -> Verdict | None:
        try:
            by_sequence.read(job.client, job.built.generation.name, span, sources=job.contents)
        except (OpenSearchRefused, OpenSearchUnreachable) as error:
            return outcomes.of_request(error)
        return None

    return way.by_turns(again, _controls(job)).guilty


def _controls(job: _Job) -> way.Controls:
    return way.Controls(job.client, job.built.generation)


def _patiently(job: _Job, act: Callable[[], T]) -> T:
    """Do what only reads, again and again while a server is away."""
    failed = 0
    while True:
        try:
            done = act()
        except PostgresUnreachable as error:
            failed += 1
            _wait(job, error, Kind.TRANSIENT, failed)
        except (OpenSearchRefused, OpenSearchUnreachable) as error:
            failed += 1
            _wait(job, error, outcomes.of_request(error).kind, failed)
        else:
            job.waiting = ""
            return done


def _wait(job: _Job, error: IdxctlError, kind: Kind, failed: int) -> None:
    """Wait before the same is asked again; raises *error* where waiting does not help, or another reader has failed."""
    if kind is not Kind.TRANSIENT:
        raise error
    job.waiting = error.message
    if job.over.wait(backoff.before_probe(failed - 1)):
        raise error
