"""``idxctl queue``: what waits, and what is under way."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from idxctl.cli import render
from idxctl.cli.app import exits, plain_app
from idxctl.cli.render import Column, Mark
from idxctl.cli.state import (
    DocumentOption,
    DryRunOption,
    IndexOption,
    Output,
    OutputOption,
    ReasonOption,
    YesOption,
    current,
    duration,
)
from idxctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idxctl.queue.stats import IndexStats, OtherNames
    from idxctl.status.overview import Overview
    from idxctl.status.proofs import Proof, Proofs
    from idxctl.worker.registry import WorkerRow

_MARKS: dict[str, Mark] = {"ok": "ok", "look": "warn", "act": "bad"}
_SAID = 10  # conditions beside the worst
_LISTED = 20  # tasks of a table, where nobody says how many

app = plain_app(help="See, add and cancel the tasks that wait.")


@app.command(epilog=exits())
def stats(output: OutputOption, index: IndexOption = None) -> None:
    """Say what waits, for how long, and why if it does not move; and whatever else is wrong with an index."""
    from idxctl.indexes import names
    from idxctl.postgres import migrate, own_lock
    from idxctl.status import views
    from idxctl.status.overview import Looks, overview

    state = current()
    with state.connect() as conn:
        with own_lock.not_waited_for(conn, "queue stats"):
            migrate.require(conn)
            names.check_known(conn, state.settings, index)
        seen = overview(conn, state.settings, Looks(state.opensearch, keep=False), index=index)
    if output is Output.JSON:
        render.json(views.queue(seen.found, seen.workers, seen.conditions, seen.proved))
        return
    if render.is_data(output):  # a row an index: what a program that reads lines is after
        render.table([*views.queue_rows(seen.found, seen.workers, seen.proved)], views.QUEUE_COLUMNS, output)
        return
    _show_stats(seen, output)


def _show_stats(seen: Overview, output: Output) -> None:
    found, workers = seen.found, seen.workers
    render.headline(*_answer(seen), output)
    if found.by_index:
        render.blank(output)
        columns = [
            Column("index"), Column("queued", kind="count"), Column("in_flight", "in flight", "count"),
            Column("oldest_age_seconds", "oldest", "age"), Column("dead", kind="count"), Column("state"),
            *([Column("compared", "proved equal")] if seen.proved.last else []),
        ]  # fmt: skip
        render.table([_row(one, workers, seen.proved) for one in found.by_index], columns, output)
    if found.other:
        render.out(_others(found.other))
    others = seen.conditions[1:]
    if others:
        render.blank(output)
        for one in others[:_SAID]:
            render.headline(_MARKS[one.state.value], one.reason, output)
        if len(others) > _SAID:
            render.out(f"{len(others) - _SAID:,} more conditions: idxctl queue stats -o json")
    fix = seen.conditions[0].fix if seen.conditions else ""
    if fix:
        render.next_step(fix, output)
    elif found.dead:
        render.next_step("idxctl dlq stats says more of the dead letters.", output)


def _answer(seen: Overview) -> tuple[Mark, str]:
    """Return the line that answers: does it flow, and if not, or if something else is wrong, what is."""
    from idxctl.core.durations import format_age

    found, workers = seen.found, seen.workers
    count = f"{found.queued:,} task{'' if found.queued == 1 else 's'} waiting"
    if found.in_flight:
        count += f", {found.in_flight:,} in flight"
    oldest = f", oldest {format_age(found.oldest_age_seconds)}" if found.oldest_age_seconds is not None else ""
    if seen.conditions:
        worst = seen.conditions[0]
        return _MARKS[worst.state.value], f"{count}{oldest}: {worst.reason}"
    if not workers:
        return "ok", f"{count}{oldest}; no worker is running"
    rate = sum(float(one.counters.get("per_second") or 0) for one in workers)
    out = f", {rate:,.0f}/s out" if rate else ""
    return "ok", f"{count}{oldest}; {len(workers)} worker{'' if len(workers) == 1 else 's'}{out}"


def _row(one: IndexStats, workers: Sequence[WorkerRow], proved: Proofs) -> dict[str, object]:
    from idxctl.status import views

    last = proved.last.get(one.index)
    compared = "" if last is None else _compared(last)
    return {**render.plain_value(one), "state": views.state(one, workers), "compared": compared}


def _compared(last: Proof) -> str:
    """Say as of when an index is proved equal, and what that comparison left."""
    from idxctl.core.durations import format_age

    left = [
        f"{count:,} {word}" for count, word in ((last.differing, "differ"), (last.unsettled, "not settled")) if count
    ]
    return f"{format_age(last.seconds)} ago" + (f", but {', '.join(left)}" if left else "")


def _others(other: OtherNames) -> str:
    """Return the line on names that are no index, and who they are as far as that is a line."""
    more = ", …" if other.names > len(other.examples) else ""
    return (
        f"{other.names:,} other name{'' if other.names == 1 else 's'} ({', '.join(other.examples)}{more}), neither configured "
        f"nor built: {other.queued:,} queued, {other.dead:,} dead; idxctl watch remove --index NAME purges tasks"
    )


@app.command("list", epilog=exits())
def list_(
    output: OutputOption,
    index: IndexOption = None,
    document: DocumentOption = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, show_default=False, help="Most tasks to show [default: 20; all in json, ndjson and csv]."),
    ] = None,
) -> None:
    """Show waiting tasks in the order they are claimed."""
    from idxctl.indexes import names
    from idxctl.postgres import migrate
    from idxctl.queue import stats as engine

    with current().connect() as conn:
        migrate.require(conn)
        names.check_known(conn, current().settings, index)
        if render.is_data(output):  # read while it is written: there may be hundreds of thousands
            render.table(
                engine.every_task(conn, index=index, documents=document, limit=limit),
                [*engine.QueuedTask.__dataclass_fields__],
                output,
            )
            return
        rows = list(engine.every_task(conn, index=index, documents=document, limit=limit or _LISTED))
        total = engine.count(conn, index=index, ids=None, documents=document)
    columns = [
        Column("id"), Column("index"), Column("document_id", "document"), Column("kind"), Column("action"),
        Column("attempts", kind="count"), Column("enqueued_at", "age", "since"), Column("origin"), Column("last_error", "last error"),
    ]  # fmt: skip
    render.table(
        rows, columns, output, empty="No such tasks are waiting." if index or document else "No tasks are waiting."
    )
    render.cut(len(rows), total, "tasks")


@app.command(epilog=exits())
def add(
    *,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Documents by id.", show_default=False)
    ] = None,
    output: OutputOption,
    index: IndexOption = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where", metavar="SQL", help="Every document whose key columns match, such as 'document_id > 1000'."
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Every row, and every document that the index holds: after a restore of the database."
        ),
    ] = False,
    priority: Annotated[str, typer.Option(help="high, normal or low.")] = "normal",
    timeout: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            show_default=False,
            help="How long --where and --all may look for documents [default: 5m].",
        ),
    ] = None,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """
    Enqueue documents by hand: by id, all that a condition over the document query's columns finds, or really all.

    A database restored from a backup has lost changes that the index has seen. Their documents equal their rows again after
    --all, or a reindex; --where finds rows only, and so no document whose row is gone. It is one condition, run READ ONLY.
    """
    from idxctl.indexes import names
    from idxctl.postgres import migrate
    from idxctl.queue.add import TIME_LIMIT, add_documents

    if [bool(ids), where is not None, everything].count(True) != 1:
        raise UsageError(
            "which documents? give ids, --where with a condition, or --all",
            hint="idxctl queue add 12345 --index marketplace_listings",
        )
    state = current().because(reason)
    with state.connect() as conn:
        migrate.require(conn)
        name = names.the_index(conn, state.settings, index)
        count = add_documents(
            conn, state.settings, name, ids=ids, where=where, priority=priority, dry_run=dry_run,
            time_limit=timeout or TIME_LIMIT,
        )  # fmt: skip
    if render.is_data(output):
        render.json({"index": name, "enqueued": count, "dry_run": dry_run})
        return
    render.headline(
        None, f"{count:,} task{'' if count == 1 else 's'} {'would be ' if dry_run else ''}enqueued for {name}", output
    )


@app.command(epilog=exits())
def cancel(
    *,
    output: OutputOption,
    task: Annotated[
        list[int] | None, typer.Option("--task", metavar="ID", help="A task by its number; may be repeated.")
    ] = None,
    document: Annotated[
        list[str] | None, typer.Option("--document", metavar="ID", help="Tasks of a document; may be repeated.")
    ] = None,
    index: IndexOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every task that waits.")] = False,
    yes: YesOption = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Take tasks out of the queue. Their changes are then not indexed until something else touches the documents."""
    from idxctl.indexes import names
    from idxctl.postgres import migrate
    from idxctl.queue import stats as engine

    if not (task or document or index or everything):
        raise UsageError("which tasks? give --task, --document, --index or --all", hint="idxctl queue list shows them")
    state = current().because(reason)
    with state.connect() as conn:
        migrate.require(conn)
        names.check_known(conn, state.settings, index)
        count = engine.count(conn, index=index, ids=task, documents=document)
        if count and not dry_run:
            state.confirm(f"Cancel {count:,} tasks? Their documents stay as they are in the index.", yes=yes)
            count = engine.cancel(conn, index=index, ids=task, documents=document)
    _tell_cancelled(count, output, dry_run=dry_run)


def _tell_cancelled(count: int, output: Output, *, dry_run: bool) -> None:
    if render.is_data(output):
        render.json({"cancelled": count, "dry_run": dry_run})
        return
    render.headline(
        None, f"{count:,} task{'' if count == 1 else 's'} {'would be ' if dry_run else ''}cancelled", output
    )
