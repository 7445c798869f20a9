"""How people read a value: with units, in the column it stands in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from idxctl.cli.terminal import NOTHING
from idxctl.core import durations, legible
from idxctl.core.to_json import plain_value

Kind = Literal["text", "name", "count", "age", "since", "seconds", "bytes", "rate", "time", "state"]

_RIGHT: frozenset[str] = frozenset({"count", "age", "since", "seconds", "bytes", "rate"})


@dataclass(frozen=True)
class Column:
    """
    A column: the key of its value, its heading and how the value reads.

    Kinds: ``text``, which may wrap; ``name``, which never does; ``count`` 12,408; ``age`` (seconds) 3 min; ``since`` (a datetime) 3 min; ``seconds`` 2 min 7 s; ``bytes``;
    ``rate`` 212/s; ``time`` 2026-11-02 14:20:03; ``state`` ok, warn or bad. CSV and JSON have the value itself.
    """

    key: str
    title: str | None = None
    kind: Kind = "text"

    @property
    def heading(self) -> str:
        """What stands above it."""
        return self.title if self.title is not None else self.key.replace("_", " ")

    @property
    def right(self) -> bool:
        """Whether it is aligned to the right."""
        return self.kind in _RIGHT


def field(row: Any, key: str) -> Any:
    return row.get(key) if isinstance(row, Mapping) else getattr(row, key)


def _seconds_since(value: datetime) -> float:
    return (datetime.now(timezone.utc) - value.astimezone(timezone.utc)).total_seconds()


def _number(value: Any) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


_READS: Mapping[str, Callable[[Any], str]] = {
    "count": durations.format_count,
    "age": lambda value: durations.format_age(_number(value)),
    "since": lambda value: durations.format_age(_seconds_since(value)),
    "seconds": lambda value: durations.format_duration(_number(value)),
    "bytes": durations.format_bytes,
    "rate": durations.format_rate,
    "time": lambda value: (
        value.astimezone().strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, datetime) else legible.line(str(value))
    ),
    "state": lambda value: legible.line(str(value)),
}


def shown(value: Any, kind: Kind = "text") -> str:
    """Return *value* as people read it."""
    if value is None or value in ("", (), []):
        return NOTHING
    if kind in _READS:
        return _READS[kind](value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, timedelta):
        return durations.format_duration(value.total_seconds())
    if isinstance(value, datetime):
        return _READS["time"](value)
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(item) for item in value)
    text = str(plain_value(value))
    return legible.escaped(text) if kind == "text" else legible.line(text)
