"""
Verify: prove that an index and its rows agree, or say in what they do not.

Two passes, neither of which sorts: ranges of keys, rows against documents (missing, stale); then slices of the ids of the
index against rows (orphans). Each process takes its part in both (`verify.part`). What something waiting may still change is
looked at again once the queue has passed it. The comparison is a row (`verify.runs`): it can be resumed, and shared.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta

from psycopg import sql

from idxctl.core.errors import IdxctlError, OpenSearchRefused, PostgresRefused, UsageError
from idxctl.indexes import generations
from idxctl.indexes.definitions import rows_of
from idxctl.indexes.generations import Generation
from idxctl.opensearch import aliases, scan
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection, Pool
from idxctl.postgres.user_sql import require_one_query
from idxctl.verify import again, ids, judge, repair, runs
from idxctl.verify.examples import Example, examples
from idxctl.verify.judge import Kind, Versions
from idxctl.verify.part import Part, Throttle, carry, take
from idxctl.verify.runs import Count, Run
from idxctl.worker import registry

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
        part = Part(
            client, run, generation, Versions.of(conn, generation), owner, Throttle(options.max_rate),
            where=_where(conn, generation, options.where), share=_share(options.sample, total),
        )  # fmt: skip
        repaired = _go(pool, part, options, steps, total)
        return _finish(conn, part, options, repaired, time.monotonic() - began)
    except BaseException:
        with contextlib.suppress(IdxctlError):  # others need not wait to learn that nobody is at it
            runs.leave(pool.mine(), run, owner)
        raise


def _go(pool: Pool, part: Part, options: Options, steps: Steps, total: int) -> int:
    """Take a comparison through its parts, as far as others have not; returns how many documents were enqueued."""
    conn = pool.mine()
    if _pass(pool, part, "rows", options.readers, steps, int(total * (1.0 if part.share is None else part.share))):
        steps.end(f"{runs.checked(conn, part.run):,} compared")
        _to_the_ids(conn, part, total, skip=options.where is not None)
    if _pass(pool, part, "ids", options.readers, steps, total):
        orphans = runs.counts(conn, part.run)[Kind.ORPHAN].all
        steps.end(
            f"{runs.checked(conn, part.run, slices=True):,} looked up"
            + (f", {orphans:,} without a row" if orphans else "")
        )
        runs.advance(conn, part.run, "ids", "settling", part.owner)
    _settle(conn, part, steps, options.timeout)
    return _repair(conn, part, steps, options) if options.repair else 0


def _to_the_ids(conn: Connection, part: Part, total: int, *, skip: bool) -> None:
    if skip:  # an id alone says nothing of a condition
        runs.advance(conn, part.run, "rows", "settling", part.owner)
        return
    with contextlib.suppress(OpenSearchRefused):  # a role that may not: what was written last is looked up as of before
        aliases.refresh(part.client, part.generation.name)
    runs.begin_ids(conn, part.run, ids.slices(total), part.owner)


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


# --- the two passes --------------------------------------------------------------------------------------------------


def _pass(pool: Pool, part: Part, name: str, readers: int, steps: Steps, total: int) -> bool:
    """Take part in a pass until nothing of it is left, here and in other processes; False where it was over already."""
    conn = pool.mine()
    if runs.state(conn, part.run) != name:
        return False
    steps.begin(name, total)
    before, part.done = runs.checked(conn, part.run, slices=name == "ids"), 0
    beaten = time.monotonic()
    with ThreadPoolExecutor(readers, "verify") as threads:
        readings = [threads.submit(_read, pool, part) for _ in range(readers)]
        try:
            while not all(one.done() for one in readings):
                if any(one.done() and one.exception() for one in readings):
                    break
                steps.move(before + part.done, "")
                part.over.wait(_POLL_SECONDS)
                if time.monotonic() - beaten > _BEAT_SECONDS:
                    runs.beat(conn, part.run)
                    beaten = time.monotonic()
        finally:
            part.over.set()
    part.over.clear()
    for one in readings:
        one.result()
    steps.move(before + part.done, "")
    return True


def _read(pool: Pool, part: Part) -> None:
    conn = pool.mine()
    while not part.over.is_set():
        taken = take(conn, part)
        if taken is not None:
            carry(conn, part, taken)
        elif not runs.ranges_open(conn, part.run):
            return
        else:  # others are at the last ranges
            part.over.wait(_POLL_SECONDS)


# --- once the queue has passed it ------------------------------------------------------------------------------------


def _settle(conn: Connection, part: Part, steps: Steps, timeout: timedelta) -> None:
    """Look again at what was lagging until it is not, or the time is over. One process alone does."""
    if not _mine(conn, part, steps):
        return
    lagging = sum(len(page) for page in runs.lagging(conn, part.run))
    if not lagging:
        return
    steps.begin("lagging", lagging)
    left = again.until_settled(
        conn, part, timeout, repaired=False, tell=lambda now, why: steps.move(lagging - now.waiting, why)
    )
    steps.end(f"{lagging - left.waiting:,} have settled" + (f", {left.waiting:,} have not" if left.waiting else ""))


def _mine(conn: Connection, part: Part, steps: Steps) -> bool:
    """Whether this process is the one to look again; waits while another one does."""
    waited = False
    while runs.state(conn, part.run) == "settling":
        if runs.take_over(conn, part.run, "settling", part.owner):
            return True
        if not waited:
            steps.begin("lagging", None)
            waited = True
        part.over.wait(_POLL_SECONDS)
    if waited:
        steps.end("done by another process")
    return False


# --- repair ----------------------------------------------------------------------------------------------------------


def _repair(conn: Connection, part: Part, steps: Steps, options: Options) -> int:
    counts = runs.counts(conn, part.run)
    drift = sum(counts[kind].all for kind in judge.DRIFT)
    if not drift:
        return 0
    if not options.force:
        held = scan.count(part.client, part.generation.name)
        repair.refuse_strangers(part.client, part.generation, counts, runs.checked(conn, part.run), held)
    steps.begin("repair", drift)
    count = repair.repair(conn, part.client, part.generation, part.run, tick=lambda count: steps.move(count, ""))
    repaired = sum(count.values())
    steps.end(f"{repaired:,} enqueued")
    if options.wait:
        steps.begin("again", repaired)
        left = again.until_settled(
            conn, part, options.timeout, repaired=True,
            tell=lambda now, why: steps.move(max(repaired - now.differing - now.waiting, 0), why),
        )  # fmt: skip
        steps.end(f"{max(repaired - left.differing - left.waiting, 0):,} are equal now")
    return repaired


# --- the end ---------------------------------------------------------------------------------------------------------


def _finish(conn: Connection, part: Part, options: Options, repaired: int, seconds: float) -> Verified:
    counts: Mapping[Kind, Count] = runs.counts(conn, part.run)
    drifted = [counts[kind] for kind in judge.DRIFT]
    some = runs.examples(conn, part.run, max(options.show, _NAMED))
    done = Verified(
        index=part.run.index,
        generation=part.generation.name,
        checked=runs.checked(conn, part.run) + counts[Kind.ORPHAN].all,
        missing=counts[Kind.MISSING].all,
        stale=counts[Kind.STALE].all,
        orphan=counts[Kind.ORPHAN].all,
        lagging=counts[Kind.LAGGING].all,
        unreadable=counts[Kind.UNREADABLE].all,
        repaired=repaired,
        seconds=round(seconds, 3),
        dead=sum(one.dead for one in drifted),
        sampled=part.share is not None,
        examples=examples(conn, part.client, part.generation, some, options.show, part.sizes),
        waiting=repair.why_it_waits(conn, part.run.index) if counts[Kind.LAGGING].all else None,
    )
    left = sum(one.left if options.repair and not options.wait else one.all - one.dead for one in drifted)
    runs.finish(conn, part.run, {**{name: getattr(done, name) for name in _KEPT}, "left": left})
    return done
