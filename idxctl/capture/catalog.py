"""What PostgreSQL's catalog says about the tables to be watched."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from psycopg import pq

from idxctl.core import keys
from idxctl.core.errors import SchemaError
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load

SQL = load("idxctl.capture", "capture.sql")


def quoted(name: str) -> str:
    """Quote an identifier, always."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a string so that it reads the same whatever standard_conforming_strings says."""
    body = text.replace("'", "''")
    return "E'" + body.replace("\\", "\\\\") + "'" if "\\" in body else f"'{body}'"


def label(schema: str, name: str) -> str:
    """Name a table for people."""
    return name if schema == "public" else f"{schema}.{name}"


@dataclass(frozen=True)
class Column:
    """A column: its type, and the type below it when that is a domain."""

    name: str
    type_name: str
    base_type: str
    is_enum: bool = False
    foreign: bool = False  # a base type made by an extension or by hand
    refuses_null: bool = False  # a domain that does
    generated: str | None = None  # the expression of a virtual column: a trigger sees no value of it
    tag: str = ""  # names its type for good: a number for PostgreSQL's own, otherwise schema and name
    read_as: str = ""  # the type that its text is read back as: below a domain, without a length
    short: bool = False  # its text is, whatever it holds: a number, a uuid, a time

    @property
    def own(self) -> bool:
        """Whether its very type is PostgreSQL's own: nothing of anybody else's is called for it."""
        return self.tag.isdigit()

    @property
    def refusal(self) -> str | None:
        """Why it cannot be a document's key, if it cannot."""
        return keys.refusal(self.base_type, is_enum=self.is_enum)


@dataclass(frozen=True)
class Member:
    """A table of the tree below a watched one, itself included (C2)."""

    oid: int
    schema: str
    name: str
    kind: str  # r, p (partitioned), f (foreign)
    depth: int
    owner: str
    owned: bool  # by this role or one that it is in
    may_trigger: bool
    subscribed: bool

    @property
    def qualified(self) -> str:
        """Its name in SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


@dataclass(frozen=True)
class Table:
    """A watched table and what capture must know of it."""

    oid: int
    schema: str
    name: str
    kind: str
    persistence: str
    owner: str
    subscribed: bool
    parent: str | None  # the table it is a partition or child of
    is_partition: bool
    system: bool
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    stands_for: tuple[
        tuple[str, str], ...
    ] = ()  # columns that it has by an older name yet: as they are called here, as there

    @property
    def qualified(self) -> str:
        """Its name in SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def all_columns(self) -> str:
        """A query of all its rows, by the names that its columns have here."""
        there = dict(self.stands_for)
        names = (f"x.{quoted(there.get(one.name, one.name))} AS {quoted(one.name)}" for one in self.columns)
        return f"SELECT {', '.join(names)} FROM {self.qualified} AS x" if there else f"SELECT * FROM {self.qualified}"

    def by_new_names(self, was: Mapping[str, str]) -> Table:
        """Return it as it is to be once its columns are renamed: *was* has new names and old ones. Those that are, stay."""
        here = {one.name for one in self.columns}
        new = {old: name for name, old in was.items() if old in here and name not in here}
        return replace(
            self,
            columns=tuple(replace(one, name=new.get(one.name, one.name)) for one in self.columns),
            primary_key=tuple(new.get(name, name) for name in self.primary_key),
            stands_for=tuple((name, old) for old, name in new.items()),
        )

    @property
    def label(self) -> str:
        """Its name for people."""
        return label(self.schema, self.name)

    def column(self, name: str) -> Column | None:
        """Return a column by the name the catalog has."""
        return next((column for column in self.columns if column.name == name), None)


def columns(conn: Connection, oid: int) -> tuple[Column, ...]:
    """Return the columns of a relation."""
    return tuple(Column(*row) for row in conn.run(SQL["columns"], oid=oid))


def table(conn: Connection, oid: int) -> Table | None:
    """Read one table; None when it is gone."""
    row = conn.run(SQL["table"], oid=oid).fetchone()
    if row is None:
        return None
    schema, name, kind, persistence, is_partition, owner, _, _, subscribed, parent, system = row
    return Table(
        oid=oid,
        schema=schema,
        name=name,
        kind=kind,
        persistence=persistence,
        owner=owner,
        subscribed=subscribed,
        parent=parent,
        is_partition=is_partition,
        system=system,
        columns=columns(conn, oid),
        primary_key=tuple(name for (name,) in conn.run(SQL["primary_key"], oid=oid)),
    )


def members(conn: Connection, oid: int) -> tuple[Member, ...]:
    """Return the table and everything below it, the table first; nothing when it is gone."""
    return tuple(Member(*row) for row in conn.run(SQL["members"], oid=oid))


def search_path(conn: Connection) -> tuple[str, ...]:
    """Return the schemas in which names resolve in this session, where nothing has pinned them."""
    row = conn.execute(SQL["search_path"].qualified(conn.schema)).fetchone()
    return tuple(row[0]) if row else ()


def require_tables(conn: Connection) -> None:
    """Raise `SchemaError` unless the tables of idxctl are there."""
    ours = {name: f"{quoted(conn.schema)}.opensearch_indexing_{name}" for name in ("queue", "watches")}
    row = conn.run(SQL["tables_present"], **ours).fetchone()
    if row is None or not row[0]:
        raise SchemaError(f"idxctl's tables are not in schema {conn.schema}", hint="idxctl migrate up")


@contextlib.contextmanager
def thrown_away(conn: Connection) -> Iterator[None]:
    """Undo, at its end, all that is done inside: in a transaction of its own, pinned, or in a savepoint of the open one."""
    nested = conn.raw.info.transaction_status != pq.TransactionStatus.IDLE
    begin, end = (
        ("SAVEPOINT idxctl_probe", "ROLLBACK TO SAVEPOINT idxctl_probe; RELEASE SAVEPOINT idxctl_probe")
        if nested
        else (f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {conn.pin}", "ROLLBACK")
    )
    conn.execute(begin)
    try:
        yield
    finally:
        if not conn.raw.closed:
            conn.execute(end)
