"""
Verify: prove that an index and its rows agree, or say in what they do not.

Two passes, neither of which sorts: ranges of keys, rows against documents (missing, stale); then all ids of the index
against rows (orphans). What differs is judged at once (`verify.judge`); what something waiting may still change is looked
at again once the queue has passed it. The comparison is a row (`verify.runs`): it can be resumed, and shared by processes.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta

from psycopg import sql

from idxctl.core import backoff
from idxctl.core.errors import IdxctlError, OpenSearchRefused, PostgresRefused, UsageError
from idxctl.core.failpoints import reach
from idxctl.indexes import generations, render
from idxctl.indexes.definitions import rows_of
from idxctl.indexes.generations import Generation
from idxctl.indexes.render import Sizes
from idxctl.opensearch import aliases, scan
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection, Pool
from idxctl.postgres.user_sql import require_one_query
from idxctl.verify import compare, judge, repair, runs
from idxctl.verify.examples import Example, examples
from idxctl.verify.judge import Judged, Kind, Versions
from idxctl.verify.runs import Count, Run
from idxctl.worker import registry

_RANGE = 2_000  # documents of a range, at the most
_SAMPLED = 200  # of a sample: smaller ranges, more of them
_BYTES = 8 * 1024 * 1024  # of a range
_POLL_SECONDS = 0.2
_BEAT_SECONDS = 5.0
_NAMED = 5  # differing documents that are named where nobody says how many
_KEPT = (
    "checked",
    "missing",
    "stale",
    "orphan",
    "lagging",
    "unreadable",
    "repaired",
    "seconds",
    "sampled",
    "generation",
)


@dataclass(frozen=True)
class Sample:
    """How much is compared: a *share* of 0 to 1, or about *count* documents."""

    share: float | None = None
    count: int | None = None


@dataclass(frozen=True)
class Options:
    """What is compared, and what is done about it. ``max_rate``: documents a second, of this process."""

    generation: str | None = None
    sample: Sample | None = None
    where: str | None = None
    repair: bool = False
    wait: bool = False
    timeout: timedelta = timedelta(minutes=1)
    show: int = 0
    max_rate: float | None = None
    readers: int = 3
    force: bool = False
    resume: bool = False


@dataclass
class Steps:
    """What a comparison tells who watches. Each is called from the thread that called `verify`."""

    begin: Callable[[str, int | None], None] = lambda _step, _total: None  # a step and its total, if known
    move: Callable[[int, str], None] = lambda _done, _note: None
    end: Callable[[str], None] = lambda _summary: None


@dataclass(frozen=True)
class Verified:
    """
    What a comparison found, in documents.

    ``lagging``: a task still waited for them when the time was over. ``unreadable``: nobody can tell. ``dead``: so many of the
    missing, stale and orphans are dead letters. ``waiting``: why nothing moves, if nothing does.
    """

    index: str
    generation: str
    checked: int
    missing: int
    stale: int
    orphan: int
    lagging: int
    unreadable: int
    repaired: int
    seconds: float
    dead: int = 0
    sampled: bool = False
    examples: list[Example] = field(default_factory=list)
    waiting: str | None = None

    @property
    def drift(self) -> int:
        """How many documents are no equals of their rows, and nothing will change that."""
        return self.missing + self.stale + self.orphan


class _Throttle:
    """At most so many documents a second, of all threads."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def took(self, documents: int, over: threading.Event) -> None:
        """Wait as long as so many documents may take."""
        if self._rate is None:
            return
        with self._lock:
            self._next = max(self._next, time.monotonic()) + documents / self._rate
            wait = self._next - time.monotonic()
        if wait > 0:
            over.wait(wait)


@dataclass
class _Job:
    """One process's part in a comparison: what all of its threads are given. ``done`` and ``over`` are shared by them."""

    pool: Pool
    client: Client
    run: Run
    generation: Generation
    versions: Versions
    where: sql.Composable | None
    share: float | None
    owner: str
    throttle: _Throttle
    sizes: Sizes = field(default_factory=Sizes)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: int = 0

    def compared(self, documents: int) -> None:
        """Count documents, for who watches."""
        with self.lock:
            self.done += documents
        self.throttle.took(documents, self.over)


def verify(pool: Pool, client: Client, index: str, options: Options, steps: Steps) -> Verified:
    """
    Compare *index* with its rows, and repair it if *options* say so.

    Raises `Locked` while another process verifies it and ``resume`` is not asked for, `UsageError` for what cannot be meant,
    and what the servers raise; the comparison can be resumed then.
    """
    began = time.monotonic()
    conn = pool.mine()
    generation = _generation(conn, index, options.generation)
    _check_there(client, generation)
    _where(conn, generation, options.where)  # what cannot be meant is said before anything is begun
    owner = registry.new_id()
    run, options = _run(conn, generation, options, owner)
    try:
        (generation,) = generations.by_ids(conn, [run.generation])
        total = scan.count(client, generation.name)
        job = _Job(
            pool, client, run, generation, Versions.of(conn, generation), _where(conn, generation, options.where),
            _share(options.sample, total), owner, _Throttle(options.max_rate),
        )  # fmt: skip
        repaired = _go(job, options, steps, total)
        return _finish(job, options, repaired, time.monotonic() - began)
    except BaseException:
        with contextlib.suppress(IdxctlError):  # others need not wait to learn that nobody is at it
            runs.leave(pool.mine(), run, owner)
        raise


def _go(job: _Job, options: Options, steps: Steps, total: int) -> int:
    """Take a comparison through its parts, as far as others have not; returns how many documents were enqueued."""
    _rows(job, options.readers, steps, int(total * (1.0 if job.share is None else job.share)))
    if options.where is None:
        _ids(job, steps, total)
    else:  # an id alone says nothing of a condition
        runs.advance(job.pool.mine(), job.run, "ids", "settling", job.owner)
    _settle(job, steps, options.timeout)
    return _repair(job, steps, options) if options.repair else 0


def _generation(conn: Connection, index: str, wanted: str | None) -> Generation:
    """Return the generation meant: the live one, or the one of a number or a name."""
    known = generations.of_index(conn, index)
    active = [one for one in known if one.state in {"live", "standby"}]
    if wanted is None:
        live = next((one for one in active if one.state == "live"), None)
        if live is None:
            raise UsageError(f"{index} has no live generation", hint="idxctl reindex makes one")
        return live
    found = next((one for one in known if wanted in {one.name, str(one.number), f"{one.number:06d}"}), None)
    if found is None:
        names = ", ".join(one.name for one in active) or "none"
        raise UsageError(f"{index} has no generation {wanted}", hint=f"known: {names}")
    if found not in active:
        raise UsageError(f"{found.name} is {found.state}: only what workers keep current can be verified")
    return found


def _check_there(client: Client, generation: Generation) -> None:
    if not aliases.exists(client, generation.name):
        raise OpenSearchRefused(
            f"there is no index {generation.name} in OpenSearch",
            status=404,
            error_type="index_not_found_exception",
            hint="idxctl reindex makes another one",
        )


def _run(conn: Connection, generation: Generation, options: Options, owner: str) -> tuple[Run, Options]:
    """Begin a comparison, or take part in the one that is not finished, with what was chosen for that."""
    chosen = {
        "where": options.where,
        "share": options.sample.share if options.sample else None,
        "count": options.sample.count if options.sample else None,
    }
    if not options.resume:
        return runs.begin(conn, generation.index, generation.id, chosen, owner), options
    run = runs.resume(conn, generation.index)
    sample = Sample(run.options.get("share"), run.options.get("count"))
    given = sample if sample != Sample() else None
    return run, replace(options, where=run.options.get("where"), sample=given)


def _where(conn: Connection, generation: Generation, where: str | None) -> sql.Composable | None:
    """Return the condition, once PostgreSQL takes it for one expression over the document query, and no more."""
    if where is None:
        return None
    definition = generation.definition
    head = sql.SQL("SELECT 1 FROM {} WHERE (\n{}\n)").format(rows_of(definition), sql.SQL(where))
    plain = sql.SQL("SELECT 1 FROM {} WHERE ").format(rows_of(definition)).as_string(conn.raw) + f"\n{where}\n"
    local = {**definition.in_force, "row_security": "off"}
    try:
        with conn.transaction(local=local, read_only=True):
            require_one_query(conn, plain)
            require_one_query(conn, head.as_string(conn.raw))
    except PostgresRefused as error:
        if error.sqlstate == "42501":
            raise
        raise UsageError(
            f"the condition does not run: {error.detail}",
            hint="one condition over the columns of the document query: document_id > 1000, or document->>'status' = 'sold'",
        ) from error
    return sql.SQL(where)


def _share(sample: Sample | None, total: int) -> float | None:
    if sample is None:
        return None
    if sample.share is not None:
        return min(sample.share, 1.0)
    return min((sample.count or 1) / max(total, 1), 1.0)


# --- rows against documents ------------------------------------------------------------------------------------------


def _rows(job: _Job, readers: int, steps: Steps, total: int) -> None:
    """Compare ranges of keys, by several readers, until none is left: here and in other processes."""
    conn = job.pool.mine()
    if runs.state(conn, job.run) != "rows":
        return
    steps.begin("rows", total)
    before = runs.checked(conn, job.run)
    beaten = time.monotonic()
    with ThreadPoolExecutor(readers, "verify") as threads:
        readings = [threads.submit(_read, job) for _ in range(readers)]
        try:
            while not all(one.done() for one in readings):
                if any(one.done() and one.exception() for one in readings):
                    break
                steps.move(before + job.done, "")
                job.over.wait(_POLL_SECONDS)
                if time.monotonic() - beaten > _BEAT_SECONDS:
                    runs.beat(conn, job.run)
                    beaten = time.monotonic()
        finally:
            job.over.set()
    job.over.clear()
    for one in readings:
        one.result()
    steps.move(before + job.done, "")
    steps.end(f"{runs.checked(conn, job.run):,} compared")
    runs.advance(conn, job.run, "rows", "ids", job.owner)


def _read(job: _Job) -> None:
    conn = job.pool.mine()
    while not job.over.is_set():
        taken = runs.retake(conn, job.run, job.owner) or _plan(conn, job)
        if taken is not None:
            _compare(conn, job, taken)
        elif not runs.ranges_open(conn, job.run):
            return
        else:  # others are at the last ranges
            job.over.wait(_POLL_SECONDS)


def _plan(conn: Connection, job: _Job) -> runs.Range | None:
    """Make the next range, and take it; None when there is no more to make. Who is not the first to do so tries again."""
    definition = job.generation.definition
    while (plan := runs.plan(conn, job.run)) is not None and not plan.all:
        after = plan.upto
        size = min(job.sizes.at_once(definition, _BYTES), _RANGE if job.share is None else _SAMPLED)
        skipped = _skipped(job.share) if job.share is not None else 0
        if skipped:
            after = render.next_boundary(conn, definition, after, skipped * size)
            if after is None:
                runs.planned(conn, job.run, plan, None)
                continue
        upto = render.next_boundary(conn, definition, after, size)
        taken = runs.add_range(conn, job.run, plan, after, upto, job.owner)
        if taken is not None:
            return taken
    return None


def _skipped(share: float) -> int:
    """Return how many ranges to pass over, so that each is taken with a chance of *share*."""
    skipped = 0
    while random.random() >= share:  # noqa: S311 - a sample, no secret
        skipped += 1
    return skipped


def _compare(conn: Connection, job: _Job, taken: runs.Range) -> None:
    """Compare a range, then judge what differs in it: one connection does one after the other."""
    checked = 0
    doubtful: list[str] = []
    found: dict[str, Judged] = {}
    for page in compare.compare_range(
        conn, job.client, job.generation, taken.after, taken.upto, sizes=job.sizes, where=job.where
    ):
        checked += page.checked
        doubtful += [*page.missing, *page.stale]
        found.update((one, Judged(Kind.UNREADABLE)) for one in [*page.unreadable, *page.unanswered])
        job.compared(page.checked)
        if job.over.is_set():
            return
    found.update(_judged(conn, job, doubtful))
    reach("verify.compared")
    runs.range_done(conn, job.run, taken.number, checked, found)
    reach("verify.noted")


def _judged(conn: Connection, job: _Job, ids: Sequence[str]) -> dict[str, Judged]:
    return judge.twice(conn, job.client, job.generation, ids, versions=job.versions, sizes=job.sizes)


# --- documents against rows ------------------------------------------------------------------------------------------


def _ids(job: _Job, steps: Steps, total: int) -> None:
    """Look which ids of the index have no row. One process alone does; killed in between it begins again."""
    conn = job.pool.mine()
    if not _mine(conn, job, "ids", steps):
        return
    runs.forget_orphans(conn, job.run)
    with contextlib.suppress(OpenSearchRefused):  # a role that may not: what was written last is looked up as of before
        aliases.refresh(job.client, job.generation.name)
    steps.begin("ids", total)
    seen = orphans = 0
    beaten = time.monotonic()
    for page in scan.ids(job.client, job.generation.name):
        seen += len(page)
        asked = page if job.share is None else [one for one in page if _drawn(one, job.share)]
        there = set(render.existing(conn, job.generation.definition, asked))
        gone = [one for one in asked if one not in there]
        # A row that came meanwhile is no orphan; what it differs in, the first pass was to find.
        found = {one: said for one, said in _judged(conn, job, gone).items() if _about_no_row(said)}
        orphans += len(found)
        runs.note(conn, job.run, found)
        steps.move(seen, "")
        job.throttle.took(len(asked), job.over)
        if time.monotonic() - beaten > _BEAT_SECONDS:
            runs.beat(conn, job.run)
            beaten = time.monotonic()
    reach("verify.ids")
    steps.end(f"{seen:,} looked up" + (f", {orphans:,} without a row" if orphans else ""))
    runs.advance(conn, job.run, "ids", "settling", job.owner)


def _about_no_row(said: Judged) -> bool:
    return said.kind in {Kind.ORPHAN, Kind.LAGGING}


def _drawn(document_id: str, share: float) -> bool:
    """Whether an id is in a sample of that *share*."""
    return zlib.crc32(document_id.encode(errors="surrogatepass")) < share * 2**32


def _mine(conn: Connection, job: _Job, part: str, steps: Steps) -> bool:
    """Whether this process is the one to do a part that one alone does; waits while another one does it."""
    waited = False
    while runs.state(conn, job.run) == part:
        if runs.take_over(conn, job.run, part, job.owner):
            return True
        if not waited:
            steps.begin(part, None)
            waited = True
        job.over.wait(_POLL_SECONDS)
    if waited:
        steps.end("done by another process")
    return False


# --- once the queue has passed it ------------------------------------------------------------------------------------


def _settle(job: _Job, steps: Steps, timeout: timedelta) -> None:
    """Look again at what was lagging until it is not, or the time is over."""
    conn = job.pool.mine()
    if not _mine(conn, job, "settling", steps):
        return
    left = sum(len(page) for page in runs.lagging(conn, job.run))
    if not left:
        return
    steps.begin("lagging", left)
    deadline = time.monotonic() + timeout.total_seconds()
    while True:
        began = time.monotonic()
        lagging = _look_again(conn, job)
        steps.move(left - lagging, repair.why_it_waits(conn, job.run.index) or "")
        if not lagging or time.monotonic() >= deadline or repair.never_moves(conn, job.run.index):
            break
        runs.beat(conn, job.run)
        job.over.wait(backoff.before_look(time.monotonic() - began, shortest=_POLL_SECONDS))
    steps.end(f"{left - lagging:,} have settled" + (f", {lagging:,} have not" if lagging else ""))


def _look_again(conn: Connection, job: _Job) -> int:
    """Judge again what was lagging; returns how much of it still is."""
    lagging = 0
    for page in runs.lagging(conn, job.run):
        said = _judged(conn, job, [one.document_id for one in page])
        # Written under a token drawn since we looked, and nothing waits: it is as its row was then.
        said = {name: one for name, one in said.items() if not one.moving}
        runs.judged(conn, page, said)
        lagging += sum(one.kind is Kind.LAGGING for one in said.values())
    return lagging


# --- repair ----------------------------------------------------------------------------------------------------------


def _repair(job: _Job, steps: Steps, options: Options) -> int:
    conn = job.pool.mine()
    counts = runs.counts(conn, job.run)
    drift = sum(counts[kind].all for kind in judge.DRIFT)
    if not drift:
        return 0
    if not options.force:
        held = scan.count(job.client, job.generation.name)
        repair.refuse_strangers(job.client, job.generation, counts, runs.checked(conn, job.run), held)
    steps.begin("repair", drift)
    enqueued = repair.enqueue_differing(conn, job.run, tick=lambda count: steps.move(count, ""))
    steps.end(f"{enqueued:,} enqueued")
    if options.wait:
        _wait(conn, job, steps, options, enqueued)
    return enqueued


def _wait(conn: Connection, job: _Job, steps: Steps, options: Options, enqueued: int) -> None:
    """Wait until what was enqueued has been written, and look at it again."""
    steps.begin("again", enqueued)
    deadline = time.monotonic() + options.timeout.total_seconds()
    while True:
        began = time.monotonic()
        left = waiting = 0
        for page in runs.differing(conn, job.run, enqueued=True):
            said = _judged(conn, job, [one.document_id for one in page])
            waiting += sum(one.kind is Kind.LAGGING and not one.moving for one in said.values())
            said = {name: one for name, one in said.items() if not one.moving}
            runs.judged(conn, page, {one.document_id: said[one.document_id] for one in page if one.document_id in said})
            left += len(said)
        for page in runs.lagging(conn, job.run):
            said = {
                name: one for name, one in _judged(conn, job, [o.document_id for o in page]).items() if not one.moving
            }
            runs.judged(conn, page, said)
            waiting += sum(one.kind is Kind.LAGGING for one in said.values())
        steps.move(enqueued - left - waiting, repair.why_it_waits(conn, job.run.index) or "")
        if not waiting or time.monotonic() >= deadline or repair.never_moves(conn, job.run.index):
            break
        runs.beat(conn, job.run)
        job.over.wait(backoff.before_look(time.monotonic() - began, shortest=_POLL_SECONDS))
    steps.end(f"{enqueued - left - waiting:,} are equal now")


# --- the end ---------------------------------------------------------------------------------------------------------


def _finish(job: _Job, options: Options, repaired: int, seconds: float) -> Verified:
    conn = job.pool.mine()
    counts: Mapping[Kind, Count] = runs.counts(conn, job.run)
    drifted = [counts[kind] for kind in judge.DRIFT]
    done = Verified(
        index=job.run.index,
        generation=job.generation.name,
        checked=runs.checked(conn, job.run) + counts[Kind.ORPHAN].all,
        missing=counts[Kind.MISSING].all,
        stale=counts[Kind.STALE].all,
        orphan=counts[Kind.ORPHAN].all,
        lagging=counts[Kind.LAGGING].all,
        unreadable=counts[Kind.UNREADABLE].all,
        repaired=repaired,
        seconds=round(seconds, 3),
        dead=sum(one.dead for one in drifted),
        sampled=job.share is not None,
        examples=examples(
            conn,
            job.client,
            job.generation,
            runs.examples(conn, job.run, max(options.show, _NAMED)),
            options.show,
            job.sizes,
        ),
        waiting=repair.why_it_waits(conn, job.run.index) if counts[Kind.LAGGING].all else None,
    )
    runs.finish(conn, job.run, {name: getattr(done, name) for name in _KEPT})
    return done
