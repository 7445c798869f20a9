"""The document's query: SQL that a person would write, and go on writing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from idxctl.init import shape, words
from idxctl.init.fields import Field
from idxctl.init.schema import Column, Table
from idxctl.init.shape import How, Link, Part

_PAIRS = 45  # of names and values in one jsonb_build_object: a function takes 100 arguments
_HIGHEST = 32  # steps up a tree: one that goes in a circle ends there

Fields = Mapping[tuple[int, str], Field]  # by table and column: those that are shown


@dataclass(frozen=True)
class _Pair:
    """A field and the lines of SQL of its value; the comment stands at the end of the first."""

    name: str
    lines: Sequence[str]
    note: str = ""


def query(root: Part, key: Sequence[str], fields: Fields, *, header: Sequence[str], hints: Sequence[str]) -> str:
    """Return the document query of *root*, whose documents are identified by the columns *key*; *hints* stand beside its WHERE."""
    alias = words.alias(root.table.name, ())
    lines = [f"-- {one}" for one in header]
    outputs = (
        [f"{alias}.{root.table.quote(key[0])} AS document_id"]
        if len(key) == 1
        else [f"{alias}.{root.table.quote(name)}" for name in key]
    )
    lines.append(f"SELECT {outputs[0]},")
    lines += [f"       {one}," for one in outputs[1:]]
    built = _object(_pairs(root, alias, fields, {alias}), 7)
    lines += ["       " + built[0].lstrip(), *built[1:]]
    lines[-1] += " AS document"
    lines.append(f"FROM {root.table.sql} {alias}")
    if root.gone is not None:
        lines.append(f"WHERE {_still_there(root.gone, alias)}")
    lines += [f"-- {one.replace('{alias}', alias)}" for one in hints]
    return "\n".join(lines) + "\n"


def _pairs(part: Part, alias: str, fields: Fields, taken: set[str]) -> list[_Pair]:
    found = [_column(part.table, one, alias, fields) for one in part.columns if (part.table.oid, one.name) in fields]
    if part.location is not None:
        name, lat, lon = part.location
        x, y = f"{alias}.{lon.quoted}", f"{alias}.{lat.quoted}"
        on_earth = f"{y} BETWEEN -90 AND 90 AND {x} BETWEEN -180 AND 180"
        found.append(_Pair(name, [f"CASE WHEN {on_earth} THEN jsonb_build_object('lat', {y}, 'lon', {x}) END"]))
    return found + [_Pair(one.field, _value(one, alias, fields, taken)) for one in part.parts]


def _column(table: Table, column: Column, alias: str, fields: Fields) -> _Pair:
    field = fields[table.oid, column.name]
    return _Pair(column.name, [field.sql(f"{alias}.{column.quoted}")], field.note)


def _object(pairs: Sequence[_Pair], indent: int) -> list[str]:
    """Return the lines of a jsonb_build_object, or of several side by side where there are too many fields for one."""
    pad = " " * indent
    lines: list[str] = []
    for start in range(0, max(len(pairs), 1), _PAIRS):
        some = pairs[start : start + _PAIRS]
        lines.append(f"{pad}jsonb_build_object(" if not lines else f"{pad}) || jsonb_build_object(")
        for place, one in enumerate(some):
            comma = "," if place < len(some) - 1 else ""
            note = f"  -- {one.note}" if one.note else ""
            inner = [f"{pad}    {_text(one.name)}, {one.lines[0]}", *(f"{pad}    {line}" for line in one.lines[1:])]
            inner[-1] += comma
            inner[0 if len(inner) > 1 else -1] += note
            lines += inner
    lines.append(f"{pad})")
    return lines


def _value(part: Part, parent: str, fields: Fields, taken: set[str]) -> list[str]:
    """Return the lines of the subquery that gives a part, the first without indent."""
    assert part.link is not None
    alias = _alias(part.table, taken)
    source, beside = f"{part.table.sql} {alias}", parent
    pairs = _pairs(part, alias, fields, taken)
    if part.join is not None:
        beside = _alias(part.join.table, taken)
        source = f"{part.join.table.sql} {beside} JOIN {source} ON {part.link.sql(alias, beside)}"
        pairs += _extras(part, beside, fields, {one.name for one in pairs})
    if part.tree is not None:
        name = words.free("ancestors", {one.name for one in pairs})
        pairs.append(_Pair(name, _ancestors(part, part.tree, alias, fields, taken)))
    link = part.link if part.join is None else part.join.link
    where = link.sql(alias if part.join is None else beside, parent)
    if part.gone is not None:
        where += f" AND {_still_there(part.gone, alias)}"
    return ["(", *_select(part, pairs, alias), f"    FROM {source}", f"    WHERE {where}", ")"]


def _select(part: Part, pairs: Sequence[_Pair], alias: str) -> list[str]:
    """Return the lines of what a part's subquery selects: one object, or the array of all."""
    built = _object(pairs, 4)
    if part.how is not How.MANY:
        return ["    SELECT " + built[0].lstrip(), *built[1:]]
    by = ", ".join(f"{alias}.{one.quoted}" for one in shape.order(part))
    lines = ["    SELECT coalesce(jsonb_agg(" + built[0].lstrip(), *built[1:]]
    lines[-1] += f" ORDER BY {by}), '[]')" if by else "), '[]')"
    return lines


def _extras(part: Part, alias: str, fields: Fields, taken: Collection[str]) -> list[_Pair]:
    """Return the facts of a join table itself, under names that the rows it leads to leave free."""
    assert part.join is not None
    table = part.join.table
    found = [_column(table, one, alias, fields) for one in part.join.extras if (table.oid, one.name) in fields]
    return [one for one in found if one.name not in taken]


def _ancestors(part: Part, tree: Link, alias: str, fields: Fields, taken: set[str]) -> list[str]:
    """Return the lines of the subquery that gives what stands above a row of a tree, the root first."""
    above = words.free("above", taken)
    next_ = _alias(part.table, taken)
    table = part.table
    shown = [one for one in shape.ancestor_columns(part) if (table.oid, one.name) in fields]
    needed = {one.name: one.quoted for one in [*shown, *map(table.column, (*tree.to, *tree.columns))]}
    own = ", ".join(f"{next_}.{one}" for one in needed.values())
    begin = " AND ".join(
        f"{next_}.{table.quote(column)} = {alias}.{table.quote(up)}"
        for column, up in zip(tree.columns, tree.to, strict=True)
    )
    pairs = [_column(table, one, above, fields) for one in shown]
    built = _object([_Pair(one.name, one.lines) for one in pairs], 4)
    return [
        "(",
        f"    WITH RECURSIVE {above} AS (",
        f"        SELECT {own}, 1 AS step FROM {table.sql} {next_} WHERE {begin}",
        "        UNION ALL",
        f"        SELECT {own}, {above}.step + 1 FROM {above} JOIN {table.sql} {next_} ON {tree.sql(next_, above)} WHERE {above}.step < {_HIGHEST}",
        "    )",
        "    SELECT coalesce(jsonb_agg(" + built[0].lstrip(),
        *built[1:-1],
        built[-1] + f" ORDER BY {above}.step DESC), '[]')",
        f"    FROM {above}",
        ")",
    ]


def _alias(table: Table, taken: set[str]) -> str:
    alias = words.alias(table.name, taken)
    taken.add(alias)
    return alias


def _still_there(column: Column, alias: str) -> str:
    if column.type == "boolean":
        return f"NOT {alias}.{column.quoted}" if column.not_null else f"{alias}.{column.quoted} IS NOT TRUE"
    return f"{alias}.{column.quoted} IS NULL"


def _text(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
