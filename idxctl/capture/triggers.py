"""
The text of the trigger functions and triggers, from the stored watches alone. Pure: nothing here connects.

One function a table, made of all watches on it whichever index they serve, and one trigger an event. Statements append to
the queue and never update it, so the application's transactions never wait for each other here (P5). A branch that does
not run is never planned, so it may name a transition table that its event has not.

Everything of ours is written with its schema, and everything of PostgreSQL's that a same-named object could displace with
pg_catalog: objects of these names in somebody's search path change nothing (C5).

Capture never fails the writer (C6), and calls nothing of others' with the owner's rights. A function first asks PostgreSQL
itself what a name in its statements would mean now: `pg_typeof` over no row, in a block that writes nothing and so costs no
transaction id. Columns are as they were: the statements run, over PostgreSQL's own types alone; a value of any other type
goes through its output function, which only a superuser can make, and never through a cast. They are not, or a guarded
expression fails: one coarse task a transaction and watch. The queue itself is gone, or has what others put on it and refuses or swallows
the task: a gap is marked in a sequence. Whether it is as it was made is asked when a statement is planned, so it costs nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from idxctl.capture.catalog import Member, literal, quoted
from idxctl.capture.watches import PRIORITIES, Definition, Watch
from idxctl.core import fingerprints, keys

PREFIX = "opensearch_indexing_capture_"
ROWS_A_TASK = 1000  # C1: changed rows in one fan-out task, at most
# A plan is kept for as long as the session, made for as many rows as the first statement changed. Compiling one made for
# many costs each later single row 17 ms; a hash table sized for many, 1 ms. Sorting suits both.
_PLANS = ("SET jit = off", "SET enable_hashagg = off")
# What a lookup's columns become in a task is text for types that JSON has not, and a worker reads it under settings of its own.
_SAME_TEXT = (
    "SET DateStyle = 'ISO, YMD'", "SET IntervalStyle = postgres", "SET extra_float_digits = 1", "SET lc_monetary = 'C'",
)  # fmt: skip
# Around a key that SQL makes, whose own settings may not be there any more on this server: these always are.
_AROUND_KEYS: Mapping[str, str] = {
    "TimeZone": "UTC", "DateStyle": "ISO, YMD", "IntervalStyle": "postgres", "extra_float_digits": "1", "bytea_output": "hex",
    "lc_monetary": "C", "lc_numeric": "C", "lc_time": "C", "xmlbinary": "base64",
}  # fmt: skip
_IN_JSON = keys.PLAIN_TYPES | {"numeric", "timestamp with time zone", "timestamp without time zone"}
_ONCE_IN_JSON = frozenset({"json", "jsonb"})  # an older idxctl stored them as they are
BYTES_A_TASK = 4 * 1024 * 1024  # C6: of rows in one fan-out task, about; one row may be more
# A retyped column is still the same to a key or a lookup within one of these.
_ALIKE = (frozenset({"20", "21", "23"}), frozenset({"25", "1043"}))
_RECORD = 2249
_LONGEST = 1_000_000  # characters of one part of a composite id: more than fits one value would fail the writer
_WORK_MEM = "SET work_mem = '64MB'"  # old and new rows are joined: in memory for some 50,000 wide ones
_ARGUMENTS = 50  # a function takes 100
_OLD, _NEW = "opensearch_indexing_old", "opensearch_indexing_new"
# How many UPDATEs of partitioned tables are under way in this transaction; a transaction's end and a savepoint's reset it.
_FIT, _IDS, _PIECE, _CURSOR, _TEXT, _COUNT = (
    f"opensearch_indexing_{name}" for name in ("fit", "ids", "piece", "cursor", "error", "count")
)
# A session may have set it to anything: it is counted from 0 then.
_MOVING = "coalesce(nullif(pg_catalog.current_setting('opensearch_indexing.moving', true), ''), '0')"
PARTITIONED = "partitioned"  # the argument of an UPDATE trigger that counts down what its BEFORE trigger counted up


# Functions ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Function:
    """One trigger function, whole."""

    schema: str
    name: str
    body: str
    settings: tuple[tuple[str, str], ...]  # in force while it runs: names, and values as SQL has them
    table: tuple[str, str] = ("", "")  # whose it is
    executors: tuple[str, ...] = ()  # roles, quoted, that PostgreSQL makes copies of a row trigger for

    @property
    def fingerprint(self) -> str:
        """The same for functions that do the same."""
        return fingerprints.of_content([self.body, self._sets, *self.executors])

    @property
    def _sets(self) -> str:
        return " ".join(f"SET {name} = {value}" for name, value in self.settings)

    def runs_under(self, stored: Iterable[str]) -> bool:
        """Whether *stored* settings, as PostgreSQL keeps them, are its own; another search path would be a hole in it."""
        return {_unquoted(one) for one in stored} == {_unquoted(f"{name}={value}") for name, value in self.settings}

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

        Nobody may execute it who need not: a trigger on a table of their own would run it with its owner's rights. The
        owner of a partitioned table adds partitions, to which PostgreSQL copies the row trigger in that role's name.
        """
        mark = _dollar(self.body)
        how = f"LANGUAGE plpgsql SECURITY DEFINER {self._sets}"
        return [
            f"CREATE OR REPLACE FUNCTION {self.qualified}() RETURNS trigger\n{how} AS {mark}{self.body}{mark}",
            f"COMMENT ON FUNCTION {self.qualified}() IS {literal(self.comment)}",
            f"REVOKE ALL ON FUNCTION {self.qualified}() FROM PUBLIC",
            *(f"GRANT EXECUTE ON FUNCTION {self.qualified}() TO {role}" for role in self.executors),
        ]


def function_name(table: tuple[str, str]) -> str:
    """Return the name of a table's function: recognisable, unique, within the 63 bytes of a name."""
    digest = hashlib.sha256("\0".join(table).encode()).hexdigest()[:10]
    readable = "".join(
        letter for letter in table[1].lower() if letter.isascii() and (letter.isalnum() or letter == "_")
    )
    return f"{PREFIX}{digest}_{readable}"[:63].rstrip("_")


def function(
    schema: str, table: tuple[str, str], watches: Sequence[Watch], *, partitioned: bool, executors: Sequence[str] = ()
) -> Function:
    """Return the function of *table*, whose triggers append to the queue in *schema* what *watches* ask for."""
    body = _Writer(schema, table, watches, partitioned).body()
    # Watches of an older idxctl evaluate functions of users here, which may need the path they were written for.
    extra = [
        name for each in watches if each.definition.user_code and not each.definition.keys
        for name in each.definition.search_path
    ]  # fmt: skip
    path = ["pg_catalog", *dict.fromkeys(name for name in extra if name != "pg_catalog"), "pg_temp"]
    settings = [f"SET search_path = {', '.join(quoted(name) for name in path)}", *_PLANS]
    if any(watch.definition.ignore for watch in watches):
        settings.append(_WORK_MEM)
    if any(watch.definition.written for watch in watches):
        settings += [f"SET {name} = {literal(value)}" for name, value in _AROUND_KEYS.items()]
    elif any(_writes_text(watch.definition) for watch in watches):
        settings += _SAME_TEXT
    if "\\" in body:  # a key_sql that PostgreSQL wrote out: a writer may read strings the old way
        settings.append("SET standard_conforming_strings = on")
    pairs = (one.removeprefix("SET ").split(" = ", 1) for one in settings)
    return Function(
        schema, function_name(table), body, tuple((name, value) for name, value in pairs), table, tuple(executors)
    )


def _unquoted(setting: str) -> str:
    """Return a setting without the quotes that PostgreSQL may write otherwise than we do."""
    return setting.translate(str.maketrans("", "", "'\" "))


def _writes_text(one: Definition) -> bool:
    return (
        bool(one.virtual)
        or not _IN_JSON.issuperset(one.types)
        or any(one.as_text)
        or any(not tag.isdigit() for _, tag in one.shape)
    )


@dataclass(frozen=True)
class _Writer:
    """Writes one function's body."""

    schema: str
    of: tuple[str, str]  # its table: schema and name
    watches: Sequence[Watch]
    partitioned: bool
    old_first: bool = False  # of columns that have two names for a while, the value of the older one
    counting: bool = False  # whether each INSERT into the queue is seen to have put in what it should

    @property
    def table(self) -> str:
        """The table's bare name, under which expressions know its rows."""
        return self.of[1]

    def body(self) -> str:
        branches = [
            ("INSERT", self._looked(_NEW, _Writer._inserted)),
            ("UPDATE", [*self._looked(_NEW, _Writer._updated), *(self._count(-1) if self.partitioned else [])]),
            ("DELETE", self._looked(_OLD, _Writer._deleted)),
            ("TRUNCATE", [self._require_queue(), self._caught(self._wary.swept())]),
        ]
        declared = (
            f"{_FIT} pg_catalog.bool[]", f"{_IDS} pg_catalog.text[]", f"{_PIECE} pg_catalog.jsonb",
            f"{_CURSOR} pg_catalog.refcursor", f"{_TEXT} pg_catalog.text", f"{_COUNT} pg_catalog.int8",
        )  # fmt: skip
        lines = ["", "#variable_conflict use_column", "DECLARE", *(f"    {each};" for each in declared), "BEGIN"]
        lines.append(_indented(self._refuse_strangers(), 4))
        if self.partitioned:
            lines += self._moved_rows()
        for place, (event, statements) in enumerate(branches):
            lines.append(f"    {'ELSIF' if place else 'IF'} TG_OP = '{event}' THEN")
            lines += [_indented(statement, 8) for statement in statements]
        return "\n".join([*lines, "    END IF;", "    RETURN NULL;", "END ", ""])

    def _looked(self, source: str, write: Callable[[_Writer, Watch], str]) -> list[str]:
        """
        Look at what there is, then write what each watch asks for.

        Nothing of ours refuses a task. What others put on the queue might, a constraint or a trigger, and a rule or a trigger
        may swallow one: then each statement pays a subtransaction that writes, and what is refused or not there marks a gap.
        """
        plain = _indented("\n".join(self.each(write)), 4)
        wary = _indented(self._caught(self._wary.each(write)), 4)
        return [self._look(source), f"IF {_FIT}[{self._sound_place()}] THEN\n{plain}\nELSE\n{wary}\nEND IF;"]

    @property
    def _wary(self) -> _Writer:
        """Writes what a queue needs that is not as it was made."""
        return replace(self, counting=True)

    def _put(self, insert: str, wanted: str) -> str:
        """Return an INSERT into the queue, of *wanted* rows as an expression has it."""
        if not self.counting:
            return insert
        if self._strict:
            missed = (
                "RAISE EXCEPTION 'idxctl cannot capture this change: its queue swallows it'\n"
                "    USING HINT = 'idxctl migrate status says what was put on it; capture = \"strict\" asks for this error';"
            )
        else:
            missed = self._mark("swallows it", "''")
        return (
            f"{insert}\nGET DIAGNOSTICS {_COUNT} = ROW_COUNT;\n"
            # Where a rule says INSTEAD, the count is of what went elsewhere.
            "IF EXISTS (SELECT FROM pg_catalog.pg_rewrite r\n"
            f"           WHERE r.ev_class OPERATOR(pg_catalog.=) {literal(self._queue)}::pg_catalog.regclass::pg_catalog.oid AND r.is_instead\n"
            "           AND r.ev_type OPERATOR(pg_catalog.=) '3' AND r.ev_qual::pg_catalog.text OPERATOR(pg_catalog.=) '<>') THEN\n"
            f"    {_COUNT} := 0;\nEND IF;\n"
            f"IF {_COUNT} OPERATOR(pg_catalog.<) {wanted} THEN\n{_indented(missed, 4)}\nEND IF;"
        )

    def _caught(self, statements: Sequence[str]) -> str:
        text = _indented("\n".join(statements), 4)
        if self._strict:
            return "\n".join(statements)
        return f"BEGIN\n{text}\nEXCEPTION WHEN OTHERS THEN\n    {_indented(self._mark('refuses it'), 4).lstrip()}\nEND;"

    @property
    def _strict(self) -> bool:
        return any(watch.definition.strict for watch in self.watches)

    def _sound_place(self) -> int:
        """Where it stands whether the queue is as it was made: after all that `_checks` has."""
        return len(self.watches) + sum(bool(watch.definition.ignore) for watch in self.watches) + 1

    def each(self, write: Callable[[_Writer, Watch], str]) -> list[str]:
        """Write what each watch asks for where the columns it looks at are as they were, else the coarse task (C6)."""
        return [
            f"-- watch {watch.id}, index {' '.join(watch.index.split())}\n"
            f"IF {_FIT}[{self._place(watch)}] THEN\n{_indented(write(self, watch), 4)}\n"
            f"ELSE\n{_indented(self.coarse(watch, literal('columns')), 4)}\nEND IF;"
            for watch in self.watches
        ]

    # What is looked at before anything is taken from a row ------------------------------------------------------------
    def _place(self, watch: Watch) -> int:
        return self.watches.index(watch) + 1

    def _same_place(self, watch: Watch) -> int:
        """C4: where it stands whether a table's columns are exactly those of the installation."""
        ignoring = [each for each in self.watches if each.definition.ignore]
        return len(self.watches) + ignoring.index(watch) + 1

    def _checks(self, source: str) -> list[tuple[str, tuple[str, ...]]]:
        """Return, in the order of their places, conditions and what each is over; over no row, so that nothing is called."""
        fits: list[tuple[str, tuple[str, ...]]] = []
        same: list[tuple[str, tuple[str, ...]]] = []
        for place, watch in enumerate(self.watches):
            one = watch.definition
            alias = f"t{place}" if one.was else "t"
            fits.append((_fits(one, alias), (f"LEFT JOIN {_looked_at(one, source)} AS {alias} ON false",)))
            if one.ignore:
                names = one.table_columns
                # One more column than there were, or one fewer, moves the mark.
                aliases = ", ".join(f"c{number}" for number in range(len(names)))
                number = len(self.watches) + len(same)
                mark = f"pg_catalog.pg_typeof(x{number}.mark)::pg_catalog.oid = {_RECORD}"
                alias = f"s{place}" if one.was else "t"
                rows = f"LEFT JOIN {self._by_either_name(one, source, names)} AS {alias} ON false"
                row = f"ROW({', '.join(f'{alias}.{quoted(name)}' for name in names)})"
                over = f"LEFT JOIN (SELECT y.*, ROW() FROM {source} AS y) AS x{number} ({aliases}, mark) ON false"
                same.append((f"{mark} AND pg_catalog.pg_typeof({row})::pg_catalog.oid = {_RECORD}", (rows, over)))
        return [*fits, *same]

    def _look(self, source: str) -> str:
        """All at once as long as all is well, one by one otherwise."""
        checks = self._checks(source)
        joins = [*dict.fromkeys(each for _, over in checks for each in over), self._probe()]
        sound = f"{quoted(self.schema)}.opensearch_indexing_queue_as_made()"
        conditions = ",\n        ".join([*(condition for condition, _ in checks), sound])
        lines = [
            "BEGIN",
            f"    SELECT ARRAY[\n        {conditions}]",
            f"    INTO {_FIT} FROM (SELECT) AS one",
            *(f"    {join}" for join in joins),
            f"    WHERE {_QUEUE_COLUMNS} > 0;",
            "EXCEPTION WHEN OTHERS THEN",
            f"    {_FIT} := NULL;",
            "END;",
            f"IF {_FIT} IS NULL THEN",
            _indented(self._require_queue(), 4),
            f"    {_FIT} := pg_catalog.array_fill(false, ARRAY[{len(checks) + 1}]);",
        ]
        checks.append((sound, (self._probe(),)))
        for number, (condition, over) in enumerate(checks, 1):
            lines += [
                "    BEGIN",
                f"        {_FIT}[{number}] := (SELECT {condition}",
                f"            FROM (SELECT) AS one {' '.join(over)});",
                "    EXCEPTION WHEN OTHERS THEN NULL;",
                "    END;",
            ]
        return "\n".join([*lines, "END IF;"])

    def _probe(self) -> str:
        return f"LEFT JOIN {self._queue} AS q ON false"

    def _require_queue(self) -> str:
        """Mark a gap where the queue takes nothing; it is held, so that nobody drops it before the task is in it."""
        mark = (
            "RAISE EXCEPTION 'idxctl cannot capture this change: its queue is not there'\n"
            "            USING ERRCODE = 'undefined_table', HINT = 'idxctl migrate status';"
            if self._strict
            else f"{_indented(self._mark('is not there'), 8).lstrip()}\n        RETURN NULL;"
        )
        return (
            "BEGIN\n"
            f"    PERFORM FROM (SELECT) AS one {self._probe()} WHERE {_QUEUE_COLUMNS} > 0;\n"
            "EXCEPTION\n    WHEN OTHERS THEN\n"
            f"        {mark}\n"
            "END;"
        )

    def _mark(self, why: str, detail: str = "SQLERRM") -> str:
        """Count a change that leaves no task, in all that may be left: a sequence, and the server's log."""
        return (
            "BEGIN\n"
            f"    PERFORM pg_catalog.nextval({literal(f'{quoted(self.schema)}.opensearch_indexing_gap')}::pg_catalog.regclass);\n"
            "EXCEPTION WHEN OTHERS THEN NULL;\n"
            "END;\n"
            f"RAISE LOG 'idxctl: a change of %.% is not captured: its queue {why} (%); idxctl migrate status',\n"
            f"    TG_TABLE_SCHEMA, TG_TABLE_NAME, {detail};"
        )

    def _refuse_strangers(self) -> str:
        """
        Take nothing from a table of another role that is no part of the watched one: EXECUTE is all it takes to put a trigger on it.

        A renamed table, a detached partition: they are captured as before, and belong to whom they belonged. Where another
        role made a table in the renamed one's place, its writers are not to fail: a coarse task, and no value is looked at.
        A temporary table is refused: it was never the watched one.
        """
        schema, name = self.of
        ours = f"pg_catalog.to_regclass({literal(f'{quoted(schema)}.{quoted(name)}')})"
        return (
            f"IF TG_TABLE_SCHEMA <> {literal(schema)} OR TG_TABLE_NAME <> {literal(name)} THEN\n"
            f"    IF pg_catalog.pg_partition_root(TG_RELID)::pg_catalog.oid IS DISTINCT FROM {ours}::pg_catalog.oid AND EXISTS (\n"
            "        SELECT FROM pg_catalog.pg_class c\n"
            "        WHERE c.oid = TG_RELID AND (c.relpersistence = 't' OR c.relowner <> (\n"
            f"            SELECT r.relowner FROM pg_catalog.pg_class r WHERE r.oid = {ours}))\n"
            "    ) AND NOT EXISTS (\n"
            "        WITH RECURSIVE above AS (\n"
            "            SELECT i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = TG_RELID\n"
            "            UNION SELECT i.inhparent FROM above a JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.inhparent\n"
            f"        ) SELECT FROM above a WHERE a.inhparent = {ours}\n"
            "    ) THEN\n"
            "        IF EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = TG_RELID AND c.relpersistence = 't') THEN\n"
            f"            RAISE EXCEPTION 'this function captures changes of table %, not of %', {literal(f'{schema}.{name}')}, TG_TABLE_NAME\n"
            "                USING ERRCODE = 'insufficient_privilege';\n"
            "        END IF;\n"
            f"{_indented(self._require_queue(), 8)}\n"
            f"{_indented(self._caught([self._wary.coarse(watch, literal('table')) for watch in self.watches]), 8)}\n"
            "        RETURN NULL;\n"
            "    END IF;\n"
            "END IF;"
        )

    def coarse(self, watch: Watch, why: str) -> str:
        """
        C6: "everything of this watch, from this transaction on". One a transaction; the flag dies with it, or its savepoint.

        Never one a row or a statement, and never one for all: writers would wait for each other.
        """
        if watch.definition.strict:
            return (
                f"RAISE EXCEPTION 'idxctl cannot capture this change of % ({watch.id}: %)', TG_TABLE_NAME, {why}\n"
                "    USING HINT = 'idxctl watch status says why; capture = \"strict\" asks for this error';"
            )
        insert = (
            f"INSERT INTO {self._queue} (index_name, kind, priority, origin, payload)\n"
            f"VALUES ({literal(watch.index)}, 'keys', -1, 'trigger',\n"
            f"    pg_catalog.jsonb_build_object('watch', {watch.id}, 'coarse', {why}));"
        )
        return (
            f"{_first('coarse', watch)}\n{_indented(self._put(insert, '1'), 4)}\n"
            f"    RAISE LOG 'idxctl: changes of % cannot be told apart (%), all of index % is looked at again; idxctl watch status',\n"
            f"        TG_TABLE_NAME, {why}, {literal(watch.index)};\n"
            "END IF;"
        )

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
        return (
            f"IF {_FIT}[{self._same_place(watch)}] THEN\n"
            f"{_indented(self._append(watch, self._really_changed(watch), unique=watch.definition.by_primary_key and not watch.definition.was), 4)}\n"
            f"ELSE\n{_indented(everything, 4)}\nEND IF;"
        )

    def swept(self) -> list[str]:
        # C3. TRUNCATE fires on every partition; one task an index and transaction is enough, the flag dies with either.
        indexes = {watch.index: watch for watch in reversed(self.watches)}
        insert = (
            f"INSERT INTO {self._queue} (index_name, kind, priority, origin, payload)\n"
            "VALUES ({}, 'sweep', 0, 'trigger', pg_catalog.jsonb_build_object('watch', {}, 'reason', 'truncate'));"
        )
        return [
            f"{_first('swept', watch)}\n{_indented(self._put(insert.format(literal(index), watch.id), '1'), 4)}\nEND IF;"
            for index, watch in sorted(indexes.items())
        ]

    # Partitioned tables -----------------------------------------------------------------------------------------------
    def _moved_rows(self) -> list[str]:
        """C2: a MERGE that moves a row to another partition shows it to row triggers alone; they fire while one may run."""
        inserted = self._looked("(SELECT NEW.*)", lambda writer, watch: writer.moved(watch, "NEW"))
        deleted = self._looked("(SELECT OLD.*)", lambda writer, watch: writer.moved(watch, "OLD"))
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
        now = f"CASE WHEN {_MOVING} OPERATOR(pg_catalog.~) '^[0-9]{{1,8}}$' THEN {_MOVING}::pg_catalog.int4 ELSE 0 END"
        number = f"greatest({now} {step:+d}, 0)::pg_catalog.text"
        perform = f"PERFORM pg_catalog.set_config('opensearch_indexing.moving', {number}, true);"
        return [perform] if step > 0 else [f"IF TG_NARGS > 0 THEN\n    {perform}\nEND IF;"]

    def moved(self, watch: Watch, row: str) -> str:
        """A plan over a row's fields is not made again when the table is changed, but fails: always guarded."""
        rows = self._rows(watch, f"(SELECT {row}.*)")
        return self._append_guarded(watch, f"(SELECT DISTINCT s.value FROM (\n{_indented(rows, 6)}) s) d")

    # Rows and the values taken from them ------------------------------------------------------------------------------
    @property
    def _queue(self) -> str:
        return f"{quoted(self.schema)}.opensearch_indexing_queue"

    def _append(self, watch: Watch, rows: str, *, unique: bool = False) -> str:
        """Append what *rows* name, each once; *unique* rows are so already."""
        inner = _indented(rows, 6)
        distinct = f"(\n{inner}) d" if unique else f"(SELECT DISTINCT s.value FROM (\n{inner}) s) d"
        if watch.definition.guarded:
            return self._append_guarded(watch, distinct)
        if watch.definition.keys is None:
            named = f"FROM {distinct}\nWHERE d.value IS NOT NULL"
            return self._put(
                f"INSERT INTO {self._queue} (index_name, document_id, priority, origin)\n"
                f"SELECT {literal(watch.index)}, {self._id(watch)}, {PRIORITIES[watch.definition.priority]}, 'trigger'\n{named};",
                f"(SELECT pg_catalog.count(*) {named})",
            )
        # C1: the changed rows' columns, old and new; the query over them runs after the commit
        payloads = f"FROM (\n{_indented(self._payloads(watch, distinct), 4)}) p"
        return self._put(
            f"INSERT INTO {self._queue} (index_name, kind, priority, origin, payload)\n"
            f"SELECT {literal(watch.index)}, 'keys', {PRIORITIES[watch.definition.priority]}, 'trigger', p.payload\n{payloads};",
            f"(SELECT pg_catalog.count(*) {payloads})",
        )

    def _append_guarded(self, watch: Watch, distinct: str) -> str:
        """
        The same where taking values from rows may fail: in blocks that write nothing, each value before its task.

        Tasks of a lookup come one by one, so that a statement over gigabytes needs the memory of one.
        """
        one = watch.definition
        failed = f"GET STACKED DIAGNOSTICS {_TEXT} = RETURNED_SQLSTATE;"
        coarse = self.coarse(watch, _TEXT)
        if one.keys is None:
            insert = (
                f"INSERT INTO {self._queue} (index_name, document_id, priority, origin)\n"
                f"SELECT {literal(watch.index)}, d.id, {PRIORITIES[one.priority]}, 'trigger' FROM pg_catalog.unnest({_IDS}) AS d (id);"
            )
            put = self._put(insert, f"pg_catalog.cardinality({_IDS})")
            return (
                f"{_TEXT} := NULL;\n"
                f"BEGIN\n{_setting(dict(one.written))}"
                f"    {_IDS} := ARRAY(SELECT {self._id(watch)} FROM {_indented(distinct, 4)} WHERE d.value IS NOT NULL);\n"
                f"{_setting({name: _AROUND_KEYS[name] for name, _ in one.written})}"
                f"EXCEPTION WHEN OTHERS THEN\n    {failed}\nEND;\n"
                f"IF {_TEXT} IS NULL THEN\n{_indented(put, 4)}\n"
                f"ELSE\n{_indented(coarse, 4)}\nEND IF;"
            )
        insert = (
            f"INSERT INTO {self._queue} (index_name, kind, priority, origin, payload)\n"
            f"VALUES ({literal(watch.index)}, 'keys', {PRIORITIES[one.priority]}, 'trigger', {_PIECE});"
        )
        return (
            f"{_TEXT} := NULL;\n"
            f"{_CURSOR} := NULL;\n"
            f"OPEN {_CURSOR} NO SCROLL FOR\n{_indented(self._payloads(watch, distinct), 4)};\n"
            "LOOP\n"
            "    BEGIN\n"
            f"        FETCH {_CURSOR} INTO {_PIECE};\n"
            f"    EXCEPTION WHEN OTHERS THEN\n        {failed}\n    END;\n"
            f"    EXIT WHEN {_TEXT} IS NOT NULL OR {_PIECE} IS NULL;\n"
            f"{_indented(self._put(insert, '1'), 4)}\n"
            "END LOOP;\n"
            f"CLOSE {_CURSOR};\n"
            f"IF {_TEXT} IS NOT NULL THEN\n{_indented(coarse, 4)}\nEND IF;"
        )

    def _id(self, watch: Watch) -> str:
        return keys.document_id_sql(["d.value"], watch.definition.key_types) if _exact(watch.definition) else "d.value"

    def _payloads(self, watch: Watch, distinct: str) -> str:
        """C1: the changed rows' columns, old and new; the query over them runs after the commit."""
        size, part = "", ""
        if watch.definition.guarded:
            size = f", pg_catalog.sum(pg_catalog.pg_column_size(d.value)) OVER w / {BYTES_A_TASK} AS part"
            part = ", n.part"
        member = "values" if _new_texts(watch.definition) else "rows"
        return (
            f"SELECT pg_catalog.jsonb_build_object('watch', {watch.id}, '{member}', pg_catalog.jsonb_agg(n.value)) AS payload\n"
            f"FROM (SELECT d.value, (pg_catalog.row_number() OVER w - 1) / {ROWS_A_TASK} AS task{size}\n"
            f"      FROM {distinct} WINDOW w AS (ROWS UNBOUNDED PRECEDING)) n\n"
            f"GROUP BY n.task{part}"
        )

    def _rows(self, watch: Watch, source: str) -> str:
        one = watch.definition
        value = self._value(one, quoted(self.table))
        return self._both_ways(one, lambda way: f"SELECT {value} AS value FROM {way.named(one, source, one.row)}")

    def named(self, one: Definition, source: str, names: Sequence[str]) -> str:
        """Return *source* under the table's name; a virtual column, which no trigger sees, is computed as a read would."""
        alias = quoted(self.table)
        if not one.virtual:
            return f"{self._by_either_name(one, source, names)} AS {alias}"
        virtual = dict(one.virtual)
        columns = [
            f"({virtual[name]}) AS {quoted(name)}" if name in virtual else f"{alias}.{quoted(name)}" for name in names
        ]
        return f"(SELECT {', '.join(columns)} FROM {source} AS {alias}) AS {alias}"

    def _both_ways(self, one: Definition, write: Callable[[_Writer], str]) -> str:
        """
        Return what *write* makes of a watch; where columns may have two names, of either first.

        A table that has both, while one takes the place of the other, need not have the same in them: both count.
        """
        if not one.was:
            return write(self)
        return f"{write(self)}\nUNION ALL\n{write(replace(self, old_first=True))}"

    def _by_either_name(self, one: Definition, source: str, names: Sequence[str]) -> str:
        """
        Return *source* with the columns *names*, of which some may have the name that they had before (`was`).

        A name that *source* has not is looked for further out, where a NULL of its type stands for it. So one statement means the
        right column before a rename and after it: PostgreSQL asks again when the table is altered.
        """
        mine = {name: (old, of) for name, old, of in one.was if name in names}
        if not mine:
            return source
        absent = ", ".join(f"NULL::{of} AS {quoted(each)}" for name, (old, of) in mine.items() for each in (name, old))

        def taken(name: str) -> str:
            if name not in mine:
                return f"x.{quoted(name)}"
            either = [quoted(name), quoted(mine[name][0])]
            return f"coalesce({', '.join(reversed(either) if self.old_first else either)}) AS {quoted(name)}"

        columns = ", ".join(taken(name) for name in names)
        return f"(SELECT w.* FROM (SELECT {absent}) AS f CROSS JOIN LATERAL (SELECT {columns} FROM {source} AS x) AS w)"

    def _really_changed(self, watch: Watch) -> str:
        """C4: old and new rows of one primary key, where the columns that count differ by a byte."""
        return self._both_ways(watch.definition, lambda way: way.really_changed_by(watch.definition))

    def really_changed_by(self, one: Definition) -> str:
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
        rows = self.named(one, source, tuple(dict.fromkeys((*one.row, *one.primary_key, *one.compared))))
        return f"SELECT {', '.join(parts)}, ROW({image}) AS image, {self._value(one, alias)} AS value FROM {rows}"

    def _value(self, one: Definition, alias: str) -> str:
        """Return what a row leaves: for a lookup its columns, else the key, as an id unless DISTINCT may see the value."""
        if one.keys is not None:
            return _payload_row(one, alias)
        if one.key_expression:
            return one.key_expression if _exact(one) else keys.document_id_sql([one.key_expression], one.key_types)
        parts = [f"{alias}.{quoted(name)}" for name in one.key]
        tags = dict(one.shape)
        foreign = [not tags.get(name, "0").isdigit() for name in one.key]
        if not any(foreign):
            if _exact(one):
                return parts[0]
            if len(parts) == 1:
                return keys.document_id_sql(parts, one.key_types)
        texts = [
            _key_text(part, of) if theirs
            else f'pg_catalog."left"({part}::pg_catalog.text, {_LONGEST})' if of in _LONG
            else part
            for part, of, theirs in zip(parts, one.key_types, foreign, strict=True)
        ]  # fmt: skip
        of = ["text" if theirs or each in _LONG else each for each, theirs in zip(one.key_types, foreign, strict=True)]
        return keys.document_id_sql(texts, of)


_QUEUE_COLUMNS = (
    "pg_catalog.num_nulls(q.index_name, q.document_id, q.kind, q.priority, q.origin, q.payload)"  # 6 over no row
)
_LONG = ("text", "character varying")


def _first(what: str, watch: Watch) -> str:
    """
    Begin what is done once a transaction, or savepoint, and watch: the flag dies with either.

    It names the transaction: what a session, a role or a database has of that name in its settings silences nothing.
    """
    setting = f"opensearch_indexing.{what}"
    flags = f"coalesce(pg_catalog.current_setting('{setting}', true), '')"
    flag = f"pg_catalog.concat(' ', pg_catalog.pg_current_xact_id(), '/{watch.id} ')"
    return (
        f"IF pg_catalog.strpos({flags}, {flag}) = 0 THEN\n"
        f"    PERFORM pg_catalog.set_config('{setting}', pg_catalog.concat({flags}, {flag}), true);"
    )


def _setting(values: Mapping[str, str]) -> str:
    """Return a statement that sets these for what follows in the function, which has a SET of its own for each; none for none."""
    calls = [f"pg_catalog.set_config({literal(name)}, {literal(value)}, true)" for name, value in values.items()]
    return f"    PERFORM {', '.join(calls)};\n" if calls else ""


def _fits(one: Definition, alias: str) -> str:
    """Return the condition under which the columns that capture looks at have the types that they had."""
    types = dict(one.shape)
    found = [_has_type(f"{alias}.{quoted(name)}", tag, one) for name, tag in types.items() if name not in one.old_names]
    found += [
        _either_has_type(f"{alias}.{quoted(name)}", f"{alias}.{quoted(old)}", types.get(name), one)
        for name, old in one.old_names.items()
    ]
    return " AND ".join(found) or "true"


def _looked_at(one: Definition, source: str) -> str:
    """Return *source* with the columns of which `_fits` asks what they are; a record stands for a name that it has not."""
    if not one.was:
        return source
    both = [quoted(each) for pair in one.old_names.items() for each in pair]
    absent = ", ".join(f"ROW() AS {each}" for each in both)
    others = (f"x.{quoted(name)}" for name, _ in one.shape if quoted(name) not in both)
    columns = ", ".join((*both, *others))
    return f"(SELECT w.* FROM (SELECT {absent}) AS f CROSS JOIN LATERAL (SELECT {columns} FROM {source} AS x) AS w)"


def _either_has_type(name: str, old: str, tag: str | None, one: Definition) -> str:
    """Return the condition that a column is there by one of its names, and by neither of a type that means something else."""
    here, there = (f"pg_catalog.pg_typeof({each})::pg_catalog.oid" for each in (name, old))
    condition = f"({here} <> {_RECORD} OR {there} <> {_RECORD})"
    if tag is None:
        return condition
    taken = ", ".join((*sorted(_same_to(one, tag)), str(_RECORD)))
    return f"{condition} AND {here} IN ({taken}) AND {there} IN ({taken})"


def _same_to(one: Definition, tag: str) -> frozenset[str]:
    """Return the types that are as good as one; to an expression none is but itself, since it may mean something else."""
    mine = frozenset({tag})
    if one.virtual or (one.key_expression and not one.keys):
        return mine
    return next((each for each in _ALIKE if tag in each), mine)


def alike(one: Definition, now: str, before: str) -> bool:
    """Whether a column of the type *now* is to capture what one of the type *before* was."""
    return now in _same_to(one, before)


def _has_type(column: str, tag: str, one: Definition) -> str:
    if not tag.isdigit():
        return f"pg_catalog.pg_typeof({column})::pg_catalog.oid = pg_catalog.to_regtype({literal(tag)})::pg_catalog.oid"
    taken = ", ".join(sorted(_same_to(one, tag)))
    return f"pg_catalog.pg_typeof({column})::pg_catalog.oid IN ({taken})"


def _key_text(expression: str, type_name: str) -> str:
    """Return a value's text by its output function, as a cast to text would have it; NULL stays NULL."""
    text = f"CASE pg_catalog.num_nulls({expression}) WHEN 0 THEN pg_catalog.concat({expression}) END"
    if type_name == "boolean":
        return f"(CASE {text} WHEN 't' THEN 'true' WHEN 'f' THEN 'false' END)"
    return f"({text})"


def _exact(one: Definition) -> bool:
    own = all(tag.isdigit() for _, tag in one.shape)
    return own and len(one.key_types) == 1 and one.key_types[0] in keys.EXACT_TYPES


def _new_texts(one: Definition) -> bool:
    """Whether a task holds texts that a worker of an older idxctl would take for the values: it shall fail, and not be wrong."""
    return bool(one.read_as) and any(
        text and of in _ONCE_IN_JSON for text, of in zip(one.as_text, one.types, strict=True)
    )


def _payload_row(one: Definition, alias: str) -> str:
    """Return a row of a fan-out task's payload: the columns that the query reads, as a JSON array."""
    columns = [f"{alias}.{quoted(name)}" for name in one.columns]
    values = [
        f"CASE pg_catalog.num_nulls({column}) WHEN 0 THEN pg_catalog.concat({column}) END" if as_text else column
        for column, as_text in zip(columns, one.as_text, strict=True)
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
