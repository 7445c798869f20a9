"""
Coverage (C7): what a document shows is captured, or it is said that it is not.

A document that reads a table which no watch covers, or a column that every watch of its table ignores, is wrong for good
once that changes, and no number of the queue shows it. What a query reads is found by a view of it that is thrown away, and
PostgreSQL's own dependencies: views are unfolded, so are functions written as SQL (BEGIN ATOMIC). The body of any other
function is text that nobody can look into: it is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from idxctl.capture import catalog, introspect
from idxctl.capture.catalog import label, quoted
from idxctl.capture.watches import Definition
from idxctl.core.conditions import Condition, Kind
from idxctl.core.queries import bare
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load

SQL = load("idxctl.capture", "coverage.sql")
_MARK = "opensearch_indexing_document"
_LOCK_TIMEOUT = "1s"  # a migration has a table to itself: it is looked at again later


class Hole(str, Enum):
    """In what way something that is read is not captured."""

    UNWATCHED = "unwatched"  # a table that no watch of the index covers
    IGNORED = "ignored"  # columns that every watch of their table ignores
    UNREFRESHED = "unrefreshed"  # a materialized view or foreign table: no trigger tells that it changed
    OPAQUE = "opaque"  # a function whose body may read anything


@dataclass(frozen=True)
class Uncovered:
    """Something that the documents of an index rest on, and whose changes are not captured, or may not be."""

    hole: Hole
    what: str  # a table or function, as people name it
    columns: tuple[str, ...] = ()  # those read, or of them those ignored; none where a whole row is
    view: str | None = None  # by way of which it is read
    watch: int | None = None  # counted from 1: the lookup that reads it; None: the document query
    named: bool = (
        False  # the row is read as a whole, and the query names the columns in a text, as ``to_jsonb(l) - 'seen'`` does
    )

    @property
    def sure(self) -> bool:
        """Whether documents will be wrong; of the others it cannot be known from here."""
        return self.hole is Hole.UNWATCHED or (self.hole is Hole.IGNORED and self.view is None and not self.named)

    @property
    def reader(self) -> str:
        """Who reads it."""
        return "the document query" if self.watch is None else f"the keys query of watch {self.watch}"


@dataclass(frozen=True)
class _Read:
    """A table or function that a query reads."""

    schema: str
    name: str
    kind: str  # as pg_class has it; function
    columns: tuple[str, ...]
    whole: bool
    view: str | None

    @property
    def label(self) -> str:
        return label(self.schema, self.name)


def uncovered(
    conn: Connection, document: str, watches: Mapping[int, Definition], *, local: Mapping[str, str | None]
) -> tuple[Uncovered, ...]:
    """
    Return what the *document* query, under its settings *local*, and the lookups of *watches* read uncaptured; the surest first.

    *watches* by their position. An index that has none is fed by its application, and nothing is said of it. Nothing is left
    of the look, which needs the right to make a view; raises `introspect.CannotLook` without it.
    """
    if not watches:
        return ()
    path = local.get("search_path") or ""
    with catalog.thrown_away(conn):
        conn.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        view = introspect.throwaway_view(conn, path, _MARK, f"SELECT * FROM (\n{bare(document)}\n) AS d")
        read = [_read(*row) for row in conn.run(SQL["reads"], query=view)]
        trees = {each: _tree(conn, each) for each in {one.table for one in watches.values()}}
    found = [*_holes(bare(document), read, watches.values(), trees), *_of_lookups(watches, trees)]
    return tuple(sorted(dict.fromkeys(found), key=lambda one: (not one.sure, one.watch or 0, one.what)))


def _read(
    schema: str,
    name: str,
    kind: str,
    columns: Sequence[str],
    whole: bool,
    view_schema: str | None,
    view: str | None,
) -> _Read:
    by = label(view_schema, view) if view_schema is not None and view is not None else None
    return _Read(schema, name, kind, tuple(sorted(columns)), whole, by)


def _tree(conn: Connection, table: tuple[str, str]) -> frozenset[tuple[str, str]]:
    """Return a watched table with all that is below it, which its watch covers (C2)."""
    row = conn.run(catalog.SQL["resolve"], name=".".join(map(quoted, table))).fetchone()
    if row is None or row[0] is None:
        return frozenset({table})
    return frozenset((one.schema, one.name) for one in catalog.members(conn, row[0]))


def _named_in_a_text(column: str, document: str) -> bool:
    """Whether the query has the column's name in a text, by which it may take it out of a row again."""
    return re.search(rf"'[^']*(?<!\w){re.escape(column)}(?!\w)[^']*'", document) is not None


def _holes(
    document: str,
    read: Sequence[_Read],
    watches: Iterable[Definition],
    trees: Mapping[tuple[str, str], frozenset[tuple[str, str]]],
) -> Iterator[Uncovered]:
    watches = tuple(watches)
    for one in read:
        if one.kind == "function":
            yield Uncovered(Hole.OPAQUE, f"{one.label}()")
            continue
        if one.kind in {"m", "f"}:
            yield Uncovered(Hole.UNREFRESHED, one.label, view=one.view)
            continue
        mine = [watch for watch in watches if (one.schema, one.name) in trees[watch.table]]
        if not mine:
            yield Uncovered(Hole.UNWATCHED, one.label, () if one.whole else one.columns, one.view)
            continue
        ignored = set.intersection(*(_ignored(watch) for watch in mine))
        shown = sorted(ignored if one.whole else ignored.intersection(one.columns))
        if shown:
            named = one.whole and all(_named_in_a_text(column, document) for column in shown)
            yield Uncovered(Hole.IGNORED, one.label, tuple(shown), one.view, named=named)


def _ignored(watch: Definition) -> set[str]:
    """Return the columns that a watch ignores, by each name that they may have."""
    return {*watch.ignore, *(watch.old_names.get(name, name) for name in watch.ignore)}


def _of_lookups(
    watches: Mapping[int, Definition], trees: Mapping[tuple[str, str], frozenset[tuple[str, str]]]
) -> Iterator[Uncovered]:
    """C1: a table on the join path of a lookup whose own changes nobody watches moves documents unseen."""
    covered = frozenset[tuple[str, str]]().union(*trees.values())
    for position, watch in sorted(watches.items()):
        for table in watch.reads:
            if table not in covered:
                yield Uncovered(Hole.UNWATCHED, label(*table), watch=position + 1)


_KINDS = {Hole.UNWATCHED: Kind.UNWATCHED, Hole.IGNORED: Kind.SHOWS_IGNORED}


def conditions(index: str, holes: Iterable[Uncovered]) -> Iterator[Condition]:
    """Yield the conditions that holes in the coverage of *index* are."""
    for hole in holes:
        facts = {
            "hole": hole.hole.value, "what": hole.what, "columns": list(hole.columns), "view": hole.view, "reader": hole.reader,
        }  # fmt: skip
        yield Condition(_KINDS[hole.hole] if hole.sure else Kind.MAY_BE_UNCAPTURED, index, facts)
