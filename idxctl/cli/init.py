"""``idxctl init``: from a table to the three files of an index, by its foreign keys."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idxctl.cli import render
from idxctl.cli.state import DryRunOption, Output, OutputOption, State, YesOption, current
from idxctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from idxctl.config.settings import Settings
    from idxctl.init.files import File, Servers
    from idxctl.init.plan import Choices, Plan
    from idxctl.init.shape import Part

_DEFAULT_FILE = "idxctl.toml"
_OWN_SCHEMA = "idxctl"  # in a configuration that is new


def init(
    *,
    output: OutputOption,
    table: Annotated[
        str | None, typer.Argument(metavar="TABLE", show_default=False, help="The table, as in SQL.")
    ] = None,
    table_option: Annotated[
        str | None, typer.Option("--table", metavar="TABLE", show_default=False, help="The same.")
    ] = None,
    index: Annotated[
        str | None,
        typer.Option("--index", metavar="NAME", show_default=False, help="The index [default: named like the table]."),
    ] = None,
    depth: Annotated[
        int, typer.Option(min=0, max=6, metavar="N", help="How many foreign keys away a table may be.")
    ] = 2,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="TABLE", show_default=False, help="Have this table in it; repeatable."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="TABLE", show_default=False, help="Leave this table out; repeatable."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Show columns whose names look private, such as email.")
    ] = False,
    sample: Annotated[
        int,
        typer.Option(min=0, max=1_000_000, metavar="N", help="Look at so many rows of each table; 0 looks at none."),
    ] = 1000,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """
    Propose an index for a table, and write its three files: query, mapping, and its part of idxctl.toml.

    What the table points at becomes objects, what belongs to it arrays, by the foreign keys. Nothing is overwritten: a
    second table is added to the same idxctl.toml. Reads the database's catalog and some rows, and changes nothing there.
    """
    from idxctl.init import files
    from idxctl.init.plan import Choices, plan

    named = [one for one in (table, table_option) if one is not None]
    if len(named) != 1:
        raise UsageError("which table?", hint="idxctl init TABLE")
    state = current()
    config = Path(state.config or os.environ.get("IDXCTL_CONFIG") or _DEFAULT_FILE)
    settings = _settings(state, config)
    choices = Choices(named[0], index, depth, tuple(with_ or ()), tuple(without or ()), private, sample=sample)
    with _connected(state, settings) as conn:
        made = plan(conn, choices)
        if state.interactive and not yes and not dry_run:
            made = _asked(made, choices, lambda wanted: plan(conn, wanted))
        _require_name(made.index)
        composed = files.compose(made, config, _servers(settings))
    if output is Output.JSON:
        render.json(_report(made, composed, dry_run=dry_run))
    else:
        _show(made, composed, dry_run=dry_run)
    if not dry_run:
        files.write(composed)
        _after(made, composed, output)


def _settings(state: State, config: Path) -> Settings:
    """Return the settings in force; a file that is named and not there yet is the one to be written."""
    from idxctl.config.load import load

    if config.exists():
        state.need_indexes = False
        return state.settings
    environ = {name: value for name, value in os.environ.items() if name != "IDXCTL_CONFIG"}
    return load(environ=environ, flags=state.flags, need_indexes=False)


def _connected(state: State, settings: Settings) -> Any:
    from idxctl.postgres.connect import connect

    return connect(settings.database, actor=state.actor)


def _require_name(index: str) -> None:
    from idxctl.config.indexes import index_name_problem

    if problem := index_name_problem(index):
        raise UsageError(f"{index!r} cannot be the name of an index: {problem}", hint="--index NAME")


def _servers(settings: Settings) -> Servers:
    from idxctl.init.files import Servers

    given = settings.sources.get("database.url")
    where = f"from {given}" if given else "from PGHOST, PGUSER, ... (libpq)"
    url = ", ".join(settings.opensearch.urls) if "opensearch.url" in settings.sources else None
    return Servers(settings.database.schema or _OWN_SCHEMA, where, url)


# --- questions ----------------------------------------------------------------------------------------------------------


def _asked(made: Plan, choices: Choices, again: Callable[[Choices], Plan]) -> Plan:
    """Ask what the schema does not tell: few questions, each with the answer that is mostly right."""
    before = choices
    if choices.index is None:
        choices = replace(choices, index=_ask("name of the index", made.index))
    if made.soft_deleted is not None:
        keep = _ask(f"leave out rows that are deleted by {made.soft_deleted}", "yes")
        choices = replace(choices, soft_delete=_is_yes(keep))
    hidden = [one.what for one in made.omitted if one.way == "--private"]
    if hidden and not choices.private:
        choices = replace(choices, private=_is_yes(_ask(f"show columns that look private: {'; '.join(hidden)}", "no")))
    left = [one for one in made.omitted if one.way.startswith("--with ")]
    for one in left[:3]:
        if _is_yes(_ask(f"have {one.what} in it ({one.why})", "no")):
            choices = replace(choices, with_=(*choices.with_, one.what))
    return made if choices == before else again(choices)


def _ask(question: str, default: str) -> str:
    from idxctl.core import legible

    sys.stderr.write(f"{legible.line(question)} [{default}] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        sys.stderr.write("\n")
    return answer.strip() or default


def _is_yes(answer: str) -> bool:
    return answer.lower() in {"y", "yes"}


# --- what is said -------------------------------------------------------------------------------------------------------


def _show(made: Plan, composed: tuple[File, ...], *, dry_run: bool) -> None:
    render.out(f"{made.table} → index {made.index}")
    for line in _lines(made.parts, 0):
        render.out(line)
    if made.omitted:
        render.heading("left out")
        for one in made.omitted:
            render.out(f"  {one.what}: {one.why}" + (f" ({one.way})" if one.way else ""))
    if made.slow:
        render.heading("looked for without an index: slow where the tables are large")
        for each in made.slow:
            render.out(f"  {each.statement};")
    if dry_run:
        for file in composed:
            render.heading(f"{file.path}" + (" (added at its end)" if file.appended else ""))
            render.script(file.text)


def _lines(part: Part, depth: int) -> list[str]:
    """Return the document as a tree: fields, and where they come from."""
    from idxctl.init.shape import How

    pad = "  " * (depth + 1)
    count = len(part.columns)
    columns = f"{count} column" + ("" if count == 1 else "s")
    if part.how is How.ROOT:
        lines = [f"{pad}{columns}"]
    else:
        brackets = "[]" if part.how is How.MANY else ""
        through = f" through {part.join.table.sql}" if part.join is not None else ""
        tree = ", and what stands above it" if part.tree is not None else ""
        lines = [f"{pad}{part.field}{brackets}: {columns} of {part.table.sql}{through}{tree}"]
    for one in part.parts:
        lines += _lines(one, depth if part.how is How.ROOT else depth + 1)
    return lines


def _after(made: Plan, composed: tuple[File, ...], output: Output) -> None:
    names = ", ".join(f"{one.path}" for one in composed)
    render.headline("ok", f"written: {names}", output)
    if made.statuses:
        render.say(
            f"not every row may be for everybody: {', '.join(made.statuses)}; {composed[0].path} has a filter at its end"
        )
    render.next_step(
        "Look at them, then: idxctl config validate && idxctl migrate up && idxctl watch install && idxctl reindex && idxctl worker start",
        output,
    )


def _report(made: Plan, composed: tuple[File, ...], *, dry_run: bool) -> Mapping[str, Any]:
    return {
        "index": made.index,
        "table": made.table,
        "key": made.key,
        "tables": sorted({one.table for one in made.watches}),
        "left_out": [asdict(one) for one in made.omitted],
        "missing_indexes": [one.statement for one in made.slow],
        "files": [{"path": str(one.path), "text": one.text, "appended": one.appended} for one in composed],
        "dry_run": dry_run,
    }
