"""``idxctl watch``: the triggers that capture changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from idxctl.cli import render
from idxctl.cli.app import exits, plain_app
from idxctl.cli.render import Column
from idxctl.cli.state import DryRunOption, IndexOption, Output, OutputOption, ReasonOption, YesOption, current
from idxctl.cli.suggest import suggest
from idxctl.core.conditions import State
from idxctl.core.durations import format_counted
from idxctl.core.errors import CheckFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idxctl.capture.install import Installed, Removed
    from idxctl.capture.status import WatchStatus
    from idxctl.core.conditions import Condition
    from idxctl.postgres.connect import Connection

app = plain_app(help="Install, look at and remove the triggers that capture changes.")

WaitOption = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", min=0, help="Wait so long for tables in use.", show_default=True)
]


@app.command(epilog=exits(6))
def install(
    output: OutputOption, wait: WaitOption = 10.0, reason: ReasonOption = None, dry_run: DryRunOption = False
) -> None:
    """Bring the triggers in step with the configuration. Safe to run again; nothing is missed in between."""
    from idxctl.capture import install as engine
    from idxctl.capture.plan import plan
    from idxctl.postgres import migrate

    state = current().because(reason)
    indexes = state.indexes()
    with state.connect() as conn:
        migrate.require(conn)
        wanted = plan(conn, indexes, path=state.settings.path)
        done = engine.install(conn, wanted, list(indexes), dry_run=dry_run, wait_seconds=wait)
    _show_installed(done, output)


@app.command(epilog=exits(6))
def remove(
    output: OutputOption,
    index: IndexOption = None,
    purge: Annotated[bool, typer.Option("--purge", help="Delete the waiting tasks of these indexes too.")] = False,
    yes: YesOption = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Stop capturing, for one index or for all. Says what that means, and asks."""
    from idxctl.capture.install import remove as engine
    from idxctl.postgres import migrate

    state = current().because(reason)
    with state.connect() as conn:
        migrate.require(conn)
        preview = engine(conn, index=index, purge=purge, dry_run=True)
        if preview.watches or preview.purged:
            _say_removal(preview)
        if not dry_run and (preview.watches or preview.purged):
            state.confirm("Stop capturing?" if preview.watches else "Delete them?", yes=yes)
        done = preview if dry_run else engine(conn, index=index, purge=purge)
    _show_removed(done, output)


@app.command(epilog=exits(7))
def status(
    output: OutputOption,
    index: IndexOption = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 7 unless all is well.")] = False,
) -> None:
    """Say whether what is installed is what is configured: missing, disabled, outdated, new partitions."""
    from idxctl.capture.status import status as engine
    from idxctl.postgres import migrate

    with current().connect() as conn:
        migrate.require(conn)
        found = [one for one in engine(conn, current().settings.indexes) if index in (None, one.index)]
        holes = _uncovered(conn, index)
    _show_status(found, output)
    for hole in holes:
        render.warn(hole.reason)
    if exit_code and any(one.state != "ok" for one in found):
        raise CheckFailed("capture is not as configured", hint="idxctl watch install")
    certain = [hole for hole in holes if hole.state is State.ACT]
    if exit_code and certain:
        raise CheckFailed("documents show what is not captured", hint=certain[0].fix)


def _uncovered(conn: Connection, index: str | None) -> list[Condition]:
    from idxctl.capture.introspect import CannotLook
    from idxctl.status import thorough

    try:
        found = thorough.of_files(conn, current().settings.indexes)
    except CannotLook as error:
        render.warn(f"whether all that documents show is captured was not looked at: {error.message}")
        return []
    return [one for one in found if index in (None, one.index)]


app.command(epilog=exits())(suggest)


@app.command(epilog=exits())
def sql() -> None:
    """Print the script that does what `install` does, with notes on its locks, for a DBA to read and run."""
    from idxctl.capture.offline_sql import sql as engine
    from idxctl.capture.plan import plan
    from idxctl.postgres import migrate

    settings = current().settings
    with current().connect() as conn:
        migrate.require(conn)
        script = engine(conn, plan(conn, settings.indexes, path=settings.path), list(settings.indexes))
    render.script(script)


def _watches(number: int) -> str:
    return format_counted(number, "watch", "watches")


def _show_installed(done: Installed, output: Output) -> None:
    if render.is_data(output):
        fields = ["watches", "added", "ended", "functions", "triggers", "dropped", "changed"]
        render.record({**render.plain_value(done), "changed": done.changed}, fields, output)
    elif not done.changed:
        render.headline("ok", f"Nothing to do: {_watches(done.watches)} in force", output)
    else:
        would = "would be " if done.dry_run else ""
        counts = ((done.functions, "function"), (done.triggers, "trigger"), (done.dropped, "trigger"))
        verbs = ("written", "installed", "dropped")
        parts = [
            f"{format_counted(count, noun)} {would}{verb}"
            for (count, noun), verb in zip(counts, verbs, strict=True)
            if count
        ] or ["places changed"]
        render.headline("ok", f"{', '.join(parts)}; {_watches(done.watches)} in force", output)
        render.out(f"  {', '.join(done.tables)}")
    for warning in done.warnings:
        render.warn(warning)
    if done.changed and not done.dry_run:
        render.next_step("idxctl watch status", output)


def _say_removal(preview: Removed) -> None:
    if preview.watches:
        render.say(f"{_watches(preview.watches)} of {', '.join(preview.indexes)}: changes from now on are not captured")
    if preview.tables:
        render.say(f"tables that nobody watches then: {', '.join(preview.tables)}")
    if preview.tasks:
        fate = "deleted too" if preview.purged else "kept; --purge deletes them"
        render.say(f"{format_counted(preview.tasks, 'task')} waiting in the queue: {fate}")


def _show_removed(done: Removed, output: Output) -> None:
    if render.is_data(output):
        render.record(done, ["indexes", "watches", "tables", "tasks", "purged", "dry_run"], output)
    elif not done.watches and not done.purged:
        render.headline("ok", "Nothing to do: no watch is installed", output)
    else:
        would = "would be " if done.dry_run else ""
        purged = f", {format_counted(done.purged, 'task')} {would}purged" if done.purged else ""
        render.headline("ok", f"{_watches(done.watches)} {would}removed{purged}", output)


def _show_status(found: Sequence[WatchStatus], output: Output) -> None:
    bad = [one for one in found if one.losing]
    odd = [one for one in found if one.state != "ok" and not one.losing]
    if not found:
        render.headline("warn", "No watches are configured or installed.", output)
    elif bad:
        render.headline("bad", f"{len(bad)} of {_watches(len(found))} not in force: changes are being lost", output)
    elif odd:
        render.headline("warn", f"{len(odd)} of {_watches(len(found))} not as configured", output)
    else:
        render.headline("ok", f"{_watches(len(found))} in force", output)
    if found or render.is_data(output):
        render.blank(output)
        columns = [Column("index"), Column("watch"), Column("table"), Column("key"), Column("state"), Column("detail")]
        render.table(found, columns, output)
    if bad or odd:
        render.next_step("idxctl watch install", output)
