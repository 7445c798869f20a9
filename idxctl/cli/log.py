"""Logs of long-running commands: one line a fact, for people or as JSON, on stderr."""

from __future__ import annotations

import logging
import sys
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from idxctl.cli.terminal import coloured
from idxctl.core import legible, redaction

# Facts that quote nothing: how a process starts, goes on and ends, and where it is listened to.
_OF_OURS = {
    "started",
    "running",
    "stopped",
    "draining",
    "released",
    "http",
    "sequence",
    "deleted",
    "resumed",
    "rescued",
}
_SENTENCES = {"reason", "why", "error", "detail"}
_ALARMS = {"dead", "failing", "blocked", "circuit", "postgres", "lost", "broken", "failed", "load", "refused"}


class LogFormat(str, Enum):
    """How facts are written."""

    HUMAN = "human"
    JSON = "json"


class _Hiding(logging.Filter):
    """Takes the values that errors quote out of facts, whatever they are called: a new one may quote an error too."""

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "fact", "") not in _OF_OURS or record.levelno >= logging.WARNING:
            record.msg, record.args = redaction.without_values(record.getMessage()), None
            fields = getattr(record, "fields", {})
            record.fields = {
                key: redaction.without_values(one) if key in _SENTENCES and isinstance(one, str) else one
                for key, one in fields.items()
            }
        return True


class _Human(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        name = str(getattr(record, "fact", record.levelname.lower()))
        at = datetime.fromtimestamp(record.created, tz=timezone.utc).astimezone()
        text = legible.line(record.getMessage())
        if coloured(sys.stderr):
            colour = "33" if name in _ALARMS else "2"
            return f"\x1b[2m{at:%H:%M:%S}\x1b[0m  \x1b[{colour}m{name:<9}\x1b[0m {text}"
        return (
            f"{at:%Y-%m-%d %H:%M:%S}  {name:<9} {text}"
            if not sys.stderr.isatty()
            else f"{at:%H:%M:%S}  {name:<9} {text}"
        )


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        import orjson

        fields: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, tz=timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "fact": getattr(record, "fact", record.name),
            "text": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return legible.in_json(orjson.dumps(fields, default=str)).decode()


def configure(format_: LogFormat, *, debug: bool = False, values: bool = True) -> None:
    """Send the facts of idxctl to stderr; without *values*, none of the field values that errors quote."""
    handler = logging.StreamHandler(sys.stderr)
    if not values:
        handler.addFilter(_Hiding())
    handler.setFormatter(_Json() if format_ is LogFormat.JSON else _Human())
    logger = logging.getLogger("idxctl")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False
