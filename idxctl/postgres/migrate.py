"""
idxctl's tables: migrated up and down, and the check that every command makes.

A run is one transaction under one lock: it is done or it was not, and a second host waits and then finds nothing to do. Nothing is kept in the session, so PgBouncer in transaction mode may stand in between.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from idxctl.core.errors import ConfigError, PostgresRefused, Refused, SchemaError, UsageError
from idxctl.postgres import audit, migrate_down, surroundings
from idxctl.postgres.bookkeeping import (
    BOOKS,
    DLQ,
    SQL,
    adoptable,
    applied,
    exists,
    exists_function,
    older_dlqs,
    refuse_newer,
    scalar,
    setting,
)
from idxctl.postgres.connect import Connection
from idxctl.postgres.migration_run import alone, apply, take_bookkeeping, wait_for_turn
from idxctl.postgres.migrations import Migration, known

_OLDEST_SERVER = 140_000  # CREATE OR REPLACE TRIGGER


@dataclass(frozen=True)
class Migrated:
    """What `up` or `down` did."""

    applied: tuple[str, ...]  # in the order they ran
    version: int  # now
    adopted: int = 0  # letters of an older DLQ table, kept
    adopted_index: str | None = None  # the index they now belong to
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MigrationStatus:
    """Where the database stands, as this program sees it."""

    version: int
    pending: tuple[str, ...]
    wanted: int  # the newest version this program knows
    unknown: tuple[str, ...] = ()  # applied, and newer than this program
    edited: tuple[str, ...] = ()  # applied, but the file is not what it was
    adoptable: int | None = None  # letters in an older DLQ table that `up` would adopt; None: there is none
    applied: tuple[tuple[str, str, str], ...] = ()  # name, when (ISO), by whom
    owner: str | None = None  # of the tables: the role that is to migrate
    missing: tuple[str, ...] = ()  # of what the applied steps made
    warnings: tuple[str, ...] = ()


def up(
    conn: Connection,
    *,
    default_index: str | None = None,
    to: int | None = None,
    repair: bool = False,
    steps: tuple[Migration, ...] | None = None,
) -> Migrated:
    """
    Apply what is pending, all of it or nothing, in one transaction of its own.

    *default_index* is where the letters of an older DLQ table belong. *repair* takes the applied steps once more: what is
    missing of theirs is made again. Safe on two hosts at once, and to run again. A first migration is refused where
    everybody may create functions beside ours; a later one says so, since it leaves less to them than there was.
    """
    steps = known() if steps is None else steps
    target = len(steps) if to is None else to
    if not 0 <= target <= len(steps):
        raise UsageError(f"there is no migration {target}", hint=f"this program knows 1 to {len(steps)}")
    refuse_old_server(conn.raw.info.server_version)
    with alone(conn, "migrate up", default_index=default_index) as passed_over:
        take_bookkeeping(conn)
        taken = applied(conn)
        refuse_newer(taken, steps)
        if not taken and target > 0:
            surroundings.refuse_strangers(conn)
        letters = adoptable(conn)
        ran = []
        for step in steps[:target]:
            if step.version in taken and not repair:
                continue
            apply(conn, step, step.up)
            if step.version in taken:
                continue
            conn.run(
                SQL["record"],
                version=step.version,
                name=step.name,
                checksum=step.checksum,
                old_workers=step.old_workers_survive,
                by=conn.actor.name,
            )
            ran.append(step.title)
        version = max([*taken, *(step.version for step in steps[:target])], default=0)
        adopted = letters if letters is not None and adoptable(conn) is None else 0
        if version > 0 and default_index is not None:
            conn.run(SQL["set_default_index"], index=default_index)
        index = setting(conn, "default_index") if adopted else None
        if ran:
            _note(conn, "migrate up", f"to version {version}", len(ran), {"applied": ran})
        notes = tuple(
            f"{place}.{DLQ} is an older DLQ table outside schema {conn.schema}: it stays as it is"
            for place in older_dlqs(conn, "public")
            if place != conn.schema
        )
        notes += passed_over
        made = [step.up for step in steps if step.version in taken or step.title in ran]
        notes += surroundings.warnings(conn, surroundings.look(conn, made))
    return Migrated(applied=tuple(ran), version=version, adopted=adopted, adopted_index=index, notes=notes)


def down(
    conn: Connection,
    *,
    to: int | None = None,
    count: int | None = None,
    force: bool = False,
    steps: tuple[Migration, ...] | None = None,
) -> Migrated:
    """
    Undo migrations down to version *to*, or the last *count* (default 1), in one transaction of its own.

    Refuses as `migrate_down.refuse` says; an audit row stays as long as there is a table for it. Below version 1 nothing of idxctl
    is left but the schema.
    """
    steps = known() if steps is None else steps
    with alone(conn, "migrate down"):
        if exists(conn, BOOKS):
            wait_for_turn(conn)
        target = migrate_down.target(conn, to=to, count=count)
        _hold(conn)
        plan = migrate_down.plan(conn, to=target, steps=steps)
        migrate_down.refuse(plan, force=force)
        for step in sorted((s for s in steps if s.title in plan.undoes), key=lambda s: -s.version):
            if not step.down:
                raise Refused(f"migration {step.title} has no way down")
            apply(conn, step, step.down)
            conn.run(SQL["forget"], version=step.version)
        if plan.undoes and target > 0:
            detail = {"undone": list(plan.undoes), "lost": dict(plan.loses), "force": force}
            _note(conn, "migrate down", f"version {plan.version} to {target}", len(plan.undoes), detail)
        if target == 0:
            conn.run(SQL["drop_bookkeeping"])
    return Migrated(applied=plan.undoes, version=target)


def _note(conn: Connection, action: str, what: str, count: int, detail: dict[str, Any]) -> None:
    """Leave an audit row: by the function where this version of the tables has it, otherwise by the owner's right."""
    if exists_function(conn, "opensearch_indexing_audit_write"):
        audit.record(conn, action=action, what=what, count=count, detail=detail)
    elif exists(conn, "opensearch_indexing_audit"):
        given = {"action": action, "what": what, "operator": conn.actor.name, "detail": json.dumps(detail)}
        conn.run(audit.SQL["record_without_function"], **given)


def _hold(conn: Connection) -> None:
    """Lock what is about to be counted: nothing is enqueued, claimed or buried between the look and the drop."""
    for table in ("opensearch_indexing_queue", "opensearch_indexing_inflight", DLQ):
        if exists(conn, table):
            conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(conn.schema, table)))


def refuse_old_server(version: int) -> None:
    """Raise `ConfigError` for a server, by its version as libpq counts, that is older than what the tests run on."""
    if version < _OLDEST_SERVER:
        raise ConfigError(
            f"PostgreSQL {version // 10_000} is too old: its triggers cannot be replaced without a gap",
            hint=f"PostgreSQL {_OLDEST_SERVER // 10_000} or newer is needed",
        )


def status(conn: Connection, *, steps: tuple[Migration, ...] | None = None) -> MigrationStatus:
    """Say where the database stands. Changes nothing."""
    steps = known() if steps is None else steps
    taken = applied(conn) if exists(conn, BOOKS) else {}
    by_version = {step.version: step for step in steps}
    found = surroundings.look(conn, [step.up for step in steps if step.version in taken])
    return MigrationStatus(
        version=max(taken, default=0),
        pending=tuple(step.title for step in steps if step.version not in taken),
        wanted=len(steps),
        unknown=tuple(row.title for row in taken.values() if row.version not in by_version),
        edited=tuple(
            row.title
            for row in taken.values()
            if row.version in by_version and row.checksum != by_version[row.version].checksum
        ),
        adoptable=adoptable(conn),
        owner=found.owner,
        missing=found.missing,
        warnings=surroundings.warnings(conn, found),
        applied=tuple((row.title, row.applied_at, row.applied_by) for row in taken.values()),
    )


def require(conn: Connection) -> None:
    """
    Raise `SchemaError` unless the tables are what this program works with; the check every command makes. One statement.

    Newer tables are accepted where every newer migration says that old workers survive it.
    """
    wanted = len(known())
    try:
        with (
            conn.savepoint() if conn.in_transaction else contextlib.nullcontext()
        ):  # a caller's goes on without the tables
            version, gaps, blocking = conn.run(SQL["version"], wanted=wanted).fetchone() or (0, 0, 0)
    except PostgresRefused as error:
        if error.sqlstate not in {"42P01", "3F000"}:
            raise
        version, gaps, blocking = 0, 0, 0
    if version == 0:
        if scalar(conn, "hidden", schema=conn.schema):
            raise PostgresRefused(
                f"policies hide the rows of idxctl's tables in schema {conn.schema} from {conn.raw.info.user}",
                sqlstate="42501",
                detail="row-level security is switched on for idxctl's own tables",
                hint="ALTER TABLE ... DISABLE ROW LEVEL SECURITY on them (grants decide who may what), or BYPASSRLS for this role",
            )
        raise SchemaError(
            f'schema "{conn.schema}" is not migrated: idxctl\'s tables are not there',
            hint="idxctl migrate up; or [database] schema, if they live elsewhere",
        )
    if blocking:
        raise SchemaError(
            f"idxctl's tables are newer than this program: version {version}, this program knows {wanted}",
            hint="upgrade idxctl on this host",
        )
    if version < wanted or gaps:
        raise SchemaError(
            f"idxctl's tables are older: version {version}, this program wants {wanted}", hint="idxctl migrate up"
        )
