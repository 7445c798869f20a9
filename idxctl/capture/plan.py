"""
From the watches as configured to definitions that can be installed, every one checked against the catalog.

All problems are found before any is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from idxctl.capture import catalog, introspect
from idxctl.capture.catalog import SQL, Column, Member, Table, label, quoted
from idxctl.capture.watches import PRIORITIES, Definition, installed_watches
from idxctl.config.settings import IndexSettings, WatchSettings
from idxctl.core import keys
from idxctl.core.conditions import Condition, Kind
from idxctl.core.errors import DocumentError, PostgresRefused
from idxctl.core.suggest import nearest
from idxctl.postgres import pinned
from idxctl.postgres.connect import Connection

_NAMES_SEARCHED = 10_000
# Types that a JSON value holds as they are; everything else stands in a task as its text.
_IN_JSON = keys.PLAIN_TYPES | {"numeric", "timestamp with time zone", "timestamp without time zone"}
_TIMES = ("date", "timestamp without time zone", "timestamp with time zone")
_KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "c": "a type",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one watch: what, which of its settings, and the way out."""

    index: str
    watch: WatchSettings
    what: str
    setting: str = "table"
    hint: str = ""

    def text(self, path: Path | None) -> str:
        """Say it on two lines: what is wrong, and where it is written."""
        value = getattr(self.watch, self.setting)
        shown = (
            value[0]
            if self.setting == "key" and len(value) == 1
            else list(value)
            if isinstance(value, tuple)
            else value
        )
        where = path or "idxctl.toml"
        line = f", line {self.watch.line}" if self.watch.line else ""
        written = " ".join(json.dumps(shown, ensure_ascii=False).split())
        return (
            f"{self.what}\nwatch {self.watch.position + 1} of index {self.index} in {where}{line}: "
            f"{self.setting} = {written if len(written) < 100 else written[:97] + '...'}"
        )


class InvalidWatches(DocumentError):  # noqa: N818 - reads as the state it is
    """Watches that cannot be installed; ``problems`` holds every reason."""

    def __init__(self, problems: Sequence[Problem], path: Path | None = None) -> None:
        self.problems = tuple(problems)
        if len(problems) == 1:
            super().__init__(problems[0].text(path), hint=problems[0].hint or None)
            return
        lines = [f"{len(problems)} problems with watches"]
        for problem in problems:
            lines.append(problem.text(path))
            lines += [f"  {problem.hint}"] if problem.hint else []
        super().__init__("\n".join(lines), hint="fix them and run idxctl config validate")


@dataclass(frozen=True)
class PlannedWatch:
    """A watch that can be installed."""

    index: str
    position: int
    definition: Definition
    line: int | None = None


@dataclass(frozen=True)
class PlannedTable:
    """A watched table with its partitions or children (C2)."""

    table: Table
    members: tuple[Member, ...]

    @property
    def key(self) -> tuple[str, str]:
        """Schema and name."""
        return (self.table.schema, self.table.name)


@dataclass(frozen=True)
class CapturePlan:
    """All watches of a configuration, ready to install."""

    watches: tuple[PlannedWatch, ...]
    tables: tuple[PlannedTable, ...]
    warnings: tuple[str, ...] = ()


@dataclass
class Survey:
    """What came of looking at a configuration: a plan of what can be installed, and what cannot."""

    watches: list[PlannedWatch] = field(default_factory=list)
    tables: dict[tuple[str, str], PlannedTable] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def plan(self) -> CapturePlan:
        """The plan of the watches that are in order."""
        tables = tuple(self.tables[key] for key in sorted(self.tables))
        return CapturePlan(tuple(self.watches), tables, tuple(dict.fromkeys(self.warnings)))


def plan(conn: Connection, indexes: Mapping[str, IndexSettings], *, path: Path | None = None) -> CapturePlan:
    """
    Check every watch against the catalog and return what to install; nothing is changed.

    Raises `InvalidWatches` with all problems at once. *path* is the configuration file, for the messages.
    """
    found = survey(conn, indexes)
    if found.problems:
        raise InvalidWatches(found.problems, path)
    return found.plan


def survey(conn: Connection, indexes: Mapping[str, IndexSettings]) -> Survey:
    """Look at every watch; problems are collected, not raised."""
    found = Survey()
    path = catalog.search_path(conn)
    for index in indexes.values():
        for watch in index.watches:
            looked = _Look(conn, index, watch, index.search_path or path)
            definition = looked.definition()
            found.problems += looked.problems
            if definition is None or looked.table is None:
                continue
            found.watches.append(PlannedWatch(index.name, watch.position, definition, watch.line))
            found.warnings += looked.warnings
            if definition.table not in found.tables:
                found.tables[definition.table] = PlannedTable(looked.table, looked.members)
    found.problems += _shared_members(found, indexes)
    found.warnings += _uncovered(found)
    return found


def _shared_members(found: Survey, indexes: Mapping[str, IndexSettings]) -> Iterator[Problem]:
    """A child of two watched tables would need two triggers of one name."""
    owners: dict[int, PlannedTable] = {}
    for planned in found.tables.values():
        for member in planned.members:
            other = owners.setdefault(member.oid, planned)
            if other is planned:
                continue
            one = next(w for w in found.watches if w.definition.table == planned.key)
            yield Problem(
                one.index,
                indexes[one.index].watches[one.position],
                f"table {member.name} is a child of {planned.table.label} and of {other.table.label}, and both are watched",
                hint="watch a table they all inherit from, or keep one of the two",
            )


def _uncovered(found: Survey) -> Iterator[str]:
    """C1: a table on the join path of a lookup whose own changes nobody watches moves documents unseen."""
    for index in dict.fromkeys(watch.index for watch in found.watches):
        mine = [watch for watch in found.watches if watch.index == index]
        covered = {(m.schema, m.name) for w in mine for m in found.tables[w.definition.table].members}
        for watch in mine:
            for schema, name in watch.definition.reads:
                if (schema, name) not in covered:
                    facts = {"what": label(schema, name), "reader": f"the keys query of watch {watch.position + 1}"}
                    yield Condition(Kind.UNWATCHED, index, facts).reason


class _Look:
    """One watch, looked at."""

    def __init__(self, conn: Connection, index: IndexSettings, watch: WatchSettings, path: tuple[str, ...]) -> None:
        self.conn = conn
        self.index = index
        self.watch = watch
        self.path = path
        self.names_see = ", ".join(catalog.quoted(name) for name in path)  # what the configuration's SQL sees
        self.table: Table | None = None
        self.members: tuple[Member, ...] = ()
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.installed: Definition | None = None  # what stands for it where it could not be looked at

    def definition(self) -> Definition | None:
        """Return the definition; None when there are problems."""
        self.table = self._table()
        if self.table is None:
            return None
        made = Definition(
            table_schema=self.table.schema,
            table_name=self.table.name,
            priority=self.watch.priority,
            deferred=self.watch.deferred,
            at=self.watch.at,
            strict=self.watch.capture == "strict",
        )
        table = self.table.by_new_names(self.watch.was)
        self._check_settings(table)
        made = self._with_key(table, made)
        made = self._with_ignore(table, made)
        made = self._with_written(_with_shape(table, _with_virtual(table, made)))
        made = self._with_was(table, made)
        return None if self.problems else self.installed or made

    def _wrong(self, what: str, setting: str = "table", hint: str = "") -> None:
        self.problems.append(Problem(self.index.name, self.watch, what, setting, hint))

    # The table --------------------------------------------------------------------------------------------------------
    def _table(self) -> Table | None:
        oid = self._resolved()
        table = catalog.table(self.conn, oid) if oid is not None else None
        if table is None:
            return None
        problem = self._unwatchable(table)
        if problem is not None:
            self._wrong(problem[0], hint=problem[1])
            return None
        self.members = catalog.members(self.conn, table.oid)
        if table.subscribed or any(member.subscribed for member in self.members):
            self._wrong(
                f"table {table.label} is filled by a logical subscription, which fires no statement triggers",
                hint="install idxctl where the changes are made, or read documents from the publisher",
            )
            return None
        self.warnings += [
            f"partition {member.name} of {table.label} is a foreign table: changes there are not captured"
            for member in self.members
            if member.kind == "f"
        ]
        if table.persistence == "u":
            self.warnings.append(
                f"table {table.label} is unlogged: a crash of the server empties it, and fires nothing"
            )
        return table

    def _resolved(self) -> int | None:
        try:
            with catalog.thrown_away(self.conn), self.conn.under(self.names_see):
                row = self.conn.run(SQL["resolve"], name=self.watch.table).fetchone()
        except PostgresRefused as error:
            self._wrong(f"table name {self.watch.table!r} cannot be read: {error.detail}", hint=_NAME_HINT)
            return None
        if row is None or row[0] is None:
            self._wrong(f"table {self.watch.table} does not exist", hint=self._nearest_table())
            return None
        return int(row[0])

    def _nearest_table(self) -> str:
        known: dict[str, str] = {}
        for name, schema, visible in self.conn.run(SQL["table_names"], path=list(self.path), most=_NAMES_SEARCHED):
            written = _as_written(name) if visible else f"{_as_written(schema)}.{_as_written(name)}"
            known.setdefault(name, written)
            known.setdefault(f"{schema}.{name}", f"{_as_written(schema)}.{_as_written(name)}")
        near = nearest(self.watch.table.replace('"', ""), known)
        return (
            f"did you mean {known[near]}?" if near else "is the search path right? a table may be written schema.name"
        )

    def _unwatchable(self, table: Table) -> tuple[str, str] | None:
        if table.kind not in {"r", "p"}:
            way_out = {
                "v": "watch the tables that it reads",
                "m": "its refresh fires nothing: watch the tables it is made from, or use idxctl queue add after a refresh",
                "f": "its changes are made elsewhere: install idxctl there",
            }.get(table.kind, "watch a table")
            return f"{table.label} is {_KINDS.get(table.kind, 'no table')}, which has no triggers of this kind", way_out
        if table.system:
            return f"{table.label} is a table of PostgreSQL itself, which has no triggers", "watch a table of your own"
        if table.schema == self.conn.schema and table.name.startswith("opensearch_indexing_"):
            return (
                f"{table.label} is a table of idxctl itself: every change would make another",
                "watch a table of your own",
            )
        if table.persistence == "t":
            return f"{table.label} is a temporary table of this session", "watch a permanent table"
        if table.parent is not None:
            what = "a partition" if table.is_partition else "a child"
            return (
                f"{table.label} is {what} of {table.parent}: a statement on {table.parent} changes its rows unseen",
                f"watch {table.parent}; its {'partitions' if table.is_partition else 'children'} are watched with it",
            )
        return None

    # The rest of its settings -----------------------------------------------------------------------------------------
    def _check_settings(self, table: Table) -> None:
        if self.watch.priority not in PRIORITIES:
            self._wrong(f"priority {self.watch.priority!r} is not known", "priority", f"one of {', '.join(PRIORITIES)}")
        if self.watch.at is not None:
            column = self._column(table, self.watch.at, "at")
            if column is not None and column.base_type not in _TIMES:
                self._wrong(
                    f"column {column.name} of {table.label} is {column.type_name}, not a time",
                    "at",
                    "a timestamptz is best",
                )
            if self.watch.keys is not None:
                self._wrong("at does not go with keys", "at", "use key or key_sql, or a function called on a schedule")

    def _column(self, table: Table, name: str, setting: str) -> Column | None:
        column = table.column(name)
        if column is None:
            near = nearest(name, [column.name for column in table.columns])
            hint = (
                f"did you mean {near}?"
                if near
                else f"its columns: {', '.join(column.name for column in table.columns)}"
            )
            self._wrong(f'column "{name}" does not exist in table {table.label}', setting, hint)
        return column

    @property
    def _arity(self) -> int:
        return max(len(self.index.key), 1)

    def _with_key(self, table: Table, made: Definition) -> Definition:
        given = [name for name in ("key", "key_sql", "keys") if getattr(self.watch, name)]
        if len(given) != 1:
            found = " and ".join(given) + " are given" if given else "none is given"
            self._wrong(
                f"a watch has one of key, key_sql and keys; {found}", given[0] if given else "table", 'e.g. key = "id"'
            )
            return made
        return {"key": self._by_columns, "key_sql": self._by_expression, "keys": self._by_query}[given[0]](table, made)

    def _by_columns(self, table: Table, made: Definition) -> Definition:
        columns = [self._column(table, name, "key") for name in self.watch.key]
        if len(columns) != self._arity:
            self._wrong(
                f"key has {len(columns)} columns, the key of index {self.index.name} has {self._arity}",
                "key",
                f"name as many, in the order of {', '.join(self.index.key)}" if self.index.key else "one column",
            )
        for column in columns:
            self._check_type(column, "key", "use another unique column, or key_sql with an expression of an exact type")
        types = tuple(column.base_type for column in columns if column)
        return replace(made, key=self.watch.key, key_types=types, row=self.watch.key)

    def _by_expression(self, table: Table, made: Definition) -> Definition:
        assert self.watch.key_sql is not None
        if self._arity != 1:
            self._wrong(
                f"key_sql gives one value, the key of index {self.index.name} has {self._arity}",
                "key_sql",
                "use key or keys",
            )
            return made
        try:
            looked = introspect.expression(self.conn, table, self.watch.key_sql, self.names_see)
        except introspect.CannotLook as error:
            return self._as_installed(made, "key_sql", error)
        except PostgresRefused as error:
            self._wrong(
                f"PostgreSQL refuses key_sql over table {table.label}: {error.detail}", "key_sql", error.hint or ""
            )
            return made
        if looked.reads:
            others = ", ".join(name for _, name in looked.reads)
            self._wrong(
                f"key_sql reads {others}, and would do so inside the writer's transaction",
                "key_sql",
                "write it as a keys query (C1)",
            )
        self._check_ignored(looked.columns, "key_sql")
        self._check_type(looked.type, "key_sql", "cast it to bigint, uuid or text, if that is exact")
        made = replace(
            made,
            key_sql=self.watch.key_sql,
            row=looked.columns,
            key_types=(looked.type.base_type,),
            key_expression=looked.text,
            guarded=True,
        )
        used = [column for column in table.columns if column.name in looked.columns]
        if not looked.user_code and all(column.own for column in used):
            return made
        # C6: what is not PostgreSQL's own is somebody's to replace. A worker evaluates it, not the owner of the triggers.
        query = f"SELECT (\n{looked.text}\n) FROM changed AS {quoted(table.name)}"
        return self._stored(table, replace(made, keys=query, user_code=True), used or list(table.columns[:1]))

    def _as_installed(self, made: Definition, setting: str, error: introspect.CannotLook) -> Definition:
        """Take the installed watch of these settings for what looking at them would have shown; a new one is refused."""
        mine = self.watch
        for one in (watch.definition for watch in installed_watches(self.conn) if watch.index == self.index.name):
            text = one.key_sql if setting == "key_sql" else one.keys
            same = (one.table, text, one.ignore, one.priority, one.deferred, one.at, one.strict, one.old_names)
            if same == (
                made.table,
                getattr(mine, setting),
                mine.ignore,
                mine.priority,
                mine.deferred,
                mine.at,
                made.strict,
                dict(mine.was),
            ):
                self.installed = one
                return one
        self._wrong(f"{setting} cannot be looked at: {error.message}", setting, error.hint or "")
        return made

    def _by_query(self, table: Table, made: Definition) -> Definition:
        assert self.watch.keys is not None
        try:
            looked = introspect.keys_query(self.conn, table, self.watch.keys, self.names_see)
        except introspect.CannotLook as error:
            return self._as_installed(made, "keys", error)
        except PostgresRefused as error:
            self._wrong(
                f"PostgreSQL refuses the keys query over table {table.label}: {error.detail}", "keys", error.hint or ""
            )
            return made
        if not looked.reads_changed:
            self._wrong(
                "the keys query does not read changed, the rows that changed",
                "keys",
                'e.g. "SELECT l.id FROM listings l JOIN changed c ON l.category_id = c.id"',
            )
        if len(looked.outputs) != self._arity:
            wanted = f"{self._arity} ({', '.join(self.index.key)})" if self.index.key else "1, the document's key"
            self._wrong(
                f"the keys query returns {len(looked.outputs)} columns, wanted {wanted}",
                "keys",
                "name the columns after SELECT",
            )
        for column in looked.outputs:
            self._check_type(column, "keys", "cast it to bigint, uuid or text, if that is exact")
        self._check_ignored(looked.columns, "keys")
        used = [column for column in table.columns if column.name in looked.columns]
        made = replace(
            made,
            keys=self.watch.keys,
            key_types=tuple(column.base_type for column in looked.outputs),
            reads=looked.reads,
        )
        return self._stored(table, made, used)

    def _stored(self, table: Table, made: Definition, used: Sequence[Column]) -> Definition:
        """Return a lookup whose tasks hold the columns *used*."""
        return replace(
            made,
            search_path=self.path,
            columns=tuple(column.name for column in used),
            row=tuple(column.name for column in used),
            types=tuple(column.type_name for column in used),
            as_text=tuple(not column.own or column.type_name not in _IN_JSON for column in used),
            read_as=tuple(column.read_as for column in used),
            guarded=not all(column.short for column in used),
            by_stored_types=any(column.refuses_null for column in table.columns),
        )

    def _with_was(self, table: Table, made: Definition) -> Definition:
        """Add the older names that columns may have for a while, so that a migration needs no moment of its own (C6)."""
        was = []
        for name, old in sorted(self.watch.was.items()):
            column = table.column(name)
            if column is None:
                there = ", ".join(one.name for one in table.columns)
                self._wrong(
                    f'table {table.label} has neither a column "{name}" nor "{old}"', "was", f"its columns: {there}"
                )
                continue
            if not column.own:
                what = f"column {name} is {column.type_name}, not a type of PostgreSQL's own: capture takes no second name for it"
                self._wrong(what, "was", _RENAME_HINT)
            if table.column(old) is None and name not in dict(table.stands_for):
                done = f"column {old} of {table.label} is gone: take was out of its watch, then idxctl watch install"
                self.warnings.append(done)
            was.append((name, old, column.read_as))
        if was and made.virtual:
            names = ", ".join(name for name, _ in made.virtual)
            self._wrong(
                f"was does not go with virtual columns ({names}): their expressions name columns too",
                "was",
                _RENAME_HINT,
            )
        return replace(made, was=tuple(was))

    def _with_written(self, made: Definition) -> Definition:
        """
        Add the settings under which triggers make its key, where SQL does: those of the document's id.

        A time, an interval, a float's text would else be as the application's session is set, and name no document.
        """
        if made.keys is not None or not (made.key_expression or made.virtual):
            return made
        configured = json.dumps({name.lower(): value for name, value in self.index.pinned.items()})
        given = {"names": list(pinned.WRITTEN), "index": self.index.name, "configured": configured}
        rows = self.conn.execute(SQL["written"].qualified(self.conn.schema), given).fetchall()
        return replace(made, written=tuple((name, value) for name, value in rows))

    def _check_type(self, column: Column | None, setting: str, hint: str) -> None:
        why = column.refusal if column else None
        if column and why:
            self._wrong(f"{setting} is {column.type_name}, which cannot be a document's id: {why}", setting, hint)

    def _check_ignored(self, used: Sequence[str], setting: str) -> None:
        both = [name for name in self.watch.ignore if name in used]
        if both:
            self._wrong(
                f"{setting} reads {', '.join(both)}, which is ignored",
                "ignore",
                f"take {', '.join(both)} out of ignore",
            )

    def _with_ignore(self, table: Table, made: Definition) -> Definition:
        """C4: what an UPDATE may change without being captured."""
        if not self.watch.ignore:
            return made
        for name in self.watch.ignore:
            self._column(table, name, "ignore")
        if not table.primary_key:
            self._wrong(
                f"table {table.label} has no primary key, so old and new rows cannot be distinguished",
                "ignore",
                "give it a primary key, or take ignore out",
            )
        fixed = {**dict.fromkeys(table.primary_key, "the primary key"), **dict.fromkeys(self.watch.key, "the key")}
        fixed |= {self.watch.at: "at"} if self.watch.at else {}
        for name in self.watch.ignore:
            if name in fixed:
                self._wrong(f"column {name} is {fixed[name]}, and is ignored", "ignore", f"take {name} out of ignore")
        compared = tuple(column.name for column in table.columns if column.name not in self.watch.ignore)
        by_name = {column.name: column for column in table.columns}
        return replace(
            made,
            ignore=self.watch.ignore,
            compared=compared,
            table_columns=tuple(column.name for column in table.columns),
            primary_key=table.primary_key,
            matched_by=tuple(_matched_by(by_name[name]) for name in table.primary_key),
        )


def _with_virtual(table: Table, made: Definition) -> Definition:
    """Add what triggers must compute for themselves: virtual columns, of which they see no value."""
    used = {*made.row, *made.compared}
    virtual = ((column.name, column.generated) for column in table.columns if column.name in used)
    return replace(made, virtual=tuple((name, how) for name, how in virtual if how is not None))


def _with_shape(table: Table, made: Definition) -> Definition:
    """
    Add what capture rests on: the columns that it looks at, and their types (C6).

    A virtual column's expression may fail, and may read any other column.
    """
    used = {*made.row, *made.primary_key, *(column.name for column in table.columns if made.virtual)}
    shape = tuple((column.name, column.tag) for column in table.columns if column.name in used)
    return replace(made, shape=shape, guarded=made.guarded or bool(made.virtual))


_RENAME_HINT = "take was out; after the rename every document is looked at again"
_NAME_HINT = 'write it as in SQL: listings, shop.listings, shop."Place Notes"'


def _matched_by(column: Column) -> str:
    """Say how old and new values of a primary key column are matched; a collation may call different texts equal."""
    if not column.own:  # its equality may be somebody's
        return "image"
    return "bytes" if column.base_type in {"text", "character varying", "character"} else "value"


def _as_written(name: str) -> str:
    """Return a name as it is written in SQL: quoted only where it must be."""
    return name if name.isidentifier() and name == name.lower() else quoted(name)
