"""``idxctl migrate``: idxctl's tables up, down, where they stand, and the script for a DBA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from idxctl.cli import render
from idxctl.cli.app import exits, plain_app
from idxctl.cli.state import DryRunOption, Output, OutputOption, ReasonOption, YesOption, current

if TYPE_CHECKING:
    from idxctl.config.settings import Settings
    from idxctl.postgres.migrate import Migrated, MigrationStatus
    from idxctl.postgres.migrate_down import DownPlan

app = plain_app(help="Create, upgrade or take away idxctl's tables.")

AdoptOption = Annotated[
    str | None,
    typer.Option("--adopt-index", metavar="INDEX", help="Where the dead letters of an older table belong."),
]


@app.command(epilog=exits(6))
def up(
    *,
    output: OutputOption,
    adopt_index: AdoptOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make again, empty, what is missing of the applied ones.")
    ] = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Apply pending migrations, all or none. Safe on several hosts at once, and to run again."""
    from idxctl.postgres import migrate

    state = current().because(reason)
    with state.connect() as conn:
        if dry_run:
            _show_status(migrate.status(conn), output, dry_run=True)
            return
        done = migrate.up(conn, default_index=_default_index(state.settings, adopt_index), repair=repair)
    _show_migrated(done, output, "migrated up to")


@app.command(epilog=exits(6))
def down(
    *,
    output: OutputOption,
    to: Annotated[int | None, typer.Option("--to", metavar="VERSION", min=0, help="Down to this version.")] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", min=1, help="So many steps [default: 1].")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Even if tasks or dead letters are lost by it.")] = False,
    yes: YesOption = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Undo migrations. Says what would be lost, asks, and refuses while triggers are installed."""
    from idxctl.postgres import migrate, migrate_down

    state = current().because(reason)
    with state.connect() as conn:
        plan = migrate_down.plan(conn, to=migrate_down.target(conn, to=to, count=steps))
        if not (dry_run and render.is_data(output)):
            _show_plan(plan, talk=not dry_run)
        if dry_run:
            if render.is_data(output):
                render.json({**render.plain_value(plan), "dry_run": True})
            return
        migrate_down.refuse(plan, force=force)
        if plan.undoes:
            state.confirm(f"Go down from version {plan.version} to {plan.to}?", yes=yes)
        done = migrate.down(conn, to=plan.to, force=force)
    _show_migrated(done, output, "went down to")


@app.command(epilog=exits())
def status(output: OutputOption) -> None:
    """Say which version the database is at and what is pending."""
    from idxctl.postgres import migrate

    with current().connect() as conn:
        _show_status(migrate.status(conn), output)


@app.command(epilog=exits())
def sql(
    from_: Annotated[int, typer.Option("--from", metavar="VERSION", min=0, help="The version the database is at.")] = 0,
    to: Annotated[int | None, typer.Option("--to", metavar="VERSION", min=0, help="[default: the newest]")] = None,
    adopt_index: AdoptOption = None,
) -> None:
    """Print the script that does what `up` does, for a DBA to read and run. Needs neither server nor configuration."""
    from idxctl.postgres import migrate_offline

    state = current()
    state.need_indexes = False
    settings = state.settings
    script = migrate_offline.offline_sql(
        from_=from_,
        to=to,
        schema=settings.database.schema,
        default_index=_default_index(settings, adopt_index),
    )
    render.script(script)


def _default_index(settings: Settings, given: str | None) -> str | None:
    """Return the index that an older program's letters belong to: named, configured, or the only one there is."""
    only = next(iter(settings.indexes)) if len(settings.indexes) == 1 else None
    return given or settings.adopt_index or only


def _show_migrated(done: Migrated, output: Output, word: str) -> None:
    if render.is_data(output):
        render.record(done, ["version", "applied", "adopted", "adopted_index"], output)
    elif not done.applied:
        render.headline("ok", f"Nothing to do: version {done.version}", output)
    else:
        render.headline("ok", f"{word} version {done.version}", output)
        for title in done.applied:
            render.out(f"  {title}")
    if done.adopted and not render.is_data(output):
        render.out(f"  dead letters of the older table kept: {done.adopted:,}, for index {done.adopted_index}")
    for note in done.notes:
        render.warn(note)


def _show_status(found: MigrationStatus, output: Output, *, dry_run: bool = False) -> None:
    if render.is_data(output):
        extra = {"dry_run": True} if dry_run else {}
        render.record({**render.plain_value(found), **extra}, ["version", "pending"], output)
    elif found.unknown:
        render.headline("bad", f"version {found.version}, newer than this program ({found.wanted})", output)
    elif found.pending:
        render.headline("warn", f"version {found.version}, pending up to version {found.wanted}", output)
        for title in found.pending:
            render.out(f"  {title}")
    else:
        render.headline("ok", f"version {found.version}, nothing pending", output)
    if found.adoptable is not None and not render.is_data(output):
        render.out(f"  opensearch_indexing_dlq is of the older shape: up keeps its letters ({found.adoptable:,})")
    for title in found.edited:
        render.warn(f"migration {title} is not the file that was applied here")
    if found.owner is not None and not render.is_data(output):
        render.out(f"  the tables belong to {found.owner}")
    for warning in found.warnings:
        render.warn(warning)
    if found.pending and not found.unknown:
        render.next_step("idxctl migrate up", output)


def _show_plan(plan: DownPlan, *, talk: bool) -> None:
    write = render.say if talk else render.out
    if not plan.undoes:
        write(f"Nothing to undo: version {plan.version}")
    for title in plan.undoes:
        write(f"undo  {title}")
    for what, rows in plan.loses:
        write(f"lose  {what}: {rows:,}")
    if plan.undoes and not plan.loses:
        write("Nothing would be lost.")
    if plan.triggers:
        write(f"capture triggers on {', '.join(plan.triggers)}")
