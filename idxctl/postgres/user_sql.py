"""
SQL that people wrote: a document query, a lookup, a routing, the condition of ``queue add --where``.

Two things hold for all of it. It is one query: what is to stand in our brackets is first put to PostgreSQL without them,
in the extended protocol, which takes one statement and no more; so neither a second statement nor a bracket that closes
ours gets through, and no parser of SQL but PostgreSQL's own has to know why. And it runs READ ONLY, with
``row_security = off``: a policy is an error, never an answer without the rows that it hides.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping

from psycopg import sql

from idxctl.postgres.connect import Connection
from idxctl.postgres.translated import translated

_IN_MEMORY = 8 * 1024 * 1024  # bytes; more lies in a temporary file
_PIECE = 256 * 1024


def require_one_query(conn: Connection, text: str) -> None:
    """
    Raise `PostgresRefused` unless *text*, as it stands, is one query that can be planned; nothing of it is run.

    Call it in a transaction, with the settings in force that *text* is meant for.
    """
    with translated("check a query"), conn.raw.cursor(name="opensearch_indexing_query") as cursor:
        cursor.execute(text.encode())


def carry_over(
    conn: Connection, query: sql.Composable, into: sql.Composable, *, local: Mapping[str, str | None]
) -> int:
    """
    Copy what *query* finds *into* a table and columns, in the open transaction; returns the number of rows.

    The query is read in a READ ONLY part of the transaction with *local* settings, the rows are written after it: an
    ``INSERT ... SELECT`` would give someone's query a transaction that may write. They pass through us as bytes, and a
    crash leaves nothing.
    """
    read = sql.SQL("COPY (\n{}\n) TO STDOUT").format(query)
    write = sql.SQL("COPY {} FROM STDIN").format(into)
    with translated("read rows"), tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as kept:
        with (
            conn.savepoint(local={**local, "row_security": "off"}, read_only=True),
            conn.raw.cursor() as cursor,
            cursor.copy(conn.query(read)) as copy,
        ):
            for piece in copy:
                kept.write(piece)
        kept.seek(0)
        with conn.savepoint(), conn.raw.cursor() as cursor:
            with cursor.copy(conn.query(write)) as copy:
                while part := kept.read(_PIECE):
                    copy.write(part)
            return cursor.rowcount
