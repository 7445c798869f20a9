"""As much YAML as configuration files need: mappings, lists and scalars, strings quoted where in doubt."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")
_DURATION = re.compile(r"\d+(ms|s|m|h|d)")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"})


def dump(value: Any, *, comment: str = "") -> str:
    """Return *value* as a YAML document, below a comment."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [line for key, one in value.items() for line in _entry(f"{_scalar(key)}:", one)]
    return [line for one in value for line in _item(one)]


def _entry(head: str, value: Any) -> list[str]:
    if _nested(value):
        return [head, *("  " + line for line in _lines(value))]
    return [f"{head} {_scalar(value)}"]


def _item(value: Any) -> list[str]:
    if not _nested(value):
        return [f"- {_scalar(value)}"]
    first, *rest = _lines(value)
    return [f"- {first}", *("  " + line for line in rest)]


def _nested(value: Any) -> bool:
    return isinstance(value, (Mapping, Sequence)) and not isinstance(value, str) and bool(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        plain = (_PLAIN.fullmatch(value) and value.lower() not in _WORDS) or _DURATION.fullmatch(value)
        return value if plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)
