"""What ``mapping`` of an index may hold: settings and mappings, as OpenSearch takes them when an index is created."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from idxctl.config.files import decapitalised
from idxctl.config.values import Wrong, kind_of
from idxctl.core.suggest import did_you_mean


def parsed(text: str, path: Path) -> Any:
    """Return the JSON of the file at *path*. Raises `Wrong`, which says where it is not JSON."""
    try:
        return json.loads(text, object_pairs_hook=_no_twice, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise Wrong(f"{path} line {error.lineno} column {error.colno}: {decapitalised(error.msg)}") from None
    except Wrong as wrong:
        raise Wrong(f"{path}: {wrong.what}", wrong.fix) from None
    except RecursionError:
        raise Wrong(f"{path} is nested too deeply") from None


def problems(mapping: Mapping[str, Any]) -> Iterator[Wrong]:
    """Yield what OpenSearch would not take, or what is idxctl's to set."""
    for key, value in mapping.items():
        if key in {"settings", "mappings"}:
            if not isinstance(value, dict):
                yield Wrong(f"{key} must be an object, found {kind_of(value)}")
        elif key == "aliases":
            yield Wrong("aliases are idxctl's to set", "take aliases out")
        elif key in {"properties", "dynamic"}:
            yield Wrong(f"{key!r} at the top", f'put it inside "mappings": {{"{key}": ...}}')
        else:
            yield Wrong(f"unknown key {key!r}", did_you_mean(key, ("settings", "mappings")))
    try:
        json.dumps(mapping, allow_nan=False)
    except (TypeError, ValueError):
        yield Wrong("holds a date, a time or a number that JSON does not have")


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Wrong(f"the key {twice!r} stands twice in one object", "keep one of them")
    return found


def _no_constant(name: str) -> Any:
    raise Wrong(f"{name} is not JSON")
