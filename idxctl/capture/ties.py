"""
How the tables of a query hang together: which rows of one belong to which of another, as PostgreSQL has parsed it.

Each place where a query reads a table is a *use*. A *tie* is an equality between columns of two uses that must hold for a row to
matter: one of the conditions that a WHERE or ON joins by AND. One inside OR or CASE need not hold, one of an outer join holds
for its inner side alone, one in a subquery for what that reads: so each tie knows for which uses it counts. Names, aliases and
joins are resolved by then, views and CTEs are followed into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from idxctl.capture.node_tree import Node

_RELATION, _SUBQUERY, _JOIN, _CTE, _GROUP = 0, 1, 2, 6, 9  # RTEKind, of src/include/nodes/parsenodes.h
_INNER, _LEFT, _FULL, _RIGHT = 0, 1, 2, 3  # JoinType, of src/include/nodes/nodes.h
_ANY_SUBLINK = 2  # SubLinkType, of src/include/nodes/primnodes.h: IN (SELECT ...)


@dataclass(frozen=True)
class Source:
    """A column of a use."""

    use: int
    column: int  # its number in the table


@dataclass(frozen=True)
class Tie:
    """Two columns that are equal, or (*among*) the second an array that the first is in."""

    one: Source
    other: Source
    among: bool
    level: int  # of the query whose condition it is
    only: frozenset[int] | None  # the uses that it counts for; None: all that the query reads

    def turned(self) -> tuple[Source, Source, str]:
        """Return it seen from the other side."""
        return self.other, self.one, "holds" if self.among else "="


@dataclass
class Level:
    """A query, a subquery, a view or a CTE where it is read: its parts, and what stands around it."""

    number: int
    query: Node
    above: Level | None  # by which its columns are resolved
    around: Level | None  # by which its rows are
    recursive: bool
    uses: dict[int, int] = field(default_factory=dict)  # by place in the range table
    below: dict[int, Level] = field(default_factory=dict)  # subqueries, views and CTEs by place

    @property
    def united(self) -> bool:
        """Whether its rows come from the arms of a UNION or the like."""
        return self.query.node("setOperations") is not None

    def upwards(self) -> Iterator[Level]:
        """Yield it, and all around it."""
        level: Level | None = self
        while level is not None:
            yield level
            level = level.around

    def beside(self) -> Iterator[Level]:
        """Yield it, and what it reads as if it stood there itself: subqueries in FROM, but for the arms of a union."""
        yield self
        for one in () if self.united else self.below.values():
            if not one.recursive:
                yield from one.beside()

    def all_uses(self) -> Iterator[int]:
        """Yield what it reads, by whatever way."""
        yield from self.uses.values()
        for one in self.below.values():
            yield from one.all_uses()


@dataclass
class Query:
    """The uses and ties of a query, and which columns its outputs come from."""

    tables: list[int] = field(default_factory=list)  # by use: the table's number
    levels: list[Level] = field(default_factory=list)  # by use: where it is read
    ties: list[Tie] = field(default_factory=list)
    outputs: dict[str, tuple[Source, ...]] = field(default_factory=dict)

    def is_recursive(self, use: int) -> bool:
        """Whether a use stands in a query that reads itself."""
        return any(level.recursive for level in self.levels[use].upwards())


class _Walk:
    """Goes through a query once."""

    def __init__(self, view: int, operator: Callable[[int], str], rule_of: Callable[[int], Node | None]) -> None:
        self.found = Query()
        self._views = [view]
        self._operator = operator
        self._rule_of = rule_of
        self._count = 0

    def level(self, query: Node, above: Level | None, around: Level | None, *, recursive: bool = False) -> Level:
        """Walk a query; *above* is None for a view's, whose columns nothing around it names."""
        self._count += 1
        level = Level(self._count, query, above, around, recursive)
        for place, entry in enumerate(query.list("rtable"), 1):
            self._entry(level, place, entry)
        tree = query.node("jointree")
        if tree is not None:
            self._from(level, tree)
        for name in ("targetList", "havingQual", "limitCount", "limitOffset", "rtable"):
            self._inside(level, query.fields.get(name), entries=name == "rtable")
        return level

    def _entry(self, level: Level, place: int, entry: Node) -> None:
        kind, relation = entry.number("rtekind"), entry.number("relid")
        if kind == _RELATION and relation not in self._views:  # before 16 a view's rule names the view itself, twice
            rule = self._rule_of(relation)
            if rule is not None:
                self._views.append(relation)
                level.below[place] = self.level(rule, None, level)
                self._views.pop()
                return
            level.uses[place] = len(self.found.tables)
            self.found.tables.append(relation)
            self.found.levels.append(level)
        elif kind == _SUBQUERY and (inner := entry.node("subquery")) is not None:
            level.below[place] = self.level(inner, level, level)
        elif kind == _CTE and entry.text("self_reference") != "true":
            defined = _up(level, entry.number("ctelevelsup"))
            for one in defined.query.list("cteList") if defined is not None else ():
                if one.text("ctename") == entry.text("ctename") and (inner := one.node("ctequery")) is not None:
                    recursive = one.text("cterecursive") == "true"
                    level.below[place] = self.level(inner, defined, level, recursive=recursive)

    def _from(self, level: Level, node: Node) -> frozenset[int]:
        """Gather the ties of a FROM and its WHERE; returns the uses below it."""
        if node.name == "RANGETBLREF":
            place = node.number("rtindex")
            if place in level.uses:
                return frozenset({level.uses[place]})
            return frozenset(level.below[place].all_uses()) if place in level.below else frozenset()
        if node.name == "FROMEXPR":
            uses = frozenset[int]().union(*(self._from(level, one) for one in node.list("fromlist")))
            self._conditions(level, node.fields.get("quals"), only=None)
            return uses
        left, right = (self._from(level, side) for side in (node.node("larg"), node.node("rarg")) if side is not None)
        only = {_INNER: None, _LEFT: right, _RIGHT: left}.get(node.number("jointype"), frozenset[int]())
        self._conditions(level, node.fields.get("quals"), only=only)
        return left | right

    def _conditions(self, level: Level, value: Any, *, only: frozenset[int] | None) -> None:
        """Gather the ties among conditions that all must hold, and go into the queries in them."""
        for one in _conjuncts(value):
            args = one.list("args")
            if (
                one.name in {"OPEXPR", "SCALARARRAYOPEXPR"}
                and len(args) == 2
                and self._operator(one.number("opno")) == "="
            ):
                among = one.name == "SCALARARRAYOPEXPR"
                if not among or one.text("useOr") == "true":
                    self._tie(level, self.sources(level, args[0]), self.sources(level, args[1]), among=among, only=only)
        self._inside(level, value)

    def _tie(
        self, level: Level, one: Iterable[Source], other: Iterable[Source], *, among: bool, only: frozenset[int] | None
    ) -> None:
        others = tuple(other)
        self.found.ties += [Tie(a, b, among, level.number, only) for a in one for b in others if a.use != b.use]

    def _inside(self, level: Level, value: Any, *, entries: bool = False) -> None:
        """Go into the queries that stand in an expression; of the range table into what is computed there."""
        if isinstance(value, list):
            for one in value:
                self._inside(level, one.fields.get("functions") if entries and isinstance(one, Node) else one)
        elif isinstance(value, Node):
            if value.name == "SUBLINK":
                self._sublink(level, value)
                return
            for child in value.children():
                self._inside(level, child)

    def _sublink(self, level: Level, node: Node) -> None:
        query, test = node.node("subselect"), node.node("testexpr")
        if query is None:
            return
        inner = self.level(query, level, level)
        self._inside(level, test)
        if (
            node.number("subLinkType") == _ANY_SUBLINK
            and test is not None
            and test.name == "OPEXPR"
            and self._operator(test.number("opno")) == "="
        ):
            outer, param = [*test.list("args"), None, None][:2]
            if isinstance(param, Node) and param.name == "PARAM":
                self._tie(
                    inner,
                    self.output(inner, param.number("paramid")),
                    self.sources(level, outer),
                    among=False,
                    only=None,
                )

    # --- columns --------------------------------------------------------------------------------------------------------

    def sources(self, level: Level, value: Any) -> tuple[Source, ...]:
        """Return the columns that an expression is the plain value of, one an arm; none where it is something else."""
        if not isinstance(value, Node):
            return ()
        if value.name == "RELABELTYPE":  # text for varchar, and the like
            return self.sources(level, value.node("arg"))
        if value.name != "VAR":
            return ()
        at = _up(level, value.number("varlevelsup"))
        return self._column(at, value.number("varno"), value.number("varattno")) if at is not None else ()

    def _column(self, level: Level, place: int, column: int) -> tuple[Source, ...]:
        entries = level.query.list("rtable")
        if column <= 0 or not 0 < place <= len(entries):
            return ()
        if place in level.uses:
            return (Source(level.uses[place], column),)
        if place in level.below:
            return self.output(level.below[place], column)
        entry: Node = entries[place - 1]
        aliases = entry.list({_JOIN: "joinaliasvars", _GROUP: "groupexprs"}.get(entry.number("rtekind"), ""))
        return self.sources(level, aliases[column - 1]) if column <= len(aliases) else ()

    def output(self, level: Level, column: int) -> tuple[Source, ...]:
        """Return the columns that the *column*-th output of a query comes from."""
        if level.united:
            arms = [level.below[place] for place in sorted(level.below)]
            return tuple(dict.fromkeys(one for arm in arms for one in self.output(arm, column)))
        for entry in level.query.list("targetList"):
            if entry.number("resno") == column:
                return self.sources(level, entry.node("expr"))
        return ()


def _up(level: Level, steps: int) -> Level | None:
    at: Level | None = level
    for _ in range(steps):
        at = at.above if at is not None else None
    return at


def _conjuncts(value: Any) -> Iterator[Node]:
    if isinstance(value, list):
        for one in value:
            yield from _conjuncts(one)
    elif isinstance(value, Node):
        if value.name == "BOOLEXPR" and value.text("boolop") == "and":
            yield from _conjuncts(value.list("args"))
        else:
            yield value


def read(query: Node, *, view: int, operator: Callable[[int], str], rule_of: Callable[[int], Node | None]) -> Query:
    """
    Return the uses and ties of the query that the rule of *view* holds.

    *operator* gives an operator's name by its number, *rule_of* the query of a view that is read, None for a table.
    """
    walk = _Walk(view, operator, rule_of)
    top = walk.level(query, None, None)
    for entry in query.list("targetList"):
        if entry.text("resjunk") != "true":
            walk.found.outputs[entry.text("resname")] = walk.output(top, entry.number("resno"))
    return walk.found


# --- from a use to another ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """From one use to another."""

    use: int
    other: int
    columns: tuple[
        tuple[int, str, int], ...
    ]  # of the use; ``=``, ``among`` (the other's array) or ``holds`` (its own); of the other


def path(found: Query, start: int, root: int) -> tuple[Step, ...] | None:
    """
    Return the shortest way from a use to another, by ties that must hold for each row of the first; None where there is none.

    It leads through what stands around the use, never into another subquery: that one's rows need not be there.
    """
    around = list(found.levels[start].upwards())
    levels = {one.number for level in around for one in level.beside()}
    ties = [one for one in found.ties if one.level in levels]
    ways: dict[int, tuple[Step, ...]] = {start: ()}
    queue = [start]
    while queue:
        now = queue.pop(0)
        if now == root:
            return ways[now]
        real = {start, now, *(step.other for step in ways[now])}  # rows that are there, on either side of an outer join
        holding = [one for one in ties if one.only is None or one.only & real]
        for other, columns in _neighbours(holding, now).items():
            if other not in ways and found.levels[other].number in levels:
                ways[other] = (*ways[now], Step(now, other, tuple(dict.fromkeys(columns))))
                queue.append(other)
    return None


def _neighbours(ties: Iterable[Tie], use: int) -> dict[int, list[tuple[int, str, int]]]:
    found: dict[int, list[tuple[int, str, int]]] = {}
    for tie in ties:
        for mine, theirs, how in ((tie.one, tie.other, "among" if tie.among else "="), tie.turned()):
            if mine.use == use:
                found.setdefault(theirs.use, []).append((mine.column, how, theirs.column))
    return found
