"""Conditions over the key of a document, in its own columns and types, so that the key's index serves them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from idxctl.core import keys
from idxctl.indexes.definitions import Definition, key_columns


def id_text(definition: Definition) -> sql.Composable:
    """Return the document's id as text, an expression over d."""
    columns = [column.as_string(None) for column in key_columns(definition)]
    return sql.SQL(keys.document_id_sql(columns, definition.key_types))


def wanted(definition: Definition, ids: Sequence[str]) -> sql.Composable:
    """
    Return the condition that finds *ids* by the key's own columns and types, so that the key's index serves it.

    A composite key's parts are compared column by column; a concatenation would miss the index.
    """
    if not definition.composite:
        return sql.SQL("{} OPERATOR(pg_catalog.=) ANY({}::pg_catalog.text[]::{}[])").format(
            key_columns(definition)[0],
            sql.Literal(list(ids)),
            sql.SQL(keys.type_sql(definition.key_types[0])),
        )
    width = len(definition.key)
    parts = [keys.key_parts(one, width) for one in ids if one.count(":") == width - 1]
    if not parts:  # no row has such an id
        return sql.SQL("false")
    columns = sql.SQL(", ").join(key_columns(definition))
    arrays = sql.SQL(", ").join(
        sql.SQL("pg_catalog.unnest({}::pg_catalog.text[]::{}[])").format(
            sql.Literal([part[place] for part in parts]), sql.SQL(keys.type_sql(kind))
        )
        for place, kind in enumerate(definition.key_types)
    )
    return sql.SQL("ROW({}) OPERATOR(pg_catalog.=) ANY (SELECT * FROM ROWS FROM ({}) AS wanted)").format(
        columns, arrays
    )


def between(definition: Definition, after: Sequence[str] | None, upto: Sequence[str] | None) -> sql.Composable:
    """Return the condition for keys after *after* (exclusive; None: from the first) up to *upto* (inclusive; None: to the last)."""
    row = sql.SQL("({})" if len(definition.key) == 1 else "ROW({})").format(sql.SQL(", ").join(key_columns(definition)))
    parts: list[sql.Composable] = []
    if after is not None:
        parts.append(sql.SQL("{} OPERATOR(pg_catalog.>) {}").format(row, key_literal(definition, after)))
    if upto is not None:
        parts.append(sql.SQL("{} OPERATOR(pg_catalog.<=) {}").format(row, key_literal(definition, upto)))
    return sql.SQL(" AND ").join(parts) if parts else sql.SQL("true")


def key_literal(definition: Definition, values: Sequence[str]) -> sql.Composed:
    """Return a key, given as the text of its parts, in the key's own types."""
    return sql.SQL("({})" if len(values) == 1 else "ROW({})").format(
        sql.SQL(", ").join(
            sql.SQL("{}::pg_catalog.text::{}").format(sql.Literal(value), sql.SQL(keys.type_sql(kind)))
            for value, kind in zip(values, definition.key_types, strict=True)
        )
    )
