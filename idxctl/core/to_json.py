"""Values as JSON has them, the same on the command line and over HTTP."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from idxctl.core import legible
from idxctl.core.secret import Secret


def plain_value(value: Any) -> Any:
    """Return *value* as JSON has it: dataclasses as objects, times in ISO 8601, timedeltas in seconds, secrets as stars."""
    if isinstance(value, Secret):
        return "***"
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain_value(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain_value(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def as_json(value: Any, *, indent: bool = False) -> bytes:
    """Return *value* as JSON with a line's end; numbers beyond 64 bits as they are, since teams' own data may hold them."""
    import orjson

    plain = plain_value(value)
    try:
        text = orjson.dumps(plain, option=orjson.OPT_APPEND_NEWLINE | (orjson.OPT_INDENT_2 if indent else 0))
    except orjson.JSONEncodeError:
        layout: dict[str, Any] = {"indent": 2} if indent else {"separators": (",", ":")}
        text = json.dumps(plain, ensure_ascii=False, **layout).encode("utf-8", "surrogatepass") + b"\n"
    return legible.in_json(text)
