"""The statements that give a role its rights, each looked at in the catalog: whether it is in force, and whose it is to make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from idxctl.capture import catalog
from idxctl.capture.catalog import quoted
from idxctl.grants import SQL
from idxctl.grants.reads import Reads
from idxctl.postgres import rights
from idxctl.postgres.connect import Connection


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


class Maker:
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
