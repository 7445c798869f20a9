"""Who may do what over HTTP: named bearer tokens, each with a role, and the file that lists them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from idxctl.core.nearest import did_you_mean
from idxctl.core.settings import Bearer, Secret

ROLES = ("viewer", "operator")  # a viewer reads, an operator changes things too
_LINE = re.compile(r"([^\s,:]+)[\s,:]+([^\s,:]+)[\s,:]+(\S.*)")
_SENDABLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Wrong:
    """A line that cannot be used; the sentence never holds a token."""

    line: int
    what: str
    fix: str = ""


def sendable(token: str) -> bool:
    """Whether a header can carry the token: printable ASCII without blanks."""
    return _SENDABLE.fullmatch(token) is not None


def parse(text: str) -> tuple[list[Bearer], list[Wrong]]:
    """
    Read lines of name, role and token, parted by blanks, a comma or a colon; ``#`` begins a comment line.

    What is wrong is said by line, all of it at once.
    """
    found: list[Bearer] = []
    wrong: list[Wrong] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = _LINE.fullmatch(line.strip())
        if parts is None:
            wrong.append(Wrong(number, "is not a name, a role and a token", "write: alice operator TOKEN"))
            continue
        name, role, token = parts.groups()
        if role not in ROLES:  # the word may be a token in the wrong place
            near = did_you_mean(role, ROLES) if len(role) <= 12 else f"known are {', '.join(ROLES)}"
            wrong.append(Wrong(number, "its second word is no role", near))
        elif not sendable(token):
            wrong.append(Wrong(number, "its token holds a blank or a character that no header carries"))
        elif any(one.name == name for one in found):
            wrong.append(Wrong(number, f"the name {name!r} stands there twice", "give each token a name of its own"))
        elif any(one.token == Secret(token) for one in found):
            wrong.append(Wrong(number, "its token stands there twice", "give each name a token of its own"))
        else:
            found.append(Bearer(name, role, Secret(token)))
    if not found and not wrong:
        wrong.append(Wrong(0, "names nobody", "write a line: alice operator TOKEN"))
    return found, wrong
