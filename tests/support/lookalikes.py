"""
Look-alikes: for every function and operator of pg_catalog that idxctl's SQL mentions, all that PostgreSQL would like better.

Taken from the text of the package and of its migrations, not from a list. An exact match in a schema of the search path beats
a function of pg_catalog that is polymorphic or needs a cast, so one is made for each combination of types that could be
called. Each says that it was called, by an error and in a sequence, which no rollback takes back.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg

import idxctl
from idxctl.postgres import migrations

# What the grammar calls by these names without showing them: LIKE, IN, BETWEEN, IS DISTINCT FROM, NULLIF, CASE ... WHEN.
_OF_THE_GRAMMAR = {"=", "<>", "<", "<=", ">", ">=", "~~", "!~~"}
# Types of values that are no column's.
_OF_VALUES = [
    '"char"',
    "name",
    "text",
    "varchar",
    "bool",
    "int2",
    "int4",
    "int8",
    "numeric",
    "float8",
    "oid",
    "regclass",
    "regtype",
    "timestamptz",
    "interval",
    "date",
    "uuid",
    "json",
    "jsonb",
    "xid8",
    "inet",
]
_LONGEST = 6  # arguments
_FUNCTION = re.compile(r"\b([a-z_][a-z_0-9]*)\s*\(")
_OPERATOR = re.compile(r"[-+*/<>=~!@#%^&|?]+")


def mentioned() -> tuple[set[str], set[str]]:
    """Return the words before a bracket, and the operators, of all texts that may hold SQL."""
    package = Path(idxctl.__file__).parent
    texts = [
        path.read_text()
        for path in package.rglob("*")
        if path.suffix in {".sql", ".py"} and "embedded" not in path.parts
    ]
    texts += [step.up for step in migrations.known()]
    words, operators = set[str](), set(_OF_THE_GRAMMAR)
    for text in texts:
        words.update(_FUNCTION.findall(text))
        operators.update(_OPERATOR.findall(text))
    return words, operators


def plant(url: str) -> int:
    """Create them in schema public of the database; returns how many there are."""
    with psycopg.connect(
        url, autocommit=True, options="-c search_path=pg_catalog -c check_function_bodies=off"
    ) as conn:
        conn.execute("CREATE SEQUENCE public.fired; GRANT CREATE ON SCHEMA public TO PUBLIC")
        planted = _Catalog(conn).statements()
        for at in range(0, len(planted), 2000):
            conn.execute(";\n".join(planted[at : at + 2000]).encode())
    return len(planted)


def fired(url: str) -> bool:
    """Whether any of them was called."""
    with psycopg.connect(url, options="-c search_path=pg_catalog") as conn:
        row = conn.execute("SELECT is_called FROM public.fired").fetchone()
    assert row is not None
    return bool(row[0])


class _Catalog:
    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn = conn
        self.names = dict(conn.execute("SELECT t.oid, pg_catalog.format_type(t.oid, NULL) FROM pg_type t"))
        scalars = {
            row[0]
            for row in conn.execute(
                """SELECT oid FROM pg_type WHERE oid = ANY (%s::regtype[]::oid[]) UNION
                   SELECT a.atttypid FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                   WHERE c.relname LIKE 'opensearch%%' AND a.attnum > 0 AND c.relkind = 'r' AND NOT a.attisdropped""",
                (list(_OF_VALUES),),
            )
        }
        self.element = dict(conn.execute("SELECT typarray, oid FROM pg_type WHERE typarray <> 0"))
        scalars |= {self.element[oid] for oid in scalars if oid in self.element}
        self.scalars = {oid for oid in scalars if oid not in self.element}
        self.array = {element: array for array, element in self.element.items()}
        self.types = sorted(self.scalars | {self.array[oid] for oid in self.scalars if oid in self.array})
        self.implicit = set(conn.execute("SELECT castsource, casttarget FROM pg_cast WHERE castcontext = 'i'"))
        self.polymorphic = {oid: name for oid, name in self.names.items() if name.startswith("any") or name == '"any"'}

    def statements(self) -> list[str]:
        words, operators = mentioned()
        return [*self._functions(words), *self._operators(operators)]

    def _takes(self, wanted: int) -> list[int]:
        """Return the types that an argument declared as *wanted* would be given."""
        name = self.polymorphic.get(wanted)
        if name is None:
            return [wanted, *(one for one in self.types if (one, wanted) in self.implicit)]
        if name.endswith("array") and "non" not in name:
            return [one for one in self.types if one in self.element]
        return list(self.types)

    def _signatures(self, declared: list[int], variadic: int, defaults: int) -> Iterator[tuple[int, ...]]:
        if variadic:
            declared = declared[:-1]
            text, whole = (
                next(o for o, n in self.names.items() if n == "text"),
                next(o for o, n in self.names.items() if n == "integer"),
            )
            for more in (1, 2, 3):
                for kinds in itertools.product((text, whole), repeat=more):
                    yield (*declared, *kinds)
            return
        for length in range(len(declared) - defaults, len(declared) + 1):
            args = declared[:length]
            for kind in self.types if any(one in self.polymorphic for one in args) else [0]:
                solved = tuple(self._solved(one, kind) for one in args)
                if not all(solved):
                    continue
                yield solved
                for place, wanted in enumerate(args):
                    for other in self._takes(wanted):
                        yield (*solved[:place], other, *solved[place + 1 :])

    def _solved(self, declared: int, kind: int) -> int:
        name = self.polymorphic.get(declared)
        if name is None:
            return declared
        if name.endswith("array") and "non" not in name:
            return kind if kind in self.element else self.array.get(kind, 0)
        return kind

    def _functions(self, words: set[str]) -> list[str]:
        rows = self.conn.execute(
            """SELECT proname, proargtypes::oid[], provariadic, pronargdefaults, prorettype FROM pg_proc
               WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY (%s) AND pronargs <= %s AND prokind <> 'p'""",
            (list(words), _LONGEST),
        ).fetchall()
        there = {(name, tuple(args)) for name, args, *_ in rows}
        made: dict[tuple[str, tuple[int, ...]], str] = {}
        for name, declared, variadic, defaults, returned in rows:
            for args in self._signatures(list(declared), variadic, defaults):
                pseudo = any(self.names[one] in {"internal", "cstring", "trigger", "record"} for one in args)
                if pseudo or (name, args) in there or any(one in self.polymorphic for one in args):
                    continue
                made.setdefault((name, args), self._function(name, args, returned))
        return list(made.values())

    def _function(self, name: str, args: tuple[int, ...], returned: int) -> str:
        result = self.names[returned]
        if returned in self.polymorphic or result in {"internal", "cstring", "record", "void", "trigger"}:
            result = "text"
        taken = ", ".join(self.names[one] for one in args)
        return (
            f'CREATE OR REPLACE FUNCTION public."{name}"({taken}) RETURNS {result} LANGUAGE plpgsql AS $$BEGIN '
            f"PERFORM pg_catalog.nextval('public.fired'); RAISE EXCEPTION 'look-alike: {name}({taken})'; END$$"
        )

    def _operators(self, symbols: set[str]) -> list[str]:
        rows = self.conn.execute(
            """SELECT oprname, oprleft, oprright, oprresult FROM pg_operator
               WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprname = ANY (%s) AND oprleft <> 0""",
            (list(symbols),),
        ).fetchall()
        there = {(name, left, right) for name, left, right, _ in rows}
        made: dict[tuple[str, int, int], int] = {}
        takes = {wanted: self._takes(wanted) for _, left, right, _ in rows for wanted in (left, right)}
        for name, left, right, result in rows:
            for pair in itertools.product(takes[left], takes[right]):
                if (name, *pair) not in there and not set(pair) & self.polymorphic.keys():
                    made.setdefault((name, *pair), result)
        found = []
        for number, ((name, left, right), result) in enumerate(made.items()):
            function = self._function(f"lookalike_{number} of {name}", (left, right), result)
            found += [
                function,
                (
                    f"CREATE OPERATOR public.{name} (LEFTARG = {self.names[left]}, RIGHTARG = {self.names[right]}, "
                    f'FUNCTION = public."lookalike_{number} of {name}")'
                ),
            ]
        return found
