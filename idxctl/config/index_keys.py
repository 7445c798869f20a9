"""Every key of ``[indexes.NAME]`` and of its watches; the sections' keys, and what a key is, stand in `keys`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from idxctl.config.keys import SECTIONS, Key, Takes
from idxctl.config.settings import WatchSettings
from idxctl.config.values import (
    BOOLEAN,
    NAMES,
    RENAMES,
    SERVER_SETTINGS,
    STRINGS,
    TEXT,
    Value,
    Wrong,
    kind_of,
    one_of,
)
from idxctl.core.suggest import did_you_mean

PRIORITIES = ("high", "normal", "low")


def _of_an_index(value: Any) -> dict[str, Any]:
    """Read what one index has of its own of [scrub]."""
    if not isinstance(value, dict):
        raise Wrong(f"must be a table, found {kind_of(value)}", "write [indexes.NAME.scrub]")
    found = {}
    for key, one in value.items():
        if key not in SECTIONS["scrub"]:
            raise Wrong(f"has an unknown key {key!r}", did_you_mean(key, SECTIONS["scrub"]))
        try:
            found[key] = SECTIONS["scrub"][key].value.read(one)
        except Wrong as wrong:
            raise Wrong(f"{key} {wrong.what}", wrong.fix) from wrong
    return found


_FILE_OR_SQL = Value(TEXT.read, "a path that ends in `.sql`, or the query itself", TEXT.schema)
_FILE_OR_TABLE = Value(
    lambda value: value, "a path to a JSON file, or a table", {"anyOf": [TEXT.schema, {"type": "object"}]}
)
_OWN_SCRUB = Value(
    _of_an_index,
    "a table with `every` and `repair`, as [`[scrub]`](#scrub) has them",
    {"type": "object", "additionalProperties": False, "properties": {name: key.value.schema for name, key in SECTIONS["scrub"].items()}},
)  # fmt: skip
_WATCHES = Value(lambda value: value, "a list of tables, `[[indexes.NAME.watch]]`", {"type": "array"})

INDEX: Mapping[str, Key] = {
    "document": Key(
        _FILE_OR_SQL,
        "The query that makes the documents: one row each, with `document` (jsonb or json) and `document_id`, the key's column in its own "
        "type, or the columns of `key`. Needed.",
        Takes.REBUILD,
        '"search/listings.sql"',
    ),
    "mapping": Key(
        _FILE_OR_TABLE,
        "An object with `settings` and `mappings`, as sent to OpenSearch when an index is created. Aliases are idxctl's to set.",
        Takes.REBUILD,
        '"search/listings.json"',
        "{}",
    ),
    "key": Key(
        NAMES,
        "Columns of the document query that identify a document together, in place of `document_id`. Its id is their texts, "
        "percent-escaped and joined by `:`.",
        Takes.BOTH,
        '["tenant", "seq"]',
    ),
    "routing": Key(
        TEXT,
        "An SQL expression over `document_id` alone that gives the shard's routing.",
        Takes.REBUILD,
        "\"split_part(document_id, ':', 1)\"",
    ),
    "pipeline": Key(TEXT, "An ingest pipeline that each document passes.", Takes.REBUILD, '"embed"'),
    "verify_ignore": Key(
        STRINGS,
        "Top-level fields that are not compared with the row, since a pipeline adds them or `_source` leaves them out.",
        Takes.REBUILD,
        '["embedding"]',
    ),
    "search_path": Key(
        NAMES,
        "The schemas in which the index's SQL (document, routing, watches) looks for tables and functions. Without it, that of the session "
        "which runs `reindex` or `watch install`.",
        Takes.BOTH,
        '["shop", "public"]',
    ),
    "settings": Key(
        SERVER_SETTINGS,
        "Settings of PostgreSQL that the index's documents are rendered under, such as `TimeZone`, whatever role or session renders. "
        "`search_path`, `role`, `session_authorization`, `row_security` and `transaction_read_only` are refused.",
        Takes.REBUILD,
        '{ TimeZone = "Europe/Belgrade", "app.tenant" = "north" }',
    ),
    "scrub": Key(
        _OWN_SCRUB,
        'What this index has of its own of `[scrub]`; `every = "off"` leaves it out, whatever the command line says.',
        Takes.RESTART,
        '{ every = "6h", repair = false }',
    ),
    "watch": Key(_WATCHES, "The tables whose changes touch documents of this index, one entry each: see below.", Takes.INSTALL, "[]", "[]"),
}  # fmt: skip

WATCH: Mapping[str, Key] = {
    "table": Key(TEXT, "The table, as written in SQL. Needed.", Takes.INSTALL, "'geo.\"Place Notes\"'"),
    "key": Key(
        NAMES,
        "The column that holds the document's key, as the catalog has it; with a composite `key` of the index a list in its order. "
        "One of `key`, `key_sql` and `keys` is needed.",
        Takes.INSTALL,
        '"listing_id"',
    ),
    "key_sql": Key(
        TEXT,
        "An SQL expression over the row that gives the key.",
        Takes.INSTALL,
        "\"(payload->>'listing_id')::bigint\"",
    ),
    "keys": Key(
        TEXT,
        "A query over `changed`, the changed rows before and after, that returns the keys. It runs after the commit, by a worker. It may "
        "begin with WITH, and return NULLs and duplicates.",
        Takes.INSTALL,
        '"SELECT l.id FROM listings l JOIN changed c ON l.category_id = c.id"',
    ),
    "ignore": Key(
        STRINGS,
        "Columns whose changes alone are not captured. They must not be in the document.",
        Takes.INSTALL,
        '["views_count"]',
        "[]",
    ),
    "deferred": Key(
        BOOLEAN,
        "With `keys`: enqueue what the lookup finds at low priority, behind single changes.",
        Takes.INSTALL,
        "true",
        str(WatchSettings.deferred).lower(),
    ),
    "priority": Key(one_of(*PRIORITIES), "The priority of this watch's tasks.", Takes.INSTALL, '"low"', f'"{WatchSettings.priority}"'),
    "at": Key(
        TEXT,
        "A column of times at which the document changes by itself, such as an expiry; workers enqueue it then. Not with `keys`.",
        Takes.INSTALL,
        '"expires_at"',
    ),
    "was": Key(
        RENAMES,
        "Columns that a migration is about to rename: the new name, by which this watch calls them, and the old one. Until `was` is taken "
        "out the table may have either.",
        Takes.INSTALL,
        '{ item = "item_id" }',
        "{}",
    ),
    "capture": Key(
        one_of("coarse", "strict"),
        "Where a change cannot be captured exactly (a column was renamed or retyped): `coarse` lets the write through and looks at all of the "
        "index again; `strict` fails the application's write.",
        Takes.INSTALL,
        '"strict"',
        f'"{WatchSettings.capture}"',
    ),
}  # fmt: skip
