"""``idxctl config``: show the configuration in force, or check it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idxctl.cli import render
from idxctl.cli.app import exits, plain_app
from idxctl.cli.state import Output, OutputOption, State, current
from idxctl.core.durations import format_counted

if TYPE_CHECKING:
    from idxctl.config.load import Problem

app = plain_app(help="Show or check the configuration; print its schema.")


@dataclass(frozen=True)
class Setting:
    """One value in force and where it came from."""

    name: str
    value: Any
    source: str


@app.command(epilog=exits())
def show(output: OutputOption) -> None:
    """Print every setting in force with its source; secrets as ***."""
    from idxctl.config.load import listing
    from idxctl.postgres.connect import describe

    settings = current().settings
    rows = [Setting(name, value, source) for name, value, source in listing(settings)]
    rows.insert(
        0, Setting("database", describe(settings.database), settings.sources.get("database.url", "PG*, defaults"))
    )
    if output is Output.JSON:
        render.json(
            {"path": settings.path, "settings": {row.name: {"value": row.value, "source": row.source} for row in rows}}
        )
        return
    render.table(rows, ["name", "value", "source"], output)


@app.command(epilog=exits())
def validate(
    output: OutputOption,
    offline: Annotated[bool, typer.Option("--offline", help="Leave out what only the database can tell.")] = False,
) -> None:
    """Check the configuration, by itself and against the database, and report every problem."""
    from idxctl.config.load import InvalidConfig

    state = current()
    try:
        sound = _sound(state)
        problems = () if offline else live_problems(state)
    except InvalidConfig as error:
        sound, problems = "", error.problems
    if output is Output.JSON:
        render.json({"valid": not problems, "problems": problems})
    elif render.is_data(output):
        render.table(problems, ["source", "where", "what", "fix"], output)
    elif problems:
        render.headline("bad", f"{format_counted(len(problems), 'problem')} in the configuration")
        for problem in problems:
            render.out(f"  {problem}")
    else:
        render.headline("ok" if state.settings.indexes else "warn", sound)
    if problems:
        raise typer.Exit(4)


@app.command(epilog=exits())
def schema() -> None:
    """
    Print the JSON Schema of idxctl.toml, for editors that complete and check TOML by one.

    Write it beside the file, and name it in the file's first line: #:schema idxctl.schema.json
    """
    from idxctl.config.schema import schema as made

    render.out(json.dumps(made(), indent=2, ensure_ascii=False))


def _sound(state: State) -> str:
    """Return the line that says what was found to be in order."""
    settings = state.settings
    if not settings.indexes:
        return f"{settings.path or 'environment'}: no problems, and no index is configured" + (
            "" if settings.path else "; there is no idxctl.toml in this directory"
        )
    watches = sum(len(index.watches) for index in settings.indexes.values())
    counted = (
        f"{format_counted(len(settings.indexes), 'index', 'indexes')}, {format_counted(watches, 'watch', 'watches')}"
    )
    return f"{settings.path or 'environment'}: {counted}, no problems"


def live_problems(state: State) -> tuple[Problem, ...]:
    """Return what the database knows to be wrong with a configuration that is sound in itself; warnings are said at once."""
    from idxctl.operate.validate import check

    with state.connect() as conn:
        checked = check(conn, state.settings)
    for warning in checked.warnings:
        render.warn(warning)
    return tuple(checked.problems)
