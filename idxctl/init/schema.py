"""
The tables of a database as `init` sees them: columns, keys, and the foreign keys between them.

Read once, from the catalog alone; the rest of the room works on this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from idxctl.capture import catalog
from idxctl.core.errors import DocumentError, UsageError
from idxctl.core.suggest import did_you_mean
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load

SQL = load("idxctl.init", "init.sql")

_MODIFIER = re.compile(r"\((\d+)(?:,(-?\d+))?\)")


@dataclass(frozen=True)
class Column:
    """A column, its type below any domain, and what the planner knows of its values."""

    name: str
    quoted: str  # as SQL wants it
    whole_type: str  # with its modifier: numeric(12,2)
    type: str  # without: numeric
    element: str | None  # of an array: the type of its elements
    not_null: bool
    generated: str  # "", "s" (stored), "v" (virtual)
    kind: str  # pg_type.typtype: b, e (enum), c (composite), r (range), m (multirange)
    element_kind: str
    width: int | None  # bytes, on average
    distinct: float | None  # as pg_stats has it: a count, or below 0 a share of the rows

    @property
    def modifiers(self) -> tuple[int | None, int | None]:
        """The numbers in the type's brackets: length, or precision and scale."""
        found = _MODIFIER.search(self.whole_type)
        if found is None:
            return None, None
        first, second = found.groups()
        return int(first), int(second) if second is not None else None


@dataclass(frozen=True)
class ForeignKey:
    """Rows of one table point at rows of another."""

    table: int  # that has it
    target: int
    name: str
    columns: tuple[str, ...]
    target_columns: tuple[str, ...]
    cascades: bool  # its rows are deleted with the row that they point at


@dataclass(frozen=True)
class Table:
    """A table with its columns and the keys that tell its rows apart."""

    oid: int
    schema: str
    name: str
    sql: str  # its name in SQL, with the schema where it is not found without
    qualified: str  # always with the schema
    rows: int  # about
    readable: bool
    columns: tuple[Column, ...] = ()
    primary_key: tuple[str, ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()
    indexed: tuple[tuple[str, ...], ...] = ()  # the columns of each index, in order

    def column(self, name: str) -> Column:
        """Return the column of this name."""
        return next(one for one in self.columns if one.name == name)

    def quote(self, name: str) -> str:
        """Return a column's name as SQL wants it."""
        return self.column(name).quoted

    def is_unique(self, columns: Sequence[str]) -> bool:
        """Whether these columns, or some of them, tell its rows apart."""
        return any(set(one) <= set(columns) for one in self.unique)

    def finds(self, columns: Sequence[str]) -> bool:
        """Whether an index finds rows by these columns."""
        return any(set(one[: len(columns)]) == set(columns) for one in self.indexed)


@dataclass(frozen=True)
class Schema:
    """All tables, and the foreign keys between them."""

    tables: Mapping[int, Table]
    foreign_keys: tuple[ForeignKey, ...]

    def leaving(self, table: Table) -> tuple[ForeignKey, ...]:
        """Return the foreign keys that rows of *table* have."""
        return tuple(one for one in self.foreign_keys if one.table == table.oid)

    def arriving(self, table: Table) -> tuple[ForeignKey, ...]:
        """Return the foreign keys that point at rows of *table*."""
        return tuple(one for one in self.foreign_keys if one.target == table.oid)


def read(conn: Connection) -> Schema:
    """Read the schema of the database, as far as names and keys go."""
    path = catalog.search_path(conn)
    found = conn.run(SQL["tables"]).fetchall()
    first: dict[str, str] = {}  # a name → the schema it means without one
    for schema in reversed(path):
        first.update({row[2]: schema for row in found if row[1] == schema})
    oids = [row[0] for row in found]
    columns: dict[int, list[Column]] = {}
    for oid, *rest in conn.run(SQL["columns"], tables=oids):
        columns.setdefault(oid, []).append(Column(*rest))
    indexes: dict[int, list[tuple[tuple[str, ...], bool, bool]]] = {}
    for oid, names, unique, primary in conn.run(SQL["indexes"], tables=oids):
        indexes.setdefault(oid, []).append((tuple(names), unique, primary))
    tables = {}
    for oid, schema, name, quoted_schema, quoted_name, rows, readable in found:
        known = indexes.get(oid, [])
        tables[oid] = Table(
            oid=oid,
            schema=schema,
            name=name,
            sql=quoted_name if first.get(name) == schema else f"{quoted_schema}.{quoted_name}",
            qualified=f"{quoted_schema}.{quoted_name}",
            rows=rows,
            readable=readable,
            columns=tuple(columns.get(oid, ())),
            primary_key=next((names for names, _, primary in known if primary), ()),
            unique=tuple(names for names, unique, _ in known if unique),
            indexed=tuple(names for names, _, _ in known),
        )
    keys = tuple(
        ForeignKey(table, target, name, tuple(of), tuple(to), cascades)
        for table, target, name, of, to, cascades in conn.run(SQL["foreign_keys"])
        if table in tables and target in tables
    )
    return Schema(tables, keys)


def find(conn: Connection, schema: Schema, name: str) -> Table:
    """Return the table that *name* means, written as in SQL; raises `UsageError` with the nearest name."""
    row = conn.execute(catalog.SQL["resolve"].qualified(conn.schema), {"name": name}).fetchone()
    oid = row[0] if row else None
    if oid is not None and int(oid) in schema.tables:
        return schema.tables[int(oid)]
    if oid is not None:
        raise DocumentError(
            f"{name} is no table whose changes can be captured: it is a view, a partition, a temporary or foreign table, or idxctl's own",
            hint="name the table whose rows are to become documents; of a partition the partitioned table",
        )
    names = [one.sql for one in schema.tables.values()]
    raise UsageError(
        f"there is no table {name}",
        hint=did_you_mean(name, names) if names else "there are no tables in this database that this role can see",
    )
