"""What is asked of ids without rendering a document: whether they can be, are there, where they are routed, and which come next."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from idxctl.core import keys, texts
from idxctl.core.errors import PostgresRefused
from idxctl.indexes import reading
from idxctl.indexes.definitions import Definition, key_columns, rows_of
from idxctl.indexes.key_sql import between, id_text, wanted
from idxctl.postgres.connect import Connection

_ASKS_WITHOUT_ERROR = 160000  # the release from which a value can be tried without an error


def possible_ids(conn: Connection, definition: Definition, ids: Sequence[str]) -> list[str]:
    """
    Return those of *ids* that may be ids of this key, by its types: a text that is no number is none of a bigint.

    One statement, however many are none. Before PostgreSQL 16 there is no asking without an error, and some pass that are not.
    """
    known = [one for one in ids if not texts.unknown_to(one, conn.encoding)]
    width = len(definition.key)
    parts = {one: keys.key_parts(one, width) for one in known if width == 1 or one.count(":") == width - 1}
    if conn.raw.info.server_version < _ASKS_WITHOUT_ERROR:
        enums = _labels(conn, definition)
        return [
            one for one, values in parts.items()
            if all(value in enums[of] if of in enums else keys.fits(value, of)
                   for value, of in zip(values, definition.key_types, strict=True))
        ]  # fmt: skip
    if not parts:
        return []
    columns = [sql.Identifier(f"c{place}") for place in range(width)]
    query = sql.SQL("SELECT i.n FROM ROWS FROM ({arrays}) WITH ORDINALITY AS i ({names}, n) WHERE {valid}").format(
        arrays=sql.SQL(", ").join(
            sql.SQL("pg_catalog.unnest({}::pg_catalog.text[])").format(
                sql.Literal([values[place] for values in parts.values()])
            )
            for place in range(width)
        ),
        names=sql.SQL(", ").join(columns),
        valid=sql.SQL(" AND ").join(
            sql.SQL("pg_catalog.pg_input_is_valid(i.{}, {})").format(column, sql.Literal(of))
            for column, of in zip(columns, definition.key_types, strict=True)
        ),
    )
    with conn.transaction(local=definition.in_force, read_only=True):
        valid = {row[0] for row in conn.execute(query)}
    return [one for place, one in enumerate(parts, start=1) if place in valid]


def _labels(conn: Connection, definition: Definition) -> dict[str, set[str]]:
    """Return the labels of the enums among the key's types."""
    query = sql.SQL(
        "SELECT e.enumlabel::pg_catalog.text FROM pg_catalog.pg_enum e WHERE e.enumtypid OPERATOR(pg_catalog.=) {}::pg_catalog.regtype"
    )
    plain = keys.PLAIN_TYPES
    with conn.transaction(local=definition.in_force, read_only=True):
        return {
            of: {row[0] for row in conn.execute(query.format(sql.Literal(of)))}
            for of in set(definition.key_types) if of not in plain
        }  # fmt: skip


def existing(conn: Connection, definition: Definition, ids: Sequence[str]) -> list[str]:
    """Return those of *ids* that have a document; an id that cannot be one of this key has none."""
    if not ids:
        return []
    query = sql.SQL("SELECT {ident} FROM {rows} WHERE {condition} AND d.document IS NOT NULL").format(
        ident=id_text(definition), rows=rows_of(definition), condition=wanted(definition, ids)
    )
    try:
        with conn.transaction(local=reading.settings(conn, definition), read_only=True):
            return [row[0] for row in conn.execute(query)]
    except PostgresRefused as error:
        if not reading.is_of_values(error):
            raise
        possible = possible_ids(conn, definition, ids)
        if len(possible) < len(ids):
            return existing(conn, definition, possible)
        if len(ids) == 1:
            return []
        middle = len(ids) // 2
        return [*existing(conn, definition, ids[:middle]), *existing(conn, definition, ids[middle:])]


def routings(conn: Connection, definition: Definition, ids: Sequence[str]) -> dict[str, bytes]:
    """Return the routing, as JSON, of ids that may have no row: deletes are routed as well (T7)."""
    if definition.routing is None or not ids:
        return {}
    kind = sql.SQL(keys.type_sql("text" if definition.composite else definition.key_types[0]))
    query = sql.SQL(
        "SELECT id, pg_catalog.to_json((SELECT ({expression}\n) FROM (SELECT id::{kind} AS document_id) AS r)"
        "::pg_catalog.text)::pg_catalog.text FROM pg_catalog.unnest({ids}::pg_catalog.text[]) AS id"
    ).format(expression=sql.SQL(definition.routing), kind=kind, ids=sql.Literal(list(ids)))
    try:
        with conn.transaction(local=definition.in_force, read_only=True):
            return {row[0]: row[1].encode() for row in conn.execute(query) if row[1] is not None}
    except PostgresRefused as error:
        if not reading.is_of_values(error):
            raise
    possible = possible_ids(conn, definition, ids)
    if len(possible) < len(ids):  # no document has the others, wherever they are looked for
        return routings(conn, definition, possible)
    if len(ids) == 1:
        return {}
    middle = len(ids) // 2
    return {**routings(conn, definition, ids[:middle]), **routings(conn, definition, ids[middle:])}


def ids_where(conn: Connection, definition: Definition, condition: sql.Composable) -> list[str]:
    """Return the ids of the rows for which *condition* holds, without rendering a document."""
    query = sql.SQL("SELECT {ident} FROM {rows} WHERE {condition}").format(
        ident=id_text(definition), rows=rows_of(definition), condition=condition
    )
    with conn.transaction(local=reading.settings(conn, definition), read_only=True):
        return [row[0] for row in conn.execute(query)]


def next_boundary(
    conn: Connection,
    definition: Definition,
    after: Sequence[str] | None,
    count: int,
    *,
    upto: Sequence[str] | None = None,
) -> list[str] | None:
    """
    Return the key of the *count*-th document after *after*, as the text of its parts; None when fewer are left up to *upto*.

    Reads keys alone: Postgres leaves the document out of a subquery that nobody asks it of.
    """
    names = key_columns(definition)
    query = sql.SQL("SELECT {texts} FROM {rows} WHERE {condition} ORDER BY {names} OFFSET {skip} LIMIT 1").format(
        texts=sql.SQL(", ").join(sql.SQL("{}::pg_catalog.text").format(name) for name in names),
        rows=rows_of(definition),
        condition=between(definition, after, upto),
        names=sql.SQL(", ").join(names),
        skip=sql.Literal(count - 1),
    )
    with conn.transaction(local=reading.settings(conn, definition), read_only=True):
        row = conn.execute(query).fetchone()
    return None if row is None else [str(part) for part in row]
