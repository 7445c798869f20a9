"""Entries put into a tab, shown and taken out again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from idxctl.core.errors import ConfigError, IdxctlError, UsageError
from idxctl.cron.blocks import Block, cut, find, put, shell_in_force
from idxctl.cron.entry import Entry
from idxctl.cron.schedule import Schedule
from idxctl.cron.tab import Account, Tab


@dataclass(frozen=True)
class Installed:
    """What became of the tab: ``outcome`` is installed, replaced or unchanged."""

    outcome: str
    entry: Entry
    user: str
    next_run_at: datetime | None
    cron_runs: bool | None  # whether a cron daemon was seen; None where that cannot be known


@dataclass(frozen=True)
class Shown:
    """A block found in a tab. What cannot be made out of an edited one is None."""

    name: str
    user: str
    first_line: int
    schedule: str | None
    command: str | None
    log: str | None
    to_logger: bool
    next_run_at: datetime | None
    text: str

    @property
    def output(self) -> str | None:
        """Where the entry's output goes."""
        return "syslog" if self.to_logger else self.log


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
    known = {block.name for block in find(before)}
    _try_command(entry, tab.owner)
    for file in (entry.lock, entry.log):
        if file is not None:
            _make_room(file, tab.owner)
    own = [block for block in find(before) if block.name == entry.name]
    shell = shell_in_force(before[: own[0].start] if own else before)
    after = put(before, entry.name, entry.body(shell))
    if after != before:
        tab.write(after)
        _confirm(tab, after)
    outcome = "unchanged" if after == before else "replaced" if entry.name in known else "installed"
    return Installed(outcome, entry, tab.owner.name, entry.schedule.next_run(now), cron_runs())


def show(tab: Tab, *, now: datetime, names: Iterable[str] = ()) -> tuple[Shown, ...]:
    """Return our entries in *tab*, or those of *names*."""
    wanted = set(names)
    found = find(tab.read())
    return tuple(read_block(block, tab.owner.name, now) for block in found if not wanted or block.name in wanted)


def remove(tab: Tab, names: Iterable[str] | None, *, dry_run: bool = False) -> Removed:
    """Take the entries *names*, or all of ours, out of *tab*. What is not there is not an error."""
    before = tab.read()
    wanted = None if names is None else set(names)
    present = [block.name for block in find(before)]
    gone = tuple(name for name in present if wanted is None or name in wanted)
    left = tuple(name for name in present if name not in gone)
    if dry_run or not gone:
        return Removed(gone, tab.owner.name, left, dry_run=dry_run)
    after = before
    for name in gone:
        after = cut(after, name)
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


def _confirm(tab: Tab, wanted: bytes) -> None:
    """Read the tab back: another program may have written it between our reading and our writing."""
    if [block.body for block in find(tab.read())] != [block.body for block in find(wanted)]:
        raise IdxctlError(
            f"the crontab of {tab.owner.name} was changed by somebody else at the same moment",
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


def read_block(block: Block, user: str, now: datetime) -> Shown:
    """Make out of one block what it does and when."""
    text = os.fsdecode(block.body)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    shown = Shown(block.name, user, block.first_line, None, None, None, to_logger=False, next_run_at=None, text=text)
    if len(lines) != 1:
        return shown
    count = 1 if lines[0].startswith("@") else 5
    *fields, line = lines[0].split(None, count)
    try:
        schedule = Schedule(" ".join(fields))
        words = shlex.split(line.replace(r"\%", "%"))
        words = shlex.split(words[2]) if words[:2] == ["/bin/sh", "-c"] else words
    except (UsageError, ValueError, IndexError):
        return shown
    starts = next((at + 5 for at in range(len(words)) if words[at + 1 : at + 4] == ["-n", "-E", "0"]), 0)
    ends = next((at for at in range(starts, len(words)) if words[at] in {";", ">>", "2>&1"}), len(words))
    after = words[ends:]
    log = after[after.index(">>") + 1] if ">>" in after[:-1] else None
    return Shown(
        block.name,
        user,
        block.first_line,
        schedule.text,
        shlex.join(words[starts:ends]),
        log,
        to_logger="|" in after,
        next_run_at=schedule.next_run(now),
        text=text,
    )
