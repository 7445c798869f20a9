"""
A process that carries a run on: which step comes next is decided from the run's row, so any process can go on with it.

Reads never see a half-built index: the alias moves last, in one call, after every document has been compared. A server that
is away is waited for at every step, as long as it takes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
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
from idxctl.postgres.connect import Connection, Pool
from idxctl.queue import tokens
from idxctl.rebuild import begin, lifetime, moot, outages, runs, swap
from idxctl.rebuild.backfill import Backfill
from idxctl.rebuild.begin import Begun
from idxctl.rebuild.catch_up import catch_up, wait_until_passed
from idxctl.rebuild.check import check
from idxctl.rebuild.preflight import Plan
from idxctl.rebuild.steps import Options, Reindexed, Steps
from idxctl.rebuild.swap import Swap
from idxctl.worker import registry, tombstones
from idxctl.worker.written import Learnt, Limits


@dataclass
class _Known:
    """How far the run has come; written by its steps and beats."""

    documents: int = 0
    failed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Job:
    """One process's part in a run: what each of its steps is given."""

    pool: Pool
    client: Client
    settings: Settings
    options: Options
    steps: Steps
    owner: str
    begun: Begun
    live: Generation | None  # in service now
    began: float = field(default_factory=time.monotonic)
    sizes: Sizes = field(default_factory=Sizes)
    known: _Known = field(default_factory=_Known)

    @property
    def conn(self) -> Connection:
        """The calling thread's connection."""
        return self.pool.mine()


def reindex(pool: Pool, client: Client, settings: Settings, plan: Plan, options: Options, steps: Steps) -> Reindexed:
    """
    Build a new generation as *plan* says and put it into service.

    Raises `Locked` while another process carries on a run of this index, and `IdxctlError` when the new generation is not fit
    for service; the old one then stays, and the new one is retired. A process that is interrupted leaves the run to be resumed.
    """
    owner = registry.new_id()
    began = time.monotonic()
    try:
        _prepare(pool.mine(), client, settings, plan.index)
        begun = begin.begin(pool.mine(), client, plan, options, owner, steps)
    except IdxctlError as error:
        seconds = round(time.monotonic() - began, 3)
        steps.failed(Reindexed(plan.index, None, 0, 0, seconds, swapped=False, error=str(error)))
        raise
    return _carry_on(_job(pool, client, settings, options, steps, owner, begun, began))


def resume(
    pool: Pool,
    client: Client,
    settings: Settings,
    index: str,
    options: Options,
    steps: Steps,
    *,
    plan: Callable[[], Plan],
) -> Reindexed:
    """
    Go on with the run of *index* that has not ended, where it stands, and put its generation into service.

    *plan* makes a plan, for one that had built nothing yet. Raises as `reindex` does, and `UsageError` where there is no run.
    """
    owner = registry.new_id()
    began = time.monotonic()
    _prepare(pool.mine(), client, settings, index)
    taken = begin.resume(pool.mine(), client, index, options, owner, steps, plan=plan)
    if isinstance(taken, Generation):
        steps.warn(f"{index}: the swap had been made; that is recorded now, and {taken.name} is live")
        return _recorded(pool.mine(), client, taken, round(time.monotonic() - began, 3))
    return _carry_on(_job(pool, client, settings, options, steps, owner, taken, began))


def _prepare(conn: Connection, client: Client, settings: Settings, index: str) -> None:
    tombstones.require(  # T3: writes go to what is active already, as long as the run lasts
        client,
        generations.of_index(conn, index),
        age_limit_seconds=settings.worker.age_limit_seconds,
        request_timeout_seconds=settings.opensearch.request_timeout_seconds,
    )
    tokens.catch_up_with_clock(conn)  # T4: chunks draw tokens without a claim
    retire.sweep_up(conn, client, age_limit=timedelta(seconds=settings.bytes_gone_after_seconds))


def _job(
    pool: Pool, client: Client, settings: Settings, options: Options, steps: Steps, owner: str, begun: Begun, began: float
) -> Job:  # fmt: skip
    index = begun.run.index
    live = outages.patiently(lambda: generations.live(pool.mine(), index), say=partial(_say, index, steps))
    known = _Known(begun.run.documents, begun.run.failed)
    return Job(pool, client, settings, options, steps, owner, begun, live, began, known=known)


def _say(index: str, steps: Steps, why: str) -> None:
    steps.warn(f"{index}: {why}; it is waited for")


def _recorded(conn: Connection, client: Client, live: Generation, seconds: float) -> Reindexed:
    """Return the result of a swap that another process had made."""
    known = generations.of_index(conn, live.index)
    old = next((one for one in known if one.state == "standby"), None)
    _keep_one_standby(conn, client, live.index, old)
    return Reindexed(
        live.index, live.name, 0, 0, seconds, swapped=True, previous=old.name if old else None,
        standby_until=old.standby_until if old else None, state="swapped" if old else "finished", resumed=True,
    )  # fmt: skip


def _carry_on(job: Job) -> Reindexed:
    """Take step after step until the generation is in service, or ready where it is not to be; wait for servers that are away."""
    with _told_of(job), _alive(job):
        while True:
            done = outages.patiently(partial(_step, job), say=partial(_say, job.begun.run.index, job.steps))
            if done is not None:
                return done


def _step(job: Job) -> Reindexed | None:
    """Take the step that the run's row says is next; returns the result once there is none."""
    run = job.begun.run
    try:
        state, intent = runs.state(job.conn, run, job.owner)
    except Locked:
        if generations.states(job.conn, [job.begun.generation.id]).get(job.begun.generation.id) == "live":
            return _served(job, ())  # the swap was recorded, and the answer to that was lost
        raise
    if state == "ready" and not job.begun.aim.swap and "swap" not in intent:
        runs.leave(job.conn, run, job.owner)
        return _result(job, swapped=False, state="ready")
    if state == "ready":
        return put_into_service(job, intent)
    _STEPS[state](job)
    return None


@contextmanager
def _told_of(job: Job) -> Iterator[None]:
    """On the way out of an error, end the run or leave it to another process, and say what is known of it."""
    try:
        yield
    except IdxctlError as error:
        swapped = _swapped_if_known(job)
        if not isinstance(error, Locked):
            with contextlib.suppress(IdxctlError):
                _fail(job, error)
        job.steps.failed(replace(_result(job, swapped=swapped), error=str(error)))
        raise
    except BaseException:
        with contextlib.suppress(IdxctlError):
            runs.leave(job.conn, job.begun.run, job.owner)
        raise


def _fail(job: Job, error: IdxctlError) -> None:
    """Retire what was being built. A swap that was made, or may have been, is left to who asks the alias (G4)."""
    state, intent = runs.state(job.conn, job.begun.run, job.owner)
    if state == "ready" and swap.was_made(job.client, intent, job.begun.generation):
        runs.leave(job.conn, job.begun.run, job.owner)
        return
    retire.retire(job.conn, job.begun.generation.id)
    runs.end(job.conn, job.begun.run.id, "failed", error=str(error))


# --- steps ----------------------------------------------------------------------------------------------------------


def _created(job: Job) -> None:
    runs.advance(job.conn, job.begun.run, "created", "backfilling", job.owner)


def _backfilling(job: Job) -> None:
    job.steps.begin("backfill", job.begun.run.total)
    fill = filling(job)
    before, known = job.known.documents, job.known
    allowed = job.begun.aim.allowed

    def tick() -> None:
        done = fill.progress
        with known.lock:
            known.documents = max(known.documents, before + done.documents)
            failed = known.failed = max(known.failed, done.failed)
            documents = known.documents
        job.steps.move(documents, done.waiting or (f"{failed:,} refused" if failed else ""))
        if allowed.count is not None and failed > allowed.count:
            raise IdxctlError(
                f"{failed:,} documents were refused so far (at most {allowed.count:,} may be); nothing was swapped",
                hint="fix the rows or the mapping, or allow it: idxctl reindex --max-failures N",
            )

    fill.run(tick=tick)
    found = runs.beat(job.conn, job.begun.run, job.owner)
    documents, refused = found or (known.documents, known.failed)
    known.documents, known.failed = documents, refused
    runs.advance(job.conn, job.begun.run, "backfilling", "catching_up", job.owner, documents=documents, failed=refused)
    job.steps.end(f"{documents:,} documents" + (f", {refused:,} refused" if refused else ""))
    reach("reindex.filled")


def filling(job: Job) -> Backfill:
    """Return this process's part in the backfill."""
    worker = job.settings.worker
    limits, learnt = Limits(worker.batch_bytes, worker.age_limit_seconds), Learnt(job.sizes)
    run = job.begun.run
    return Backfill(
        job.pool, job.client, job.begun.generation, run.id, job.owner, limits=limits, learnt=learnt,
        readers=job.options.readers,
    )  # fmt: skip


def _catching_up(job: Job) -> None:
    catch_up(job.pool, job.client, job.settings, job.begun.run.index, job.live, job.steps)
    runs.advance(job.conn, job.begun.run, "catching_up", "checking", job.owner)
    reach("reindex.caught_up")


def _checking(job: Job) -> None:
    """Check the documents, then give the index the settings it is to live with."""
    run, generation, aim = job.begun.run, job.begun.generation, job.begun.aim
    documents, refused = job.known.documents, job.known.failed
    if aim.check == "none":
        job.steps.warn(f"{run.index}: the documents are not checked (--check none)")
    else:
        passed = partial(
            wait_until_passed, job.pool, job.client, job.settings, run.index, job.live, total=0, steps=job.steps
        )
        found = check(
            job.pool,
            job.client,
            generation,
            run.id,
            way=aim.check,
            live=job.live,
            total=job.known.documents,
            readers=job.options.readers,
            allowed=aim.allowed,
            sizes=job.sizes,
            passed=passed,
            steps=job.steps,
        )
        documents, refused = found.documents, found.failed
    job.known.documents, job.known.failed = documents, refused
    wait = aim.wait_for_copies
    lifetime.restore(job.client, generation.name, aim.lifetime, wait_for_copies=wait, steps=job.steps)
    runs.advance(job.conn, run, "checking", "ready", job.owner, documents=documents, failed=refused)
    reach("reindex.ready")


_STEPS: Mapping[str, Callable[[Job], None]] = {
    "created": _created,
    "backfilling": _backfilling,
    "catching_up": _catching_up,
    "checking": _checking,
}


def put_into_service(job: Job, intent: Mapping[str, object]) -> Reindexed:
    """Swap, or record the swap that was made, and keep the generation that was live as the only standby."""
    run, generation, aim = job.begun.run, job.begun.generation, job.begun.aim
    old = job.live
    job.steps.begin("swap", None)
    moved: tuple[str, ...] = ()
    if swap.was_made(job.client, intent, generation):
        swap.record(job.conn, run.id, new=generation, old=old, keep=aim.keep, check=aim.check)
    else:
        proved = moot.letters(job.conn, job.client, generation, run.id, job.sizes)
        wanted = Swap(generation, old, aim.foreign, aim.replaces_index, aim.keep, proved, aim.check)
        done = swap.swap(job.conn, job.client, run, job.owner, wanted)
        moved = done.moved
        for sentence in done.amiss:
            job.steps.warn(sentence)
    return _served(job, moved)


def _served(job: Job, moved: tuple[str, ...]) -> Reindexed:
    """Put in order what a swap leaves, and return its result; the swap is recorded, and is not to be taken for failed."""
    index, old = job.begun.run.index, job.live

    def put_in_order() -> list[Generation]:
        _keep_one_standby(job.conn, job.client, index, old)
        return generations.of_index(job.conn, index)

    now = outages.patiently(put_in_order, say=partial(_say, index, job.steps))
    until = next((one.standby_until for one in now if old and one.id == old.id), None)
    job.steps.end(
        "done"
        + (f", with {', '.join(moved)}" if moved else "")
        + (f", {old.number:06d} kept as standby and current" if old else "")
    )
    result = _result(job, swapped=True, state="swapped" if old else "finished")
    return replace(result, previous=old.name if old else None, standby_until=until)


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
def _alive(job: Job) -> Iterator[None]:
    """Keep the run's row fresh, from a thread of its own: a long step must not look like a dead run."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(runs.BEAT_SECONDS):
            try:
                found = runs.beat(job.pool.mine(), job.begun.run, job.owner)
            except IdxctlError:
                continue  # Postgres is away; the step that needs it says so
            if found is not None:
                with job.known.lock:
                    job.known.documents, job.known.failed = (
                        max(job.known.documents, found[0]),
                        max(job.known.failed, found[1]),
                    )

    thread = threading.Thread(target=beat, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)


def _result(job: Job, *, swapped: bool | None, state: str | None = None) -> Reindexed:
    known, begun = job.known, job.begun
    seconds = round(time.monotonic() - job.began, 3)
    return Reindexed(
        begun.run.index, begun.generation.name, known.documents, known.failed, seconds, swapped,
        run=begun.run.id, state=state, resumed=begun.resumed, checked=begun.aim.check,
    )  # fmt: skip


def _swapped_if_known(job: Job) -> bool | None:
    """Whether the alias stands on what was built; None where OpenSearch cannot be asked after a swap had begun."""
    state = "ready"
    try:
        state, intent = runs.state(job.conn, job.begun.run, job.owner)
        return swap.was_made(job.client, intent, job.begun.generation)
    except Locked:
        return False
    except IdxctlError:
        return None if state == "ready" else False
