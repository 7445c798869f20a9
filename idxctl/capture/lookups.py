"""
The queries that workers run for a watch after the commit: keys of changed rows (C1), and keys that became due with time.

They are made from the stored definition, which may be that of a watch since removed. Run them in a READ COMMITTED
transaction, with `local_settings` in force: the watch's own SQL sees the path of its installation, so what stands around it
names pg_catalog for every function and operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from idxctl.capture.catalog import literal, quoted
from idxctl.capture.watches import Definition
from idxctl.core import keys
from idxctl.core.queries import bare

_PAIRS = 40  # of names and values in one jsonb_build_object; a function takes 100 arguments


def local_settings(definition: Mapping[str, Any]) -> dict[str, str]:
    """
    Return the settings under which a watch's SQL means what it meant at installation.

    ``row_security = off``: a policy that hides rows is an error, not an answer without them (C5).
    """
    path = ["pg_catalog", *(name for name in definition.get("search_path", ()) if name != "pg_catalog"), "pg_temp"]
    return {"search_path": ", ".join(quoted(name) for name in path), "row_security": "off"}


def expansion(
    definition: Mapping[str, Any], rows: Sequence[Sequence[Any]], *, by_stored_types: bool = False
) -> sql.Composed:
    """
    Return the query for the ids that a task's *rows* lead to: one column of text, distinct, without NULLs.

    Values take the types that the table's columns have now, so that a retyped column does no harm; the stored ones where
    the table is gone or renamed since (*by_stored_types*).
    """
    one = Definition.from_json(definition)
    assert one.keys is not None
    outputs = [f'k."k{place}"' for place in range(len(one.key_types))]
    id_ = keys.document_id_sql(outputs, one.key_types)
    values = [f"{literal(name)}, e.v OPERATOR(pg_catalog.->) {place}" for place, name in enumerate(one.columns)]
    objects = " OPERATOR(pg_catalog.||) ".join(
        f"pg_catalog.jsonb_build_object({', '.join(values[place : place + _PAIRS])})"
        for place in range(0, len(values), _PAIRS)
    )
    if by_stored_types or one.by_stored_types:
        typed = ", ".join(f"{quoted(name)} {of}" for name, of in zip(one.columns, one.types, strict=True))
        record = f"pg_catalog.jsonb_to_record({objects}) AS r ({typed})"
    else:
        record = f"pg_catalog.jsonb_populate_record(NULL::{quoted(one.table_schema)}.{quoted(one.table_name)}, {objects}) AS r"
    return sql.SQL(
        "WITH changed AS (SELECT {columns} FROM pg_catalog.jsonb_array_elements({rows}) AS e (v) CROSS JOIN LATERAL {record})\n"
        "SELECT DISTINCT {id} FROM (\n{query}\n) AS k ({outputs}) WHERE ({id}) IS NOT NULL"
    ).format(
        columns=_raw(", ".join(f"r.{quoted(name)}" for name in one.columns)),
        rows=sql.Literal(Jsonb(rows)),
        record=_raw(record),
        id=_raw(id_),
        query=_raw(bare(one.keys)),
        outputs=_raw(", ".join(f'"k{place}"' for place in range(len(one.key_types)))),
    )


def passed(
    definition: Mapping[str, Any], schema: str, table: str, *, after: datetime | None, upto: datetime
) -> sql.Composed:
    """Return the query for the ids of rows whose `at` column lies in (*after*, *upto*]: one column of text."""
    one = Definition.from_json(definition)
    assert one.at is not None
    alias = quoted(one.table_name)
    expressions = [one.key_expression] if one.key_expression else [f"{alias}.{quoted(name)}" for name in one.key]
    id_ = keys.document_id_sql(expressions, one.key_types)
    return sql.SQL(
        "SELECT DISTINCT due.id FROM (SELECT {id} AS id FROM {table} AS {alias} "
        "WHERE {alias}.{at} OPERATOR(pg_catalog.<=) {upto} AND ({after}::timestamptz IS NULL OR {alias}.{at} OPERATOR(pg_catalog.>) {after})) AS due WHERE due.id IS NOT NULL"
    ).format(
        id=_raw(id_),
        table=sql.Identifier(schema, table),
        alias=sql.Identifier(one.table_name),
        at=sql.Identifier(one.at),
        after=sql.Literal(after),
        upto=sql.Literal(upto),
    )


def _raw(text: str) -> sql.SQL:
    """Take text that is SQL already; `SQL` wants a literal so that nobody pastes values in."""
    return sql.SQL(text)
