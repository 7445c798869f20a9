"""
The kinds of values that keys of the configuration take: how each is read, said in words, and as JSON Schema.

A reader takes what TOML or the environment gave, and raises `Wrong`, which never quotes what may be a secret.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from idxctl.core.durations import parse_duration
from idxctl.core.errors import UsageError
from idxctl.core.secret import Secret
from idxctl.core.suggest import nearest


class Wrong(Exception):  # noqa: N818 - never leaves the configuration
    """A value that its key does not take; becomes a `Problem` where the source is known."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


@dataclass(frozen=True)
class Value:
    """One kind of value: ``words`` complete "takes ...", with unit and bounds."""

    read: Callable[[Any], Any]
    words: str
    schema: Mapping[str, Any]


def kind_of(value: Any) -> str:
    """Name the type of a TOML value, never the value."""
    if isinstance(value, bool):
        return "true or false"
    names = {int: "a number", float: "a number", str: "a string", list: "a list", dict: "a table"}
    return names.get(type(value), "a date or time")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Wrong(f"must be a string, found {kind_of(value)}")
    if not value.strip():
        raise Wrong("is empty", "give it a value or leave it out")
    return value


def _secret(value: Any) -> Secret:
    return Secret(_text(value))


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise Wrong(f"must be true or false, found {kind_of(value)}", "write true or false without quotes")


def _count(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"\d+", value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Wrong(f"must be a whole number, found {kind_of(value)}")
    if value < 1:
        raise Wrong(f"must be at least 1, found {value}")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise Wrong(f"{value} has no unit", f'write "{value}s" for seconds, "{value}m" for minutes')
    if not isinstance(value, str):
        raise Wrong(f'must be a duration such as "30s", found {kind_of(value)}')
    try:
        seconds = parse_duration(value).total_seconds()
    except UsageError as error:
        raise Wrong(error.message, error.hint or "") from error
    if seconds <= 0:
        raise Wrong("must be longer than nothing")
    return seconds


def _period(value: Any) -> float:
    return 0.0 if isinstance(value, str) and value.strip().lower() == "off" else _seconds(value)


def _one_of(*known: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        word = _text(value)
        if word not in known:
            raise Wrong(f"{word!r} is not one of {', '.join(known)}", _near_only(word, known))
        return word

    return read


def _near_only(word: str, known: Iterable[str]) -> str:
    near = nearest(word, known)
    return f"did you mean {near!r}?" if near else ""


def _strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise Wrong(f"must be a list of strings, found {kind_of(value)}", 'write ["a", "b"]')
    for item in value:
        if not isinstance(item, str) or not item.strip():
            raise Wrong("must be a list of non-empty strings")
    return tuple(value)


def _names(value: Any) -> tuple[str, ...]:
    """Read a column's name, or several."""
    names = (_text(value),) if isinstance(value, str) else _strings(value)
    if not names:
        raise Wrong("is an empty list", "name at least one column")
    if len(set(names)) != len(names):
        raise Wrong("names a column twice")
    return names


def _server_settings(value: Any) -> dict[str, str]:
    """Read settings of PostgreSQL, ``app.tenant = "north"`` as well; a dot in a bare key of TOML makes a table."""
    if not isinstance(value, dict):
        raise Wrong("must be a table", 'write [indexes.NAME.settings] and lines like "app.tenant" = "north"')
    found: dict[str, str] = {}
    for name, one in value.items():
        if isinstance(one, dict):
            found |= {f"{name}.{inner}": text for inner, text in _server_settings(one).items()}
        elif isinstance(one, bool):
            found[name] = "on" if one else "off"
        elif isinstance(one, (str, int, float)):
            found[name] = str(one)
        else:
            raise Wrong(f"{name} is {kind_of(one)}", "write a text, a number, true or false")
    refused = sorted(
        found.keys() & {"search_path", "role", "session_authorization", "row_security", "transaction_read_only"}
    )
    if refused:
        raise Wrong(f"{refused[0]} cannot be set here", "search_path is a key of the index itself")
    return found


def _renames(value: Any) -> dict[str, str]:
    """Read names of columns, the new one first; none is both, and none stands for two."""
    if not isinstance(value, dict) or not all(isinstance(old, str) and old for old in value.values()):
        raise Wrong("must be a table of names", 'write the new name first: { item = "item_id" }')
    olds = list(value.values())
    both = next((old for old in olds if old in value or olds.count(old) > 1), None)
    if both is not None:
        raise Wrong(f"{both} is named twice", "rename one column after the other, or by way of a third name")
    return value


def _urls(value: Any) -> tuple[SplitResult, ...]:
    """Read one URL, several with commas, or a list. What is wrong is said without quoting any of it."""
    entries = value.split(",") if isinstance(value, str) else list(_strings(value))
    if not entries:
        raise Wrong("names no URL", "write https://host:9200")
    urls = []
    for number, entry in enumerate(entries, 1):
        which = "" if len(entries) == 1 else f"entry {number} "
        try:
            url = urlsplit(entry.strip())
            host, port = url.hostname, url.port
        except ValueError:
            raise Wrong(f"{which}cannot be read as a URL", "write https://host:9200") from None
        if url.scheme not in {"http", "https"} or not host:
            raise Wrong(f"{which}is not an http or https URL", "write https://host:9200")
        if "@" in url.path:
            raise Wrong(f'{which}has a "/" in front of its "@", perhaps in the password', 'write %2F for "/"')
        if port == 0 or url.query or url.fragment:
            raise Wrong(f"{which}is more or less than scheme, host, port and path prefix", "write https://host:9200")
        urls.append(url)
    return tuple(urls)


def connection_string(text: str) -> None:
    """
    Refuse what libpq would read otherwise than it was meant. Nothing of it is quoted, here or later.

    A "/" or "@" that is not encoded cuts a password in two, and its rest becomes a port, host or database, which
    errors name.
    """
    scheme, url, rest = text.strip().partition("://")
    if not url or not re.fullmatch(r"[\w+.:-]+", scheme):
        if "=" not in text:
            raise Wrong("is neither a URL nor a list of name=value", _WRITE_DATABASE_URL)
        return
    if scheme not in {"postgresql", "postgres"}:
        raise Wrong("is not a PostgreSQL URL", _WRITE_DATABASE_URL)
    user, at, place = rest.partition("?")[0].partition("@")
    if (at and "/" in user) or "@" in place:
        raise Wrong(
            'has an "@" or a "/" where none can stand, so perhaps in the password',
            'write %40 for "@", %2F for "/", %3A for ":", or leave the password to PGPASSWORD or ~/.pgpass',
        )
    if re.search(r"%(?![0-9A-Fa-f]{2})", rest):
        raise Wrong('has a "%" without the two digits that belong to it', 'write %25 for "%"')


PASSWORD_IN_URL = re.compile(r"://[^/?#]*:[^/?#]*@|\bpassword\s*=", re.IGNORECASE)
_WRITE_DATABASE_URL = "write postgresql://user@host:5432/name, or host=... dbname=... user=..."


def _command(value: Any) -> tuple[str, ...]:
    if isinstance(value, list):
        words = _strings(value)
    else:
        try:
            words = tuple(shlex.split(_text(value)))
        except ValueError:
            raise Wrong("has a quote that is not closed") from None
    if not words:
        raise Wrong("names no command")
    return words


_TEXT_SCHEMA = {"type": "string", "minLength": 1}
_LIST_SCHEMA = {"type": "array", "items": _TEXT_SCHEMA}
_EITHER_SCHEMA = {"anyOf": [_TEXT_SCHEMA, {**_LIST_SCHEMA, "minItems": 1}]}

TEXT = Value(_text, "a text", _TEXT_SCHEMA)
SECRET = Value(_secret, "a text, which is never shown", _TEXT_SCHEMA)
PATH = Value(_text, "a path; in the file relative to it", _TEXT_SCHEMA)
BOOLEAN = Value(_flag, "`true` or `false`", {"type": "boolean"})
COUNT = Value(_count, "a whole number, at least 1", {"type": "integer", "minimum": 1})
SECONDS = Value(
    _seconds,
    "a duration with its unit, `500ms`, `30s`, `5m`, `2h` or `7d`, more than nothing",
    {"type": "string", "pattern": r"^\s*([0-9]+(\.[0-9]+)?\s*(ms|s|min|m|h|d|w)\s*)+$"},
)
PERIOD = Value(
    _period,
    "a duration with its unit, `6h` or `7d`, or `off`",
    {"type": "string", "pattern": rf"{SECONDS.schema['pattern']}|^\s*[oO][fF][fF]\s*$"},
)
STRINGS = Value(_strings, "a list of texts", _LIST_SCHEMA)
NAMES = Value(_names, "a name, or a list of them, none twice", _EITHER_SCHEMA)
RENAMES = Value(
    _renames, 'a table of names, `{ new = "old" }`', {"type": "object", "additionalProperties": _TEXT_SCHEMA}
)
SERVER_SETTINGS = Value(
    _server_settings,
    "a table of settings of PostgreSQL",
    {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "object"]}},
)
URLS = Value(_urls, "a URL, several with commas, or a list", _EITHER_SCHEMA)
COMMAND = Value(_command, "a command with its arguments, as a text or a list; it runs without a shell", _EITHER_SCHEMA)


def one_of(*known: str) -> Value:
    """Return the kind of value that is one of a few words."""
    return Value(_one_of(*known), " or ".join(f"`{word}`" for word in known), {"enum": list(known)})
