"""A document's id as people give it, made the one that the index has: a uuid in capitals, 007, the parts of a composite key."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from idxctl.core import keys, texts
from idxctl.core.errors import PostgresRefused, UsageError
from idxctl.indexes import reading
from idxctl.indexes.definitions import Definition
from idxctl.postgres.connect import Connection


def joined(index: str, definition: Definition | None, words: Sequence[str]) -> str:
    """Return the id that *words* are: an id as it is, or the parts of a composite key; raises `UsageError` for another number."""
    if len(words) == 1:
        return words[0]
    width = len(definition.key) if definition is not None else 1
    if len(words) != width:
        key = (
            f"the key of {index} has {width} columns: {', '.join(definition.key)}"
            if definition is not None and width > 1
            else f"the key of {index} is one column"
        )
        raise UsageError(f"{len(words)} values are no id: {key}", hint="quote an id that has blanks in it")
    return keys.document_id(words)


def described(definition: Definition) -> list[str]:
    """Return the key's columns, each with its type."""
    return [f"{name} ({kind})" for name, kind in zip(definition.key, definition.key_types, strict=True)]


def canonical(conn: Connection, definition: Definition, given: str) -> str | None:
    """Return *given* as the document query writes that key; None where no row can have it."""
    if not given or texts.unknown_to(given, conn.encoding):
        return None
    try:
        parts = keys.key_parts(given, len(definition.key))
    except ValueError:
        return None
    values = [
        sql.SQL("({}::pg_catalog.text::{})").format(sql.Literal(part), sql.SQL(keys.type_sql(kind))).as_string(conn.raw)
        for part, kind in zip(parts, definition.key_types, strict=True)
    ]
    query = sql.SQL("SELECT {}").format(sql.SQL(keys.document_id_sql(values, definition.key_types)))
    try:
        with conn.transaction(local=definition.in_force, read_only=True):
            row = conn.execute(query).fetchone()
    except PostgresRefused as error:
        if not reading.is_of_values(error):
            raise
        return None
    return None if row is None else str(row[0])
