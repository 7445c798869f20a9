"""Entries put into a tab, shown and taken out again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from idxctl.core.errors import ConfigError, IdxctlError, UsageError
from idxctl.cron import project
from idxctl.cron.blocks import Block, cut, find, put, shell_in_force
from idxctl.cron.entry import Entry
from idxctl.cron.reading import Shown, names_of_files, read
from idxctl.cron.tab import Account, Tab


@dataclass(frozen=True)
class Installed:
    """What became of the tab: ``outcome`` is installed, replaced or unchanged."""

    outcome: str
    entry: Entry
    user: str
    next_run_at: datetime | None
    cron_runs: bool | None  # whether a cron daemon was seen; None where that cannot be known
    renamed_from: str | None = None  # the name that an earlier release gave it
    remarks: tuple[str, ...] = ()  # of other entries in this tab


@dataclass(frozen=True)
class Removed:
    """The entries taken out, and those of ours still there. ``newline_kept``: the tab had no final newline, and crontab(1) insists on one."""

    names: tuple[str, ...]
    user: str
    left: tuple[str, ...] = ()
    newline_kept: bool = False
    dry_run: bool = False


def install(tab: Tab, entry: Entry, *, now: datetime) -> Installed:
    """
    Put *entry* into *tab*, in place of one of the same name; the same entry twice changes nothing.

    Before the tab is touched the command is tried with ``--help`` as cron would start it, and the directories of log
    and lock are made. A crash leaves the tab as it was or complete: crontab(1) replaces it in one step.
    """
    before = tab.read()
    found = find(before)
    own = project.own(found, entry.base_name, entry.source)
    _try_command(entry, tab.owner)
    for file in (entry.lock, entry.log):
        if file is not None:
            _make_room(file, tab.owner)
    shell = shell_in_force(before[: own[0].start] if own else before)
    after = before
    for twin in own[1:]:
        after = cut(after, twin.name)
    after = put(after, entry.name, entry.body(shell), over=own[0].name if own else None)
    if after != before:
        tab.write(after)
        _confirm(tab, after)
    return Installed(
        "unchanged" if after == before else "replaced" if own else "installed",
        entry,
        tab.owner.name,
        entry.schedule.next_run(now),
        cron_runs(),
        own[0].name if own and own[0].name != entry.name else None,
        tuple(_remarks([block for block in found if block not in own], entry.base_name)),
    )


def _remarks(others: Iterable[Block], name: str) -> Iterator[str]:
    """Say which entries that were left alone someone should look at."""
    for block in others:
        named = names_of_files(block.body)
        if named is None and block.name == name:
            yield f"{block.name} in this crontab was edited by hand, and whose it is cannot be seen: it stays as it is"
        elif named == () and block.name == name:
            yield f"{block.name} in this crontab names no configuration file; idxctl cron remove --name {block.name}"
        elif named and _is_gone(named[0]):
            yield f"{block.name} in this crontab names {named[0]}, which is gone; idxctl cron remove --name {block.name}"


def _is_gone(file: Path) -> bool:
    try:
        file.lstat()
    except FileNotFoundError:
        return True
    except OSError:  # not to be seen from here
        return False
    return False


def show(tab: Tab, *, now: datetime, names: Iterable[str] = ()) -> tuple[Shown, ...]:
    """Return our entries in *tab*, or those of *names*."""
    wanted = set(names)
    found = find(tab.read())
    return tuple(read(block, tab.owner.name, now) for block in found if not wanted or block.name in wanted)


def remove(
    tab: Tab, name: str | None, *, source: Path | None = None, typed: bool = False, dry_run: bool = False
) -> Removed:
    """
    Take the entry *name* of the project whose file is *source*, or all of ours, out of *tab*.

    A name that someone *typed* may also be a whole one, of any project. What is not there is not an error.
    """
    before = tab.read()
    found = find(before)
    present = [block.name for block in found]
    gone = tuple(present if name is None else _chosen(found, name, source, typed=typed))
    left = tuple(other for other in present if other not in gone)
    if dry_run or not gone:
        return Removed(gone, tab.owner.name, left, dry_run=dry_run)
    after = before
    for block in gone:
        after = cut(after, block)
    newline_kept = False
    try:
        tab.write(after)
    except IdxctlError:
        if after.endswith(b"\n") or not after:
            raise
        newline_kept = True  # most crontab programs refuse a last line without its newline
        after += b"\n"
        tab.write(after)
    _confirm(tab, after)
    return Removed(gone, tab.owner.name, left, newline_kept)


def _chosen(found: Sequence[Block], name: str, source: Path | None, *, typed: bool) -> list[str]:
    own = [block.name for block in project.own(found, name, source)]
    if not own and typed:
        own = [block.name for block in found if block.name == name]
    if not own and source is None:  # of no project here: the only one of its name is meant
        called = [block.name for block in found if project.is_called(block.name, name)]
        own = called if len(called) == 1 else []
    return own


def _confirm(tab: Tab, wanted: bytes) -> None:
    """Read the tab back: another program may have written it between our reading and our writing."""
    if [block.body for block in find(tab.read())] != [block.body for block in find(wanted)]:
        raise IdxctlError(
            f"the crontab of {tab.owner.name} was changed by someone else at the same moment",
            hint="look at it with crontab -l, then run this again",
        )


def _try_command(entry: Entry, owner: Account) -> None:
    argv = [*entry.program, *entry.command, "--help"]
    env = {"HOME": str(owner.home), "LOGNAME": owner.name, "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    words = shlex.join([*entry.program, *entry.command])
    try:
        done = owner.run(argv, env)
    except OSError as err:
        raise ConfigError(
            f"{owner.name} cannot run {entry.program[0]}: {err.strerror}",
            hint="install idxctl where this user reaches it, such as with pipx, and run that one",
        ) from err
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())[-300:] or f"exit status {done.returncode}"
        raise UsageError(
            f"cron would not get {words} to run: {said}",
            hint="nothing was changed; cron starts it outside this directory, so idxctl must be installed, and the "
            "command must be one that works by hand",
        )


_MAKE_ROOM = """
directory=$(dirname -- "$1") || exit
mkdir -p -- "$directory" && [ ! -d "$1" ] && { [ -w "$1" ] || { [ ! -e "$1" ] && [ -w "$directory" ]; }; }
"""


def _make_room(file: Path, owner: Account) -> None:
    """Make the directory of *file* as its user: root must not follow links that a user has laid in their own home."""
    done = owner.run(["/bin/sh", "-c", _MAKE_ROOM, "sh", str(file)], {"PATH": "/usr/bin:/bin", "LC_ALL": "C"})
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split()) or "not a file that can be written"
        raise ConfigError(f"{owner.name} cannot write {file}: {said}", hint="name another file with --log")


def cron_runs() -> bool | None:
    """Say whether a cron daemon is among the processes; None where /proc does not tell."""
    names = list(_process_names())
    return bool({"cron", "crond", "fcron", "bcron-sched"} & set(names)) if names else None


def _process_names() -> Iterator[str]:
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # it has ended meanwhile, or is hidden from us
            yield comm.read_text().strip()
