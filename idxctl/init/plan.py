"""What `idxctl init` would write for a table: decided here, written by `files`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from idxctl.core import keys
from idxctl.core.errors import DocumentError
from idxctl.init import document, fields, mapping, sample, schema, shape, watches, words
from idxctl.init.document import Fields
from idxctl.init.schema import Column, Schema, Table
from idxctl.init.shape import Omitted, Part, Wanted
from idxctl.init.watches import Slow, Watch
from idxctl.postgres.connect import Connection

_COUNTER = re.compile(
    r"(_count|_counter|_views|_hits)$|^(views|hits|last_seen(_at)?|last_viewed(_at)?)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Plan:
    """An index for a table: its query, mapping and watches, and what a person should know of them."""

    index: str
    table: str  # as in SQL
    key: tuple[str, ...]
    query: str
    mapping: dict[str, Any]
    watches: tuple[Watch, ...]
    parts: Part
    omitted: tuple[Omitted, ...]
    slow: tuple[Slow, ...]
    statuses: tuple[str, ...]  # columns that may say that a row is not to be found
    soft_deleted: str | None  # the column by which rows are left out

    @property
    def composite(self) -> bool:
        """Whether a document's id is made of several columns."""
        return len(self.key) > 1


@dataclass(frozen=True)
class Choices:
    """What a person has asked for, in their words."""

    table: str
    index: str | None = None
    depth: int = 2
    with_: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    private: bool = False
    soft_delete: bool = True
    sample: int = 1000


def plan(conn: Connection, choices: Choices) -> Plan:
    """
    Look at the database and decide; nothing is changed.

    Raises `UsageError` for a table that is not there, `DocumentError` for one whose rows nothing tells apart.
    """
    found = schema.read(conn)
    table = schema.find(conn, found, choices.table)
    if not table.readable:
        raise DocumentError(
            f"this role may not read {table.sql}", hint="GRANT SELECT on it, or connect as a role that may"
        )
    wanted = Wanted(
        choices.depth,
        frozenset(schema.find(conn, found, one).oid for one in choices.with_),
        frozenset(schema.find(conn, found, one).oid for one in choices.without),
        choices.private,
        choices.soft_delete,
    )
    key = key_of(table)
    root, omitted = shape.shape(found, table, wanted)
    made, more = _fields(conn, root, choices.sample)
    root_gone = root.gone.name if root.gone is not None else None
    return Plan(
        index=choices.index or words.index_name(table.name),
        table=table.sql,
        key=key,
        query=document.query(root, key, made, header=_header(table), hints=_hints(table, root)),
        mapping=mapping.mapping(root, made),
        watches=watches.watches(root, key),
        parts=root,
        omitted=(*omitted, *more, *_not_wanted(found, wanted, root)),
        slow=watches.slow(root),
        statuses=tuple(one.name for one in shape.statuses(table)),
        soft_deleted=root_gone,
    )


def key_of(table: Table) -> tuple[str, ...]:
    """Return the columns that identify a document: the primary key, or else the first unique one that has no NULLs."""
    candidates = [one for one in (table.primary_key, *table.unique) if one]
    why = ""
    for names in candidates:
        columns = [table.column(name) for name in names]
        refused = [(one, no) for one in columns if (no := keys.refusal(one.type, is_enum=one.kind == "e"))]
        if not refused and all(one.not_null for one in columns):
            return names
        if refused:
            column, reason = refused[0]
            why = f"; {column.name} is {column.type}: {reason}"
    raise DocumentError(
        f"nothing in {table.sql} can identify a document: it needs a primary key, or a unique index over columns without NULLs{why}",
        hint=f"ALTER TABLE {table.sql} ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, or name another table",
    )


def _fields(conn: Connection, root: Part, rows: int) -> tuple[Fields, list[Omitted]]:
    """Return the field of each column that is shown, and those that a look at the rows leaves out after all."""
    made: dict[tuple[int, str], fields.Field] = {}
    left: list[Omitted] = []
    for table, columns in _shown(root.below()):
        seen = sample.look(conn, table, columns, rows)
        for one in columns:
            field = fields.make(one, seen.get(one.name))
            if isinstance(field, fields.LeftOut):
                left.append(Omitted(f"{table.sql}.{one.quoted}", field.why, ""))
            else:
                made[table.oid, one.name] = _of_root(one, field) if table is root.table else field
    return made, left


def _of_root(column: Column, field: fields.Field) -> fields.Field:
    """Say of a counter what it costs: each time it counts, the document is written."""
    if field.note or not _COUNTER.search(column.name):
        return field
    return replace(field, note=f'a counter: each change writes the document; without it, ignore = ["{column.name}"]')


def _shown(parts: Iterable[Part]) -> list[tuple[Table, tuple[Column, ...]]]:
    """Return each table with all its columns that any part shows."""
    tables: dict[int, Table] = {}
    columns: dict[int, dict[str, Column]] = {}
    for one in parts:
        for table, some in ((one.table, one.columns), *(((one.join.table, one.join.extras),) if one.join else ())):
            tables[table.oid] = table
            columns.setdefault(table.oid, {}).update({column.name: column for column in some})
    return [(tables[oid], tuple(some.values())) for oid, some in columns.items()]


def _not_wanted(found: Schema, wanted: Wanted, root: Part) -> list[Omitted]:
    """Return the tables that were asked for and are not in it, since nothing leads to them."""
    inside = shape.tables(root.below())
    return [
        Omitted(found.tables[oid].sql, f"no foreign key leads to it within {wanted.depth} steps", "--depth N")
        for oid in wanted.with_ - inside
    ]


def _header(table: Table) -> Sequence[str]:
    return (
        f"One row for each document: written by idxctl init from {table.sql} and its foreign keys, and yours to change.",
        "A table or column that is added here needs a watch in idxctl.toml (idxctl config validate says which), a field in the",
        "mapping, and then: idxctl watch install && idxctl reindex",
    )


def _hints(table: Table, root: Part) -> list[str]:
    """Return what stands beside the WHERE: filters that a person may want."""
    hints = []
    word = "AND" if root.gone is not None else "WHERE"
    for one in shape.statuses(table):
        if one.type == "boolean":
            hints.append(f"{word} {{alias}}.{one.quoted}  -- only those")
        else:
            hints.append(f"{word} {{alias}}.{one.quoted} NOT IN ('...')  -- not those")
        word = "AND"
    return hints
