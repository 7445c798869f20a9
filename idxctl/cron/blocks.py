"""
The bytes of a tab that belongs to the user, and our lines in it.

Our lines sit between two marker lines; every other byte stays as it was, whatever its encoding or line ends.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from idxctl.core.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NEWLINE_ADDED = b" (newline added above)"
_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")
_MARKER = re.compile(
    rb"# (?P<kind>BEGIN|END) idxctl: (?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,127})"  # a name, and its project
    rb"(?P<added> \(newline added above\))?[ \t]*\r?\n?"
)


@dataclass(frozen=True)
class Block:
    """Our lines in a tab, markers included: where they are and what stands between the markers."""

    name: str
    start: int  # in bytes
    end: int
    first_line: int  # from 1
    last_line: int
    body: bytes
    newline_added: bool  # the tab did not end in a newline before we came


def find(tab: bytes) -> tuple[Block, ...]:
    """Find our blocks, in the tab's order. Half a block, or two of one name, is a `ConfigError`: nothing is guessed."""
    found: dict[str, Block] = {}
    opened: tuple[str, int, int, int, bool] | None = None  # name, start, line, start of the body, newline added
    for number, line in enumerate(_LINE.finditer(tab), start=1):
        marker = _MARKER.fullmatch(line[0])
        if marker is None:
            continue
        name = marker["name"].decode()
        if marker["kind"] == b"BEGIN":
            if opened is not None:
                raise _damaged(f"BEGIN of {opened[0]} on line {opened[2]} has no END before the BEGIN on line {number}")
            opened = (name, line.start(), number, line.end(), marker["added"] is not None)
        elif opened is None or opened[0] != name:
            raise _damaged(f"END of {name} on line {number} has no BEGIN")
        else:
            block = Block(
                name, opened[1], line.end(), opened[2], number, tab[opened[3] : line.start()], newline_added=opened[4]
            )
            if (twin := found.get(name)) is not None:
                lines = f"lines {twin.first_line}-{twin.last_line} and {block.first_line}-{block.last_line}"
                raise _damaged(f"two blocks are named {name}, {lines}")
            found[name] = block
            opened = None
    if opened is not None:
        raise _damaged(f"BEGIN of {opened[0]} on line {opened[2]} has no END")
    return tuple(found.values())


def _damaged(what: str) -> ConfigError:
    return ConfigError(
        f"the crontab's idxctl lines are damaged: {what}; nothing was changed",
        hint="fix or delete these lines with crontab -e, then run this again",
    )


def _marked(name: str, body: bytes, *, newline_added: bool) -> bytes:
    note = _NEWLINE_ADDED if newline_added else b""
    word = name.encode()
    return b"# BEGIN idxctl: " + word + note + b"\n" + body + b"# END idxctl: " + word + b"\n"


def put(tab: bytes, name: str, body: bytes, *, over: str | None = None) -> bytes:
    """
    Return *tab* with our block *name* holding *body*: replaced where it stands, or added at the end.

    With *over* it takes the place of the block of that name.
    """
    for block in find(tab):
        if block.name == (over or name):
            return tab[: block.start] + _marked(name, body, newline_added=block.newline_added) + tab[block.end :]
    incomplete = bool(tab) and not tab.endswith(b"\n")
    return tab + (b"\n" if incomplete else b"") + _marked(name, body, newline_added=incomplete)


def cut(tab: bytes, name: str) -> bytes:
    """Return *tab* without our block *name*: the bytes it had before `put` added it."""
    found = find(tab)
    for block in found:
        if block.name != name:
            continue
        before, after = tab[: block.start], tab[block.end :]
        if not block.newline_added:
            return before + after
        if not after:
            return before.removesuffix(b"\n")
        # The newline that we added now carries what follows. If that is a block of ours, it inherits the note.
        heir = next((other for other in found if other.start == block.end), None)
        if heir is not None:
            after = _marked(heir.name, heir.body, newline_added=True) + tab[heir.end :]
        return before + after
    return tab


def shell_in_force(tab: bytes) -> str:
    """Return the shell that the tab's own ``SHELL=`` line gives to an entry at its end."""
    lines = re.findall(rb"^[ \t]*[\"']?SHELL[\"']?[ \t]*=[ \t]*(.*?)[ \t\r]*$", tab, re.MULTILINE)
    return os.fsdecode(lines[-1]).strip("\"'") if lines else "/bin/sh"
