"""``idxctl audit``: who changed what, when, by which way and why."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from idxctl.cli import render
from idxctl.cli.app import exits, plain_app
from idxctl.cli.render import Column
from idxctl.cli.state import OutputOption, current, duration

app = plain_app(help="See who changed what, when and why.")
_SHOWN = 50  # rows of a table, unless told; data is whole


@app.command("list", epilog=exits())
def list_(
    output: OutputOption,
    since: Annotated[
        timedelta | None,
        typer.Option("--since", parser=duration, metavar="DURATION", help="Only what was done since, such as 7d."),
    ] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="ACTION", help="Only one kind of act, such as 'dlq purge'.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, show_default=False, help="Most rows [default: 50 in a table, else all]."),
    ] = None,
) -> None:
    """
    Show the acts that changed something, the newest first.

    The database user and the address are what PostgreSQL knows; operator, channel and reason are what the program said.
    """
    from idxctl.postgres import audit, migrate

    columns = [
        Column("at", kind="time"), Column("action", kind="name"), Column("what"), Column("count", kind="count"),
        Column("database_user", "database user"), Column("operator"), Column("channel"), Column("address"), Column("reason"),
    ]  # fmt: skip
    with current().connect() as conn:
        migrate.require(conn)
        if render.is_data(output):
            render.table(audit.every_entry(conn, since=since, action=action, limit=limit), columns, output)
            return
        rows = audit.entries(conn, since=since, action=action, limit=limit or _SHOWN)
        total = audit.total(conn, since=since, action=action)
    render.table(rows, columns, output, empty="Nothing was changed, as far as the audit goes back.")
    render.cut(len(rows), total, "acts")
