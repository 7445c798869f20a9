"""``idxctl pause`` and ``idxctl resume``: stop and start claims from an index."""

from __future__ import annotations

from typing import Annotated

import typer

from idxctl.cli import render
from idxctl.cli.state import IndexOption, ReasonOption, current


def pause(
    index: IndexOption = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why; shown where the pause is, and kept in the audit.")
    ] = "paused by an operator",
) -> None:
    """Stop claims from an index. Changes go on being queued, and nothing is lost."""
    from idxctl.indexes import names
    from idxctl.postgres import audit, migrate
    from idxctl.queue import pause as engine

    state = current().because(reason)
    with state.connect() as conn:
        migrate.require(conn)
        name = names.the_index(conn, state.settings, index)
        with conn.transaction():
            engine.pause(conn, name, reason=reason, by=conn.actor.name)
            audit.record(conn, action="pause", what=name)
    render.headline(None, f"{name} is paused; its tasks wait. idxctl resume --index {name}")


def resume(index: IndexOption = None, reason: ReasonOption = None) -> None:
    """Let workers claim from an index again, whatever paused it."""
    from idxctl.indexes import names
    from idxctl.postgres import audit, migrate
    from idxctl.queue import pause as engine

    state = current().because(reason)
    with state.connect() as conn:
        migrate.require(conn)
        name = names.the_index(conn, state.settings, index)
        with conn.transaction():
            was_paused = engine.resume(conn, name)
            if was_paused:
                audit.record(conn, action="resume", what=name)
    render.headline(None, f"{name} is {'resumed' if was_paused else 'not paused'}")
