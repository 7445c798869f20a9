"""
Where idxctl's tables stand: what is missing of them, whose they are, and who else may put something beside them.

Whoever may create functions in their schema could have created, before it was migrated, what the first steps then call; so
a schema where everybody may is refused, and so are things of strangers in it that would be taken for PostgreSQL's or ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from idxctl.core.errors import ConfigError
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load

SQL = load("idxctl.postgres", "surroundings.sql")

EVERYBODY = "PUBLIC"
_SHOWN = 5
_MADE = re.compile(
    r"""(?P<verb> CREATE | DROP ) \s+ (?: OR \s+ REPLACE \s+ | UNIQUE \s+ )*
    (?P<kind> TABLE | SEQUENCE | INDEX | FUNCTION | TRIGGER ) \s+ (?: IF \s+ (?:NOT\s+)? EXISTS \s+ )?
    (?: @ours@\. | %1\$I\. | %I\. )? (?P<name> [a-z_]+ ) \b""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Surroundings:
    """What `look` found."""

    owner: str | None  # of the tables; None: there are none
    missing: tuple[str, ...] = ()  # "table opensearch_indexing_queue"
    publications: tuple[str, ...] = ()  # FOR ALL TABLES
    altered: bool = False  # the queue has what others put on it


def made_by(steps: Iterable[str]) -> set[tuple[str, str]]:
    """Return the kinds and names of all that the texts of migrations leave behind, in order. Pure."""
    made: set[tuple[str, str]] = set()
    for text in steps:
        code = re.sub(r"--[^\n]*", "", text)
        for found in _MADE.finditer(code):
            thing = (found["kind"].lower(), found["name"])
            if found["verb"] == "CREATE":
                made.add(thing)
            else:
                made.discard(thing)
    return made


def look(conn: Connection, steps: Iterable[str]) -> Surroundings:
    """Look at the schema of *conn*, where the texts *steps* have been applied. Changes nothing."""
    owner = conn.run(SQL["owner"], schema=conn.schema).fetchone()
    present = {(kind, name) for kind, name in conn.run(SQL["present"], schema=conn.schema)}
    missing = sorted(made_by(steps) - present)
    return Surroundings(
        owner=owner[0] if owner else None,
        missing=tuple(f"{kind} {name}" for kind, name in missing),
        publications=tuple(name for (name,) in conn.run(SQL["publications"])),
        altered=_altered(conn, present, missing),
    )


def _altered(conn: Connection, present: set[tuple[str, str]], missing: list[tuple[str, str]]) -> bool:
    """Whether something was put on the queue that may refuse a task; only its owner can ask."""
    function = ("function", "opensearch_" + "indexing_queue_look")
    if function not in present or ("table", "opensearch_" + "indexing_queue") in missing:
        return False
    (may_ask,) = conn.run(SQL["may_ask"], schema=conn.schema).fetchone() or (False,)
    if not may_ask:
        return False
    row = conn.execute(sql.SQL("SELECT {}()").format(sql.Identifier(conn.schema, function[1]))).fetchone()
    return row is not None and not row[0]


def refuse_strangers(conn: Connection) -> None:
    """Raise `ConfigError` where a first migration would put our functions beside what anybody may create, or has."""
    if EVERYBODY in _creators(conn):
        raise ConfigError(
            f"everybody may create functions in schema {conn.schema}: what idxctl runs there could be theirs",
            hint=ways_out(conn),
        )
    things = [f"{what} of {owner}" for what, owner in conn.run(SQL["strangers"], schema=conn.schema)]
    if things:
        more = f" and {len(things) - _SHOWN} more" if len(things) > _SHOWN else ""
        raise ConfigError(
            f"schema {conn.schema} holds what would be taken for PostgreSQL's own or idxctl's: {', '.join(things[:_SHOWN])}{more}",
            hint='look at it and drop it; or a schema of its own: [database] schema = "idxctl", which migrate up creates',
        )


def ways_out(conn: Connection) -> str:
    """Say what to do about a schema in which everybody may create."""
    schema = sql.Identifier(conn.schema).as_string(None)
    return (
        f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC, as it is in new databases from PostgreSQL 15 on; "
        'or a schema of its own: [database] schema = "idxctl", which migrate up creates'
    )


def open_to_others(conn: Connection) -> tuple[str, ...]:
    """Say who else may create functions beside ours, or put code of theirs on our tables, and what to do."""
    creators = _creators(conn)
    notes = []
    if EVERYBODY in creators:
        notes.append(f"everybody may create functions in schema {conn.schema}: {ways_out(conn)}")
    others = [name for name in creators if name != EVERYBODY]
    if others:
        notes.append(f"roles other than its owner may create functions in schema {conn.schema}: {', '.join(others)}")
    if held := _powers(conn):
        shown = "; ".join(held[:_SHOWN])
        more = f"; and {len(held) - _SHOWN} more" if len(held) > _SHOWN else ""
        notes.append(
            f"other roles have rights on idxctl's tables that none needs: {shown}{more}. REVOKE them, and see to default "
            "privileges (\\ddp in psql); idxctl grants prints what a role needs"
        )
    return tuple(notes)


def warnings(conn: Connection, found: Surroundings) -> tuple[str, ...]:
    """Say what is not as it should be, and what to do."""
    notes = [*open_to_others(conn)]
    if found.missing:
        shown = ", ".join(found.missing[:_SHOWN])
        more = f" and {len(found.missing) - _SHOWN} more" if len(found.missing) > _SHOWN else ""
        notes.append(
            f"missing in schema {conn.schema}: {shown}{more}; idxctl migrate up --repair makes them again, empty: "
            "what they held is lost, idxctl reindex writes every document"
        )
    if found.altered:
        notes.append(
            "the queue is not as it was made (a constraint, trigger, rule, index or column was added or changed): writes "
            "go through, at a higher price, and what it refuses is marked as a gap"
        )
    if found.publications:
        notes.append(
            f"publication {', '.join(found.publications)} is FOR ALL TABLES: every change of the queue goes to its "
            "subscribers too; name the application's tables instead"
        )
    return tuple(notes)


def _creators(conn: Connection) -> tuple[str, ...]:
    return tuple(role for (role,) in conn.run(SQL["creators"], schema=conn.schema, everybody=EVERYBODY))


def _powers(conn: Connection) -> tuple[str, ...]:
    """
    Return the rights of roles other than the owner that no role needs, each with what to do: GRANT ALL and default privileges give them.

    A trigger on our tables runs as their owner, and what generations and watches hold is SQL that workers run.
    """
    return tuple(
        f"{role} has {privileges} on {table} ({why})"
        for role, privileges, table, why in conn.run(SQL["powers"], schema=conn.schema, everybody=EVERYBODY)
    )
