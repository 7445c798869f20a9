"""``idxctl cron``: the crontab entry that retries dead letters."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idxctl.cli import render
from idxctl.cli.app import exits, plain_app
from idxctl.cli.render import Column
from idxctl.cli.state import DryRunOption, OutputOption, YesOption, current

if TYPE_CHECKING:
    from idxctl.cron.entry import Entry
    from idxctl.cron.install import Installed, Removed

app = plain_app(help="Retry dead letters from cron: install the entry, show it, remove it.")

UserOption = Annotated[
    str | None, typer.Option("--user", metavar="USER", help="Whose crontab; another user's needs root.")
]


@app.command(epilog=exits())
def install(
    *,
    schedule: Annotated[
        str, typer.Option(metavar="SCHEDULE", help="Five crontab fields, or @hourly and the like.")
    ] = "*/5 * * * *",
    limit: Annotated[
        int | None, typer.Option(min=1, show_default=False, help="Most letters a run retries [default: 100].")
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(metavar="WORDS", help="Another command of idxctl, such as 'dlq purge --older-than 7d'."),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Distinguishes several entries of a project.")
    ] = "dlq-retry",
    user: UserOption = None,
    log: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Append the output to this file [default: NAME.log]."),
    ] = None,
    logger: Annotated[bool, typer.Option("--logger", help="Send the output to syslog instead.")] = False,
    env_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read variables from this file at every run: secrets belong there."),
    ] = None,
    only_print: Annotated[bool, typer.Option("--print", help="Print the lines and touch nothing.")] = False,
) -> None:
    """
    Put the entry into the crontab, or change it there; all other lines stay as they are.

    Its name is NAME and the mark of its project, the configuration file: those of other projects stay as well.

    A run that finds the one before still at work ends at once, with status 0.
    """
    from idxctl.cron import blocks, entry, tab
    from idxctl.cron import install as engine

    options = entry.Options(
        executable=entry.executable(sys.argv[0], path=os.environ.get("PATH")),
        command=entry.command_words(command, limit),
        name=name,
        schedule=schedule,
        config=_configuration(checked=not only_print),
        env_file=env_file,
        log=log,
        to_logger=logger,
    )
    owner = tab.for_print(user, os.environ) if only_print else tab.account(user)
    wanted = entry.prepare(options, owner, os.environ, here=not only_print)
    if only_print:
        render.script(os.fsdecode(blocks.put(b"", wanted.name, wanted.body())))
    else:
        _tell(engine.install(tab.Tab(owner, path=os.environ.get("PATH")), wanted, now=_now()))
    _warn(wanted)


@app.command(epilog=exits())
def show(output: OutputOption, user: UserOption = None) -> None:
    """Print our entries, of all projects, with their next run and where their output goes."""
    from idxctl.cron import install as engine
    from idxctl.cron import tab

    owner = tab.account(user)
    entries = engine.show(tab.Tab(owner, path=os.environ.get("PATH")), now=_now())
    columns = [
        Column("name"),
        Column("schedule"),
        Column("next_run_at", "next run", "time"),
        Column("output"),
        Column("command"),
    ]
    render.table(entries, columns, output, empty=f"No entries of idxctl in the crontab of {owner.name}.")


@app.command(epilog=exits())
def remove(
    *,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="The entry of this project to remove [default: dlq-retry], or any by its whole name.",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all entries of idxctl.")] = False,
    user: UserOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Take the entry out of the crontab, which gets back the bytes it had before."""
    from idxctl.cron import entry, tab
    from idxctl.cron import install as engine

    mine = tab.Tab(tab.account(user), path=os.environ.get("PATH"))
    source = entry.source_of(_configuration(checked=False))
    wanted = None if everything else name or entry.DEFAULT_NAME
    done = engine.remove(mine, wanted, source=source, typed=name is not None, dry_run=True)
    if done.names and not dry_run:
        question = f"Remove {', '.join(done.names)} from the crontab of {done.user}?"
        current().confirm(question, yes=yes, unattended=True)
        done = engine.remove(mine, wanted, source=source, typed=name is not None)
    _tell_removed(done)


def _configuration(*, checked: bool) -> Path | None:
    """Return the configuration file in force; *checked*, cron must not be the first to find it wrong."""
    from idxctl.config.files import DEFAULT_FILE

    state = current()
    if checked:
        state.need_indexes = False
        return state.settings.path
    named = state.config or (Path(os.environ["IDXCTL_CONFIG"]) if os.environ.get("IDXCTL_CONFIG") else None)
    return named or (Path(DEFAULT_FILE) if Path(DEFAULT_FILE).exists() else None)


def _now() -> datetime:
    return datetime.now().astimezone()


def _tell(done: Installed) -> None:
    entry = done.entry
    what = {"installed": "installed", "replaced": "changed", "unchanged": "is there already"}[done.outcome]
    when = (
        "runs when the machine starts"
        if done.next_run_at is None
        else "next run " + render.shown(done.next_run_at, "time")
    )
    render.headline("ok", f"{entry.name} {what} in the crontab of {done.user}: {entry.schedule.text}, {when}")
    render.out(f"  runs    {' '.join(('idxctl', *entry.command))}")
    render.out(f"  output  {entry.log or 'syslog, tag idxctl'}")
    render.out(f"  lock    {entry.lock}; a run that finds it held is skipped")
    if done.renamed_from is not None:
        render.out(f"  name    was {done.renamed_from} until now; its log and its lock of that name are used no more")
    for remark in done.remarks:
        render.warn(remark)
    if done.cron_runs is False:
        render.warn("no cron daemon runs on this machine, so nothing will start the entry; service cron start")
    render.next_step("idxctl cron show · idxctl cron remove")


def _warn(entry: Entry) -> None:
    for remark in entry.remarks:
        render.warn(remark)
    if entry.withheld:
        names, verb = ", ".join(entry.withheld), "is" if len(entry.withheld) == 1 else "are"
        render.warn(
            f"{names} {verb} set now and will not be under cron: secrets are never written to a crontab\n"
            "put them into a file of NAME=value lines, mode 600, and add --env-file FILE,\n"
            "or into the configuration: database.url_file, opensearch.password_file and the like"
        )


def _tell_removed(done: Removed) -> None:
    if not done.names:
        others = f"; --name takes one of {', '.join(done.left)}" if done.left else ""
        render.out(f"Nothing to remove from the crontab of {done.user}{others}.")
        return
    verb = "would be removed" if done.dry_run else "removed"
    render.headline(None if done.dry_run else "ok", f"{', '.join(done.names)} {verb} from the crontab of {done.user}")
    if done.newline_kept:
        render.warn("its last line had no newline before, and crontab(1) insists on one: that newline stays")
