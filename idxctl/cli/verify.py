"""``idxctl verify``: prove that index and database agree, and repair what does not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from idxctl.cli import render
from idxctl.cli.app import exits, plain_app
from idxctl.cli.state import IndexOption, Output, OutputOption, ReasonOption, current, duration
from idxctl.cli.steps import steps
from idxctl.core.errors import CheckFailed, PartlyDone, UsageError, WaitTimeout

if TYPE_CHECKING:
    from idxctl.verify.run import Sample, Verified

app = plain_app(help="Compare every document with its row, and repair what differs.", no_args_is_help=False)

_VALUE = 60  # characters of a value that are shown


@app.callback(invoke_without_command=True, epilog=exits(3, 6, 7, 8))
def verify(
    *,
    output: OutputOption,
    index: IndexOption = None,
    generation: Annotated[
        str | None,
        typer.Option(metavar="G", show_default=False, help="A generation by number or name [default: the live one]."),
    ] = None,
    sample: Annotated[
        str | None, typer.Option(metavar="N|N%", show_default=False, help="Compare about so many, or such a share.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL", show_default=False, help="Only rows for which this holds; orphans are not looked for."
        ),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Enqueue what differs, to be written again.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="With --repair: wait until it is written, and look again.")
    ] = False,
    timeout: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            show_default=False,
            help="How long what is queued is waited for [default: 1m].",
        ),
    ] = None,
    show: Annotated[
        int, typer.Option(min=0, max=1000, metavar="N", help="Show so many of what differs, with their values.")
    ] = 0,
    max_rate: Annotated[
        float | None, typer.Option(min=0.1, metavar="N", show_default=False, help="At most so many documents a second.")
    ] = None,
    readers: Annotated[int, typer.Option(min=1, max=32, help="Readers side by side.")] = 3,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a comparison that was stopped, or take part in one that runs.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Repair even where more than half differs, or others wrote it.")
    ] = False,
    reason: ReasonOption = None,
) -> None:
    """
    Compare every document with its row, both ways: missing, stale, orphan.

    What is still queued is lagging, not drift: it is looked at again once the queue has passed it. Reads alone, unless
    --repair is given.
    """
    from idxctl.postgres import migrate
    from idxctl.verify import run

    if wait and not repair:
        raise UsageError("--wait waits for a repair", hint="add --repair, or leave it out")
    if generation is not None and index is None and len(current().indexes()) > 1:
        raise UsageError("--generation is of one index", hint="add --index INDEX")
    options = run.Options(
        generation=generation, sample=_sample(sample), where=where, repair=repair, wait=wait,
        timeout=timeout or timedelta(minutes=1), show=show, max_rate=max_rate, readers=readers, force=force, resume=resume,
    )  # fmt: skip
    state = current().because(reason)
    pool, client = state.pool(), state.opensearch()
    found: list[Verified] = []
    with contextlib.closing(pool), contextlib.closing(client):
        migrate.require(pool.mine())
        names = [one.name for one in state.chosen(index)]
        try:
            for name in names:
                if len(names) > 1:
                    render.say(name)
                with steps() as shown:
                    told = run.Steps(shown.begin, shown.move, shown.end)
                    found.append(run.verify(pool, client, name, options, told))
        except (KeyboardInterrupt, SystemExit):
            render.say("stopped; idxctl verify --resume goes on")
            raise
        finally:
            _tell(found, output)
    _judge(found, repaired=repair)


def _sample(text: str | None) -> Sample | None:
    from idxctl.verify.run import Sample

    if text is None:
        return None
    number = text.strip().removesuffix("%")
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    share = text.strip().endswith("%")
    if not 0 < value < float("inf") or (share and value > 100) or (not share and value != int(value)):
        raise UsageError(
            f"--sample {text} is neither a number of documents nor a share", hint="--sample 1000, or --sample 5%"
        )
    return Sample(share=value / 100) if share else Sample(count=int(value))


def _tell(found: list[Verified], output: Output) -> None:
    if output is Output.JSON:
        render.json(found)
        return
    if render.is_data(output):
        columns = [
            "index", "generation", "checked", "missing", "stale", "orphan", "lagging", "unreadable", "dead", "repaired", "seconds",
        ]  # fmt: skip
        render.table(
            [dict(render.plain_value(one)) for one in found], [render.Column(name) for name in columns], output
        )
        return
    for one in found:
        _answer(one, output)


def _answer(one: Verified, output: Output) -> None:
    from idxctl.core.durations import format_duration

    rate = f", {one.checked / one.seconds:,.0f}/s" if one.seconds > 1 else ""
    looked = f"{one.checked:,} {'of a sample ' if one.sampled else ''}compared in {format_duration(one.seconds)}{rate}"
    words = [
        f"{count:,} {name}"
        for count, name in (
            (one.missing, "missing"),
            (one.stale, "stale"),
            (one.orphan, "orphan" if one.orphan == 1 else "orphans"),
        )
        if count
    ]
    if one.drift:
        render.headline("bad", f"{one.generation}: {', '.join(words)}; {looked}", output)
    elif one.lagging or one.unreadable:
        render.headline("warn", f"{one.generation}: no drift; {looked}", output)
    else:
        render.headline("ok", f"{one.generation}: equal; {looked}", output)
    for line in _further(one):
        render.out(f"  {line}")
    for example in one.examples:
        fields = f": {', '.join(example.fields)}" if example.fields and not example.differences else ""
        render.out(f"  {example.kind:<10} {example.document_id}{fields}{_elsewhere(example.routing)}")
        for difference in example.differences:
            render.out(
                f"    {difference.field}: {_cut(difference.row)} in the row, {_cut(difference.index)} in the index"
            )
    if one.drift and not one.repaired:
        render.next_step(f"idxctl verify --index {one.index} --repair --wait writes them again.", output)
    elif one.dead:
        render.next_step("idxctl dlq stats says more of the dead letters.", output)


def _further(one: Verified) -> Iterator[str]:
    """Yield what is to be said beside the answer."""
    if one.lagging:
        yield f"{one.lagging:,} lagging{f': {one.waiting}' if one.waiting else ', still queued'}"
    if one.unreadable:
        yield f"{one.unreadable:,} unreadable: their rows, or their documents, cannot be read"
    if one.dead:
        yield f"{one.dead:,} of them {'is a dead letter' if one.dead == 1 else 'are dead letters'}"
    if one.repaired:
        yield f"{one.repaired:,} enqueued to be written again"


def _elsewhere(routing: str | None) -> str:
    """Say where a copy stands that has no row there."""
    if routing is None:
        return ""
    return f" (a copy under routing {routing!r})" if routing else " (a copy without its routing)"


def _cut(value: object) -> str:
    import json

    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _VALUE else f"{text[:_VALUE]}… ({len(text):,} characters)"


def _judge(found: list[Verified], *, repaired: bool) -> None:
    """End with what the worst of them says."""
    drift, lagging, unreadable = (
        sum(count) for count in zip(*((one.drift, one.lagging, one.unreadable) for one in found), strict=True)
    )
    if drift:
        raise CheckFailed(
            f"{drift:,} {'document differs from its row' if drift == 1 else 'documents differ from their rows'}",
            hint=None if repaired else "idxctl verify --repair --wait",
        )
    if lagging:
        raise WaitTimeout(
            f"{lagging:,} {'document was' if lagging == 1 else 'documents were'} not settled in time",
            hint="is a worker running, and the index not paused? idxctl queue stats; --timeout gives them longer",
        )
    if unreadable:
        raise PartlyDone(
            f"of {unreadable:,} documents nobody can tell", hint="idxctl dlq stats says why they cannot be read"
        )
