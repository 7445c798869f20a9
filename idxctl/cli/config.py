"""``idxctl config``: show the configuration in force, or check it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idxctl.cli import render
from idxctl.cli.app import exits, plain_app
from idxctl.cli.state import Output, OutputOption, State, current
from idxctl.core.durations import format_counted

if TYPE_CHECKING:
    from idxctl.config.problems import Problem
    from idxctl.config.settings import Settings

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
    from idxctl.config.listing import listing
    from idxctl.postgres.opening import describe

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
    render.table(rows, [render.Column("name", kind="name"), "value", "source"], output)


@app.command(epilog=exits())
def validate(
    output: OutputOption,
    offline: Annotated[bool, typer.Option("--offline", help="Leave out what only the servers know.")] = False,
) -> None:
    """Check the configuration, by itself and against both servers, and report every problem. Nothing is changed."""
    from idxctl.config.problems import InvalidConfig

    state = current()
    sound, rest = "", None
    problems: tuple[Problem, ...] = ()
    try:
        sound, rest = _sound(state), state.settings
    except InvalidConfig as error:
        problems, rest = error.problems, error.rest
    if rest is not None and not offline:
        problems = _with_those_of_servers(state, rest, problems)
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

    render.json(made())


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


def live_problems(state: State, settings: Settings) -> tuple[Problem, ...]:
    """Return what the servers know to be wrong with a configuration, as far as it is sound in itself; warnings are said at once."""
    from idxctl.core.errors import PostgresRefused
    from idxctl.opensearch.client import connect as connect_opensearch
    from idxctl.postgres.connect import connect
    from idxctl.status import thorough
    from idxctl.status.validate import check, check_mappings

    with connect(settings.database, actor=state.actor) as conn:
        checked = check(conn, settings)
        warnings = [*checked.warnings]
        try:
            warnings += [one.reason for one in thorough.of_files(conn, settings.indexes)]
        except PostgresRefused as error:
            warnings.append(f"whether all that documents show is captured was not looked at: {error.message}")
    with connect_opensearch(settings.opensearch) as client:
        mapped = check_mappings(client, settings)
    for warning in [*warnings, *mapped.warnings]:
        render.warn(warning)
    return (*checked.problems, *mapped.problems)


def _with_those_of_servers(state: State, settings: Settings, found: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """Return the problems *found* with those that the servers tell; a server that is away hides none of them."""
    from idxctl.core.errors import PostgresUnreachable

    try:
        return (*found, *live_problems(state, settings))
    except PostgresUnreachable as error:
        if not found:
            raise
        render.warn(f"the database was not asked: {error.message}")
        return found
