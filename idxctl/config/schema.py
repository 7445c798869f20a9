"""The configuration as JSON Schema, for editors that complete and check TOML by one; made from the same keys as the reader."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from idxctl.config.index_keys import INDEX, WATCH
from idxctl.config.keys import SECTIONS, Key

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

DRAFT = "http://json-schema.org/draft-07/schema#"  # the one that editors of TOML know


def schema() -> dict[str, Any]:
    """Return the schema of ``idxctl.toml``. What depends on several keys, or on a server, it does not know."""
    watch = {**_table(WATCH, "A table whose changes touch documents of the index."), "required": ["table"]}
    index = _table(INDEX, "How a document is made, and which tables it is made from.")
    index["properties"]["watch"]["items"] = watch
    index["required"] = ["document"]
    sections = {name: _table(keys, f"[{name}]") for name, keys in SECTIONS.items()}
    indexes = {"type": "object", "description": "By alias, the name that clients query.", "additionalProperties": index}
    return {
        "$schema": DRAFT,
        "title": "idxctl.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": {**sections, "indexes": indexes},
    }


def _table(keys: Mapping[str, Key], description: str) -> dict[str, Any]:
    properties = {name: _property(key) for name, key in keys.items()}
    return {"type": "object", "description": description, "additionalProperties": False, "properties": properties}


def _property(key: Key) -> dict[str, Any]:
    found = {**key.value.schema, "description": f"{key.text} A change needs: {key.takes.value}."}
    return {**found, "default": in_toml(key.default)} if key.default else found


def in_toml(text: str) -> Any:
    """Return what *text* means as a value of TOML."""
    return tomllib.loads(f"value = {text}")["value"]
