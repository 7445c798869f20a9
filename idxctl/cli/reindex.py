"""``idxctl reindex``: build an index anew, and put it into service without downtime."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from idxctl.cli import reindex_back, render
from idxctl.cli.app import exits, plain_app, refuse_before_verb
from idxctl.cli.state import DryRunOption, IndexOption, Output, OutputOption, ReasonOption, YesOption, current, duration
from idxctl.cli.steps import steps
from idxctl.core.errors import IdxctlError, PartlyDone

if TYPE_CHECKING:
    from idxctl.rebuild.preflight import Plan
    from idxctl.rebuild.steps import Options, Reindexed

app = plain_app(help="Build an index anew, and put it into service without downtime.", no_args_is_help=False)
app.command("rollback", epilog=exits(6))(reindex_back.back)
app.command("forward", epilog=exits(6))(reindex_back.forward)
app.command("finish", epilog=exits(6))(reindex_back.finish)


@app.callback(invoke_without_command=True, epilog=exits(3, 6))
def reindex(
    ctx: typer.Context,
    *,
    output: OutputOption,
    index: IndexOption = None,
    if_changed: Annotated[
        bool, typer.Option("--if-changed", help="Only where the definition differs from the live generation's.")
    ] = False,
    max_failed: Annotated[
        int | None,
        typer.Option(
            min=0, show_default=False, help="Most refused documents a swap puts up with [default: 10, or 1 in 100]."
        ),
    ] = None,
    readers: Annotated[int, typer.Option(min=1, max=32, help="Readers side by side.")] = 3,
    keep: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            show_default=False,
            help="How long the old generation stays standby [default: 1d].",
        ),
    ] = None,
    wait_for_copies: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            show_default=False,
            help="How long the replicas of the new one may take to start [default: 30m].",
        ),
    ] = None,
    take_alias: Annotated[
        bool, typer.Option("--take-alias", help="Move an alias that stands on an index idxctl did not make.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on where a look at the cluster says that it will not end well.")
    ] = False,
    yes: YesOption = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """
    Build a new generation of each index, compare every document with its row, and swap the alias.

    Reads are served by the old one until the swap; changes made meanwhile are in the new one.
    """
    if ctx.invoked_subcommand is not None:
        refuse_before_verb(ctx)
        return
    from idxctl.postgres import migrate
    from idxctl.rebuild import preflight
    from idxctl.rebuild.steps import Options

    state = current().because(reason)
    chosen = state.chosen(index)
    options = Options(
        readers=readers,
        keep=keep or timedelta(days=1),
        take_alias=take_alias,
        wait_for_copies=wait_for_copies or timedelta(minutes=30),
        max_failed=max_failed,
    )
    pool, client = state.pool(), state.opensearch()
    with contextlib.closing(pool), contextlib.closing(client):
        migrate.require(pool.mine())
        plans = [
            preflight.plan(pool.mine(), client, one, take_alias=take_alias, force=force, if_changed=if_changed)
            for one in chosen
        ]
        _warn(plans, yes=yes, dry_run=dry_run)
        results: list[Reindexed] = []
        try:
            for plan in plans:
                if dry_run or (if_changed and not plan.changed):
                    results.append(_not_run(plan, output, dry_run=dry_run))
                    continue
                results.append(_run(pool, client, plan, options, output, failed=results.append))
        except IdxctlError:
            _data(results, output, several=len(chosen) > 1)
            raise
    _data(results, output, several=len(chosen) > 1)
    failed = sum(one.failed for one in results)
    if failed:
        raise PartlyDone(f"{failed:,} documents were refused and are dead letters now", hint="idxctl dlq stats")


def _data(results: list[Reindexed], output: Output, *, several: bool) -> None:
    """Write what became of each index that was begun: an object of the only one, a list where several were asked for."""
    if results and render.is_data(output):
        render.json(results if several else results[0])


def _warn(plans: list[Plan], *, yes: bool, dry_run: bool) -> None:
    """Say what has no way back, before anything is built."""
    for plan in plans:
        for warning in plan.warnings:
            render.warn(warning)
        if plan.replaces_index:
            render.warn(
                f"{plan.index} is a concrete index today; the swap deletes it and puts an alias in its place, and that one step has no rollback"
            )
            if not dry_run:
                current().confirm(f"Replace the index {plan.index} once the new one is verified?", yes=yes)


def _not_run(plan: Plan, output: Output, *, dry_run: bool) -> Reindexed:
    from idxctl.rebuild.steps import Reindexed

    if not render.is_data(output):
        live = f"live generation {plan.live.name}" if plan.live else "no live generation"
        if dry_run:
            changed = (
                "the definition differs from it"
                if plan.live and plan.changed
                else "the definition is the same"
                if plan.live
                else "a first one"
            )
            render.headline(None, f"{plan.index} → {plan.name}: about {plan.rows:,} rows; {live}, {changed}", output)
        else:
            render.headline("ok", f"{plan.index}: {live} is up to date", output)
    return Reindexed(
        plan.index,
        plan.name if dry_run else plan.live.name if plan.live else None,
        0,
        0,
        0.0,
        swapped=False,
        dry_run=dry_run,
    )


def _run(
    pool: object,
    client: object,
    plan: Plan,
    options: Options,
    output: Output,
    *,
    failed: Callable[[Reindexed], None],
) -> Reindexed:
    from idxctl.opensearch.client import Client
    from idxctl.postgres.connect import Pool
    from idxctl.rebuild import process
    from idxctl.rebuild.steps import Steps

    assert isinstance(pool, Pool)
    assert isinstance(client, Client)
    render.say(f"{plan.index} → {plan.name}")
    live = f"; live generation {plan.live.number:06d} stays in service" if plan.live else ""
    render.say(f"{'plan':<10} about {plan.rows:,} rows{live}")
    with steps() as shown:
        told = Steps(shown.begin, shown.move, shown.end, render.warn, failed)
        try:
            done = process.reindex(pool, client, current().settings, plan, options, told)
        except (KeyboardInterrupt, SystemExit):
            render.say(f"stopped; nothing was swapped, and {plan.name} will be deleted")
            raise
    if not render.is_data(output):
        _answer(done, output)
    return done


def _answer(done: Reindexed, output: Output) -> None:
    from idxctl.core.durations import format_duration

    refused = f"{done.failed:,} refused" if done.failed else "none failed"
    rate = f", {done.documents / done.seconds:,.0f}/s" if done.seconds > 1 else ""
    render.headline(
        "warn" if done.failed else "ok",
        f"{done.index}: {done.documents:,} documents in {format_duration(done.seconds)}{rate}, {refused}",
        output,
    )
