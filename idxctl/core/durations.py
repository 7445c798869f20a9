"""Spans of time, sizes and counts as people write and read them."""

from __future__ import annotations

import re
from datetime import timedelta

from idxctl.core.errors import UsageError

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)")
_WHOLE = re.compile(rf"(?:{_PART.pattern}\s*)+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_LONGEST_SECONDS = 10 * 366 * 86_400


def parse_duration(text: str) -> timedelta:
    """
    Read "500ms", "30s", "90m", "12h", "7d", "2w" or several of them ("1h30m").

    A bare number is refused: whether 7 means days or seconds is not ours to guess.
    """
    given = text.strip()
    if _NUMBER.fullmatch(given):
        raise UsageError(f"{given!r} has no unit", hint=f"write {given}s, {given}m, {given}h or {given}d")
    if not _WHOLE.fullmatch(given):
        raise UsageError(
            f"{text!r} is not a duration", hint="write a number and a unit: 500ms, 30s, 90m, 12h, 7d or 2w"
        )
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(given))
    if seconds > _LONGEST_SECONDS:
        raise UsageError(f"{text!r} is longer than ten years")
    return timedelta(seconds=seconds)


def format_age(seconds: float) -> str:
    """Return an age in its largest unit, rounded down: "180 ms", "42 s", "3 min", "2 h", "5 d"."""
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{int(seconds * 1000)} ms"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size):,} {unit}"
    return f"{int(seconds)} s"


def format_duration(seconds: float) -> str:
    """Return how long something took in its two largest units: "840 ms", "21 s", "2 min 7 s", "1 h 5 min"."""
    whole = round(max(seconds, 0.0))
    if seconds < 0.9995:
        return f"{round(max(seconds, 0.0) * 1000)} ms"
    for (unit, size), (small, small_size) in (
        (("d", 86_400), ("h", 3600)),
        (("h", 3600), ("min", 60)),
        (("min", 60), ("s", 1)),
    ):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size:,} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def format_bytes(size: float) -> str:
    """Return a size in decimal units: "512 B", "3.2 MB", "330 MB"."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 9.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB" if value < 9.95 else f"{value:,.0f} TB"


def format_count(count: float) -> str:
    """Return a count with its thousands grouped: "12,408"."""
    return f"{count:,.0f}"


def format_counted(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: "1 dead letter", "12,408 dead letters"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def format_rate(per_second: float) -> str:
    """Return a rate to about three figures: "3.2/s", "212/s", "10,900/s"."""
    if 0 < per_second < 9.95:
        return f"{per_second:.1f}/s"
    return f"{round(per_second, -2 if per_second >= 1000 else 0):,.0f}/s"
