"""How a process comes by a run: it begins one, or takes over one that no process carries on any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from idxctl.core.errors import IdxctlError, Locked, UsageError
from idxctl.core.failpoints import reach
from idxctl.indexes import generations, retire
from idxctl.indexes.generations import Generation
from idxctl.opensearch import aliases
from idxctl.opensearch.client import Client
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection
from idxctl.rebuild import runs, swap
from idxctl.rebuild.aim import Aim
from idxctl.rebuild.create import create
from idxctl.rebuild.preflight import Plan
from idxctl.rebuild.runs import Run
from idxctl.rebuild.steps import Options, Steps

_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Begun:
    """A run, what it builds, and what for. ``resumed``: another process began it."""

    run: Run
    generation: Generation
    aim: Aim
    resumed: bool = False


def begin(conn: Connection, client: Client, plan: Plan, options: Options, owner: str, steps: Steps) -> Begun:
    """
    Begin the run that *plan* is for. One that died is gone on with if it builds the same, and ended if it does not.

    Raises `Locked` while a process carries one on, or one is ready and its swap waits for somebody to say so.
    """
    found = runs.open_run(conn, plan.index)
    if found is not None:
        taken = _instead(conn, client, found, plan, options, owner, steps)
        if taken is not None:
            return taken
    reach("reindex.looked")
    run = _start(conn, plan, options, owner)
    return _make(conn, client, plan, run, Aim.of(plan, options), owner)


def resume(
    conn: Connection,
    client: Client,
    index: str,
    options: Options,
    owner: str,
    steps: Steps,
    *,
    plan: Callable[[], Plan],
) -> Begun | Generation:
    """
    Take over the run of *index* that has not ended; what had built nothing yet is begun again, as *plan* says then.

    Returns the generation alone where its swap had been made, which is recorded now. Raises `UsageError` where there is no
    such run, `Locked` while a process carries it on.
    """
    found = runs.open_run(conn, index)
    if found is None:
        raise UsageError(f"no reindex of {index} waits to be resumed", hint="idxctl reindex begins one")
    found = _wait_until_silent(conn, found, steps)
    generation = _generation(conn, found)
    if generation is not None and swap.was_made(client, found.intent, generation):
        swap.record_made(conn, found, generation)
        return generation
    if found.begun:
        return _take_over(conn, client, found, options, owner)
    swap.resolve(conn, client, found, generation)
    return begin(conn, client, plan(), options, owner, steps)


def _instead(
    conn: Connection, client: Client, found: Run, plan: Plan, options: Options, owner: str, steps: Steps
) -> Begun | None:
    """Return the run that is gone on with instead of a new one; None once the one that was *found* is ended."""
    index = plan.index
    if found.alive:
        raise Locked(
            f"a reindex of {index} is under way: {found.state}, run by {found.owner} since {found.started_at:%H:%M:%S}",
            hint=f"take a part in it: idxctl reindex work --index {index}; a run that died is noticed after half a minute",
        )
    generation = _generation(conn, found)
    if generation is not None and swap.was_made(client, found.intent, generation):
        swap.record_made(conn, found, generation)
        raise IdxctlError(
            f"the last reindex of {index} died after its swap; that is recorded now, and {generation.name} is live",
            hint="run idxctl reindex again if you still want another one",
        )
    if found.held and generation is not None:
        raise Locked(
            f"{generation.name} is ready, and was not to be swapped (--no-swap)",
            hint=f"idxctl reindex --index {index} --resume swaps it, idxctl reindex cancel --index {index} removes it",
        )
    same = generation is not None and generation.state == "building"
    if same and generation is not None and found.begun and generation.fingerprint == plan.definition.fingerprint:
        steps.warn(
            f"{index}: the reindex begun at {found.started_at:%Y-%m-%d %H:%M:%S} did not end; it is gone on with, "
            f"from {found.documents:,} documents"
        )
        return _take_over(conn, client, found, options, owner)
    swap.resolve(conn, client, found, generation)
    return None


def _generation(conn: Connection, run: Run) -> Generation | None:
    known = generations.by_ids(conn, [run.generation]) if run.generation is not None else []
    return known[0] if known else None


def _wait_until_silent(conn: Connection, found: Run, steps: Steps) -> Run:
    """Return a run once nothing was heard of it for long enough; raises `Locked` when something is."""
    if not found.alive:
        return found
    steps.begin("wait", int(runs.DEAD_AFTER_SECONDS))
    now: Run | None = found
    silent = found.silent_seconds
    while now is not None and now.id == found.id and now.owner == found.owner and now.silent_seconds >= silent:
        if not now.alive:
            steps.end(f"{found.owner} was not heard of for {runs.DEAD_AFTER_SECONDS:g} s")
            return now
        silent = now.silent_seconds
        steps.move(int(silent), f"for {found.owner}, to see whether it is gone")
        time.sleep(_LOOK_SECONDS)
        now = runs.open_run(conn, found.index)
    raise Locked(
        f"the reindex of {found.index} is under way, run by {found.owner}",
        hint=f"take a part in it: idxctl reindex work --index {found.index}",
    )


def _take_over(conn: Connection, client: Client, found: Run, options: Options, owner: str) -> Begun:
    """Carry on where a run stands; raises where its generation is no longer what workers keep current."""
    generation = _generation(conn, found)
    aim = Aim.restore(found.options)
    assert generation is not None
    assert aim is not None
    if generation.state != "building" or not aliases.exists(client, generation.name):
        swap.resolve(conn, client, found, generation)
        raise IdxctlError(
            f"{generation.name} cannot be gone on with: it is {generation.state}, or its index was deleted; that run is ended",
            hint="idxctl reindex begins another one",
        )
    aim = aim.chosen(options)
    if not runs.take_over(conn, found, owner, aim.stored(), max_rate=options.max_rate):
        raise Locked(f"another process has just gone on with the reindex of {found.index}", hint="wait for it")
    audit.record(conn, action="reindex resume", what=found.index, detail={"generation": generation.name})
    reach("reindex.resumed")
    now = runs.open_run(conn, found.index)
    if now is None or now.id != found.id:
        raise runs.taken_over(found.index)
    return Begun(now, generation, aim, resumed=True)


def _start(conn: Connection, plan: Plan, options: Options, owner: str) -> Run:
    """Record the run; only one of an index is open."""
    runs.settle(conn, plan.index)
    run = runs.start(
        conn,
        plan.index,
        previous=plan.live.id if plan.live else None,
        options=Aim.of(plan, options).stored(),
        intent={"create": plan.name},
        owner=owner,
        total=plan.rows,
        max_rate=options.max_rate,
    )
    if run is None:
        raise Locked(f"another reindex of {plan.index} has just begun", hint="wait for it")
    for one in generations.of_index(conn, plan.index):
        if one.state == "building":  # of a run that has ended, since ours is the only one that is open
            retire.retire(conn, one.id)
    audit.record(conn, action="reindex", what=plan.index, detail={"generation": plan.name})
    reach("reindex.started")
    return run


def _make(conn: Connection, client: Client, plan: Plan, run: Run, aim: Aim, owner: str) -> Begun:
    """Create the index, then let workers know of it (G2); the order matters to them. What fails ends the run."""
    try:
        create(client, plan)
        with conn.transaction():
            generation = generations.register(conn, plan.index, plan.number, plan.definition)
            runs.advance(conn, run, "planned", "created", owner, generation=generation.id)
            if plan.lost and plan.live is not None:  # writes to it would be refused, and hold the queue up
                generations.set_state(conn, plan.live.id, "retired", expected=("live",))
    except BaseException as error:
        _give_up(conn, client, run, error)
        raise
    reach("reindex.registered")
    return Begun(run, generation, aim)


def _give_up(conn: Connection, client: Client, run: Run, error: BaseException) -> None:
    """End a run that has built nothing; where a server is away, the next one does."""
    try:
        found = runs.open_run(conn, run.index)
        if found is None or found.id != run.id or found.generation is not None:
            return
        swap.discard(client, str(run.intent["create"]))
        why = str(error) if isinstance(error, IdxctlError) else type(error).__name__
        runs.end(conn, run.id, "cancelled" if isinstance(error, KeyboardInterrupt) else "failed", error=why)
    except IdxctlError:
        return
