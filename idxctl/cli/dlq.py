"""``idxctl dlq``: documents that could not be indexed."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from idxctl.cli import render
from idxctl.cli.app import exits, plain_app
from idxctl.cli.render import Column
from idxctl.cli.state import (
    DocumentOption,
    DryRunOption,
    ErrorOption,
    IndexOption,
    OlderOption,
    Output,
    OutputOption,
    ReasonOption,
    YesOption,
    current,
    duration,
)
from idxctl.core.durations import format_counted
from idxctl.core.errors import IdxctlError, PartlyDone

if TYPE_CHECKING:
    from idxctl.dlq import Group, Letter, Purged, Retried, Selection, Stats

app = plain_app(help="See, keep, retry and purge dead letters: documents that could not be indexed.")

_Of = TypeVar("_Of")
_LISTED = 20  # letters of a table, where nobody says how many
_COMMON = {"index", "action", "fingerprint"}


@app.command(epilog=exits())
def stats(output: OutputOption, index: IndexOption = None) -> None:
    """Say how many letters there are, in groups that failed alike."""
    from idxctl import dlq
    from idxctl.indexes import names
    from idxctl.postgres import migrate

    with current().connect() as conn:
        migrate.require(conn)
        names.check_known(conn, current().settings, index)
        found = dlq.stats(conn, index=index)
    if output is Output.CSV:  # rows are what it is for
        render.table(found.by_error, _columns(dlq.Group), output)
        return
    if render.is_data(output):
        render.record(found, ["total", "oldest_task"], output)
        return
    _say_stats(found, output)


def _say_stats(found: Stats, output: Output) -> None:
    if not found.total:
        render.headline("ok", "No dead letters.", output)
        return
    letters, groups = format_counted(found.total, "dead letter"), format_counted(len(found.by_error), "group")
    names = sorted({name for one in found.by_error for name in one.indexes})
    alone = f" of {names[0]}" if output is Output.TABLE and len(names) == 1 else ""  # room for the causes
    render.headline("warn", f"{letters}{alone} in {groups}, oldest {render.shown(found.oldest_task, 'since')}", output)
    render.blank(output)
    columns = [
        Column("fingerprint", "error", "name"), Column("count", kind="count"), *([] if alone else [Column("index", kind="name")]),
        Column("what"), Column("first_seen", "first", "since"), Column("last_seen", "last", "since"), Column("do", kind="name"),
    ]  # fmt: skip
    render.table([_group(one, cut=output is Output.TABLE) for one in found.by_error], columns, output)
    first = found.by_error[0].fingerprint
    render.next_step(f"idxctl dlq show {first} · idxctl dlq retry --error {first} --limit 5", output)


def _tuple(given: list[_Of] | None) -> tuple[_Of, ...] | None:
    return tuple(given) if given else None


def _columns(of: type[Group | Letter]) -> list[Column]:
    """Return a column for each field, named as in JSON."""
    return [Column(name) for name in of.__dataclass_fields__]


def _group(one: Group, *, cut: bool) -> dict[str, object]:
    what = f"{summary(one.error_type, one.example) if cut else one.example or one.error_type} ({one.document_id})"
    advice = "retry" if one.retryable else "fix"
    return {**render.plain_value(one), "index": ", ".join(one.indexes), "what": what, "do": advice,
            "first_seen": one.first_seen, "last_seen": one.last_seen}  # fmt: skip


def summary(error_type: str, example: str | None) -> str:
    """Return an error in one line: OpenSearch's sentence is long, its innermost cause says most."""
    text = " ".join((example or error_type).split())
    return text if len(text) <= 120 else text[:119] + "…"


@app.command("list", epilog=exits())
def list_(
    output: OutputOption,
    index: IndexOption = None,
    error: ErrorOption = None,
    document: DocumentOption = None,
    older_than: OlderOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, show_default=False, help="Most letters to show [default: 20; all in json, ndjson and csv]."
        ),
    ] = None,
) -> None:
    """Show letters, the newest failure first."""
    from idxctl import dlq
    from idxctl.indexes import names
    from idxctl.postgres import migrate

    with current().connect() as conn:
        migrate.require(conn)
        names.check_known(conn, current().settings, index)
        chosen = dlq.Selection(index, error, None, older_than, _tuple(document))
        if render.is_data(output):  # read while it is written: there may be hundreds of thousands
            render.table(dlq.every_letter(conn, chosen, limit=limit), _columns(dlq.Letter), output)
            return
        found = list(dlq.every_letter(conn, chosen, limit=limit or _LISTED))
        total = dlq.count(conn, chosen)
    columns = [
        Column("id", kind="name"), Column("index", kind="name"), Column("document_id", "document"), Column("action", kind="name"),
        Column("attempts", kind="count"), Column("what", "why"), Column("fingerprint", "error", "name"),
        Column("created_at", "age", "since"), Column("last_attempt_at", "tried", "since"),
    ]  # fmt: skip
    if output is Output.TABLE and len(found) > 1:  # what every letter has in common leaves its room to the causes
        common = [one for one in columns if one.key in _COMMON and len({getattr(row, one.key) for row in found}) == 1]
        columns = [one for one in columns if one not in common]
        if common:
            render.out(
                "each: "
                + " · ".join(f"{one.heading} {render.shown(getattr(found[0], one.key), one.kind)}" for one in common)
            )
            render.blank()
    rows = [_letter(one, cut=output is Output.TABLE) for one in found]
    narrowed = index or error or document or older_than is not None
    render.table(rows, columns, output, empty="No such dead letters." if narrowed else "No dead letters.")
    render.cut(len(found), total, "letters")


def _letter(one: Letter, *, cut: bool) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(one, name) for name in one.__dataclass_fields__}
    return {**row, "what": summary(one.error_type, one.last_error) if cut else one.last_error or one.error_type}


@app.command(epilog=exits())
def show(
    letter: Annotated[str, typer.Argument(metavar="ID", help="The letter's number, or a group's name for its newest.")],
    output: OutputOption,
) -> None:
    """Show one letter with its past: every failed attempt, and every worker that was lost with the document in hand."""
    from idxctl import dlq
    from idxctl.postgres import migrate

    with current().connect() as conn:
        migrate.require(conn)
        found = dlq.show(conn, letter)
    if found is None:
        raise IdxctlError(
            f"there is no dead letter {letter}", hint="idxctl dlq list; one that was indexed since is gone"
        )
    fields = [
        Column("id", "letter"), Column("index"), Column("document_id", "document"), Column("action"),
        Column("error_type", "error"), Column("fingerprint"), Column("last_error", "why"), Column("attempts", kind="count"),
        Column("retries", "retried", "count"), Column("created_at", "since", "time"), Column("last_attempt_at", "last attempt", "time"),
        Column("not_before", "bulk retry from", "time"), Column("origin"), Column("token"),
    ]  # fmt: skip
    render.record(found, fields, output)
    if not render.is_data(output) and len(found.history) > 1:
        render.blank(output)
        columns = [
            Column("at", kind="time"), Column("error_type", "error"), Column("attempts", kind="count"), Column("origin"),
            Column("reason", "why"),
        ]  # fmt: skip
        render.table([_entry(one) for one in found.history], columns, output)
    render.next_step(f"idxctl dlq retry {found.id}", output)


def _entry(entry: dict[str, object]) -> dict[str, object]:
    at = entry.get("at")
    return {**entry, "at": datetime.fromisoformat(at) if isinstance(at, str) else None}


@app.command(epilog=exits())
def export(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="[FILE]", help="A new file, readable by its owner alone; - is stdout.", show_default=False
        ),
    ] = Path("-"),
    index: IndexOption = None,
    error: ErrorOption = None,
    document: DocumentOption = None,
    older_than: OlderOption = None,
    letter: Annotated[
        list[int] | None,
        typer.Option("--id", metavar="ID", help="Only this letter; may be repeated.", show_default=False),
    ] = None,
) -> None:
    """
    Write letters as lines of JSON, whole: what dlq show has of each, with its history and data.

    The file is there once all of them are on the disk, and not before. Nothing is deleted: that is dlq purge --export FILE.
    """
    from idxctl import dlq
    from idxctl.indexes import names
    from idxctl.postgres import migrate

    chosen = dlq.Selection(index, error, _tuple(letter), older_than, _tuple(document))
    with current().connect() as conn:
        migrate.require(conn)
        names.check_known(conn, current().settings, index)
        if str(file) == "-":
            render.lines(dlq.lines(conn, chosen))
            return
        dlq.refuse_existing(file)
        with render.progress("export", dlq.count(conn, chosen)) as bar:
            done = dlq.export(conn, chosen, file, told=bar.update)
    render.say(f"{format_counted(len(done.ids), 'dead letter')} written to {file}")


@app.command(epilog=exits(3, 8))
def retry(
    *,
    letters: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="Letters by number.", show_default=False)
    ] = None,
    output: OutputOption,
    index: IndexOption = None,
    error: ErrorOption = None,
    document: DocumentOption = None,
    older_than: OlderOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Most letters to retry.")] = 100,
    wait: Annotated[
        bool, typer.Option("--wait", help="With workers running: wait, and report what became of them.")
    ] = False,
    timeout: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="DURATION", show_default=False, help="How long to wait [default: 5m]."),
    ] = None,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """
    Put letters back into the queue, the least recently attempted first.

    Where no worker runs, their documents are indexed here and now.
    """
    from idxctl import dlq
    from idxctl.indexes import names
    from idxctl.postgres import migrate

    state = current().because(reason)
    chosen = dlq.Selection(index, error, _tuple(letters), older_than, _tuple(document))
    pool = state.pool()
    try:
        migrate.require(pool.mine())
        names.check_known(pool.mine(), state.settings, index)
        if dry_run:
            done = dlq.plan_retry(pool.mine(), chosen, limit=limit)
        else:
            with render.progress("retry") as bar:
                done = dlq.retry(
                    pool,
                    state.opensearch,
                    state.settings,
                    chosen,
                    limit=limit,
                    wait=wait,
                    timeout=timeout or timedelta(minutes=5),
                    told=lambda settled, total: bar.update(settled, total=total),
                )
    except dlq.NotSettled as late:
        _tell_retried(late.done, chosen, output)
        raise
    finally:
        pool.close()
    _tell_retried(done, chosen, output)
    if done.failed:
        raise PartlyDone(
            f"{done.failed:,} of {done.retried:,} letters failed again", hint="idxctl dlq stats names the causes"
        )


def _tell_retried(done: Retried, chosen: Selection, output: Output) -> None:
    if chosen.ids and done.retried < len(chosen.ids):
        missing = len(chosen.ids) - done.retried
        render.warn(
            f"{missing} of the numbers named {'is' if missing == 1 else 'are'} no dead letter that can be retried now"
        )
    for name, count in done.without_index.items():
        render.warn(
            f"{count:,} letters of {name} stay: it has no generation to index into; idxctl reindex --index {name}"
        )
    for name, why in done.paused.items():
        render.warn(f"{name} is paused ({why}): its letters wait in the queue until idxctl resume --index {name}")
    if render.is_data(output):
        render.json(done)
    else:
        render.headline(None, _retried(done), output)
        if done.left and not done.dry_run:
            render.headline(None, f"{done.left:,} left. idxctl dlq stats", output)


def _retried(done: Retried) -> str:
    if done.dry_run:
        return f"{done.retried:,} would be retried, {done.left:,} left"
    if not done.retried:
        return (
            "Nothing to retry: no dead letters."
            if not done.left
            else f"Nothing to retry now; {done.left:,} letters wait or were not chosen."
        )
    if done.succeeded is None:
        return f"{done.retried:,} retried: back in the queue, {done.workers} worker{'' if done.workers == 1 else 's'} will index them"
    again = ", ".join(done.failed_groups)
    return (
        f"{done.retried:,} retried: {done.succeeded:,} indexed, {done.failed:,} failed again"
        + (f" ({again})" if again else "")
        + (f", {done.waiting:,} still queued" if done.waiting else "")
    )


@app.command(epilog=exits())
def purge(
    *,
    letters: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="Letters by number.", show_default=False)
    ] = None,
    output: OutputOption,
    index: IndexOption = None,
    error: ErrorOption = None,
    document: DocumentOption = None,
    older_than: OlderOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All of them; needs --yes where nobody can be asked.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Write them to FILE, a new one, as dlq export does, before any is deleted.",
        ),
    ] = None,
    yes: YesOption = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Delete letters for good. Asks on a terminal; a script that names which letters goes on, and the audit keeps the count."""
    from idxctl import dlq
    from idxctl.indexes import names
    from idxctl.postgres import migrate

    state = current().because(reason)
    chosen = dlq.Selection(index, error, _tuple(letters), older_than, _tuple(document))
    with state.connect() as conn:
        migrate.require(conn)
        names.check_known(conn, state.settings, index)
        done = dlq.plan_purge(conn, chosen, everything=everything)
        if export is not None:
            dlq.refuse_existing(export)
        if done.purged and not dry_run:
            question = (
                f"Delete {done.purged:,} dead letters for good, the newest {render.shown(done.newest, 'since')} old?"
            )
            state.confirm(question, yes=yes, unattended=not chosen.empty)
        if not dry_run:
            with render.progress("export", done.purged, quiet=export is None) as bar:
                done = dlq.purge(conn, chosen, everything=everything, planned=done, file=export, told=bar.update)
    _tell_purged(done, output)


def _tell_purged(done: Purged, output: Output) -> None:
    if done.stayed:
        render.warn(
            f"{done.stayed:,} more in {done.file} stay: they were retried, failed again or were indexed meanwhile"
        )
    if render.is_data(output):
        render.json(done)
    else:
        render.headline(None, _purged(done), output)


def _purged(done: Purged) -> str:
    if not done.purged:
        return "Nothing to purge."
    count = format_counted(done.purged, "dead letter")
    if done.dry_run:
        return f"{count} would be purged, the oldest {render.shown(done.oldest, 'since')} old"
    return f"{count} purged" + (f"; {done.file} holds them" if done.file else "")
