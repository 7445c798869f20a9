"""``idxctl reindex rollback|forward|finish``: between the live generation and the standby."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from idxctl.cli import render
from idxctl.cli.state import DryRunOption, IndexOption, Output, OutputOption, ReasonOption, YesOption, current, duration

if TYPE_CHECKING:
    from idxctl.opensearch.client import Client
    from idxctl.postgres.connect import Connection
    from idxctl.rebuild.rollback import Turned

KeepOption = Annotated[
    timedelta | None,
    typer.Option(
        parser=duration,
        metavar="DURATION",
        show_default=False,
        help="How long the generation that was live stays standby [default: 1d].",
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Also to a standby that lacks documents: they are written again, or become letters."),
]


def back(
    output: OutputOption,
    index: IndexOption = None,
    keep: KeepOption = None,
    force: ForceOption = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """
    Put the previous generation back into service, with all aliases.

    `reindex forward` undoes it.

    It has been written all the while, so it is current, and it serves documents of its own shape. One that lacks documents
    is refused.
    """
    _turn("rollback", output, index, keep, force=force, reason=reason, dry_run=dry_run)


def forward(
    output: OutputOption,
    index: IndexOption = None,
    keep: KeepOption = None,
    force: ForceOption = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Undo a rollback: the newer generation is in service again."""
    _turn("forward", output, index, keep, force=force, reason=reason, dry_run=dry_run)


def finish(
    output: OutputOption,
    index: IndexOption = None,
    yes: YesOption = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Keep the standby no longer. Its index is deleted by a worker once no late write can come; there is no way back to it."""
    from idxctl.rebuild import finish as engine
    from idxctl.rebuild import rollback

    state = current().because(reason)
    with _servers(index) as (conn, client, name):
        if not dry_run:
            rollback.resolve(conn, client, name)
        standby = engine.to_finish(conn, client, name)
        for one in standby:
            render.say(engine.kept_for(one))
        if standby and not dry_run:
            state.confirm(f"Keep {'it' if len(standby) == 1 else 'them'} no longer?", yes=yes)
        if dry_run:
            done = engine.Finished(name, tuple(one.name for one in standby), dry_run=True)
        else:
            done = engine.finish(conn, name, standby)
    if render.is_data(output):
        render.record(done, ["index", "retired", "dry_run"], output)
    elif not done.retired:
        render.headline("ok", f"{name}: no standby is kept", output)
    else:
        would = "would be retired" if dry_run else "retired; a worker deletes what it held"
        render.headline("ok", f"{name}: {', '.join(done.retired)} {would}", output)


@contextlib.contextmanager
def _servers(index: str | None) -> Iterator[tuple[Connection, Client, str]]:
    """Connect to both, and say which index is meant."""
    from idxctl.indexes import names
    from idxctl.postgres import migrate

    state = current()
    with state.connect() as conn, contextlib.closing(state.opensearch()) as client:
        migrate.require(conn)
        yield conn, client, names.the_index(conn, state.settings, index)


def _turn(
    verb: str,
    output: Output,
    index: str | None,
    keep: timedelta | None,
    *,
    force: bool,
    reason: str | None,
    dry_run: bool,
) -> None:
    """Take back what is live, or bring it forward again; then clear the letters that this makes moot."""
    from idxctl.rebuild import rollback as engine

    current().because(reason)
    with _servers(index) as (conn, client, name):
        done = None if dry_run else engine.resolve(conn, client, name)
        if done is not None:
            render.say(f"a {done.verb} had been cut short after the alias was moved: that is recorded now")
        if done is None or done.verb != verb:
            wanted = engine.plan(conn, client, name, verb, force=force)
            kept = keep or timedelta(days=1)
            done = engine.preview(wanted) if dry_run else engine.turn(conn, client, wanted, keep=kept)
        _say(done, output)
        if not dry_run:
            done = replace(done, healed=engine.heal(conn, client, name))
    if render.is_data(output):
        render.record(done, list(done.__dataclass_fields__), output)
    elif done.healed:
        render.say(f"{done.healed:,} dead letters cleared: {done.generation} holds their documents as the rows are")


def _say(done: Turned, output: Output) -> None:
    """Answer at once; letters may take a while."""
    if done.dry_run:
        render.headline(None, f"{done.index}: {done.generation} would go live in place of {done.previous}", output)
    else:
        until = f" until {done.standby_until:%Y-%m-%d %H:%M}" if done.standby_until is not None else ""
        render.headline(
            "ok",
            f"{done.index}: {done.generation} is live; {done.previous} is kept as standby, and current,{until}",
            output,
        )
    counts = (
        f"with {', '.join(done.aliases)}" if done.aliases else "",
        f"{done.tasks:,} writes that it missed are made again" if done.tasks else "",
        f"{done.letters:,} documents that it refused are dead letters" if done.letters else "",
    )
    if any(counts):
        render.say("; ".join(one for one in counts if one))
    if not done.dry_run:
        other = "forward" if done.verb == "rollback" else "rollback"
        named = f" --index {done.index}"
        render.next_step(
            f"idxctl reindex {other}{named} undoes this; idxctl reindex finish{named} drops {done.previous}.", output
        )
