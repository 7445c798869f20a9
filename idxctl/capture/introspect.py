"""
What PostgreSQL makes of a watch's SQL, found out with throwaway views: the columns a query reads, the types it returns, the
objects its names mean. Nothing is run over a row, and all of it is undone.
"""

from __future__ import annotations

from dataclasses import dataclass

from idxctl.capture.catalog import SQL, Column, Table, columns, quoted, thrown_away
from idxctl.core.errors import PostgresRefused
from idxctl.core.queries import bare
from idxctl.postgres.connect import Connection
from idxctl.postgres.user_sql import require_one_query

_MARK, _ROW = "opensearch_indexing_key", "opensearch_indexing_row"
_OVER_MANY_ROWS = frozenset({"42803", "42P20"})


@dataclass(frozen=True)
class Expression:
    """A `key_sql`, looked at."""

    text: str  # every name in it resolved
    type: Column
    columns: tuple[str, ...]  # those of its row that it reads
    reads: tuple[tuple[str, str], ...]  # tables other than its own
    user_code: bool  # it calls functions or operators that are not PostgreSQL's own


@dataclass(frozen=True)
class KeysQuery:
    """A `keys` query, looked at."""

    outputs: tuple[Column, ...]
    columns: tuple[str, ...]  # of `changed`
    reads_changed: bool
    reads: tuple[tuple[str, str], ...]  # other tables: schema and name


def expression(conn: Connection, table: Table, text: str, path: str) -> Expression:
    """Look at an expression over a row of *table*; raises `PostgresRefused` with PostgreSQL's own sentence."""
    with thrown_away(conn):
        rows, over = table.oid, table.qualified
        if table.stands_for:
            rows = throwaway_view(conn, path, _ROW, table.all_columns)
            over = f"{place(conn) or 'pg_temp'}.{_ROW}"
        with conn.under(path):
            require_one_query(conn, f"SELECT\n{text}\nFROM {over} AS {quoted(table.name)}")
        view = throwaway_view(conn, path, _MARK, f"SELECT (\n{text}\n) AS {_MARK} FROM {over} AS {quoted(table.name)}")
        (of,) = columns(conn, view)
        found, whole, _ = conn.run(SQL["view_columns"], changed=rows, query=view).fetchone() or ((), False, False)
        _require_row_by_row(conn, over, table.name, text, path)
        (user_code,) = conn.run(SQL["view_functions"], query=view).fetchone() or (False,)
        reads = _tables(conn, view, but=table)
        # Under an empty path PostgreSQL writes out the schema of everything that is not its own.
        conn.execute("SET LOCAL search_path = ''; SET LOCAL standard_conforming_strings = on")
        (definition,) = conn.execute("SELECT pg_catalog.pg_get_viewdef(%s::oid)", (view,)).fetchone() or ("",)
    text, _, source = definition.strip().removeprefix("SELECT").rpartition(f" AS {_MARK}\n")
    resolved = _over_own_name(table, text.strip(), source)
    read = tuple(column.name for column in table.columns if whole or column.name in found)
    return Expression(resolved, of, read, reads, user_code)


def _over_own_name(table: Table, resolved: str, source: str) -> str:
    """
    Return the expression over the table's bare name again where PostgreSQL has written it over another.

    Before 16 a view has relations named old and new of its own, so that a table of that name reads new_1 in it.
    """
    alias = source.rstrip("; \n").rpartition(" ")[2]
    if table.name not in {"old", "new"} or alias == table.name:
        return resolved
    return f"(SELECT {resolved} FROM (SELECT {quoted(table.name)}.*) AS {alias})"


def _require_row_by_row(conn: Connection, over: str, name: str, text: str, path: str) -> None:
    """Let PostgreSQL refuse what takes many rows together, where it would: an aggregate, a window function."""
    try:
        with thrown_away(conn), conn.under(path):
            conn.execute(f"SELECT FROM {over} AS {quoted(name)} WHERE (\n{text}\n) IS NULL LIMIT 0".encode())
    except PostgresRefused as error:
        if error.sqlstate in _OVER_MANY_ROWS:  # and not what returns several values for one row
            raise


def keys_query(conn: Connection, table: Table, query: str, path: str) -> KeysQuery:
    """Look at a query over `changed`; raises `PostgresRefused` with PostgreSQL's own sentence."""
    with thrown_away(conn):
        path = ", ".join(each for each in (place(conn), path) if each)
        changed = throwaway_view(conn, path, "changed", table.all_columns)
        with conn.under(path):
            require_one_query(conn, bare(query))
            cursor = conn.execute(f"SELECT * FROM (\n{bare(query)}\n) AS k LIMIT 0")
        names = [quoted(f"k{place}") for place in range(len(cursor.description or ()))]
        view = throwaway_view(conn, path, _MARK, f"SELECT * FROM (\n{bare(query)}\n) AS k ({', '.join(names)})")
        found, whole, reads_changed = conn.run(SQL["view_columns"], changed=changed, query=view).fetchone() or (
            (),
            True,
            True,
        )
        wanted = [column.name for column in table.columns if whole or column.name in found]
        return KeysQuery(
            columns(conn, view),
            tuple(wanted or [column.name for column in table.columns[:1]]),
            reads_changed,
            _tables(conn, view, but=table),
        )


class CannotLook(PostgresRefused):
    """A role that may make no view, not even one that is thrown away."""

    def __init__(self, conn: Connection, detail: str) -> None:
        database, role = conn.execute(
            b"SELECT pg_catalog.quote_ident(pg_catalog.current_database()), pg_catalog.quote_ident(current_user)"
        ).fetchone() or ("?", "?")
        super().__init__(
            f"looking at it needs a view that is thrown away again: {detail}",
            sqlstate="42501",
            hint=f"GRANT TEMPORARY ON DATABASE {database} TO {role}, or CREATE on schema {conn.schema}",
        )


def place(conn: Connection) -> str:
    """Return our own schema, quoted, where this role may make nothing temporary; "" where it may."""
    temporary, ours = conn.run(SQL["may_make"], schema=conn.schema).fetchone() or (False, False)
    if not temporary and not ours:
        raise CannotLook(conn, "neither TEMPORARY nor CREATE is granted")
    return "" if temporary else quoted(conn.schema)


def throwaway_view(conn: Connection, path: str, name: str, query: str) -> int:
    """
    Make a view of SQL that sees *path*, to be thrown away; one of this name shadows every table of that name.

    It stands where `place` says.
    """
    schema = place(conn) or "pg_temp"
    try:
        with conn.savepoint(), conn.under(path):
            conn.execute(f"CREATE VIEW {schema}.{name} AS {query}".encode())
    except PostgresRefused as error:
        if error.sqlstate == "42P07":
            raise CannotLook(conn, error.detail) from error
        raise
    row = conn.execute("SELECT pg_catalog.to_regclass(%s)::oid", (f"{schema}.{name}",)).fetchone()
    assert row is not None
    return int(row[0])


def _tables(conn: Connection, view: int, *, but: Table) -> tuple[tuple[str, str], ...]:
    """Return the tables a view reads, other than the one it is about."""
    return tuple((schema, name) for oid, schema, name in conn.run(SQL["view_tables"], query=view) if oid != but.oid)
