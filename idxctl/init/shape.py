"""
What belongs into a document: the row, what it points at, what belongs to it.

Pure: decided from the schema, by rules that a person could check. What is left out is kept with its reason, since a document that
lacks something is worse where nobody says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from idxctl.init import fields, words
from idxctl.init.schema import Column, ForeignKey, Schema, Table

_MANY = 100  # rows that belong to one, on average: history, not a part
_MOST_PARTS = 25  # OpenSearch takes 50 nested fields in an index
_MOST_COLUMNS = 30  # of a row that is shown beside another
_LARGE = 1000  # bytes of a value, on average

# Rows that record what happened: they belong to what they are about by key alone.
_ACTIVITY = re.compile(
    r"(^|_)(audit|log|event|history|archive|version|revision|order|sale|purchase|invoice|payment|transaction|refund|booking|"
    r"reservation|rental|visit|view|session|message|notification|cart|basket|favou?rite|bookmark|wishlist|like|vote|click|impression|"
    r"stat|metric|job|task|queue|outbox|inbox|migration|token|subscription|download|search|report|review)(_|s|es|ies|$)",
    re.IGNORECASE,
)
_BOOKKEEPING = re.compile(
    r"^((created|updated|modified|inserted|changed|last_modified|last_update|last_updated|synced)(_?(at|on|by|date|time))?|date_(created|updated|modified)|"
    r"row_?version|lock_?version|version|xmin|etag|\w+_count|deleted_(at|on|by))$",
    re.IGNORECASE,
)
_NAME = re.compile(r"(^|_)(name|title|label|slug|code|sku)$", re.IGNORECASE)
_TEXTS = {"text", "character varying", "citext", "character"}
_COORDINATES = {"real", "double precision", "numeric"}
_POSITION = re.compile(
    r"^(position|sort_?order|ordinal|rank|sequence|seq|ord|display_order|idx|line_?no|line_?number|pos)$", re.IGNORECASE
)
_GONE_SINCE = re.compile(
    r"^(deleted|archived|discarded|removed|trashed)_?(at|on|date|time)$|^date_deleted$", re.IGNORECASE
)
_GONE = re.compile(r"^(is_?)?(deleted|archived|discarded|removed|trashed)$", re.IGNORECASE)
_STATUS = re.compile(
    r"^(status|state|visibility|is_?(active|published|visible|enabled)|active|published|visible|enabled)$",
    re.IGNORECASE,
)


class How(str, Enum):
    """In what way the rows of a table are in a document."""

    ROOT = "root"
    LOOKUP = "lookup"  # the row that it points at
    ONE = "one"  # the one row that belongs to it
    MANY = "many"  # the rows that belong to it


@dataclass(frozen=True)
class Link:
    """How rows are found: columns of their table equal those of the row that they belong to, or that points at them."""

    table: Table
    columns: tuple[str, ...]
    beside: Table  # what they are found from: the parent's table, a join table, or their own in a tree
    to: tuple[str, ...]

    def sql(self, alias: str, beside: str) -> str:
        """Return the condition, under the names by which a query calls the two tables."""
        return " AND ".join(
            f"{alias}.{self.table.quote(own)} = {beside}.{self.beside.quote(other)}"
            for own, other in zip(self.columns, self.to, strict=True)
        )


@dataclass(frozen=True)
class Join:
    """A join table in between."""

    table: Table
    link: Link  # of the join table to what the part belongs to
    extras: tuple[Column, ...]  # its own facts, shown with each element


@dataclass(frozen=True)
class Part:
    """Rows of a table in a document, with what is below them."""

    field: str
    table: Table
    how: How
    columns: tuple[Column, ...]
    link: Link | None = None
    join: Join | None = None
    parts: tuple[Part, ...] = ()
    tree: Link | None = None  # its foreign key to its own table: what stands above it is shown too
    gone: Column | None = None  # of rows that are deleted in name only

    @property
    def location(self) -> tuple[str, Column, Column] | None:
        """A field, a latitude and a longitude, where columns of these names are shown."""
        names = {one.name.lower(): one for one in self.columns if one.type in _COORDINATES}
        lat = next((names[one] for one in ("lat", "latitude", "geo_lat") if one in names), None)
        lon = next(
            (names[one] for one in ("lon", "lng", "long", "longitude", "geo_lon", "geo_lng") if one in names), None
        )
        taken = {one.name for one in self.columns} | {one.field for one in self.parts}
        return (words.free("location", taken, "geo"), lat, lon) if lat is not None and lon is not None else None

    def below(self) -> Iterator[Part]:
        """Yield all parts, itself first."""
        yield self
        for one in self.parts:
            yield from one.below()


@dataclass(frozen=True)
class Omitted:
    """What could have been in a document and is not."""

    what: str  # a table, or columns of one
    why: str
    way: str  # the flag that has it in; "" where none does


@dataclass(frozen=True)
class Wanted:
    """What a person has asked for."""

    depth: int = 2
    with_: frozenset[int] = frozenset()
    without: frozenset[int] = frozenset()
    private: bool = False
    soft_delete: bool = True


@dataclass
class _Growth:
    """What is known while a shape grows."""

    schema: Schema
    wanted: Wanted
    root: Table
    omitted: list[Omitted] = field(default_factory=list)
    count: int = 0


def shape(schema: Schema, root: Table, wanted: Wanted) -> tuple[Part, tuple[Omitted, ...]]:
    """Return the document of a row of *root*, and what was left out of it."""
    growth = _Growth(schema, wanted, root)
    shown = _columns(growth, root, How.ROOT, hidden=())
    part = Part("", root, How.ROOT, shown, gone=_gone(root) if wanted.soft_delete else None)
    part = replace(part, parts=tuple(_parts(growth, part, wanted.depth, (root.oid,))))
    return part, tuple(dict.fromkeys(growth.omitted))


def statuses(root: Table) -> tuple[Column, ...]:
    """Return the columns that may say that a row is not to be found."""
    return tuple(one for one in root.columns if _STATUS.match(one.name))


def _parts(growth: _Growth, parent: Part, depth: int, above: Sequence[int]) -> Iterator[Part]:
    """Yield what belongs to a part: first what it points at, then what points at it."""
    if depth <= 0:
        return
    taken = {one.name for one in parent.columns}
    found = [*_lookups(growth, parent, above)]
    if parent.how is not How.LOOKUP and parent.join is None:
        found += _children(growth, parent, above)
    for one in found:
        if growth.count >= _MOST_PARTS and one.table.oid not in growth.wanted.with_:
            growth.omitted.append(
                Omitted(one.table.sql, f"a document has {_MOST_PARTS} tables already", _with(one.table))
            )
            continue
        growth.count += 1
        by = one.join.link.columns if one.join is not None else one.link.columns if one.link is not None else ()
        name = words.free(
            one.field, taken, f"{one.field}_by_{by[-1]}" if by and one.how is not How.LOOKUP else one.table.name
        )
        taken.add(name)
        own = one.table.oid == parent.table.oid  # shown by its name: the rest is in its own document
        grown = () if own else tuple(_parts(growth, one, depth - 1, (*above, one.table.oid)))
        yield replace(one, field=name, parts=grown)


def _lookups(growth: _Growth, parent: Part, above: Sequence[int]) -> Iterator[Part]:
    used = set(parent.link.columns) if parent.link is not None else set()
    for key in growth.schema.leaving(parent.table):
        table = growth.schema.tables[key.target]
        if key.target == parent.table.oid and parent.how is not How.ROOT:
            continue  # a tree: shown as what stands above it
        if key.target in above[:-1] or (parent.how in {How.ONE, How.MANY} and set(key.columns) <= used):
            continue  # where it came from
        if not _may(growth, table, key):
            continue
        own = table.oid == parent.table.oid
        yield Part(
            words.field_of_lookup(key.columns, table.name, own=own),
            table,
            How.LOOKUP,
            _identity(table, parent.columns) if own else _columns(growth, table, How.LOOKUP, hidden=()),
            link=Link(table, key.target_columns, parent.table, key.columns),
            tree=_tree(growth.schema, table),
        )


def _children(growth: _Growth, parent: Part, above: Sequence[int]) -> Iterator[Part]:
    for key in growth.schema.arriving(parent.table):
        child = growth.schema.tables[key.table]
        if key.table in above:
            continue
        joined = _other_side(growth.schema, child, key)
        if joined is not None and joined.target in above:
            joined = None
        what = growth.schema.tables[joined.target] if joined is not None else child
        if not _may(growth, child, key) or (what is not child and not _may(growth, what, key)):
            continue
        if why := _own_life(growth, parent.table, child, what, key, joined):
            growth.omitted.append(Omitted(child.sql, why, _with(child)))
            continue
        link = Link(child, key.columns, parent.table, key.target_columns)
        if joined is not None:
            extras = tuple(
                one
                for one in _columns(growth, child, How.MANY, hidden=(*key.columns, *joined.columns))
                if one.name not in child.primary_key
            )
            field_ = words.field_of_children(what.name, parent.table.name, single=False)
            yield Part(
                field_, what, How.MANY, _columns(growth, what, How.LOOKUP, hidden=()),
                link=Link(what, joined.target_columns, child, joined.columns), join=Join(child, link, extras), tree=_tree(growth.schema, what),
            )  # fmt: skip
            continue
        single = child.is_unique(key.columns)
        yield Part(
            words.field_of_children(child.name, parent.table.name, single=single), child, How.ONE if single else How.MANY,
            _columns(growth, child, How.MANY, hidden=key.columns), link=link, gone=_gone(child) if growth.wanted.soft_delete else None,
        )  # fmt: skip


def _may(growth: _Growth, table: Table, key: ForeignKey) -> bool:
    if table.oid in growth.wanted.without:
        growth.omitted.append(Omitted(table.sql, "you asked to leave it out", ""))
        return False
    if not table.readable:
        growth.omitted.append(Omitted(table.sql, f"this role may not read it ({key.name})", ""))
        return False
    return True


def _own_life(
    growth: _Growth, parent: Table, child: Table, what: Table, key: ForeignKey, joined: ForeignKey | None
) -> str | None:
    """Say why rows that point at a parent are no part of it; None where they are."""
    if {child.oid, what.oid} & growth.wanted.with_:
        return None
    if child.rows > _MANY * max(parent.rows, 1):
        return f"about {child.rows // max(parent.rows, 1):,} rows for each of {parent.sql}"
    for table in (child, what) if what is not child else (child,):
        if (found := _ACTIVITY.search(table.name)) and not _ACTIVITY.search(growth.root.name):
            return f"by its name it records what happened ({found.group().strip('_')})"
    if joined is None and not key.cascades:
        others = [
            growth.schema.tables[one.table].sql
            for one in growth.schema.arriving(child)
            if one.table != child.oid and _other_side(growth.schema, growth.schema.tables[one.table], one) is None
        ]
        if others and not set(key.columns) & set(child.primary_key):
            return f"{', '.join(sorted(set(others))[:3])} point at it, so it has a life of its own"
    return None


def _other_side(schema: Schema, table: Table, key: ForeignKey) -> ForeignKey | None:
    """Return the second foreign key of a join table, by whose rows each of the first's is tied to one of the second's."""
    keys = [one for one in schema.leaving(table) if set(one.columns) != set(key.columns)]
    if len(keys) != 1 or keys[0].target == table.oid:
        return None
    (other,) = keys
    both = {*key.columns, *other.columns}
    if set(key.columns) & set(other.columns):
        return None
    tied = table.is_unique(tuple(both)) and not table.is_unique(key.columns)
    rest = [
        one.name
        for one in table.columns
        if one.name not in both and one.name not in table.primary_key and not _BOOKKEEPING.match(one.name)
    ]
    return other if tied or (not rest and not table.is_unique(key.columns)) else None


def _tree(schema: Schema, table: Table) -> Link | None:
    own = [one for one in schema.leaving(table) if one.target == table.oid]
    return Link(table, own[0].target_columns, table, own[0].columns) if len(own) == 1 else None


def _gone(table: Table) -> Column | None:
    for one in table.columns:
        if (_GONE_SINCE.match(one.name) and one.type.startswith(("timestamp", "date"))) or (
            _GONE.match(one.name) and one.type == "boolean"
        ):
            return one
    return None


def _columns(growth: _Growth, table: Table, how: How, *, hidden: Collection[str]) -> tuple[Column, ...]:
    """Return the columns of a table that are shown, and note those that are not, but for what nobody would miss."""
    shown, private, large = [], [], []
    for one in table.columns:
        if one.name in hidden or (how is not How.ROOT and _BOOKKEEPING.match(one.name)) or one is _gone(table):
            continue
        made = fields.make(one)
        if isinstance(made, fields.LeftOut) and one.type != "point":
            growth.omitted.append(Omitted(f"{table.sql}.{one.quoted}", made.why, ""))
        elif fields.private(one) and not growth.wanted.private:
            private.append(one.quoted)
        elif how is not How.ROOT and (one.width or 0) > _LARGE:
            large.append(one.quoted)
        else:
            shown.append(one)
    if private:
        growth.omitted.append(Omitted(f"{table.sql} ({', '.join(private)})", "looks private", "--private"))
    if large:
        growth.omitted.append(Omitted(f"{table.sql} ({', '.join(large)})", f"over {_LARGE:,} bytes on average", ""))
    if how is not How.ROOT and len(shown) > _MOST_COLUMNS:
        left = ", ".join(one.quoted for one in shown[_MOST_COLUMNS:])
        growth.omitted.append(Omitted(f"{table.sql} ({left})", f"it shows {_MOST_COLUMNS} columns already", ""))
        shown = shown[:_MOST_COLUMNS]
    return tuple(shown)


def _identity(table: Table, columns: Iterable[Column]) -> tuple[Column, ...]:
    """Return those of *columns* that say which row it is: its key, and what it is called."""
    columns = tuple(columns)
    named = [one for one in columns if _NAME.search(one.name)] or [one for one in columns if one.type in _TEXTS][:1]
    return tuple(one for one in columns if one.name in table.primary_key or one in named)


def ancestor_columns(part: Part) -> tuple[Column, ...]:
    """Return the columns that are shown of what stands above a row of a tree."""
    return _identity(part.table, part.columns)


def order(part: Part) -> tuple[Column, ...]:
    """Return the columns by which the elements of an array stand in order, the same at every look."""
    table = part.table
    same = set(part.link.columns) if part.link is not None and part.join is None else set()  # in all rows of one
    first = [one for one in table.columns if _POSITION.match(one.name)][:1]
    rest = [table.column(name) for name in table.primary_key] or [one for one in part.columns if _sortable(one)]
    return tuple(one for one in dict.fromkeys([*first, *rest]) if one.name not in same)


def _sortable(column: Column) -> bool:
    return column.type not in {"json", "xml", "point", "geometry", "geography"} and column.kind != "c"


def _with(table: Table) -> str:
    return f"--with {table.sql}"


def tables(parts: Iterable[Part]) -> frozenset[int]:
    """Return the tables that some parts show, join tables included."""
    return frozenset(one.table.oid for one in parts) | frozenset(
        one.join.table.oid for one in parts if one.join is not None
    )
