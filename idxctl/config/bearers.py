"""Who may do what over HTTP: named bearer tokens, each with a role, and the file that lists them, perhaps by their hashes."""

from __future__ import annotations

import hmac
import os
import re
from dataclasses import dataclass
from hashlib import sha256

from idxctl.config.settings import Bearer
from idxctl.core.secret import Secret
from idxctl.core.suggest import did_you_mean

ROLES = ("viewer", "operator")  # a viewer reads, an operator changes things too
_LINE = re.compile(r"([^\s,:]+)[\s,:]+([^\s,:]+)[\s,:]+(\S.*)")
_SENDABLE = re.compile(r"[\x21-\x7e]+")
SHORTEST = 16  # characters of a token that others than this machine may try
_SCHEME = "sha256$"
_HASH = re.compile(r"sha256\$([0-9a-f]{32})\$([0-9a-f]{64})")
BROKEN_HASH = "begins like a hash and is none"
HASH_HINT = "idxctl serve --hash-token makes one"


@dataclass(frozen=True)
class Wrong:
    """A line that cannot be used; the sentence never holds a token."""

    line: int
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Hashed:
    """
    What is kept of a token to know it again: salt and SHA-256.

    A slow hash would protect guessable tokens, and let strangers who send wrong ones keep the server busy. Tokens are not
    guessable: sixteen characters at least, and those made here are random.
    """

    salt: bytes
    digest: bytes

    @staticmethod
    def of(secret: Secret) -> Hashed:
        """Return what is kept of *secret*, a token or already the hash of one."""
        found = _HASH.fullmatch(secret.reveal())
        return _hashed(secret.reveal().encode()) if found is None else Hashed(*map(bytes.fromhex, found.groups()))

    def matches(self, token: bytes) -> bool:
        """Whether *token* is the one, in a time that tells nothing of how much of it is right."""
        return hmac.compare_digest(self.digest, sha256(self.salt + token).digest())

    def __str__(self) -> str:
        return f"{_SCHEME}{self.salt.hex()}${self.digest.hex()}"


def _hashed(token: bytes) -> Hashed:
    salt = os.urandom(16)
    return Hashed(salt, sha256(salt + token).digest())


def hash_line(token: str) -> str:
    """Return what stands for *token* in the file of tokens."""
    return str(_hashed(token.encode()))


def broken_hash(token: str) -> bool:
    """Whether a token was meant to be a hash and cannot be one: it would be a token that everybody could read there."""
    return token.startswith(_SCHEME) and _HASH.fullmatch(token) is None


def is_short(secret: Secret) -> bool:
    """Whether a token can be guessed; of a hash nobody knows, and `hash_line` is made from long ones only."""
    return _HASH.fullmatch(secret.reveal()) is None and len(secret.reveal()) < SHORTEST


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
        elif broken_hash(token):
            wrong.append(Wrong(number, f"its token {BROKEN_HASH}", HASH_HINT))
        elif any(one.name == name for one in found):
            wrong.append(Wrong(number, f"the name {name!r} stands there twice", "give each token a name of its own"))
        elif any(one.token == Secret(token) for one in found):
            wrong.append(Wrong(number, "its token stands there twice", "give each name a token of its own"))
        else:
            found.append(Bearer(name, role, Secret(token)))
    if not found and not wrong:
        wrong.append(Wrong(0, "names nobody", "write a line: alice operator TOKEN"))
    return found, wrong
