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

from idxctl.capture import catalog
from idxctl.capture.catalog import SQL, columns, literal, quoted
from idxctl.capture.watches import Definition
from idxctl.core import keys
from idxctl.core.errors import PostgresRefused
from idxctl.core.queries import bare
from idxctl.postgres import pinned
from idxctl.postgres.connect import Connection

_PAIRS = 40  # of names and values in one jsonb_build_object; a function takes 100 arguments


# Under which the text of a value is written by the triggers. PostgreSQL reads a time or an interval so written whatever it
# would write itself; money alone it reads as it writes.
_TEXTS = {"DateStyle": "ISO, YMD", "IntervalStyle": "postgres", "lc_monetary": "C"}


def local_settings(definition: Mapping[str, Any], rendered: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """
    Return the settings under which a watch's SQL means what it meant at installation.

    Its keys are to read as the ids of documents do, and these are *rendered* under settings that their generation stores.
    ``row_security = off``: a policy that hides rows is an error, not an answer without them (C5).
    """
    path = ["pg_catalog", *(name for name in definition.get("search_path", ()) if name != "pg_catalog"), "pg_temp"]
    settings: dict[str, str | None] = {
        **pinned.THEIRS,
        "search_path": ", ".join(quoted(name) for name in path),
        "row_security": "off",
    }
    if definition.get("read_as"):
        settings |= _TEXTS
    rendered = rendered or {}
    settings |= {name: rendered[name] for name in pinned.WRITTEN if name in rendered}
    settings |= {name: value for name, value in rendered.items() if "." in name}  # of the application's own
    if "pg_catalog.money" in definition.get("read_as", ()):
        settings["lc_monetary"] = _TEXTS["lc_monetary"]
    settings |= dict(definition.get("written", ()))
    if definition.get("key_sql"):  # as PostgreSQL wrote it out
        settings["standard_conforming_strings"] = "on"
    return settings


def stored_rows(payload: Mapping[str, Any]) -> list[Any]:
    """Return the changed rows that a task holds; of texts that an older idxctl would take for values, by another name."""
    rows: list[Any] = payload["values"] if "values" in payload else payload["rows"]
    return rows


def casts(conn: Connection, definition: Mapping[str, Any], *, by_stored_types: bool = False) -> tuple[str, ...]:
    """
    Return what the texts of a task's rows are cast to: the types that the table's columns have now, else the stored ones.

    So a retyped column does no harm. Below a domain, since its checks would be somebody's code in the worker's hands.
    """
    one = Definition.from_json(definition)
    now: dict[str, str] = {}
    if not by_stored_types:
        oid = conn.run(SQL["resolve"], name=f"{quoted(one.table_schema)}.{quoted(one.table_name)}").fetchone()
        now = {column.name: column.read_as for column in columns(conn, oid[0])} if oid and oid[0] else {}
    return tuple(now.get(name, of) for name, of in zip(one.columns, one.read_as, strict=True))


def expansion(
    definition: Mapping[str, Any],
    rows: Sequence[Sequence[Any]],
    types: Sequence[str] = (),
    *,
    by_stored_types: bool = False,
) -> sql.Composed:
    """
    Return the query for the ids that a task's *rows* lead to: one column of text, distinct, without NULLs.

    *types* are those of `casts`. A watch stored by an older idxctl has none: its values take the types of the table's
    columns, the stored ones where it is gone or renamed since (*by_stored_types*).
    """
    one = Definition.from_json(definition)
    assert one.keys is not None
    outputs = [f'k."k{place}"' for place in range(len(one.key_types))]
    id_ = keys.document_id_sql(outputs, one.key_types)
    return sql.SQL(
        "{changed}\nSELECT DISTINCT {id} FROM (\n{query}\n) AS k ({outputs}) WHERE ({id}) IS NOT NULL"
    ).format(
        changed=_changed(one, rows, types, by_stored_types=by_stored_types),
        id=_raw(id_),
        query=_raw(bare(one.keys)),
        outputs=_raw(", ".join(f'"k{place}"' for place in range(len(one.key_types)))),
    )


def readable(conn: Connection, definition: Mapping[str, Any], rows: Sequence[Sequence[Any]]) -> bool:
    """Whether the texts of *rows* are values of the types that the table's columns have now, whatever a query makes of them."""
    one = Definition.from_json(definition)
    if not one.read_as:
        return True
    changed = _changed(one, rows, casts(conn, definition), by_stored_types=False)
    try:
        with conn.savepoint(local=local_settings(definition), read_only=True):
            conn.execute(sql.SQL("{}\nSELECT pg_catalog.count(changed) FROM changed").format(changed))
    except PostgresRefused as error:
        return not error.sqlstate.startswith("22")
    return True


def _changed(
    one: Definition, rows: Sequence[Sequence[Any]], types: Sequence[str], *, by_stored_types: bool
) -> sql.Composed:
    """Return the WITH clause that makes a task's *rows* the table `changed`."""
    if one.read_as:
        changed, record = _typed(one, types or one.read_as)
    else:
        changed = ", ".join(f"r.{quoted(name)}" for name in one.columns)
        record = f" CROSS JOIN LATERAL {_record(one, by_stored_types=by_stored_types)}"
    return sql.SQL(
        "WITH changed AS (SELECT {columns} FROM pg_catalog.jsonb_array_elements({rows}) AS e (v){record})"
    ).format(columns=_raw(changed), rows=sql.Literal(Jsonb(rows)), record=_raw(record))


def _typed(one: Definition, types: Sequence[str]) -> tuple[str, str]:
    """
    Return the columns of `changed` by their *types*, and what else they are read from.

    PostgreSQL's own by a cast. Others by their input function, which JSON's functions call: somebody may have made a cast.
    """
    named = list(enumerate(zip(one.columns, types, strict=True)))
    theirs = {place: of for place, (_, of) in named if not of.startswith("pg_catalog.")}
    columns_ = ", ".join(
        f"r.c{place} AS {quoted(name)}"
        if place in theirs
        else f"(e.v OPERATOR(pg_catalog.->>) {place})::{of} AS {quoted(name)}"
        for place, (name, of) in named
    )
    if not theirs:
        return columns_, ""
    objects = _object([f"'c{place}', e.v OPERATOR(pg_catalog.->) {place}" for place in theirs])
    shape = ", ".join(f"c{place} {of}" for place, of in theirs.items())
    return columns_, f" CROSS JOIN LATERAL pg_catalog.jsonb_to_record({objects}) AS r ({shape})"


def _object(values: Sequence[str]) -> str:
    return " OPERATOR(pg_catalog.||) ".join(
        f"pg_catalog.jsonb_build_object({', '.join(values[place : place + _PAIRS])})"
        for place in range(0, len(values), _PAIRS)
    )


def _record(one: Definition, *, by_stored_types: bool) -> str:
    """Return a row of an older idxctl's task as a record."""
    objects = _object(
        [f"{literal(name)}, e.v OPERATOR(pg_catalog.->) {place}" for place, name in enumerate(one.columns)]
    )
    if by_stored_types or one.by_stored_types:
        typed = ", ".join(f"{quoted(name)} {of}" for name, of in zip(one.columns, one.types, strict=True))
        return f"pg_catalog.jsonb_to_record({objects}) AS r ({typed})"
    return (
        f"pg_catalog.jsonb_populate_record(NULL::{quoted(one.table_schema)}.{quoted(one.table_name)}, {objects}) AS r"
    )


def passed(
    conn: Connection, definition: Mapping[str, Any], schema: str, table: str, *, after: datetime | None, upto: datetime
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
        table=_raw(_by_new_names(conn, one, schema, table)),
        alias=sql.Identifier(one.table_name),
        at=sql.Identifier(one.at),
        after=sql.Literal(after),
        upto=sql.Literal(upto),
    )


def _by_new_names(conn: Connection, one: Definition, schema: str, table: str) -> str:
    """Return the table as a FROM item in which columns that are about to be renamed have their new names."""
    name = f"{quoted(schema)}.{quoted(table)}"
    row = conn.run(SQL["resolve"], name=name).fetchone() if one.was else None
    there = catalog.table(conn, row[0]) if row and row[0] else None
    return name if there is None else f"({there.by_new_names(one.old_names).all_columns})"


def _raw(text: str) -> sql.SQL:
    """Take text that is SQL already; `SQL` wants a literal so that nobody pastes values in."""
    return sql.SQL(text)
