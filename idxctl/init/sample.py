"""A look at some rows of a table: what its columns hold that their types do not tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from idxctl.core.errors import PostgresRefused
from idxctl.init.fields import Seen
from idxctl.init.schema import Column, Table
from idxctl.postgres.connect import Connection

_PATIENCE = "10s"

# By type: what to ask of {x}, under which name of `Seen`.
_OF_DATES = {"infinite": "NOT isfinite({x})", "far": "isfinite({x}) AND ({x} < '0001-01-01' OR {x} >= '9999-12-31')"}
_OF_FLOATS = {"nan": "{x} = 'NaN'", "infinite": "{x} IN ('Infinity', '-Infinity')"}
_QUESTIONS: Mapping[str, Mapping[str, str]] = {
    "date": _OF_DATES,
    "timestamp without time zone": _OF_DATES,
    "timestamp with time zone": _OF_DATES,
    "real": _OF_FLOATS,
    "double precision": _OF_FLOATS,
    "numeric": {**_OF_FLOATS, "imprecise": "length(replace(trim(LEADING '-0.' FROM {x}::text), '.', '')) > 15"},
    "json": {},
    "jsonb": {},
    "point": {"geographic": "NOT ({x})[0] BETWEEN -180 AND 180 OR NOT ({x})[1] BETWEEN -90 AND 90"},
}


def look(conn: Connection, table: Table, columns: Iterable[Column], rows: int) -> dict[str, Seen]:
    """
    Return what the first *rows* rows of *table* hold, by column; nothing where they cannot be read in a few seconds.

    Of an array its elements are looked at.
    """
    asked = [(one, _type(one)) for one in columns if _type(one) in _QUESTIONS]
    if not asked or rows <= 0 or not table.readable:
        return {}
    outputs, read = [], []
    for place, (column, of) in enumerate(asked):
        value = f"r.c{place}"
        source = f"unnest({value}) AS e (v)" if column.element is not None else f"LATERAL (SELECT {value}) AS e (v)"
        read.append(f"{column.quoted} AS c{place}")
        outputs += [
            f"(SELECT bool_or({question.replace('{x}', 'e.v')}) FROM rows AS r, {source})"
            for question in _QUESTIONS[of].values()
        ]
        kinds = (
            f"array_agg(DISTINCT {of}_typeof(e.v))"
            if of in {"json", "jsonb"}
            else "array_agg(DISTINCT e.v IS NOT NULL)"
        )
        outputs.append(f"(SELECT {kinds} FROM rows AS r, {source} WHERE e.v IS NOT NULL)")
    query = f"WITH rows AS MATERIALIZED (SELECT {', '.join(read)} FROM {table.qualified} LIMIT {int(rows)}) SELECT {', '.join(outputs)}"
    try:
        with conn.transaction(local={"statement_timeout": _PATIENCE}, read_only=True):
            row = conn.execute(query.encode()).fetchone()
    except PostgresRefused:
        return {}
    return _found(asked, list(row or ()))


def _type(column: Column) -> str:
    return column.element or column.type


def _found(asked: Iterable[tuple[Column, str]], answers: list[object]) -> dict[str, Seen]:
    found = {}
    for column, of in asked:
        told = {name: bool(answers.pop(0)) for name in _QUESTIONS[of]}
        kinds = answers.pop(0)
        names = frozenset(map(str, kinds)) if isinstance(kinds, list) and of in {"json", "jsonb"} else frozenset[str]()
        if "geographic" in told:  # asked the other way round, and of no row nothing is known
            told["geographic"] = bool(kinds) and not told["geographic"]
        found[column.name] = Seen(kinds=names, **told)
    return found
