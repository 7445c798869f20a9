"""Short names for things that look alike: errors with their values taken out, definitions by content."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

_PREVIEW = re.compile(r"Preview of field's value: '.*'", re.DOTALL)
_DOCUMENT = re.compile(r"document with id '.*?'(?=[.:]|$)", re.DOTALL)
_BRACKETS = re.compile(r"\[[^\[\]]*\]")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_FIELD = re.compile(r"field \[([\w.@-]+)\]|\[([\w.@-]+)\] (?:within|of type)|of type \[([\w.]+)\]")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_SPACE = re.compile(r"\s+")
_MOST = 5_000  # characters looked at, both ends: what is quoted may be of any length, and some patterns take its square
_END = 1_000


def pattern(reason: str) -> str:
    """
    Return *reason* with its values taken out and the names of fields and types kept.

    The sentences are OpenSearch's: "failed to parse field [price] of type [float] in document with id '7'. Preview of
    field's value: 'x'".
    """
    if len(reason) > _MOST:
        reason = reason[: _MOST - _END] + reason[-_END:]  # a quoted value is still closed
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        kept.append(found.group(0))
        return f"\x00{chr(0xE000 + len(kept) - 1)}\x00"

    text = _DOCUMENT.sub("document", _PREVIEW.sub("", reason))
    text = _FIELD.sub(keep, text)
    text = _NUMBER.sub("#", _QUOTED.sub("?", _BRACKETS.sub("[?]", text)))
    for place, original in enumerate(kept):
        text = text.replace(f"\x00{chr(0xE000 + place)}\x00", original)
    return _SPACE.sub(" ", text).strip()


def of_error(error_type: str, reason: str) -> str:
    """Return six hex digits shared by errors that differ in their values alone."""
    return hashlib.sha256(f"{error_type}\n{pattern(reason)}".encode()).hexdigest()[:6]


def of_content(value: Any) -> str:
    """Return sixteen hex digits of *value*, anything JSON can hold; the order of keys does not count."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
