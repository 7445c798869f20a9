"""
Whose tab it is, and the tab as one whole.

It is read by ``crontab -l`` and written by ``crontab -``, never by a library: python-crontab validates the schedule
and renders our one line, and writing tabs with it would rewrite all of them.
"""

from __future__ import annotations

import math
import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from idxctl.core.errors import ConfigError, IdxctlError, UsageError

_COARSE_SECONDS = 0.02  # how far the time that files are stamped with may be behind


@dataclass(frozen=True)
class Account:
    """The user whose tab it is, and as whom cron runs the entry."""

    name: str
    uid: int
    gid: int
    home: Path
    is_me: bool

    def run(self, argv: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
        """Run a program as this user, from the home directory as cron does. Only root gets to be someone else."""
        other = {"user": self.uid, "group": self.gid, "extra_groups": os.getgrouplist(self.name, self.gid)}
        switch = {} if self.uid == os.geteuid() else other
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            argv, env=dict(env), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=False, **switch
        )


def account(name: str | None = None) -> Account:
    """Return the account called *name*, or the one running this. Someone else's needs root."""
    me = _me()
    if name is None and me is None:
        raise ConfigError(
            f"user id {os.geteuid()} has no name on this machine, and cron runs entries by user name",
            hint="idxctl cron install --print shows the entry, to be put elsewhere",
        )
    try:
        entry = me if name is None else pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f"--user {name}: no such user on this machine") from None
    assert entry is not None
    is_me = me is not None and entry.pw_name == me.pw_name
    if not is_me and os.geteuid() != 0:
        raise UsageError(
            f"--user {name}: only root may touch another user's crontab",
            hint=f"run this as root, or as {name} without --user",
        )
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir), is_me)


def for_print(name: str | None, env: Mapping[str, str]) -> Account:
    """Return whose entry is printed: as `account` does, and a user without a name (in a container) lives in ``HOME``."""
    if name is not None or _me() is not None:
        return account(name)
    home = env.get("HOME", "")
    if not os.path.isabs(home):  # noqa: PTH117 - a text
        raise ConfigError(
            f"user id {os.geteuid()} has no name and no home on this machine, so lock and log have no place",
            hint="HOME=/var/lib/idxctl idxctl cron install --print, with the home of the user whose cron runs it",
        )
    return Account(f"user id {os.geteuid()}", os.geteuid(), os.getegid(), Path(home), is_me=True)


def _me() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        return None


class Tab:
    """One user's crontab, read and written whole by the ``crontab`` program."""

    def __init__(self, owner: Account, *, path: str | None) -> None:
        """Find the program on *path*, a PATH. Without one there is a `ConfigError`."""
        program = shutil.which("crontab", path=path)
        if program is None:
            raise ConfigError(
                "no crontab program found on PATH",
                hint="install cron (Debian: apt-get install cron; Fedora: dnf install cronie), or take the entry from "
                "idxctl cron install --print to where cron runs, or put its command into a systemd timer",
            )
        self.owner = owner
        self._argv = [program] if owner.is_me else [program, "-u", owner.name]
        self._env = {"PATH": path or os.defpath, "LC_ALL": "C"}  # its sentences are recognised in English

    def read(self) -> bytes:
        """Return the bytes of the tab; a user without one has an empty one."""
        done = self._run("-l")
        if done.returncode == 0:
            return self._exact(done.stdout)
        if b"no crontab for" in done.stderr.lower():
            return b""
        raise self._refusal("read", done)

    def _exact(self, listed: bytes) -> bytes:
        r"""
        Return the bytes of which *listed* is the listing.

        Debian's ``crontab -l`` spells a carriage return ``\r`` and a backspace ``\b``. Where these stand the bytes come
        from ``crontab -e``, with an "editor" that prints the file and leaves it alone: ordinary users have no other way.
        """
        if not re.search(rb"\\[rb]", listed):
            return listed
        edited = self._run("-e", VISUAL="cat", EDITOR="cat")
        exact = edited.stdout
        if edited.returncode != 0 or listed not in {exact, exact.replace(b"\r", rb"\r").replace(b"\b", rb"\b")}:
            raise IdxctlError(
                f"the crontab of {self.owner.name} has \\r or \\b in it, and crontab -l does not show whether these are "
                "control characters; nothing was changed",
                hint="put the lines of idxctl cron install --print in with crontab -e",
            )
        return exact

    def write(self, content: bytes) -> None:
        """
        Put *content* in place of the whole tab; nothing at all removes it. A refusal leaves it as it was.

        It is written twice, in two different seconds. Cron loads tabs when their folder was changed in another second
        than when it looked last; crontab(1) changes the folder twice. Where cron looks between the two, most likely in
        the first second of a minute, it would see what the second change brought when someone changes a tab next.
        """
        self._write(content)
        now = time.time()
        time.sleep(math.floor(now) + 1 - now + _COARSE_SECONDS)
        if self.read() != content:  # someone else has written it since: theirs counts, and cron sees it
            return
        if not content:
            self._write(b"\n")
        self._write(content)

    def _write(self, content: bytes) -> None:
        done = self._run("-", content) if content else self._run("-r")
        if done.returncode != 0:
            raise self._refusal("write", done)

    def _run(self, option: str, content: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        argv = [*self._argv, option]
        return subprocess.run(argv, input=content, capture_output=True, check=False, env={**self._env, **env})

    def _refusal(self, verb: str, done: subprocess.CompletedProcess[bytes]) -> IdxctlError:
        said = " ".join(done.stderr.decode(errors="replace").split()) or f"exit status {done.returncode}"
        denied = "not allowed" in said
        return IdxctlError(
            f"crontab would not {verb} the tab of {self.owner.name}: {said}",
            hint="cron.allow and cron.deny say who may have a crontab" if denied else None,
        )
