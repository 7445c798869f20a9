"""``idxctl reindex``: build an index again, and put it into service without downtime; what to do with a run is in `reindex_runs`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from idxctl.cli import reindex_back, reindex_runs, render
from idxctl.cli.app import EXIT, exits, plain_app, refuse_before_verb
from idxctl.cli.state import DryRunOption, IndexOption, Output, OutputOption, ReasonOption, YesOption, current, duration
from idxctl.cli.steps import steps
from idxctl.core.errors import PartlyDone, UsageError

if TYPE_CHECKING:
    from idxctl.config.settings import IndexSettings
    from idxctl.opensearch.client import Client
    from idxctl.postgres.connect import Connection, Pool
    from idxctl.rebuild.preflight import Plan
    from idxctl.rebuild.steps import Options, Reindexed, Steps

app = plain_app(help="Rebuild an index, and put it into service without downtime.", no_args_is_help=False)
app.command("rollback", epilog=exits(6))(reindex_back.back)
app.command("forward", epilog=exits(6))(reindex_back.forward)
app.command("finish", epilog=exits(6))(reindex_back.finish)
app.command("status", epilog=EXIT)(reindex_runs.status)
app.command("work", epilog=exits(6))(reindex_runs.work)
app.command("throttle", epilog=EXIT)(reindex_runs.throttle)
app.command("cancel", epilog=exits(6))(reindex_runs.cancel)


class Check(str, Enum):
    """How a new generation is proved before its swap."""

    CONTENT = "content"
    VERSIONS = "versions"
    NONE = "none"


@dataclass(frozen=True)
class _Asked:
    """What the command line asked for."""

    options: Options
    output: Output
    if_changed: bool
    force: bool
    yes: bool
    dry_run: bool


@app.callback(invoke_without_command=True, epilog=exits(3, 6))
def reindex(
    ctx: typer.Context,
    *,
    output: OutputOption,
    index: IndexOption = None,
    if_changed: Annotated[
        bool, typer.Option("--if-changed", help="Only where the definition differs from the live generation's.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a reindex that was stopped, or swap one that is ready.")
    ] = False,
    no_swap: Annotated[
        bool, typer.Option("--no-swap", help="Stop once the new generation is ready; --resume swaps it.")
    ] = False,
    check: Annotated[
        Check | None,
        typer.Option(
            show_default=False,
            help="How the new generation is proved before the swap: every document's content, ids and versions alone, or not at all [default: content].",
        ),
    ] = None,
    max_failures: Annotated[
        str | None,
        typer.Option(
            "--max-failures",
            "--max-failed",
            metavar="N|N%",
            show_default=False,
            help="Most refused documents that a swap goes on with [default: 10, or 1%].",
        ),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", "--readers", min=1, max=32, help="Readers side by side.")] = 3,
    max_rate: Annotated[
        float | None,
        typer.Option(
            min=0.1, metavar="N", show_default=False, help="At most so many documents a second, of all processes."
        ),
    ] = None,
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
    Build a new generation of each index, prove that it holds every document as its row is, and swap the alias.

    Reads are served by the old one until the swap; changes made meanwhile are in the new one. A reindex that was killed or
    interrupted is gone on with by --resume, or by the next reindex of the same definition.
    """
    if ctx.invoked_subcommand is not None:
        refuse_before_verb(ctx)
        return
    from idxctl.rebuild.aim import Allowed
    from idxctl.rebuild.steps import Options

    Allowed.of(max_failures)  # what cannot be meant is said before anything is begun
    if resume and (dry_run or if_changed):
        raise UsageError("--resume goes on with what was begun", hint="leave out --dry-run and --if-changed")
    options = Options(
        readers=workers, keep=keep, take_alias=take_alias, wait_for_copies=wait_for_copies, max_failures=max_failures,
        max_rate=max_rate, check=None if check is None else check.value, swap=not no_swap,
    )  # fmt: skip
    state = current().because(reason)
    chosen = state.chosen(index)
    pool, client = state.pool(), state.opensearch()
    results: list[Reindexed] = []
    asked = _Asked(options, output, if_changed=if_changed, force=force, yes=yes, dry_run=dry_run)
    try:
        with contextlib.closing(pool), contextlib.closing(client):
            (_resume_all if resume else _build_all)(pool, client, chosen, asked, results)
    finally:
        _data(results, output, several=len(chosen) > 1)
    failed = sum(one.failed for one in results if one.swapped)
    if failed:
        raise PartlyDone(f"{failed:,} documents were refused and are dead letters now", hint="idxctl dlq stats")


def _build_all(
    pool: Pool, client: Client, chosen: list[IndexSettings], asked: _Asked, results: list[Reindexed]
) -> None:
    """Plan all, then build one after the other."""
    from idxctl.postgres import migrate
    from idxctl.rebuild import process

    migrate.require(pool.mine())
    plans = [_plan(pool, client, one, asked) for one in chosen]
    _warn(plans, asked)
    for plan in plans:
        if asked.dry_run or (asked.if_changed and not plan.changed):
            results.append(_not_run(pool.mine(), plan, asked))
            continue
        render.say(f"{plan.index} → {plan.name}")
        live = f"; live generation {plan.live.number:06d} stays in service" if plan.live else ""
        render.say(f"{'plan':<10} about {plan.rows:,} rows{live}")
        with _shown(plan.index, results) as told:
            done = process.reindex(pool, client, current().settings, plan, asked.options, told)
        results.append(done)
        _answer(done, asked.output)


def _resume_all(
    pool: Pool, client: Client, chosen: list[IndexSettings], asked: _Asked, results: list[Reindexed]
) -> None:
    """Go on with each run that has not ended; of several indexes, those that have none are passed over."""
    from idxctl.postgres import migrate
    from idxctl.rebuild import process, runs

    conn = pool.mine()
    migrate.require(conn)
    waiting = [one for one in chosen if runs.open_run(conn, one.name) is not None]
    if not waiting:
        named = chosen[0].name if len(chosen) == 1 else "any index"
        raise UsageError(f"no reindex of {named} waits to be resumed", hint="idxctl reindex begins one")
    for one in waiting:
        render.say(f"{one.name}: gone on with")
        with _shown(one.name, results) as told:
            plan = partial(_plan, pool, client, one, asked)
            done = process.resume(pool, client, current().settings, one.name, asked.options, told, plan=plan)
        results.append(done)
        _answer(done, asked.output)


def _plan(pool: Pool, client: Client, index: IndexSettings, asked: _Asked) -> Plan:
    from idxctl.rebuild import preflight

    return preflight.plan(
        pool.mine(), client, index, take_alias=asked.options.take_alias, force=asked.force, if_changed=asked.if_changed
    )


@contextlib.contextmanager
def _shown(index: str, results: list[Reindexed]) -> Iterator[Steps]:
    """Show the steps of a run; what is known of one that fails is among the results."""
    from idxctl.rebuild.steps import Steps

    with steps() as shown:
        try:
            yield Steps(shown.begin, shown.move, shown.end, render.warn, results.append)
        except (KeyboardInterrupt, SystemExit):
            render.say(
                f"stopped; nothing was swapped. idxctl reindex --index {index} --resume goes on, idxctl reindex cancel "
                f"--index {index} removes what was built"
            )
            raise


def _data(results: list[Reindexed], output: Output, *, several: bool) -> None:
    """Write what became of each index that was begun: an object of the only one, a list where several were asked for."""
    if results and render.is_data(output):
        render.json(results if several else results[0])


def _warn(plans: list[Plan], asked: _Asked) -> None:
    """Say what has no way back, before anything is built."""
    for plan in plans:
        for warning in plan.warnings:
            render.warn(warning)
        if plan.replaces_index:
            render.warn(
                f"{plan.index} is a concrete index today; the swap deletes it and puts an alias in its place, and that one step has no rollback"
            )
            if not asked.dry_run:
                current().confirm(f"Replace the index {plan.index} once the new one is verified?", yes=asked.yes)


def _not_run(conn: Connection, plan: Plan, asked: _Asked) -> Reindexed:
    """Say what would be done, or that nothing is to be."""
    from idxctl.core.durations import format_duration
    from idxctl.rebuild.overview import expected_seconds
    from idxctl.rebuild.steps import Reindexed

    expected = expected_seconds(conn, plan.index, plan.rows)
    live = f"live generation {plan.live.name}" if plan.live else "no live generation"
    if not asked.dry_run:
        if not render.is_data(asked.output):
            render.headline("ok", f"{plan.index}: {live} is up to date", asked.output)
    elif not render.is_data(asked.output):
        differs = "the definition differs from it" if plan.changed else "the definition is the same"
        changed = differs if plan.live else "a first one"
        time = "" if expected is None else f", about {format_duration(expected)} at the last one's speed"
        render.headline(
            None, f"{plan.index} → {plan.name}: about {plan.rows:,} rows{time}; {live}, {changed}", asked.output
        )
    name = plan.name if asked.dry_run else plan.live.name if plan.live else None
    return Reindexed(
        plan.index, name, 0, 0, 0.0, swapped=False, dry_run=asked.dry_run,
        rows=plan.rows if asked.dry_run else None, expected_seconds=expected if asked.dry_run else None,
    )  # fmt: skip


def _answer(done: Reindexed, output: Output) -> None:
    from idxctl.core.durations import format_duration

    if render.is_data(output):
        return
    refused = f"{done.failed:,} refused" if done.failed else "none failed"
    rate = f", {done.documents / done.seconds:,.0f}/s" if done.seconds > 1 else ""
    ready = "" if done.swapped else f", and {done.generation} is ready"
    render.headline(
        "warn" if done.failed or not done.swapped else "ok",
        f"{done.index}: {done.documents:,} documents in {format_duration(done.seconds)}{rate}, {refused}{ready}",
        output,
    )
    if not done.swapped:
        render.next_step(f"idxctl reindex --index {done.index} --resume swaps it.", output)
