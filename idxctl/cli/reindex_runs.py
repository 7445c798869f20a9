"""``idxctl reindex status|work|throttle|cancel``: what to do with a reindex that is a row, whichever process carries it on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from idxctl.cli import render
from idxctl.cli.render import Column
from idxctl.cli.state import IndexOption, Output, OutputOption, ReasonOption, YesOption, current
from idxctl.cli.steps import steps
from idxctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idxctl.postgres.connect import Connection
    from idxctl.rebuild.cancel import Cancelled
    from idxctl.rebuild.overview import RunView
    from idxctl.rebuild.part import Taken
    from idxctl.rebuild.runs import Run


def status(output: OutputOption, index: IndexOption = None) -> None:
    """Show the last reindex of each index, and its generations."""
    from idxctl.postgres import migrate
    from idxctl.rebuild.overview import overview

    state = current()
    names = [one.name for one in state.chosen(index)]
    with state.connect() as conn:
        migrate.require(conn)
        found = overview(conn, names)
    _show(found, output)


def _show(found: Sequence[RunView], output: Output) -> None:
    if output is Output.JSON:
        render.json(found)
        return
    columns = [
        Column("index"), Column("run"), Column("generation"), Column("state", kind="name"), Column("documents", kind="count"),
        Column("total", kind="count"), Column("failed", kind="count"), Column("per_second", kind="rate"),
        Column("seconds_left", kind="seconds"), Column("started_at", kind="time"), Column("seen_at", kind="time"),
        Column("owner"), Column("error"),
    ]  # fmt: skip
    render.table(found, columns, output)
    if render.is_data(output):
        return
    for one in found:
        for each in one.generations:
            until = f", until {each.keep_until:%Y-%m-%d %H:%M} UTC" if each.keep_until else ""
            render.out(f"{each.generation} {each.state}{until}")
        if (advice := _advice(one)) is not None:
            render.out(advice)


def _advice(one: RunView) -> str | None:
    """Return what is to be done with a run that nobody carries on."""
    if one.alive or one.finished_at is not None:
        return None
    verb = "swaps" if one.state == "ready" else "goes on with"
    return (
        f"idxctl reindex --index {one.index} --resume {verb} it, idxctl reindex cancel --index {one.index} removes it."
    )


def work(
    output: OutputOption,
    index: IndexOption = None,
    workers: Annotated[int, typer.Option("--workers", "--readers", min=1, max=32, help="Readers side by side.")] = 3,
) -> None:
    """
    Take a part in a reindex: fill chunks until none is left.

    Any number of processes may, on any number of hosts. A chunk whose process was killed or stopped is taken by another after half a minute.
    """
    from idxctl.postgres import migrate
    from idxctl.rebuild import runs
    from idxctl.rebuild.part import take_part
    from idxctl.rebuild.steps import Steps

    state = current()
    pool, client = state.pool(), state.opensearch()
    done: list[Taken] = []
    with contextlib.closing(pool), contextlib.closing(client):
        migrate.require(pool.mine())
        names = [one.name for one in state.chosen(index)]
        if len(names) > 1:  # those that have something to be filled
            names = [one for one in names if runs.open_run(pool.mine(), one) is not None]
        if not names:
            raise UsageError("no reindex is under way", hint="idxctl reindex begins one")
        for name in names:
            with steps() as shown:
                told = Steps(shown.begin, shown.move, shown.end, render.warn)
                done.append(take_part(pool, client, state.settings, name, readers=workers, steps=told))
    if render.is_data(output):
        if output is Output.JSON:
            render.json(done)
        else:
            render.table(done, ["index", "run", "generation", "documents", "failed", "seconds"], output)
        return
    for one in done:
        render.headline("ok", f"{one.generation}: {one.documents:,} documents, and no chunk is left", output)


def throttle(
    rate: Annotated[str, typer.Argument(metavar="RATE|off", help="Documents a second of all processes together.")],
    index: IndexOption = None,
    reason: ReasonOption = None,
) -> None:
    """Change how fast a reindex fills its index, while it runs."""
    from idxctl.postgres import audit, migrate
    from idxctl.rebuild import runs

    wanted = _rate(rate)
    state = current().because(reason)
    with state.connect() as conn:
        migrate.require(conn)
        found = [one for one in _open_runs(conn, index) if one.state in {"planned", "created", "backfilling"}]
        if not found:
            raise UsageError("no reindex fills an index now", hint="idxctl reindex status")
        for one in found:
            with conn.transaction():
                runs.throttle(conn, one.index, wanted)
                audit.record(conn, action="reindex throttle", what=one.index, detail={"rate": wanted})
    for one in found:
        render.say(
            f"{one.index}: {'as fast as it can' if wanted is None else f'at most {wanted:g} documents a second'}"
        )


def _rate(text: str) -> float | None:
    if text.strip().lower() == "off":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value < float("inf"):
        raise UsageError(f"{text} is no rate", hint="documents a second, 0.1 at the least: 500; or off")
    return value


def cancel(
    output: OutputOption, index: IndexOption = None, yes: YesOption = False, reason: ReasonOption = None
) -> None:
    """End a reindex before its swap, and remove what it built."""
    from idxctl.postgres import migrate
    from idxctl.rebuild import cancel as engine

    state = current().because(reason)
    done: list[Cancelled] = []
    with state.connect() as conn, contextlib.closing(state.opensearch()) as client:
        migrate.require(conn)
        found = _open_runs(conn, index)
        if not found:
            raise UsageError("no reindex is under way, or waits to be resumed", hint="idxctl reindex status")
        for one in found:
            alive = f", run by {one.owner}" if one.alive else ""
            render.say(f"{one.index}: {one.state}, {one.documents:,} documents{alive}")
        state.confirm("Cancel and remove what was built?", yes=yes)
        done = [engine.cancel(conn, client, one, warn=render.warn) for one in found]
    if output is Output.JSON:
        render.json(done)
        return
    if render.is_data(output):
        render.table(done, ["index", "run", "generation", "state", "documents", "index_deleted"], output)
        return
    for each in done:
        render.headline("ok", f"{each.index}: cancelled; {each.generation or 'nothing'} is removed", output)


def _open_runs(conn: Connection, index: str | None) -> list[Run]:
    from idxctl.rebuild import runs

    found = [runs.open_run(conn, one.name) for one in current().chosen(index)]
    return [one for one in found if one is not None]
