"""
The watches that a document query asks for, derived from the query itself.

The condition that ties a table to the document's own, turned round, leads from a changed row to the documents that show it. What
cannot be turned round is said: a wrong suggestion would lose changes in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from idxctl.capture import catalog, introspect, node_tree, ties
from idxctl.capture.node_tree import Node
from idxctl.capture.ties import Query, Step
from idxctl.core.errors import PostgresRefused
from idxctl.core.queries import bare
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load

SQL = load("idxctl.capture", "suggest.sql")
_MARK = "opensearch_indexing_document"
_LOCK_TIMEOUT = "1s"
_SILENT = {
    "m": "a materialized view fires no trigger: idxctl queue add --all after each refresh",
    "f": "a foreign table fires no trigger here: idxctl queue add --all after it changed",
}


@dataclass(frozen=True)
class Suggested:
    """A watch that would capture changes of a table that a document shows."""

    table: str  # as in SQL
    oid: int
    key: tuple[str, ...] = ()
    keys: str | None = None
    ignore: tuple[str, ...] = ()  # columns that the query does not read


@dataclass(frozen=True)
class Unknown:
    """A table whose watch has to be written by hand, and why."""

    table: str
    oid: int
    why: str


@dataclass(frozen=True)
class Found:
    """What a document query asks for."""

    watches: tuple[Suggested, ...]
    unknown: tuple[Unknown, ...]


def suggest(conn: Connection, document: str, key: Sequence[str], *, local: Mapping[str, str | None]) -> Found:
    """
    Return the watches that the *document* query under its settings *local* asks for, its documents identified by *key*.

    Nothing is left of the look; raises `introspect.CannotLook` for a role that may make no view.
    """
    path = local.get("search_path") or ""
    with catalog.thrown_away(conn):
        conn.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        view = introspect.throwaway_view(conn, path, _MARK, f"SELECT * FROM (\n{bare(document)}\n) AS d")
        query = _read(conn, view)
        tables = _tables(conn, query, path)
        unread = _unread(conn, view, tables)
    return _found(query, key, tables, unread)


def _read(conn: Connection, view: int) -> Query:
    operators: dict[int, str] = {}

    def operator(number: int) -> str:
        if number not in operators:
            row = conn.run(SQL["operator"], oid=number).fetchone()
            operators[number] = str(row[0]) if row else ""
        return operators[number]

    def rule_of(relation: int) -> Node | None:
        row = conn.run(SQL["rule"], oid=relation).fetchone()
        return _query(row[0]) if row else None

    top = rule_of(view)
    if top is None:
        raise PostgresRefused("the document query has no parse tree to be read", sqlstate="XX000")
    return ties.read(top, view=view, operator=operator, rule_of=rule_of)


def _query(text: str) -> Node:
    (query,) = node_tree.parse(text)
    assert isinstance(query, Node)
    return query


@dataclass(frozen=True)
class _Table:
    """A table as SQL names it, and its columns."""

    oid: int
    sql: str
    kind: str  # as pg_class has it
    columns: Mapping[int, tuple[str, str]]  # by number: as the catalog has it, as SQL wants it


def _tables(conn: Connection, query: Query, path: str) -> dict[int, _Table]:
    with conn.under(path):
        rows = conn.execute(SQL["tables"].text, {"tables": list(dict.fromkeys(query.tables))}).fetchall()
    return {
        oid: _Table(
            oid,
            name,
            kind,
            {number: (column, quoted) for number, column, quoted in zip(numbers, columns, inside, strict=True)},
        )
        for oid, name, kind, numbers, columns, inside in rows
    }


def _unread(conn: Connection, view: int, tables: Mapping[int, _Table]) -> dict[int, tuple[str, ...]]:
    """Return by table the columns that the query does not read; none where it takes whole rows."""
    read: dict[int, set[str]] = {}
    for oid, columns, whole in conn.run(SQL["columns_read"], query=view):
        taken = {name for name, _ in tables[oid].columns.values()} if whole and oid in tables else set(columns)
        read.setdefault(oid, set()).update(taken)
    return {
        oid: tuple(name for name, _ in one.columns.values() if name not in read.get(oid, set()))
        for oid, one in tables.items()
    }


def _found(
    query: Query, key: Sequence[str], tables: Mapping[int, _Table], unread: Mapping[int, tuple[str, ...]]
) -> Found:
    outputs = [query.outputs.get(name, ()) for name in key]
    roots = {one.use for sources in outputs for one in sources}
    if len(roots) != 1 or any(len(sources) != 1 for sources in outputs):
        why = "what identifies a document is no plain column of one table"
        return Found((), tuple(Unknown(one.sql, one.oid, why) for one in tables.values()))
    (root,) = roots
    columns = tuple(sources[0].column for sources in outputs)
    watches: list[Suggested] = []
    unknown: list[Unknown] = []
    for use, oid in enumerate(query.tables):
        if tables[oid].kind in _SILENT:
            unknown.append(Unknown(tables[oid].sql, oid, _SILENT[tables[oid].kind]))
        elif query.is_recursive(use):
            unknown.append(Unknown(tables[oid].sql, oid, "a recursive query reads it: its keys begin WITH RECURSIVE"))
        elif (way := ties.path(query, use, root)) is None:
            unknown.append(Unknown(tables[oid].sql, oid, "no equality ties its rows to the document's own"))
        else:
            made = _watch([tables[one] for one in query.tables], use, way, columns)
            watches.append(replace(made, ignore=unread[oid]))
    return Found(tuple(dict.fromkeys(watches)), tuple(dict.fromkeys(unknown)))


def _watch(uses: Sequence[_Table], use: int, way: Sequence[Step], key: Sequence[int]) -> Suggested:
    """Turn the way from a use to the root round: from a changed row to the *key* of the documents that show it."""
    table = uses[use]
    if not way:
        return Suggested(table.sql, table.oid, tuple(table.columns[one][0] for one in key))
    if len(way) == 1 and (direct := _direct(way[0], key)) is not None:
        return Suggested(table.sql, table.oid, tuple(table.columns[one][0] for one in direct))
    joins: list[str] = []
    now, outputs = "c", list(key)
    for place, step in enumerate(way, 1):
        here, there = uses[step.use], uses[step.other]
        if place == len(way) and (direct := _direct(step, key)) is not None:
            outputs, table = direct, here
            break
        alias, table = f"t{place}", there
        conditions = [
            _condition(f"{now}.{here.columns[own][1]}", how, f"{alias}.{there.columns[theirs][1]}")
            for own, how, theirs in step.columns
        ]
        joins.append(f" JOIN {there.sql} {alias} ON {' AND '.join(conditions)}")
        now = alias
    selected = ", ".join(f"{now}.{table.columns[one][1]}" for one in outputs)
    return Suggested(uses[use].sql, uses[use].oid, keys=f"SELECT {selected} FROM changed c{''.join(joins)}")


def _direct(step: Step, key: Sequence[int]) -> list[int] | None:
    """Return a use's own columns that equal the root's key, where all of it stands there already."""
    equal = {theirs: own for own, how, theirs in step.columns if how == "="}
    return [equal[one] for one in key] if all(one in equal for one in key) else None


def _condition(own: str, how: str, theirs: str) -> str:
    return {"=": f"{own} = {theirs}", "among": f"{own} = ANY ({theirs})", "holds": f"{theirs} = ANY ({own})"}[how]


def tables_of(conn: Connection, names: Sequence[str]) -> list[int | None]:
    """Return the numbers of tables written as in SQL; None for one that is not there."""
    found = []
    for name in names:
        row = conn.execute(catalog.SQL["resolve"].qualified(conn.schema), {"name": name}).fetchone()
        found.append(int(row[0]) if row and row[0] is not None else None)
    return found
