"""What a request may say: each parameter once, read from the query or from a JSON body, and described for OpenAPI."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from idxctl.core.durations import parse_duration
from idxctl.core.errors import UsageError
from idxctl.core.suggest import did_you_mean
from idxctl.web.problems import Problem

_GREATEST_ID = 2**63 - 1
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
Place = tuple[datetime, int]


class _Wrong(Exception):  # noqa: N818 - never leaves this module
    """A value that its parameter does not take."""


@dataclass(frozen=True)
class Parameter:
    """One parameter. Kinds: text, count, flag, duration, ids, cursor."""

    name: str
    kind: str
    help: str
    default: Any = None
    most: int = _GREATEST_ID

    @property
    def several(self) -> bool:
        """Whether it may be given more than once."""
        return self.kind == "ids"

    def schema(self) -> dict[str, Any]:
        """Return it as JSON Schema."""
        number = {"type": "integer", "minimum": 1, "maximum": self.most}
        kinds: Mapping[str, dict[str, Any]] = {
            "text": {"type": "string", "minLength": 1, "maxLength": 512, "pattern": r"^[^\x00-\x1f\x7f]+$"},
            "count": number,
            "flag": {"type": "boolean"},
            "duration": {"type": "string", "pattern": r"^[1-9][0-9]{0,2}(s|m|h|d)$", "examples": ["7d"]},
            "ids": {"type": "array", "items": number, "minItems": 1, "maxItems": 1000},
            "cursor": {"type": "string"},
        }
        default = {} if self.default is None else {"default": self.default}
        return {**kinds[self.kind], **default}

    def read(self, given: Any) -> Any:
        """Read the value as query (always text, or a list of them) or body have it."""
        return _READERS[self.kind](given, self.most)


def _text(given: Any, _most: int) -> str:
    if not isinstance(given, str) or not given.strip():
        raise _Wrong("must be text that is not empty")
    if len(given) > 512 or _CONTROL.search(given):
        raise _Wrong("is longer than 512 characters, or holds control characters")
    try:
        given.encode()
    except UnicodeEncodeError:
        raise _Wrong("is not valid Unicode") from None
    return given


def _count(given: Any, most: int) -> int:
    if isinstance(given, str) and re.fullmatch(r"[0-9]{1,19}", given):
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most:
        raise _Wrong(f"must be a whole number from 1 to {most:,}")
    return given


def _flag(given: Any, _most: int) -> bool:
    known = {"true": True, "false": False}
    if isinstance(given, bool):
        return given
    if not isinstance(given, str) or given.lower() not in known:
        raise _Wrong("must be true or false")
    return known[given.lower()]


def _duration(given: Any, _most: int) -> Any:
    if not isinstance(given, str):
        raise _Wrong('must be a duration such as "7d"')
    try:
        return parse_duration(_text(given, _most))
    except UsageError as error:
        raise _Wrong(f"{error.message}" + (f"; {error.hint}" if error.hint else "")) from None


def _ids(given: Any, most: int) -> tuple[int, ...]:
    listed = given if isinstance(given, list) else [given]
    if not 1 <= len(listed) <= 1000:
        raise _Wrong("must be one number or as many as 1,000")
    return tuple(_count(one, most) for one in listed)


def _cursor(given: Any, _most: int) -> Place:
    try:
        at, number = orjson.loads(base64.urlsafe_b64decode(_text(given, _most).encode("ascii", "strict")))
        place = datetime.fromisoformat(at), _count(number, _GREATEST_ID)
    except (ValueError, TypeError, binascii.Error, _Wrong):
        raise _Wrong("is not one that this server gave out") from None
    if place[0].tzinfo is None:
        raise _Wrong("is not one that this server gave out")
    return place


_READERS = {"text": _text, "count": _count, "flag": _flag, "duration": _duration, "ids": _ids, "cursor": _cursor}


def cursor(place: Place) -> str:
    """Return the place after which the next page begins, as clients pass it back."""
    return base64.urlsafe_b64encode(orjson.dumps([place[0].isoformat(), place[1]])).decode()


def read(parameters: Sequence[Parameter], query: Sequence[tuple[str, str]], body: bytes, media: str) -> dict[str, Any]:
    """
    Return every parameter's value, or its default, from query and body together.

    One that is unknown, given twice or wrong is `Problem` 400 with the field named: a misspelt selector of a purge must
    not be passed over.
    """
    known = {one.name: one for one in parameters}
    given: dict[str, Any] = {}
    for name, value in query:
        one = _known(known, name)
        if one.several:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise Problem(400, f"{name} is given twice", field=name)
        else:
            given[name] = value
    for name, value in _members(body, media).items():
        _known(known, name)
        if name in given:
            raise Problem(400, f"{name} is given in the query and in the body", field=name)
        given[name] = value
    values = {name: one.default for name, one in known.items()}
    for name, value in given.items():
        try:
            values[name] = known[name].read(value)
        except _Wrong as wrong:
            raise Problem(400, f"{name} {wrong}", field=name) from None
    return values


def _known(known: Mapping[str, Parameter], name: str) -> Parameter:
    if name in known:
        return known[name]
    shown = name[:64].encode("utf-8", "replace").decode()
    raise Problem(400, f"unknown parameter {shown!r}", field=shown, hint=did_you_mean(shown, known))


def _members(body: bytes, media: str) -> dict[str, Any]:
    if not body.strip():
        return {}
    if media.partition(";")[0].strip().lower() != "application/json":
        raise Problem(
            415, "a body must be JSON", hint="send Content-Type: application/json, or parameters in the query"
        )
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Problem(400, "the body is not JSON", field="body") from None
    if not isinstance(found, dict):
        raise Problem(400, "the body must be a JSON object", field="body")
    return found
