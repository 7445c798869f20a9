"""
What answers are made of: JSON, objects, numbers and texts, each read or refused with `NoAnswer`.

Texts that are kept are cut to what a person reads, and hold nothing that PostgreSQL or UTF-8 could not.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, overload

import orjson

LONGEST_SENTENCE = 1_000  # characters kept of one reason
_TAIL = 200  # of these, from its end: the closing quote of a value, what follows it
_SHOWN = 60
_NUMBER = re.compile("[0-9]{1,18}")


class NoAnswer(ValueError):  # noqa: N818 - it is what came
    """The bytes are not an answer to what was asked."""


def parsed(text: bytes) -> Any:
    """Parse an answer; raises `NoAnswer` for what is no JSON, whatever is wrong with it."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return loads(text)


def loads(text: bytes, **options: Any) -> Any:
    """Parse what is JSON all the same to those who wrote it: half of a surrogate pair, a number beyond a double."""
    try:
        return json.loads(text.decode(), parse_constant=_constant, **options)
    except (ValueError, RecursionError) as error:
        if isinstance(error, NoAnswer):
            raise
        raise NoAnswer("it is not JSON" if text else "it is empty") from error


def _constant(name: str) -> NoReturn:
    raise NoAnswer(f"it holds {name}, which is no number")


def object_of(answer: Any) -> dict[str, Any]:
    """Return what must be an object; raises `NoAnswer` for anything else."""
    if type(answer) is not dict:
        raise NoAnswer(f"it is {shown(answer)}")
    return answer


def natural(value: Any, name: str) -> int:
    """Return what must be a number of things; *name* is what the answer calls it."""
    if type(value) is not int or value < 0:
        raise NoAnswer(f"its {name} is {shown(value)}")
    return int(value)


def counted(items: Any) -> str:
    """Say how many items came, for a sentence."""
    return f"{len(items)} items" if type(items) is list else "no items"


@overload
def number(text: object) -> int | None: ...
@overload
def number(text: object, *, default: int) -> int: ...
def number(text: object, *, default: int | None = None) -> int | None:
    """Read a number that is written as text; *default* where it is none, or one that nothing here could count to."""
    return int(text) if isinstance(text, str) and _NUMBER.fullmatch(text) else default


def plain(text: str, most: int = LONGEST_SENTENCE) -> str:
    """
    Return *text* as it can be kept: cut in its middle where it is long, with NULs and halves of surrogate pairs escaped.

    OpenSearch quotes what documents hold, of any length. A cut leaves both ends, so that what depends on them (a quoted value
    that is closed, the version in a conflict) is still found.
    """
    if len(text) > most:
        text = f"{text[: most - _TAIL - 3]} … {text[-_TAIL:]}" if most > 2 * _TAIL else text[:most]
    if "\0" in text:
        text = text.replace("\0", "\\u0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def shown(value: Any) -> str:
    """Return the beginning of a value, for a sentence; never more of it than that."""
    if isinstance(value, dict):
        return "an object with " + (", ".join(plain(str(key), 30) for key in list(value)[:4]) or "nothing")
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f'"{plain(value, _SHOWN)}"'
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**15:
        return "a very large number"
    return "null" if value is None else str(value).lower()
