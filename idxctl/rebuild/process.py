"""
A process that carries a reindex from plan to swap: each phase is recorded before it begins.

    planned → created → backfill → catch_up → check → restore → swap → done
       any of them → failed (and its generation retired)

Reads never see a half-built index: the alias moves last, in one call, after every document has been compared.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

from idxctl.config.settings import Settings
from idxctl.core.errors import IdxctlError, Locked
from idxctl.core.failpoints import reach
from idxctl.indexes import generations, retire
from idxctl.indexes.generations import Generation
from idxctl.indexes.sizes import Sizes
from idxctl.opensearch import aliases
from idxctl.opensearch.client import Client
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection, Pool
from idxctl.queue import tokens
from idxctl.rebuild import lifetime, moot, runs, swap
from idxctl.rebuild.backfill import Backfill
from idxctl.rebuild.catch_up import catch_up, wait_until_passed
from idxctl.rebuild.check import check
from idxctl.rebuild.create import create
from idxctl.rebuild.preflight import Plan
from idxctl.rebuild.steps import Options, Reindexed, Steps
from idxctl.rebuild.swap import Swap
from idxctl.worker import registry, tombstones
from idxctl.worker.written import Learnt, Limits


@dataclass
class _Known:
    """How far a run has come; written by its steps, read by its beats."""

    documents: int = 0
    failed: int = 0
    run: int | None = None
    generation: Generation | None = None
    swapping: bool = False


@dataclass(frozen=True)
class Job:
    """One process's part in a run: what each of its steps is given."""

    pool: Pool
    client: Client
    settings: Settings
    plan: Plan
    options: Options
    steps: Steps
    owner: str = field(default_factory=registry.new_id)
    began: float = field(default_factory=time.monotonic)
    sizes: Sizes = field(default_factory=Sizes)
    known: _Known = field(default_factory=_Known)

    @property
    def conn(self) -> Connection:
        """The calling thread's connection."""
        return self.pool.mine()

    @property
    def live(self) -> Generation | None:
        """The generation in service, as long as its index is there."""
        return None if self.plan.lost else self.plan.live


def reindex(pool: Pool, client: Client, settings: Settings, plan: Plan, options: Options, steps: Steps) -> Reindexed:
    """
    Build a new generation as *plan* says and put it into service.

    Raises `Locked` while another run of this index lives, and `IdxctlError` when the new generation is not fit for
    service; the old one then stays, and the new one is retired. Ctrl-C ends a run the same way.
    """
    job = Job(pool, client, settings, plan, options, steps)
    try:
        return _go(job)
    except IdxctlError as error:
        swapped = job.known.swapping and _swapped_if_known(job)
        steps.failed(replace(_result(job, swapped=swapped), error=str(error)))
        raise


def _go(job: Job) -> Reindexed:
    """Take every step in order; on the way out of a failure, leave nothing half-built in the set."""
    tombstones.require(  # T3: writes go to what is active already, as long as the run lasts
        job.client,
        generations.of_index(job.conn, job.plan.index),
        age_limit_seconds=job.settings.worker.age_limit_seconds,
        request_timeout_seconds=job.settings.opensearch.request_timeout_seconds,
    )
    tokens.catch_up_with_clock(job.conn)  # T4: chunks draw tokens without a claim
    retire.sweep_up(job.conn, job.client, age_limit=timedelta(seconds=job.settings.bytes_gone_after_seconds))
    run = start(job)
    try:
        generation = make(job, run)
        with _alive(job, run):
            _backfill(job, run, generation)
            runs.advance(job.conn, run, "catch_up")
            catch_up(job.pool, job.client, job.settings, job.plan.index, job.live, job.steps)
            _check(job, run, generation)
            runs.advance(job.conn, run, "restore")
            wait = job.options.wait_for_copies
            lifetime.restore(job.client, generation.name, job.plan.lifetime, wait_for_copies=wait, steps=job.steps)
            return put_into_service(job, run, generation)
    except BaseException as error:
        _give_up(job, run, error)
        raise


# --- steps ----------------------------------------------------------------------------------------------------------


def start(job: Job) -> int:
    """Record the run, after ending one that died; a living one keeps us out."""
    conn, plan = job.conn, job.plan
    found = runs.open_run(conn, plan.index)
    if found is not None:
        if found.alive:
            raise Locked(
                f"a reindex of {plan.index} is under way: phase {found.phase}, run by {found.owner} since {found.started_at:%H:%M:%S}",
                hint="wait for it; a run that died is noticed after half a minute",
            )
        known = generations.by_ids(conn, [found.generation]) if found.generation else []
        if swap.resolve(conn, job.client, found.id, found.intent, known[0] if known else None) == "done":
            raise IdxctlError(
                f"the last reindex of {plan.index} died after its swap; that is recorded now, and {known[0].name} is live",
                hint="run idxctl reindex again if you still want another one",
            )
    reach("reindex.looked")
    run = runs.start(
        conn,
        plan.index,
        previous=plan.live.id if plan.live else None,
        options={"readers": job.options.readers},
        intent={"create": plan.name},
        owner=job.owner,
    )
    if run is None:
        raise Locked(f"another reindex of {plan.index} has just begun", hint="wait for it")
    job.known.run = run
    for one in generations.of_index(conn, plan.index):
        if one.state == "building":  # of a run that has ended, since ours is the only one that is open
            retire.retire(conn, one.id)
    audit.record(conn, action="reindex", what=plan.index, detail={"generation": plan.name})
    reach("reindex.started")
    return run


def make(job: Job, run: int) -> Generation:
    """Create the index, then let workers know of it (G2); the order matters to them."""
    create(job.client, job.plan)
    plan, conn = job.plan, job.conn
    with conn.transaction():
        generation = generations.register(conn, plan.index, plan.number, plan.definition)
        runs.advance(conn, run, "created", generation=generation.id)
        if plan.lost and plan.live is not None:  # writes to it would be refused, and hold the queue up
            generations.set_state(conn, plan.live.id, "retired", expected=("live",))
    job.known.generation = generation
    reach("reindex.registered")
    return generation


def _backfill(job: Job, run: int, generation: Generation) -> None:
    runs.advance(job.conn, run, "backfill")
    job.steps.begin("backfill", job.plan.rows)
    worker, known = job.settings.worker, job.known
    limits, learnt = Limits(worker.batch_bytes, worker.age_limit_seconds), Learnt(job.sizes)
    fill = Backfill(
        job.pool, job.client, generation, run, job.owner, limits=limits, learnt=learnt, readers=job.options.readers
    )

    def tick() -> None:
        done = fill.progress
        known.documents, known.failed = done.documents, done.failed
        job.steps.move(done.documents, done.waiting or (f"{done.failed:,} refused" if done.failed else ""))

    fill.run(tick=tick)
    job.steps.end(f"{known.documents:,} documents" + (f", {known.failed:,} refused" if known.failed else ""))
    reach("reindex.filled")


def _check(job: Job, run: int, generation: Generation) -> None:
    runs.advance(job.conn, run, "check")
    passed = partial(
        wait_until_passed, job.pool, job.client, job.settings, job.plan.index, job.live, total=0, steps=job.steps
    )
    found = check(
        job.pool,
        job.client,
        generation,
        run,
        live=job.live,
        total=job.known.documents,
        readers=job.options.readers,
        max_failed=job.options.max_failed,
        sizes=job.sizes,
        passed=passed,
        steps=job.steps,
    )
    job.known.documents, job.known.failed = found.documents, found.failed


def put_into_service(job: Job, run: int, generation: Generation) -> Reindexed:
    """Swap, and keep the generation that was live as the only standby."""
    job.steps.begin("swap", None)
    job.known.swapping = True
    old, plan = job.live, job.plan
    proved = moot.letters(job.conn, job.client, generation, run, job.sizes)
    wanted = Swap(generation, old, plan.foreign, plan.replaces_index, job.options.keep, proved)
    done = swap.swap(job.conn, job.client, run, wanted)
    _keep_one_standby(job.conn, job.client, plan.index, old)
    now = generations.of_index(job.conn, plan.index)
    until = next((one.standby_until for one in now if old and one.id == old.id), None)
    job.steps.end(
        "done"
        + (f", with {', '.join(done.moved)}" if done.moved else "")
        + (f", {old.number:06d} kept as standby and current" if old else "")
    )
    for sentence in done.amiss:
        job.steps.warn(sentence)
    return replace(_result(job, swapped=True), previous=old.name if old else None, standby_until=until)


def _keep_one_standby(conn: Connection, client: Client, index: str, old: Generation | None) -> None:
    """Retire every standby but the last, unless an alias stands on it."""
    for one in generations.of_index(conn, index):
        if one.state == "standby" and (old is None or one.id != old.id) and not _searched(client, one):
            retire.retire(conn, one.id)


def _searched(client: Client, generation: Generation) -> bool:
    """Whether an alias stands on a generation of before; where nobody can tell, it is taken to."""
    try:
        return bool(aliases.standing(client, generation.name))
    except IdxctlError:
        return True


# --- the run's row --------------------------------------------------------------------------------------------------


@contextmanager
def _alive(job: Job, run: int) -> Iterator[None]:
    """Keep the run's row fresh, from a thread of its own: a long step must not look like a dead run."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(runs.BEAT_SECONDS):
            try:
                runs.beat(job.pool.mine(), run, documents=job.known.documents, failed=job.known.failed)
            except IdxctlError:
                continue  # Postgres is away; the step that needs it says so

    thread = threading.Thread(target=beat, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)


def _give_up(job: Job, run: int, error: BaseException) -> None:
    """Retire what was being built; if a server is away, the next run finds the row and does it."""
    why = str(error) if isinstance(error, IdxctlError) else type(error).__name__
    phase = "cancelled" if isinstance(error, KeyboardInterrupt) else "failed"
    known = job.known
    try:
        found = runs.open_run(job.conn, job.plan.index)
        if found is None or found.id != run or (found.phase == "swap" and _swapped(job)):
            return
        if known.generation is not None:
            retire.retire(job.conn, known.generation.id)
        elif found.generation is None:
            swap.discard(job.client, job.plan.name)
        runs.end(job.conn, run, phase, error=why, documents=known.documents, failed=known.failed)
    except IdxctlError:
        return


def _result(job: Job, *, swapped: bool | None) -> Reindexed:
    known = job.known
    name = known.generation.name if known.generation else None
    seconds = round(time.monotonic() - job.began, 3)
    return Reindexed(job.plan.index, name, known.documents, known.failed, seconds, swapped)


def _swapped(job: Job) -> bool:
    """G4: the alias decides whether the swap was made."""
    made = job.known.generation
    return made is not None and made.name in aliases.targets(job.client, job.plan.index)


def _swapped_if_known(job: Job) -> bool | None:
    try:
        return _swapped(job)
    except IdxctlError:
        return None
