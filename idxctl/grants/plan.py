"""
Grants: the rights that each role needs, as SQL, from what is there.

What concerns our own tables stands in `postgres.rights`; what concerns the application's is asked of PostgreSQL, in `grants.reads`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from idxctl.capture import catalog
from idxctl.capture.catalog import quoted
from idxctl.config.settings import Settings
from idxctl.core.errors import SchemaError, UsageError
from idxctl.grants import SQL
from idxctl.grants.reads import Reads, everything_read, watched_tables
from idxctl.grants.statements import Grant, Maker
from idxctl.postgres import audit, rights
from idxctl.postgres.connect import Connection


@dataclass(frozen=True)
class Applied:
    """What was put in force, and what is left to others."""

    applied: tuple[Grant, ...]
    left: tuple[Grant, ...]


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
        maker = Maker(conn, tables_owner or owner)
        reading = {kind for kind, _ in wanted} & {"worker", "operator", "installer"}
        reads = everything_read(conn, settings, path, migrated=tables_owner is not None) if reading else Reads((), ())
        made: list[Grant] = []
        for kind, role in dict.fromkeys(wanted):
            if kind == "installer":
                made += maker.installer(
                    role,
                    reads,
                    watched_tables(conn, settings, path, migrated=tables_owner is not None),
                    owner,
                    tables_owner,
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
