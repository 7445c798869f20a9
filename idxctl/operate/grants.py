"""
Grants: the rights that each role needs, as SQL, from what is there.

What concerns our own tables stands in `postgres.rights`; what concerns the application's is asked of PostgreSQL: a throwaway
view of each document query and lookup tells by its dependencies what its reader must be allowed to read, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from idxctl.capture import catalog, introspect, lookups
from idxctl.capture.catalog import quoted, thrown_away
from idxctl.capture.watches import installed_watches
from idxctl.config.settings import IndexSettings, Settings
from idxctl.core.errors import ConfigError, PostgresRefused, SchemaError, UsageError
from idxctl.core.queries import bare
from idxctl.indexes import generations
from idxctl.postgres import audit, rights
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load

SQL = load("idxctl.operate", "grants.sql")
_VIEW = "opensearch_indexing_reads"


@dataclass(frozen=True)
class Grant:
    """One statement: for which role, why, whether it is in force already, and whose it is to make."""

    kind: str
    role: str
    statement: str
    why: str
    held: bool
    owner: str  # of what is granted on
    may_grant: bool  # whether who asks can make it
    beyond: bool = False  # a REVOKE of what the role has and need not: shown, never applied


@dataclass(frozen=True)
class Applied:
    """What was put in force, and what is left to others."""

    applied: tuple[Grant, ...]
    left: tuple[Grant, ...]


@dataclass(frozen=True)
class Relation:
    """A table or view of the application's that documents are read from."""

    oid: int
    schema: str
    name: str
    owner: str
    policies: bool
    forced: bool

    @property
    def qualified(self) -> str:
        """Its name in SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


@dataclass(frozen=True)
class Function:
    """A function of the application's that a document query or lookup calls."""

    oid: int
    schema: str
    name: str
    arguments: str
    owner: str
    public: bool

    @property
    def qualified(self) -> str:
        """Its name in SQL, with the types that tell it from others."""
        return f"{quoted(self.schema)}.{quoted(self.name)}({self.arguments})"


@dataclass(frozen=True)
class Reads:
    """All that is read for documents and lookups."""

    relations: tuple[Relation, ...]
    functions: tuple[Function, ...]


def plan(conn: Connection, settings: Settings, wanted: Sequence[tuple[str, str]]) -> tuple[Grant, ...]:
    """
    Return the statements for *wanted*, pairs of a kind of role and a role's name; nothing is changed.

    Raises `UsageError` for a role that is not there, `SchemaError` when rights on tables are asked for before there are any.
    """
    path = ", ".join(map(quoted, catalog.search_path(conn)))
    with conn.transaction():
        for _, role in wanted:
            _require_role(conn, role)
        home = conn.run(SQL["home"], schema=conn.schema, queue=f"{rights.PREFIX}queue").fetchone()
        owner, tables_owner = home if home is not None else (None, None)
        if tables_owner is None and any(kind != "installer" for kind, _ in wanted):
            raise SchemaError(
                f"idxctl's tables are not in schema {conn.schema}, so there is nothing to grant on",
                hint="idxctl migrate up first; --installer alone can be asked for before it",
            )
        maker = _Maker(conn, tables_owner or owner)
        reading = {kind for kind, _ in wanted} & {"worker", "operator", "installer"}
        reads = _reads(conn, settings, path, migrated=tables_owner is not None) if reading else Reads((), ())
        made: list[Grant] = []
        for kind, role in dict.fromkeys(wanted):
            if kind == "installer":
                made += maker.installer(
                    role, reads, _watched(conn, settings, path, migrated=tables_owner is not None), owner, tables_owner
                )
            else:
                made += maker.role(kind, role, reads)
    return _once(made, lambda one: (one.kind, one.role, one.statement))


def apply(conn: Connection, made: Sequence[Grant]) -> Applied:
    """Put in force what this role may and what is not yet, in one transaction with its audit row."""
    missing = _once((one for one in made if not one.held and not one.beyond), lambda one: one.statement)
    doing = tuple(one for one in missing if one.may_grant)
    with conn.transaction():
        for one in doing:
            conn.execute(one.statement.encode())
        if doing:
            roles = ", ".join(dict.fromkeys(f"{one.kind} {one.role}" for one in doing))
            audit.record(
                conn,
                action="grants",
                what=roles,
                count=len(doing),
                detail={"statements": [one.statement for one in doing]},
            )
    return Applied(doing, tuple(one for one in missing if not one.may_grant))


def _once(made: Iterable[Grant], what: Callable[[Grant], Hashable]) -> tuple[Grant, ...]:
    """Return the first of those that are the same: a role may be of two kinds, and two tables lie in one schema."""
    return tuple({what(one): one for one in reversed(tuple(made))}.values())[::-1]


def script(made: Iterable[Grant]) -> Iterator[str]:
    """Yield the statements as a script, a comment a line why; PostgreSQL runs it as it stands."""
    head = None
    for one in made:
        if head != (one.kind, one.role):
            head = (one.kind, one.role)
            yield f"-- {one.kind}: {_one_line(one.role)}"
        if one.beyond:
            yield f"-- {one.why}:"
            yield f"-- {_one_line(one.statement)};"
        else:
            note = (
                one.why + ("" if one.may_grant else f"; to be run as {one.owner}") + (" (in force)" if one.held else "")
            )
            yield f"{one.statement};  -- {_one_line(note)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _require_role(conn: Connection, role: str) -> None:
    if conn.run(SQL["role"], role=role).fetchone() is None:
        raise UsageError(f"there is no role {role}", hint=f"CREATE ROLE {quoted(role)} LOGIN; then again")


class _Maker:
    """Makes the statements, each looked at in the catalog."""

    def __init__(self, conn: Connection, owner: str | None) -> None:
        self._conn = conn
        self._owner = owner or _current_user(conn)
        self._database, self._database_owner, self._all_connect, self._all_temp = (
            conn.run(SQL["database"]).fetchone() or ()
        )
        prefix = rights.PREFIX
        self._ours = {
            name.removeprefix(prefix): (oid, kind, tuple(columns))
            for oid, name, kind, columns in conn.run(SQL["ours"], schema=conn.schema, prefix=prefix)
        }
        self._functions = {
            name.removeprefix(prefix): (oid, arguments)
            for oid, name, arguments in conn.run(SQL["our_functions"], schema=conn.schema, prefix=prefix)
        }

    def role(self, kind: str, role: str, reads: Reads) -> Iterator[Grant]:
        """Yield what a role that works with the tables needs."""
        yield from self._connect(kind, role)
        yield self._usage(kind, role, self._conn.schema, "idxctl's own schema")
        yield from self._tables(kind, role)
        for name, (privileges, why) in rights.SEQUENCES.get(kind, {}).items():
            if name in self._ours:
                yield self._sequence(kind, role, name, privileges, why)
        for name, why in rights.FUNCTIONS.get(kind, {}).items():
            if name in self._functions:
                yield self._function(kind, role, name, why)
        if kind in {"worker", "operator"}:
            yield from self._reading(kind, role, reads)
        yield from self._beyond(kind, role)

    def installer(
        self, role: str, reads: Reads, watched: Sequence[catalog.Member], owner: str | None, tables_owner: str | None
    ) -> Iterator[Grant]:
        """Yield what a role needs that migrates and installs triggers."""
        kind = "installer"
        yield from self._connect(kind, role)
        if not self._all_temp:
            yield self._made(
                kind, role, f"GRANT TEMPORARY ON DATABASE {quoted(self._database)} TO {quoted(role)}",
                "throwaway views say what queries read", self._database_owner, self._held("may_database", role=role, right="TEMPORARY"),
            )  # fmt: skip
        schema = self._conn.schema
        if owner is None:
            statement = f"CREATE SCHEMA {quoted(schema)} AUTHORIZATION {quoted(role)}"
            yield self._made(kind, role, statement, "idxctl's own schema", self._database_owner, held=False)
        elif tables_owner is None:
            held = self._held("may_schema", role=role, schema=schema, right="CREATE")
            statement = f"GRANT USAGE, CREATE ON SCHEMA {quoted(schema)} TO {quoted(role)}"
            yield self._made(kind, role, statement, "idxctl's tables and functions are made there", owner, held)
        elif not self._held("member", role=role, owner=tables_owner):
            statement = f"GRANT {tables_owner} TO {quoted(role)}"
            yield self._made(
                kind,
                role,
                statement,
                "the owner of idxctl's tables and functions replaces them",
                tables_owner,
                held=False,
                may_grant=self._held("may_admit", owner=tables_owner),
            )
        for member in watched:
            yield self._usage(kind, role, member.schema, "a watched table is there")
            name = f"{quoted(member.schema)}.{quoted(member.name)}"
            statement = f"GRANT SELECT, TRIGGER ON {name} TO {quoted(role)}"
            held = self._held("may_table", role=role, oid=member.oid, columns=[], rights=["SELECT", "TRIGGER"])
            yield self._made(
                kind, role, statement, "its changes are captured; to drop a trigger takes its owner", member.owner, held
            )
        seen = {member.oid for member in watched}
        others = tuple(one for one in reads.relations if one.oid not in seen)
        yield from self._reading(kind, role, replace(reads, relations=others))

    def _connect(self, kind: str, role: str) -> Iterator[Grant]:
        if not self._all_connect:
            yield self._made(
                kind, role, f"GRANT CONNECT ON DATABASE {quoted(self._database)} TO {quoted(role)}",
                "not everybody may connect here", self._database_owner, self._held("may_database", role=role, right="CONNECT"),
            )  # fmt: skip

    def _usage(self, kind: str, role: str, schema: str, why: str) -> Grant:
        (owner,) = self._conn.run(SQL["schema_owner"], schema=schema).fetchone() or (self._owner,)
        held = self._held("may_schema", role=role, schema=schema, right="USAGE")
        return self._made(kind, role, f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(role)}", why, owner, held)

    def _tables(self, kind: str, role: str) -> Iterator[Grant]:
        for name, wanted in rights.TABLES[kind].items():
            if name not in self._ours:
                continue
            oid, _, has = self._ours[name]
            for right in wanted:
                columns = [one for one in right.columns if one in has]
                if right.but:
                    columns = [one for one in has if one not in right.but]
                only = f" ({', '.join(map(quoted, columns))})" if columns else ""
                held = self._held("may_table", role=role, oid=oid, columns=columns, rights=list(right.privileges))
                privileges = ", ".join(f"{one}{only}" for one in right.privileges)
                statement = f"GRANT {privileges} ON {self._named(name)} TO {quoted(role)}"
                yield self._made(kind, role, statement, right.why, self._owner, held)

    def _sequence(self, kind: str, role: str, name: str, privileges: str, why: str) -> Grant:
        held = self._held("may_sequence", role=role, oid=self._ours[name][0], rights=privileges.split(", "))
        statement = f"GRANT {privileges} ON SEQUENCE {self._named(name)} TO {quoted(role)}"
        return self._made(kind, role, statement, why, self._owner, held)

    def _function(self, kind: str, role: str, name: str, why: str) -> Grant:
        oid, arguments = self._functions[name]
        statement = f"GRANT EXECUTE ON FUNCTION {self._named(name)}({arguments}) TO {quoted(role)}"
        return self._made(kind, role, statement, why, self._owner, self._held("may_function", role=role, oid=oid))

    def _reading(self, kind: str, role: str, reads: Reads) -> Iterator[Grant]:
        """Yield the rights to read documents and to run lookups."""
        for schema in sorted({one.schema for one in reads.relations} | {one.schema for one in reads.functions}):
            yield self._usage(kind, role, schema, "documents are read from there")
        for one in reads.relations:
            held = self._held("may_table", role=role, oid=one.oid, columns=[], rights=["SELECT"])
            statement = f"GRANT SELECT ON {one.qualified} TO {quoted(role)}"
            yield self._made(kind, role, statement, "documents, or lookups, read it", one.owner, held)
        for function in reads.functions:
            if not function.public:
                held = self._held("may_function", role=role, oid=function.oid)
                statement = f"GRANT EXECUTE ON FUNCTION {function.qualified} TO {quoted(role)}"
                yield self._made(kind, role, statement, "documents, or lookups, call it", function.owner, held)
        bound = [
            one
            for one in reads.relations
            if one.policies and (one.forced or not self._held("member", role=role, owner=one.owner))
        ]
        if bound and kind != "installer":
            (free,) = self._conn.run(SQL["role"], role=role).fetchone() or (False,)
            why = f"policies of {', '.join(f'{one.schema}.{one.name}' for one in bound)} would hide rows, and their documents would be deleted"
            # It holds for every table of every database of the cluster: a person decides that, `--apply` never does.
            yield self._made(
                kind,
                role,
                f"ALTER ROLE {quoted(role)} BYPASSRLS",
                why,
                "a superuser by hand, since it holds in the whole cluster",
                bool(free),
                may_grant=False,
            )

    def _beyond(self, kind: str, role: str) -> Iterator[Grant]:
        """Yield what the role was granted on our tables and does not need: other kinds may, so it is only shown."""
        for name, (oid, relkind, _) in self._ours.items():
            if relkind == "S":
                continue
            needed = {
                one
                for right in rights.TABLES[kind].get(name, ())
                if not right.columns and not right.but
                for one in right.privileges
            }
            has = [row[0] for row in self._conn.run(SQL["beyond"], oid=oid, role=role)]
            if extra := sorted(set(has) - needed):
                statement = f"REVOKE {', '.join(extra)} ON {self._named(name)} FROM {quoted(role)}"
                yield self._made(
                    kind,
                    role,
                    statement,
                    f"more than a {kind} needs, unless it is something else as well",
                    self._owner,
                    held=False,
                    beyond=True,
                )

    def _named(self, name: str) -> str:
        return f"{quoted(self._conn.schema)}.{quoted(rights.PREFIX + name)}"

    def _held(self, question: str, **given: Any) -> bool:
        row = self._conn.run(SQL[question], **given).fetchone()
        return bool(row and row[0])

    def _made(
        self,
        kind: str,
        role: str,
        statement: str,
        why: str,
        owner: str,
        held: bool,
        *,
        may_grant: bool | None = None,
        beyond: bool = False,
    ) -> Grant:
        if may_grant is None:
            may_grant = self._held("may_grant", owner=owner)
        return Grant(kind, role, statement, why, held, owner, may_grant, beyond)


def _current_user(conn: Connection) -> str:
    row = conn.execute("SELECT pg_catalog.quote_ident(current_user)").fetchone()
    assert row is not None
    return str(row[0])


# What is read --------------------------------------------------------------------------------------------------------
def _reads(conn: Connection, settings: Settings, path: str, *, migrated: bool) -> Reads:
    """Return what the documents and lookups read, as configured and as stored."""
    relations: dict[int, Relation] = {}
    functions: dict[int, Function] = {}
    queries = [*_configured(conn, settings, path), *(_stored(conn, path) if migrated else ())]
    for query in queries:
        with thrown_away(conn):
            try:
                path = ", ".join(each for each in (introspect.place(conn), query.search_path) if each)
                changed = f"SELECT * FROM {query.changed}"
                but = [introspect.throwaway_view(conn, path, "changed", changed)] if query.changed else []
                view = introspect.throwaway_view(conn, path, _VIEW, query.text)
            except PostgresRefused as error:
                raise ConfigError(
                    f"{query.what} does not run: {error.detail} [{error.sqlstate}]", hint=error.hint
                ) from error
            relations |= {row[0]: Relation(*row) for row in conn.run(SQL["relations"], view=view, but=but)}
            functions |= {row[0]: Function(*row) for row in conn.run(SQL["functions"], view=view)}
    by_name = sorted(relations.values(), key=lambda one: (one.schema, one.name))
    return Reads(tuple(by_name), tuple(sorted(functions.values(), key=lambda one: (one.schema, one.name))))


@dataclass(frozen=True)
class _Query:
    """A query whose reader needs rights."""

    what: str
    text: str
    search_path: str
    changed: str | None = None  # the watched table that `changed` stands for


def _configured(conn: Connection, settings: Settings, path: str) -> Iterator[_Query]:
    for index in settings.indexes.values():
        yield _Query(f"the document query of {index.name}", bare(index.document), path)
        for table, watch in _tables_of(conn, index, path):
            if watch.keys:
                what = f"the lookup of {index.name} over {watch.table}"
                yield _Query(what, bare(watch.keys), path, table.qualified)
            elif watch.at:
                yield _Query(f"watch {watch.table} of {index.name}", f"SELECT 1 AS one FROM {table.qualified}", path)


def _stored(conn: Connection, path: str) -> Iterator[_Query]:
    for generation in generations.all_of_them(conn):
        if generation.active:
            one = generation.definition
            yield _Query(f"the document query of {generation.name}", one.document, one.local.get("search_path", path))
    for installed in installed_watches(conn):
        watch = installed.definition
        name = f"{quoted(watch.table_schema)}.{quoted(watch.table_name)}"
        its_path = str(lookups.local_settings(watch.to_json())["search_path"])
        if not _is_there(conn, name):
            continue
        if watch.keys:
            yield _Query(f"the lookup of {installed.index} over {name}", bare(watch.keys), its_path, name)
        elif watch.at:
            yield _Query(f"watch {name} of {installed.index}", f"SELECT 1 AS one FROM {name}", its_path)


def _tables_of(conn: Connection, index: IndexSettings, path: str) -> Iterator[tuple[catalog.Table, Any]]:
    for watch in index.watches:
        with conn.under(path):
            (oid,) = conn.run(catalog.SQL["resolve"], name=watch.table).fetchone() or (None,)
        table = catalog.table(conn, oid) if oid else None
        if table is None:
            raise ConfigError(
                f"index {index.name}: there is no table {watch.table} to watch", hint="idxctl config validate"
            )
        yield table, watch


def _is_there(conn: Connection, table: str) -> bool:
    row = conn.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    return bool(row and row[0])


def _watched(conn: Connection, settings: Settings, path: str, *, migrated: bool) -> tuple[catalog.Member, ...]:
    """Return the watched tables and all below them, once each."""
    oids = {table.oid: None for index in settings.indexes.values() for table, _ in _tables_of(conn, index, path)}
    if migrated:
        for installed in installed_watches(conn):
            one = installed.definition
            name = f"{quoted(one.table_schema)}.{quoted(one.table_name)}"
            (oid,) = conn.run(catalog.SQL["resolve"], name=name).fetchone() or (None,)
            if oid:
                oids[oid] = None
    members = {member.oid: member for oid in oids for member in catalog.members(conn, oid)}
    return tuple(members.values())
