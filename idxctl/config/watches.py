"""What a watch must hold as a whole, beside what each of its keys takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from idxctl.config.index_keys import WATCH
from idxctl.core.suggest import nearest


def problems(
    table: Mapping[str, Any], values: Mapping[str, Any], index_key: tuple[str, ...]
) -> list[tuple[str, str, str]]:
    """Return what is wrong with a watch as a whole: the sentence, the fix and the key it is about."""
    found: list[tuple[str, str, str]] = []
    ways = [key for key in ("key", "key_sql", "keys") if key in table]
    if "table" not in table and not mistyped(table, WATCH, "table"):
        found.append(("no table", 'name the table whose changes count: table = "products"', ""))
    if not ways and not any(mistyped(table, WATCH, way) for way in ("key", "key_sql", "keys")):
        found.append(("none of key, key_sql and keys", 'say how a row leads to its documents: key = "product_id"', ""))
    elif len(ways) > 1:
        found.append((f"{' and '.join(ways)} together", "keep one of them", ways[1]))
    if values.get("deferred") and "keys" not in table:
        found.append(
            (
                "deferred without keys",
                'only a lookup (keys) can be deferred; for a low priority write priority = "low"',
                "deferred",
            )
        )
    if "at" in table and "keys" in table:
        found.append(("at together with keys", "a column of times needs key or key_sql", "at"))
    key = values.get("key") or ()
    if key and len(key) != max(len(index_key), 1):
        found.append(_key_length(key, index_key))
    twice = sorted(set(key) & set(values.get("ignore") or ()))
    if twice:
        found.append(
            (f"ignore names the key {', '.join(twice)}", "a changed key is always a change: take it out", "ignore")
        )
    return found


def mistyped(table: Mapping[str, Any], known: Iterable[str], wanted: str) -> bool:
    """Whether one of the unknown keys was meant to be *wanted*; it is reported already."""
    names = list(known)
    return any(key not in names and nearest(key, names) == wanted for key in table)


def _key_length(key: tuple[str, ...], index_key: tuple[str, ...]) -> tuple[str, str, str]:
    if not index_key:
        fix = f"set key = [{', '.join(json.dumps(name) for name in key)}] on the index too, or use key_sql"
        return (f"key names {len(key)} columns, but the index has no key of its own", fix, "key")
    wanted = f"{len(index_key)} ({', '.join(index_key)})"
    return (f"key names {len(key)}, the key of the index has {wanted}", "name as many, in the same order", "key")
