"""The mapping of a document: a field for each column that it shows, an object or nested field for each part."""

from __future__ import annotations

import json
from typing import Any

from idxctl.init import shape, words
from idxctl.init.document import Fields
from idxctl.init.shape import How, Part

_ROWS_OF_A_SHARD = 20_000_000
_WIDTH = 140  # of a line


def mapping(root: Part, fields: Fields) -> dict[str, Any]:
    """
    Return settings and mappings, as OpenSearch takes them when an index is created.

    ``dynamic: strict``: the query names each field, so one that the mapping does not know is a mistake to be told of.
    """
    shards = max(1, -(-root.table.rows // _ROWS_OF_A_SHARD))
    return {
        "settings": {"number_of_shards": shards},
        "mappings": {"dynamic": "strict", "properties": _properties(root, fields)},
    }


def _properties(part: Part, fields: Fields) -> dict[str, Any]:
    table = part.table
    found = {
        one.name: dict(fields[table.oid, one.name].mapping) for one in part.columns if (table.oid, one.name) in fields
    }
    if part.location is not None:
        found[part.location[0]] = {"type": "geo_point"}
    for one in part.parts:
        found[one.field] = _of_part(one, fields)
    if part.join is not None:
        for column in part.join.extras:
            if (known := fields.get((part.join.table.oid, column.name))) is not None:
                found.setdefault(column.name, dict(known.mapping))
    if part.tree is not None:
        above = {one.name: found[one.name] for one in shape.ancestor_columns(part) if one.name in found}
        found[words.free("ancestors", found)] = {"properties": above}
    return found


def _of_part(part: Part, fields: Fields) -> dict[str, Any]:
    """
    Return the field of a part.

    Nested where an element has several fields, so that a search can ask for two of them in one element.
    """
    properties = _properties(part, fields)
    if part.how is How.MANY and len(properties) > 1:
        return {"type": "nested", "properties": properties}
    return {"properties": properties}


def written(value: Any, indent: int = 0) -> str:
    """Return a mapping as JSON that a person reads: what fits on a line stands on one."""
    short = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict) or not value or (len(short) + indent <= _WIDTH and not _deep(value)):
        return short
    pad = " " * (indent + 2)
    lines = [f"{pad}{json.dumps(name, ensure_ascii=False)}: {written(one, indent + 2)}" for name, one in value.items()]
    return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"


def _deep(value: dict[str, Any]) -> bool:
    """Whether it is more than a field with its sub-fields."""
    return (
        any(name == "properties" or _deep(one) for name, one in value.items() if isinstance(one, dict))
        or "properties" in value
    )
