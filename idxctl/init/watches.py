"""The watches of a document: for each table that it shows, how a changed row leads to the documents that show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from idxctl.init import shape, words
from idxctl.init.schema import Table
from idxctl.init.shape import How, Link, Part

_DEFERRED_FROM = 1000  # documents that one row leads to, on average


@dataclass(frozen=True)
class Watch:
    """One ``[[indexes.NAME.watch]]``."""

    table: str  # as in SQL
    comment: str
    key: tuple[str, ...] = ()
    keys: str | None = None
    ignore: tuple[str, ...] = ()
    deferred: bool = False


@dataclass(frozen=True)
class Slow:
    """Columns by which rows are looked for, and no index finds them."""

    table: str
    columns: tuple[str, ...]  # as in SQL

    @property
    def statement(self) -> str:
        """The statement that mends it without stopping writers."""
        return f"CREATE INDEX CONCURRENTLY ON {self.table} ({', '.join(self.columns)})"


@dataclass(frozen=True)
class _Step:
    """From a row to those of another table: its columns equal theirs."""

    table: Table
    columns: tuple[str, ...]
    to: Table
    to_columns: tuple[str, ...]


def watches(root: Part, key: Sequence[str]) -> tuple[Watch, ...]:
    """Return the watches of the document of *root*, whose documents are identified by the columns *key*."""
    hidden = _ignored(root.table, _used(root))
    found = [Watch(root.table.sql, "the rows themselves", tuple(key), ignore=hidden)]
    found += _of_parts(root, root, key, ())
    return tuple(found)


def slow(root: Part) -> tuple[Slow, ...]:
    """Return the columns by which documents or lookups look for rows, where no index finds them."""
    found = {}
    for one in root.below():
        for link in (one.link, one.join.link if one.join is not None else None):
            if link is None:
                continue
            for table, columns in ((link.table, link.columns), (link.beside, link.to)):
                if not table.finds(columns):
                    found[table.sql, columns] = Slow(table.sql, tuple(map(table.quote, columns)))
    return tuple(found.values())


def _of_parts(root: Part, parent: Part, key: Sequence[str], path: tuple[_Step, ...]) -> Iterator[Watch]:
    """Yield the watches of what is below *parent*, from whose rows *path* leads to the root's."""
    for part in parent.parts:
        assert part.link is not None
        steps = (_step(part.link), *path)
        if part.join is not None:
            middle = (_step(part.join.link), *path)
            used = {*part.join.link.columns, *part.link.to, *(one.name for one in part.join.extras)}
            yield _watch(root, part.join.table, key, middle, used, f"which {part.field} each has")
            steps = (_step(part.link), *middle)
        yield _watch(root, part.table, key, steps, _used(part), _said(part), tree=part.tree)
        yield from _of_parts(root, part, key, steps)


def _step(link: Link) -> _Step:
    return _Step(link.table, link.columns, link.beside, link.to)


def _said(part: Part) -> str:
    return {How.LOOKUP: f"{part.field}: a row that many documents show", How.ONE: f"{part.field}: one row of each"}.get(
        part.how, f"{part.field}: rows of each"
    )


def _watch(
    root: Part,
    table: Table,
    key: Sequence[str],
    steps: tuple[_Step, ...],
    used: set[str],
    comment: str,
    *,
    tree: Link | None = None,
) -> Watch:
    ignore = _ignored(table, used)
    first = steps[0]
    if len(steps) == 1 and tree is None and set(first.to_columns) == set(key) and first.to is root.table:
        ordered = tuple(first.columns[first.to_columns.index(name)] for name in key)
        return Watch(table.sql, comment, ordered, ignore=ignore)
    many = root.table.rows > _DEFERRED_FROM * max(table.rows, 1)
    return Watch(table.sql, comment, keys=_keys(root.table, key, steps, tree), ignore=ignore, deferred=many)


def _keys(root: Table, key: Sequence[str], steps: Sequence[_Step], tree: Link | None) -> str:
    """Return the query over `changed` that follows the steps to the root's key."""
    taken = {"c", "b"}
    begin, now = "changed c", "c"
    head = ""
    if tree is not None:  # a change shows in all that is below it
        own = ", ".join(map(tree.table.quote, tree.columns))
        below = words.alias(tree.table.name, taken)
        theirs = ", ".join(f"{below}.{tree.table.quote(one)}" for one in tree.columns)
        down = " AND ".join(
            f"{below}.{tree.table.quote(up)} = b.{tree.table.quote(column)}"
            for column, up in zip(tree.columns, tree.to, strict=True)
        )
        head = f"WITH RECURSIVE below AS (SELECT {own} FROM changed UNION SELECT {theirs} FROM {tree.table.sql} {below} JOIN below b ON {down}) "
        begin, now = "below b", "b"
    joins: list[str] = []
    for place, step in enumerate(steps):
        last = place == len(steps) - 1
        if last and step.to is root and set(key) <= set(step.to_columns):  # the key stands there already
            outputs = [f"{now}.{step.table.quote(step.columns[step.to_columns.index(name)])}" for name in key]
            return f"{head}SELECT {', '.join(outputs)} FROM {begin}{''.join(joins)}"
        beside = words.alias(step.to.name, taken)
        taken.add(beside)
        on = " AND ".join(
            f"{beside}.{step.to.quote(other)} = {now}.{step.table.quote(own)}"
            for own, other in zip(step.columns, step.to_columns, strict=True)
        )
        joins.append(f" JOIN {step.to.sql} {beside} ON {on}")
        now = beside
    outputs = [f"{now}.{root.quote(name)}" for name in key]
    return f"{head}SELECT {', '.join(outputs)} FROM {begin}{''.join(joins)}"


def _used(part: Part) -> set[str]:
    """Return the columns of a part's own table that a document depends on: shown, or read to find and order rows."""
    used = (
        {one.name for one in part.columns} | {one.name for one in shape.order(part)}
        if part.how is How.MANY
        else {one.name for one in part.columns}
    )
    used |= {*part.table.primary_key} if part.how is How.ROOT else set()
    used |= set(part.link.columns) if part.link is not None else set()
    used |= {*part.tree.columns, *part.tree.to} if part.tree is not None else set()
    used |= {part.gone.name} if part.gone is not None else set()
    for one in part.parts:
        link = one.join.link if one.join is not None else one.link
        used |= set(link.to) if link is not None else set()
    return used


def _ignored(table: Table, used: set[str]) -> tuple[str, ...]:
    """Return the columns whose changes no document shows; a virtual one changes with others."""
    return tuple(one.name for one in table.columns if one.name not in used and one.generated != "v")
