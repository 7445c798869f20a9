"""
The text of the trigger functions and triggers, from the stored watches alone. Pure: nothing here connects.

One function a table, made of all watches on it whichever index they serve, and one trigger an event. Statements append to
the queue and never update it, so the application's transactions never wait for each other here (P5). A branch that does
not run is never planned, so it may name a transition table that its event has not.

Everything of ours is written with its schema, and everything of PostgreSQL's that a same-named object could displace with
pg_catalog: objects of these names in somebody's search path change nothing (C5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from idxctl.capture.catalog import Member, literal, quoted
from idxctl.capture.watches import PRIORITIES, Definition, Watch
from idxctl.core import fingerprints, keys

PREFIX = "opensearch_indexing_capture_"
ROWS_A_TASK = 1000  # C1: changed rows in one fan-out task, at most
# A plan is kept for as long as the session, made for as many rows as the first statement changed. Compiling one made for
# many costs each later single row 17 ms; a hash table sized for many, 1 ms. Sorting suits both.
_PLANS = ("SET jit = off", "SET enable_hashagg = off")
# What a lookup's columns become in a task is text for types that JSON has not, and a worker reads it under settings of its own.
_SAME_TEXT = ("SET DateStyle = 'ISO, YMD'", "SET IntervalStyle = postgres", "SET extra_float_digits = 1")
_IN_JSON = keys.PLAIN_TYPES | {
    "numeric", "json", "jsonb", "character", "timestamp with time zone", "timestamp without time zone",
}  # fmt: skip
_WORK_MEM = "SET work_mem = '64MB'"  # old and new rows are joined: in memory for some 50,000 wide ones
_ARGUMENTS = 50  # a function takes 100
_OLD, _NEW = "opensearch_indexing_old", "opensearch_indexing_new"
# How many UPDATEs of partitioned tables are under way in this transaction; a transaction's end and a savepoint's reset it.
_MOVING = "coalesce(nullif(pg_catalog.current_setting('opensearch_indexing.moving', true), ''), '0')"
PARTITIONED = "partitioned"  # the argument of an UPDATE trigger that counts down what its BEFORE trigger counted up


# Functions ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Function:
    """One trigger function, whole."""

    schema: str
    name: str
    body: str
    settings: str  # the text of its SET clauses
    table: tuple[str, str] = ("", "")  # whose it is

    @property
    def fingerprint(self) -> str:
        """The same for functions that do the same."""
        return fingerprints.of_content([self.body, self.settings])

    @property
    def comment(self) -> str:
        """What psql shows beside it; the fingerprint tells an outdated one."""
        return f"Written by idxctl watch install; changes here are lost. {self.fingerprint}"

    @property
    def qualified(self) -> str:
        """Its name in SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    def create(self) -> list[str]:
        """
        Return the statements that make or replace it.

        Everybody may execute it: whoever adds a partition needs that for the copy of the row trigger.
        """
        mark = _dollar(self.body)
        how = f"LANGUAGE plpgsql SECURITY DEFINER {self.settings}"
        return [
            f"CREATE OR REPLACE FUNCTION {self.qualified}() RETURNS trigger\n{how} AS {mark}{self.body}{mark}",
            f"COMMENT ON FUNCTION {self.qualified}() IS {literal(self.comment)}",
        ]


def function_name(table: tuple[str, str]) -> str:
    """Return the name of a table's function: recognisable, unique, within the 63 bytes of a name."""
    digest = hashlib.sha256("\0".join(table).encode()).hexdigest()[:10]
    readable = "".join(
        letter for letter in table[1].lower() if letter.isascii() and (letter.isalnum() or letter == "_")
    )
    return f"{PREFIX}{digest}_{readable}"[:63].rstrip("_")


def function(schema: str, table: tuple[str, str], watches: Sequence[Watch], *, partitioned: bool) -> Function:
    """Return the function of *table*, whose triggers append to the queue in *schema* what *watches* ask for."""
    writer = _Writer(schema, table[1], watches)
    body = writer.body(partitioned=partitioned)
    # User functions in a key_sql may need the path they were written for; ours and PostgreSQL's own come first (C5).
    extra = [name for watch in watches if watch.definition.user_code for name in watch.definition.search_path]
    path = ["pg_catalog", *dict.fromkeys(name for name in extra if name != "pg_catalog"), "pg_temp"]
    settings = [f"SET search_path = {', '.join(quoted(name) for name in path)}", *_PLANS]
    if any(watch.definition.ignore for watch in watches):
        settings.append(_WORK_MEM)
    if not _IN_JSON.issuperset(of for watch in watches for of in watch.definition.types):
        settings += _SAME_TEXT
    if "\\" in body:  # a key_sql that PostgreSQL wrote out: a writer may read strings the old way
        settings.append("SET standard_conforming_strings = on")
    return Function(schema, function_name(table), body, " ".join(settings), table)


@dataclass(frozen=True)
class _Writer:
    """Writes one function's body."""

    schema: str
    table: str
    watches: Sequence[Watch]

    def body(self, *, partitioned: bool) -> str:
        branches = [
            ("INSERT", self._each(self._inserted)),
            ("UPDATE", self._each(self._updated) + (self._count(-1) if partitioned else [])),
            ("DELETE", self._each(self._deleted)),
            ("TRUNCATE", self._swept()),
        ]
        lines = ["", "#variable_conflict use_column", "BEGIN"]
        if partitioned:
            lines += self._moved_rows()
        for place, (event, statements) in enumerate(branches):
            lines.append(f"    {'ELSIF' if place else 'IF'} TG_OP = '{event}' THEN")
            lines += [_indented(statement, 8) for statement in statements]
        return "\n".join([*lines, "    END IF;", "    RETURN NULL;", "END ", ""])

    def _each(self, write: Callable[[Watch], str]) -> list[str]:
        return [f"-- watch {watch.id}, index {' '.join(watch.index.split())}\n{write(watch)}" for watch in self.watches]

    # What each event leaves in the queue ------------------------------------------------------------------------------
    def _inserted(self, watch: Watch) -> str:
        return self._append(watch, self._rows(watch, _NEW))

    def _deleted(self, watch: Watch) -> str:
        return self._append(watch, self._rows(watch, _OLD))

    def _updated(self, watch: Watch) -> str:
        # Old and new: a child that changes its parent touches both, a changed primary key both documents.
        everything = self._append(watch, f"{self._rows(watch, _OLD)}\nUNION ALL\n{self._rows(watch, _NEW)}")
        if not watch.definition.ignore:
            return everything
        # C4. The columns were those at installation: one added since would be taken for ignored and its changes lost, one
        # dropped would fail the writer. If they differ, every updated row counts.
        names = ", ".join(literal(name) for name in watch.definition.table_columns)
        return (
            "IF ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a\n"
            "         WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)\n"
            f"   OPERATOR(pg_catalog.=) ARRAY[{names}]::pg_catalog.name[] THEN\n"
            f"{_indented(self._append(watch, self._really_changed(watch), unique=watch.definition.by_primary_key), 4)}\n"
            f"ELSE\n{_indented(everything, 4)}\nEND IF;"
        )

    def _swept(self) -> list[str]:
        # C3. TRUNCATE fires on every partition; one task an index and transaction is enough, the flag dies with either.
        indexes = {watch.index: watch for watch in reversed(self.watches)}
        return [
            f"IF pg_catalog.strpos(coalesce(pg_catalog.current_setting('opensearch_indexing.swept', true), ''), ' {watch.id} ') = 0 THEN\n"
            "    PERFORM pg_catalog.set_config('opensearch_indexing.swept', "
            f"coalesce(pg_catalog.current_setting('opensearch_indexing.swept', true), '') || ' {watch.id} ', true);\n"
            f"    INSERT INTO {self._queue} (index_name, kind, priority, origin, payload)\n"
            f"    VALUES ({literal(index)}, 'sweep', 0, 'trigger', "
            f"pg_catalog.jsonb_build_object('watch', {watch.id}, 'reason', 'truncate'));\n"
            "END IF;"
            for index, watch in sorted(indexes.items())
        ]

    # Partitioned tables -----------------------------------------------------------------------------------------------
    def _moved_rows(self) -> list[str]:
        """C2: a MERGE that moves a row to another partition shows it to row triggers alone; they fire while one may run."""
        inserted = self._each(lambda watch: self._append(watch, self._row(watch, "NEW")))
        deleted = self._each(lambda watch: self._append(watch, self._row(watch, "OLD")))
        return [
            "    IF TG_WHEN = 'BEFORE' THEN",
            *(_indented(statement, 8) for statement in self._count(+1)),
            "        RETURN NULL;",
            "    END IF;",
            "    IF TG_LEVEL = 'ROW' THEN",
            "        IF TG_OP = 'INSERT' THEN",
            *(_indented(statement, 12) for statement in inserted),
            "        ELSE",
            *(_indented(statement, 12) for statement in deleted),
            "        END IF;",
            "        RETURN NULL;",
            "    END IF;",
        ]

    def _count(self, step: int) -> list[str]:
        number = f"greatest({_MOVING}::pg_catalog.int4 {step:+d}, 0)::pg_catalog.text"
        perform = f"PERFORM pg_catalog.set_config('opensearch_indexing.moving', {number}, true);"
        return [perform] if step > 0 else [f"IF TG_NARGS > 0 THEN\n    {perform}\nEND IF;"]

    def _row(self, watch: Watch, row: str) -> str:
        return self._rows(watch, f"(SELECT {row}.*)")

    # Rows and the values taken from them ------------------------------------------------------------------------------
    @property
    def _queue(self) -> str:
        return f"{quoted(self.schema)}.opensearch_indexing_queue"

    def _append(self, watch: Watch, rows: str, *, unique: bool = False) -> str:
        """Append what *rows* name, each once; *unique* rows are so already."""
        inner = _indented(rows, 6)
        distinct = f"(\n{inner}) d" if unique else f"(SELECT DISTINCT s.value FROM (\n{inner}) s) d"
        if watch.definition.keys is None:
            id_ = (
                keys.document_id_sql(["d.value"], watch.definition.key_types) if _exact(watch.definition) else "d.value"
            )
            return (
                f"INSERT INTO {self._queue} (index_name, document_id, priority, origin)\n"
                f"SELECT {literal(watch.index)}, {id_}, {PRIORITIES[watch.definition.priority]}, 'trigger'\n"
                f"FROM {distinct}\n"
                "WHERE d.value IS NOT NULL;"
            )
        return (  # C1: the changed rows' columns, old and new; the query over them runs after the commit
            f"INSERT INTO {self._queue} (index_name, kind, priority, origin, payload)\n"
            f"SELECT {literal(watch.index)}, 'keys', {PRIORITIES[watch.definition.priority]}, 'trigger',\n"
            f"       pg_catalog.jsonb_build_object('watch', {watch.id}, 'rows', pg_catalog.jsonb_agg(n.value))\n"
            f"FROM (SELECT d.value, (pg_catalog.row_number() OVER () - 1) / {ROWS_A_TASK} AS task\n"
            f"      FROM {distinct}) n\n"
            "GROUP BY n.task;"
        )

    def _rows(self, watch: Watch, source: str) -> str:
        one = watch.definition
        value = self._value(one, quoted(self.table))
        return f"SELECT {value} AS value FROM {self._with_virtual(one, source, one.row)}"

    def _with_virtual(self, one: Definition, source: str, names: Sequence[str]) -> str:
        """Return *source* under the table's name; a virtual column, which no trigger sees, is computed as a read would."""
        alias = quoted(self.table)
        if not one.virtual:
            return f"{source} AS {alias}"
        virtual = dict(one.virtual)
        columns = [
            f"({virtual[name]}) AS {quoted(name)}" if name in virtual else f"{alias}.{quoted(name)}" for name in names
        ]
        return f"(SELECT {', '.join(columns)} FROM {source} AS {alias}) AS {alias}"

    def _really_changed(self, watch: Watch) -> str:
        """C4: old and new rows of one primary key, where the columns that count differ by a byte."""
        one = watch.definition
        matched = " AND ".join(
            f"o.p{place} OPERATOR(pg_catalog.{'*=' if how == 'image' else '='}) n.p{place}"
            for place, how in enumerate(one.matched_by)
        )
        joined = f"({self._images(one, _OLD)}) o\nFULL JOIN ({self._images(one, _NEW)}) n ON {matched}\n"
        differ = "(o.image OPERATOR(pg_catalog.*=) n.image) IS NOT TRUE"
        if one.by_primary_key:
            return f"SELECT coalesce(n.value, o.value) AS value\nFROM {joined}WHERE {differ}"
        return (
            f"SELECT v.value\nFROM {joined}"
            f"CROSS JOIN LATERAL (VALUES (o.value), (n.value)) v (value)\nWHERE {differ} AND v.value IS NOT NULL"
        )

    def _images(self, one: Definition, source: str) -> str:
        alias = quoted(self.table)
        columns = [f"{alias}.{quoted(name)}" for name in one.primary_key]
        # A record of one column: *= compares records, and a ROW() on both sides would be taken apart.
        shapes = {"value": "{}", "bytes": '{} COLLATE pg_catalog."C"', "image": "ROW({})"}
        parts = [
            f"{shapes[how].format(column)} AS p{place}"
            for place, (column, how) in enumerate(zip(columns, one.matched_by, strict=True))
        ]
        image = ", ".join(f"{alias}.{quoted(name)}" for name in one.compared)
        rows = self._with_virtual(one, source, tuple(dict.fromkeys((*one.row, *one.primary_key, *one.compared))))
        return f"SELECT {', '.join(parts)}, ROW({image}) AS image, {self._value(one, alias)} AS value FROM {rows}"

    def _value(self, one: Definition, alias: str) -> str:
        """Return what a row leaves: for a lookup its columns, else the key, as an id unless DISTINCT may see the value."""
        if one.keys is not None:
            return _payload_row(one, alias)
        parts = [one.key_expression] if one.key_expression else [f"{alias}.{quoted(name)}" for name in one.key]
        return parts[0] if _exact(one) else keys.document_id_sql(parts, one.key_types)


def _exact(one: Definition) -> bool:
    return len(one.key_types) == 1 and one.key_types[0] in keys.EXACT_TYPES


def _payload_row(one: Definition, alias: str) -> str:
    """Return a row of a fan-out task's payload: the columns that the query reads, as a JSON array."""
    values = [
        f"{alias}.{quoted(name)}" + ("::pg_catalog.text" if as_text else "")
        for name, as_text in zip(one.columns, one.as_text, strict=True)
    ]
    parts = [values[place : place + _ARGUMENTS] for place in range(0, len(values), _ARGUMENTS)]
    return " || ".join(f"pg_catalog.jsonb_build_array({', '.join(part)})" for part in parts)


def _indented(text: str, by: int) -> str:
    return "\n".join(" " * by + line for line in text.split("\n"))


def _dollar(body: str) -> str:
    mark, number = "$capture$", 0
    while mark in body:
        number += 1
        mark = f"$capture{number}$"
    return mark


# Triggers -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Trigger:
    """One trigger as it should be. ``type_bits`` is what pg_trigger.tgtype holds for it."""

    name: str
    timing: str  # AFTER UPDATE, ...
    type_bits: int
    old: bool = False
    new: bool = False
    row: bool = False
    argument: str = ""

    def create(self, table: str, function_: str) -> str:
        """Return the statement that makes or replaces it on *table* (PostgreSQL 14)."""
        tables = [
            f"{word} TABLE AS {name}" for word, name, on in (("OLD", _OLD, self.old), ("NEW", _NEW, self.new)) if on
        ]
        return (
            f"CREATE OR REPLACE TRIGGER {self.name} {self.timing} ON {table}"
            + (f" REFERENCING {' '.join(tables)}" if tables else "")
            + (f" FOR EACH ROW WHEN ({_MOVING} OPERATOR(pg_catalog.<>) '0')" if self.row else " FOR EACH STATEMENT")
            + f" EXECUTE FUNCTION {function_}({literal(self.argument) if self.argument else ''})"
        )

    def enable(self, table: str) -> str:
        """Return the statement that has it fire under session_replication_role = replica too."""
        return f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {self.name}"


_INSERT = Trigger(PREFIX + "insert", "AFTER INSERT", 4, new=True)
_UPDATE = Trigger(PREFIX + "update", "AFTER UPDATE", 16, old=True, new=True)
_DELETE = Trigger(PREFIX + "delete", "AFTER DELETE", 8, old=True)
_TRUNCATE = Trigger(PREFIX + "truncate", "AFTER TRUNCATE", 32)
_UPDATE_TREE = Trigger(PREFIX + "update", "AFTER UPDATE", 16, old=True, new=True, argument=PARTITIONED)
_MOVING_BEGINS = Trigger(PREFIX + "moving", "BEFORE UPDATE", 2 + 16)
_MOVED = Trigger(PREFIX + "moved", "AFTER INSERT OR DELETE", 1 + 4 + 8, row=True)


def triggers(member: Member, *, root_kind: str) -> tuple[Trigger, ...]:
    """Return the triggers that a table of the tree should have (C2); a foreign table can have none."""
    if member.kind == "f":
        return ()
    if root_kind != "p" or member.kind != "p":
        return (_INSERT, _UPDATE, _DELETE, _TRUNCATE)
    whole = (_INSERT, _MOVING_BEGINS, _UPDATE_TREE, _DELETE, _TRUNCATE)
    return (*whole, _MOVED) if member.depth == 0 else whole  # PostgreSQL itself copies a row trigger to every partition
