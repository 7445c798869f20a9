"""The line of every key of a TOML text, so that a problem can say where it is."""

from __future__ import annotations

import re

_HEADER = re.compile(r"\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?$")
_ASSIGNMENT = re.compile(
    r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*=\s*(.*)$"
)
_KEY_PART = re.compile(r"\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9_-]+)")


def line_numbers(text: str) -> dict[tuple[str | int, ...], int]:
    """
    Find the line of every key and table header of a TOML text that is known to parse.

    A scan by line, for messages only: a key inside an inline table is found by the line its table begins on.
    """
    lines: dict[tuple[str | int, ...], int] = {}
    implied: dict[tuple[str | int, ...], int] = {}  # tables that only the header of a deeper one brings about
    counts: dict[tuple[str | int, ...], int] = {}
    here: tuple[str | int, ...] = ()
    quote: str | None = None  # inside a string of several lines
    for number, line in enumerate(text.splitlines(), 1):
        if quote:
            if quote in line:
                quote = None
            continue
        header, assignment = _HEADER.match(line), _ASSIGNMENT.match(line)
        if header and not assignment:
            here = _table(header.group(1) == "[[", _key_parts(header.group(2)), counts)
            lines.setdefault(here, number)
            for length in range(1, len(here)):
                implied.setdefault(here[:length], number)
        elif assignment:
            path = (*here, *_key_parts(assignment.group(1)))
            for length in range(len(here) + 1, len(path) + 1):
                lines.setdefault(path[:length], number)
            quote = _opened(assignment.group(2))
    return {**implied, **lines}


def _key_parts(text: str) -> tuple[str, ...]:
    return tuple(next(part for part in match.groups() if part is not None) for match in _KEY_PART.finditer(text))


def _table(is_array: bool, parts: tuple[str, ...], counts: dict[tuple[str | int, ...], int]) -> tuple[str | int, ...]:
    """Return the path of a header, with the number of the element where it leads through arrays of tables."""
    path: tuple[str | int, ...] = ()
    for position, part in enumerate(parts):
        path = (*path, part)
        last = position == len(parts) - 1
        if is_array and last:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _opened(value: str) -> str | None:
    """Return the quotes of a string of several lines that begins in *value* and does not end in it."""
    for quotes in ('"""', "'''"):
        if value.lstrip().startswith(quotes) and value.count(quotes) == 1:
            return quotes
    return None
