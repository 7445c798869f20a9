"""``idxctl grants``: the rights that each role needs, printed as SQL or put in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from idxctl.cli import render
from idxctl.cli.state import Output, OutputOption, ReasonOption, YesOption, current
from idxctl.core.errors import PartlyDone, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idxctl.grants.plan import Applied
    from idxctl.grants.statements import Grant


def _option(flag: str, text: str) -> object:
    return typer.Option(flag, metavar="ROLE", help=f"{text}; may be repeated.", show_default=False)


def grants(
    *,
    output: OutputOption,
    application: Annotated[
        list[str] | None, _option("--application", "Enqueues by the SQL function; for triggers it needs nothing")
    ] = None,
    worker: Annotated[list[str] | None, _option("--worker", "Runs workers, or the library in the application")] = None,
    operator: Annotated[
        list[str] | None, _option("--operator", "Works on the queue and dead letters, pauses, reindexes")
    ] = None,
    viewer: Annotated[list[str] | None, _option("--viewer", "Sees all but values of documents")] = None,
    installer: Annotated[list[str] | None, _option("--installer", "Migrates, and installs triggers")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Put in force what is missing, instead of printing it.")
    ] = False,
    yes: YesOption = False,
    reason: ReasonOption = None,
) -> None:
    """
    Print the rights that each role needs, as SQL with the reason beside each line; psql runs it as it stands.

    Made from what is there: idxctl's tables and functions, the watched tables, and what the document queries and lookups
    read. Each line is to be run by the owner of what it is about; --apply does those that this role may.
    """
    from idxctl.grants import plan as engine

    given = {
        "application": application, "worker": worker, "operator": operator, "viewer": viewer, "installer": installer,
    }  # fmt: skip
    wanted = [(kind, role) for kind, roles in given.items() for role in roles or ()]
    if not wanted:
        raise UsageError("for which roles?", hint="idxctl grants --worker idxctl_worker --viewer grafana")
    state = current().because(reason)
    with state.connect() as conn:
        made = engine.plan(conn, state.settings, wanted)
        if not apply:
            _show(made, output)
            return
        missing = [one for one in made if not one.held and not one.beyond and one.may_grant]
        if missing:
            for line in engine.script(missing):
                render.say(line)
            state.confirm(f"Grant {len(missing):,} rights?", yes=yes)
        done = engine.apply(conn, made)
    _tell(done, output)


def _show(made: Sequence[Grant], output: Output) -> None:
    from idxctl.grants.plan import script

    if render.is_data(output):
        fields = ["kind", "role", "statement", "why", "held", "owner", "may_grant", "beyond"]
        render.table(made, [render.Column(name) for name in fields], output)
        return
    render.script("\n".join(script(made)))  # not wrapped: the rest of a comment would be SQL


def _tell(done: Applied, output: Output) -> None:
    from idxctl.grants.plan import script

    if render.is_data(output):
        render.json(done)
    else:
        render.headline("ok" if not done.left else "warn", f"{len(done.applied):,} rights granted", output)
        for line in script(done.left):
            render.out(line)
    if done.left:
        owners = ", ".join(dict.fromkeys(one.owner for one in done.left))
        raise PartlyDone(
            f"not granted: {len(done.left):,}, to be given by {owners}",
            hint="have them run by who may: idxctl grants ... prints them for psql",
        )
