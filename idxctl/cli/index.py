"""``idxctl index``: the configuration beside the live generation, and what can be put in place."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from idxctl.cli import render
from idxctl.cli.app import exits, plain_app
from idxctl.cli.render import Column
from idxctl.cli.state import DryRunOption, IndexOption, Output, OutputOption, ReasonOption, YesOption, current
from idxctl.core.errors import CheckFailed, PartlyDone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idxctl.indexes.differences import Difference
    from idxctl.rebuild.in_place import Applied, Plan, Planned

app = plain_app(help="Compare configuration and live index; change in place what can be.")

_SHOWN = 60  # characters of a value in a table


@app.command(epilog=exits(7))
def plan(output: OutputOption, index: IndexOption = None) -> None:
    """
    Show what differs between configuration and live generation, field by field.

    Each difference can be put in place, or needs a reindex, or would be lost by one. Ends with 7 where they differ.
    """
    plans = _plans(index)
    _show_plans([one.planned for one in plans], output)
    differing = [one.planned.index for one in plans if one.planned.changed]
    if differing:
        some = any(one.compared is not None and one.compared.in_place for one in plans)
        name = f" --index {differing[0]}" if len(differing) == 1 else ""
        raise CheckFailed(
            f"{', '.join(differing)}: the configuration is not what the live generation was made from",
            hint=f"idxctl index apply{name}" if some else f"idxctl reindex{name} --if-changed",
        )


@app.command(epilog=exits(3, 6))
def apply(
    output: OutputOption,
    index: IndexOption = None,
    yes: YesOption = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """
    Put new fields and dynamic settings into the live index, and record them as its generation's own.

    Documents that are there have a new field once they are written again. What needs a reindex is left, with status 3.
    """
    from idxctl.indexes.differences import How
    from idxctl.rebuild import in_place as engine

    state = current().because(reason)
    plans = _plans(index)
    waiting = [one for one in plans if one.compared is not None and one.compared.in_place]
    if waiting and not dry_run and not yes:
        for one in waiting:
            for difference in one.planned.differences:
                if difference.how is How.IN_PLACE:
                    render.say(f"{one.planned.generation}: {_words(difference)}")
        state.confirm("Put these in place?", yes=yes)
    with state.connect() as conn, contextlib.closing(state.opensearch()) as client:
        done = [engine.apply(conn, client, one, dry_run=dry_run) for one in plans]
    _show_applied(done, output)
    left = [one for one in done if one.left]
    if left:
        named = f" --index {left[0].index}" if len(left) == 1 else ""
        count = sum(len(one.left) for one in left)
        raise PartlyDone(
            f"{count:,} difference{'s' if count > 1 else ''} need{'' if count > 1 else 's'} a reindex",
            hint=f"idxctl index plan{named}, then idxctl reindex{named}",
        )


def _plans(index: str | None) -> list[Plan]:
    """Compare each index that is meant."""
    from idxctl.postgres import migrate
    from idxctl.rebuild import in_place

    state = current()
    chosen = state.chosen(index)
    with state.connect() as conn, contextlib.closing(state.opensearch()) as client:
        migrate.require(conn)
        return [in_place.plan(conn, client, one) for one in chosen]


def _show_plans(plans: Sequence[Planned], output: Output) -> None:
    if output is Output.JSON:
        render.json(plans)
        return
    if output in {Output.NDJSON, Output.CSV}:
        rows = [{"index": one.index, "generation": one.generation, **render.plain_value(each)}
                for one in plans for each in one.differences]  # fmt: skip
        render.table(rows, ["index", "generation", "part", "name", "before", "now", "how", "note"], output)
        return
    for one in plans:
        live = f"live generation {one.generation}" if one.generation else "no live generation"
        if not one.changed:
            render.headline("ok", f"{one.index}: {live} is as configured", output)
        else:
            render.headline("warn", f"{one.index}: {live} is not as configured", output)
        if one.differences:
            render.blank(output)
            columns = [Column("what"), Column("before"), Column("now"), Column("how", kind="name"), Column("note")]
            render.table([_row(each) for each in one.differences], columns, output)


def _row(one: Difference) -> dict[str, str]:
    how = {"in_place": "in place", "rebuild": "needs a reindex", "lost": "lost by a reindex"}[one.how.value]
    if one.part == "document":  # a query is for its file
        return {"what": "document query", "before": "", "now": "changed", "how": how, "note": one.note}
    what = f"{one.part} {one.name}".strip()
    return {"what": what, "before": _value(one.before), "now": _value(one.now), "how": how, "note": one.note}


def _value(value: Any) -> str:
    from idxctl.core.to_json import as_json

    if value is None:
        return ""
    text = value if isinstance(value, str) else as_json(value).decode("utf-8", "replace").strip()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _words(one: Difference) -> str:
    row = _row(one)
    change = " → ".join(row[key] or "default" for key in ("before", "now") if row[key] or row["now"] or row["before"])
    return f"{row['what']}: {change}" if change else row["what"]


def _show_applied(done: Sequence[Applied], output: Output) -> None:
    if render.is_data(output):
        render.table(done, ["index", "generation", "applied", "left", "dry_run"], output)
        return
    for one in done:
        would = "would be put" if one.dry_run else "put"
        if not one.applied:
            rest = f"; {len(one.left):,} need a reindex" if one.left else ""
            render.headline("warn" if one.left else "ok", f"{one.index}: nothing to put in place{rest}", output)
            continue
        named = ", ".join(f"{each.part} {each.name}".strip() for each in one.applied)
        render.headline("ok", f"{one.generation}: {would} in place: {named}", output)
        if not one.dry_run and any(each.part == "mapping" and each.before is None for each in one.applied):
            render.say(
                f"documents that are there have it once they are written again: idxctl queue add --index {one.index} --all"
            )
