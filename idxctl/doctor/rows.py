"""One row: the document that it makes, or why none; and whether its table has it at all."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from idxctl.capture.catalog import label
from idxctl.capture.watches import installed_watches
from idxctl.core import keys
from idxctl.core.errors import PostgresRefused
from idxctl.doctor.facts import Row, RowState
from idxctl.indexes import reading, render
from idxctl.indexes.definitions import Definition
from idxctl.indexes.ids import routings
from idxctl.indexes.render import Read
from idxctl.indexes.sizes import Sizes
from idxctl.postgres.connect import Connection
from idxctl.verify.compare import parsed_row

_READ_SECONDS = 5.0
_BYTES = 8 * 1024 * 1024
_DENIED = "42501"


@dataclass(frozen=True)
class Rendered:
    """A row as it was read: what is told of it, the very bytes that would be sent, and its routing as JSON."""

    row: Row
    text: bytes = b""
    routing: bytes | None = None


def rendered(conn: Connection, definition: Definition, document_id: str, *, possible: bool = True) -> Rendered:
    """Read the document of an id as it is now, within seconds; *possible*: a row can have that id."""
    if not possible:
        return Rendered(Row(RowState.NONE))
    routing = None
    with conn.reading_within(_READ_SECONDS):
        try:
            routing = routings(conn, definition, [document_id]).get(document_id)
            read = render.by_ids(conn, definition, [document_id], token=None, max_bytes=_BYTES, sizes=Sizes())
        except PostgresRefused as error:
            return Rendered(_refused(conn, error, routing), routing=routing)
    return Rendered(*_of(conn, read, document_id, routing), routing)


def _of(conn: Connection, read: Read, document_id: str, routing: bytes | None) -> tuple[Row, bytes]:
    """Return what a read of one id says, and the document's bytes."""
    way = _way(routing)
    if read.failures:
        return _refused(conn, read.failures[document_id], routing), b""
    if read.unfit:
        return Row(RowState.UNREADABLE, routing=way, error_type="id_too_long", error=read.unfit[document_id]), b""
    if document_id not in read.ids:
        return Row(RowState.NONE, routing=way), b""
    if read.doubled:
        twice = "the document query returns it more than once"
        return Row(RowState.UNREADABLE, routing=way, error_type="duplicate_document", error=twice), b""
    text = b"".join(lines.text for lines in read.found).rstrip(b"\n")
    return Row(RowState.FOUND, parsed_row(text), len(text), way), text


def _way(routing: bytes | None) -> str | None:
    return None if routing is None else str(parsed_row(routing))


def _refused(conn: Connection, error: PostgresRefused, routing: bytes | None) -> Row:
    passing = error.passing and not reading.is_too_slow(error)  # a migration that holds the table, for one
    state = RowState.UNTOLD if passing or error.sqlstate == _DENIED else RowState.UNREADABLE
    why = conn.reason(error.detail or error.message)
    return Row(state, routing=_way(routing), error_type=f"sql_{error.sqlstate}", error=why)


def in_its_table(
    conn: Connection, index: str, definition: Definition, document_id: str
) -> tuple[str | None, bool | None]:
    """
    Return the table whose primary key the id is, by a watch that says so, and whether it has a row of that key.

    (None, None) where no watch tells, or it cannot be asked.
    """
    watches = [one.definition for one in installed_watches(conn) if one.index == index]
    root = next((one for one in watches if one.by_primary_key and one.key_types == definition.key_types), None)
    if root is None:
        return None, None
    parts = keys.key_parts(document_id, len(definition.key))
    equal = sql.SQL(" AND ").join(
        sql.SQL("r.{} OPERATOR(pg_catalog.=) {}::pg_catalog.text::{}").format(
            sql.Identifier(column), sql.Literal(part), sql.SQL(keys.type_sql(kind))
        )
        for column, part, kind in zip(root.key, parts, root.key_types, strict=True)
    )
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} AS r WHERE {})").format(sql.Identifier(*root.table), equal)
    try:
        with (
            conn.reading_within(_READ_SECONDS),
            conn.transaction(local=reading.settings(conn, definition), read_only=True),
        ):
            row = conn.execute(query).fetchone()
    except PostgresRefused:
        return label(*root.table), None
    return label(*root.table), bool(row and row[0])
