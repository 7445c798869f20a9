"""
Installing and removing capture, each in one transaction: at every moment the old triggers are in force or the new ones.

Locks: one of the table of watches keeps two installations apart. Tables are locked before anything is changed, and this waits for a
table only while it holds none (else it might deadlock with a transaction of the application), and never long, since
writers queue behind it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from idxctl.capture.catalog import SQL, label, quoted, require_tables
from idxctl.capture.diff import Addition, Missing, RowChanges, TriggerChanges, row_changes, tables_of, trigger_changes
from idxctl.capture.plan import CapturePlan, PlannedTable
from idxctl.capture.watches import Watch, installed_watches
from idxctl.core.errors import ConfigError, Locked, PostgresRefused, UsageError
from idxctl.core.suggest import did_you_mean
from idxctl.postgres import audit, own_lock
from idxctl.postgres.connect import Connection

WAIT_SECONDS = 10.0  # for all tables together
_WATCHES, _DOING = "opensearch_indexing_watches", "watch install or remove"
_TRY_SECONDS = 1.5  # for one table; longer than deadlock_timeout, when autovacuum steps aside
_PAUSE_SECONDS = 0.2  # between tries, so that writers that queued behind one get their turn


@dataclass(frozen=True)
class Installed:
    """What an installation did; all of it nothing when everything was in place."""

    watches: int  # in force now
    tables: tuple[str, ...]  # watched now, partitions and children not counted
    added: int
    ended: int
    functions: int  # made or replaced
    triggers: int  # made or replaced
    dropped: int  # triggers that nothing asks for any more
    warnings: tuple[str, ...] = ()
    dry_run: bool = False

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        return bool(self.added or self.ended or self.functions or self.triggers or self.dropped)


@dataclass(frozen=True)
class Removed:
    """What a removal did, or would do."""

    indexes: tuple[str, ...]
    watches: int
    tables: tuple[str, ...]  # captured for nobody any more
    tasks: int  # of these indexes, waiting in the queue
    purged: int
    dry_run: bool = False


def install(
    conn: Connection,
    plan: CapturePlan,
    indexes: Sequence[str],
    *,
    dry_run: bool = False,
    wait_seconds: float = WAIT_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Installed:
    """
    Bring the triggers of *indexes* in step with *plan*, in one transaction; the second time there is nothing to do.

    Watches of other indexes stay. Raises `Locked` when a table cannot be had within *wait_seconds*.
    """
    require_tables(conn)
    with conn.transaction():
        passed_over = _exclude_others(conn, wait_seconds)
        stored = installed_watches(conn)
        rows = row_changes(stored, plan.watches, indexes)
        watches = _store(conn, rows)
        todo = trigger_changes(conn, watches, _with_others(conn, plan.tables, watches))
        warnings = (
            *plan.warnings,
            *passed_over,
            *_unconfigured(stored, indexes),
            *_origin_only(todo),
            *_missed(todo, stored),
        )
        done = _installed(watches, rows, todo, warnings, dry_run=dry_run)
        if dry_run:
            conn.rollback()
            return done
        refuse_captured_elsewhere(conn, todo)
        _apply(conn, todo, _Locks(conn, wait_seconds, clock, pause))
        # Under the locks: whatever was written without us is committed, and is read by the worker.
        conn.run(SQL["resync"], indexes=sorted(_overtaken(todo, stored)))
        if done.changed:
            detail = {
                "tables": list(done.tables),
                "triggers": done.triggers,
                "dropped": done.dropped,
            }
            audit.record(conn, action="watch install", what=", ".join(indexes), count=done.watches, detail=detail)
    return done


def remove(
    conn: Connection,
    *,
    index: str | None = None,
    purge: bool = False,
    dry_run: bool = False,
    wait_seconds: float = WAIT_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Removed:
    """
    Stop capturing for *index*, or for all, in one transaction; *purge* deletes the tasks that nobody will claim.

    An *index* that has neither watches nor a generation is a name that was made up, or is gone: its tasks are purged.
    """
    require_tables(conn)
    with conn.transaction():
        _exclude_others(conn, wait_seconds)
        stored = installed_watches(conn)
        ended = [watch for watch in stored if index in (None, watch.index)]
        indexes = sorted({watch.index for watch in ended} | ({index} if index else set()))
        (tasks,) = conn.run(SQL["open_tasks"], indexes=indexes).fetchone() or (0,)
        if index and not ended and not tasks:
            known = sorted({watch.index for watch in stored})
            raise UsageError(f"no watch of index {index} is installed", hint=did_you_mean(index, known))
        left = [watch for watch in stored if watch not in ended]
        if index and not ended and not _indexed(conn, index):
            purge = True  # nobody claims them: it is what was asked for
        done = Removed(tuple(indexes), len(ended), _labels(ended, but=left), tasks, tasks if purge else 0, dry_run)
        if dry_run:
            conn.rollback()
            return done
        conn.run(SQL["end_watches"], ids=[watch.id for watch in ended])
        _apply(conn, trigger_changes(conn, left, tables_of(conn, left)), _Locks(conn, wait_seconds, clock, pause))
        if purge:
            conn.run(SQL["purge_tasks"], indexes=indexes)
        if ended or purge:
            detail = {"tables": list(done.tables), "purged": done.purged}
            audit.record(conn, action="watch remove", what=", ".join(indexes), count=len(ended), detail=detail)
    return done


def _indexed(conn: Connection, index: str) -> bool:
    row = conn.run(SQL["is_indexed"], index=index).fetchone()
    return row is not None and bool(row[0])


# Rows ------------------------------------------------------------------------------------------------------------------
def _store(conn: Connection, rows: RowChanges) -> tuple[Watch, ...]:
    """Write the changes of the watches' rows; returns the watches in force."""
    conn.run(SQL["end_watches"], ids=[watch.id for watch in rows.ended])
    ids, positions = [id_ for id_, _ in rows.moved], [position for _, position in rows.moved]
    conn.run(SQL["place_watches"], ids=ids, positions=[-1 - position for position in positions])
    conn.run(SQL["place_watches"], ids=ids, positions=positions)
    added = []
    for addition in rows.added:
        row = conn.one(SQL["add_watch"], **addition_values(addition))
        added.append(in_force(addition, row[0]))
    return (*rows.kept, *added)


def addition_values(addition: Addition) -> dict[str, Any]:
    """Return the columns of a new watch's row."""
    one = addition.watch.definition
    return {
        "index": addition.watch.index,
        "position": addition.watch.position,
        "schema": one.table_schema,
        "table": one.table_name,
        "definition": json.dumps(one.to_json(), ensure_ascii=False),
        "fingerprint": one.fingerprint,
        "watermark": addition.watermark,
        "at": one.at is not None,
    }


def in_force(addition: Addition, id_: int) -> Watch:
    """Return a new watch as it stands once its row does."""
    one = addition.watch
    return Watch(id_, one.index, one.position, one.definition, one.definition.fingerprint)


def _with_others(
    conn: Connection, tables: Sequence[PlannedTable], watches: Sequence[Watch]
) -> tuple[PlannedTable, ...]:
    """Add the tables that only watches of other configurations are about: their triggers stay."""
    planned = {table.key for table in tables}
    others = [watch for watch in watches if watch.definition.table not in planned]
    return (*tables, *tables_of(conn, others))


def _unconfigured(stored: Sequence[Watch], indexes: Sequence[str]) -> list[str]:
    others = sorted({watch.index for watch in stored} - set(indexes))
    return [
        f"index {name} is captured and not in this configuration; idxctl watch remove --index {name} ends that"
        for name in others
    ]


def _origin_only(todo: TriggerChanges) -> list[str]:
    names = sorted({label(each.member.schema, each.member.name) for each in todo.missing if not each.member.owned})
    return [
        f"table {name} is not yours: writes under session_replication_role = replica are not captured" for name in names
    ]


def _holes(todo: TriggerChanges, stored: Sequence[Watch]) -> list[Missing]:
    """Return the triggers of watched tables that let changes go by: gone, disabled, or enabled again by somebody."""
    watched = {watch.definition.table for watch in stored}
    return [
        each for each in todo.missing if each.table in watched and (each.was_off or each.why in {"missing", "disabled"})
    ]


def _overtaken(todo: TriggerChanges, stored: Sequence[Watch]) -> set[str]:
    """Return the indexes that have missed changes, of which nobody can tell which."""
    tables = {each.table for each in _holes(todo, stored)} | set(todo.powerless)
    return {watch.index for watch in stored if watch.definition.table in tables}


def _missed(todo: TriggerChanges, stored: Sequence[Watch]) -> list[str]:
    """Name the tables that were watched, and whose changes went by all the same."""
    names = {
        label(each.member.schema, each.member.name): "off for a while" if each.was_off else each.why
        for each in _holes(todo, stored)
    }
    names |= {label(*table): "without a right to the queue" for table in todo.powerless}
    again = ", ".join(sorted(_overtaken(todo, stored)))
    return [
        f"triggers on {name} were {why}: changes made meanwhile were not captured; "
        f"a task has workers look at every row and document of {again} again"
        for name, why in names.items()
    ]


def _installed(
    watches: Sequence[Watch], rows: RowChanges, todo: TriggerChanges, warnings: tuple[str, ...], *, dry_run: bool
) -> Installed:
    return Installed(
        watches=len(watches),
        tables=_labels(watches),
        added=len(rows.added),
        ended=len(rows.ended),
        functions=len(todo.functions),
        triggers=len(todo.missing),
        dropped=len(todo.extra),
        warnings=warnings,
        dry_run=dry_run,
    )


def _labels(watches: Sequence[Watch], *, but: Sequence[Watch] = ()) -> tuple[str, ...]:
    kept = {watch.definition.table for watch in but}
    return tuple(label(*table) for table in sorted({watch.definition.table for watch in watches} - kept))


# Functions and triggers ------------------------------------------------------------------------------------------------
def statements(todo: TriggerChanges, *, always: bool = False) -> list[str]:
    """
    Return the DDL, in order: functions before the triggers that call them, and the other way round at the end.

    *always* writes it for the owner of all tables, whoever this role is.
    """
    made = [gap(todo.gap)] if todo.gap else []
    for function in todo.functions:
        made += function.create()
        if function.table in todo.powerless:  # CREATE OR REPLACE leaves it to whom it belongs
            made.append(f"ALTER FUNCTION {function.qualified}() OWNER TO CURRENT_USER")
    for each in todo.missing:
        made.append(each.trigger.create(each.member.qualified, each.function.qualified))
        if always or each.member.owned:
            made.append(each.trigger.enable(each.member.qualified))
    made += [f"DROP TRIGGER {quoted(each.name)} ON {quoted(each.schema)}.{quoted(each.table)}" for each in todo.extra]
    return made


def gap(schema: str) -> str:
    """
    Return the statement that makes the sequence in which triggers mark a gap (C6).

    A sequence: tools that drop tables they do not know leave it, and moving it makes no writer wait.
    """
    return f"CREATE SEQUENCE IF NOT EXISTS {quoted(schema)}.opensearch_indexing_gap AS bigint"


def _apply(conn: Connection, todo: TriggerChanges, locks: _Locks) -> None:
    _require_rights(todo)
    locks.take(todo)
    for statement in statements(todo):
        locks.execute(statement)
    if todo.orphans and not todo.functions and todo.kept == 0:
        conn.execute(f"DROP SEQUENCE IF EXISTS {quoted(conn.schema)}.opensearch_indexing_gap".encode())
    for orphan in todo.orphans:
        if orphan.owned:
            conn.execute(f"DROP FUNCTION {quoted(conn.schema)}.{quoted(orphan.name)}()".encode())


def refuse_captured_elsewhere(conn: Connection, todo: TriggerChanges) -> None:
    """Two idxctl in one database would take the triggers of a table from each other, and its changes with them."""
    tables = [each.member.oid for each in todo.missing]
    rows = conn.run(SQL["strangers"], tables=tables, schema=conn.schema).fetchall()
    if rows:
        lines = [
            f"table {label(*table)} is captured already, by the idxctl in schema {theirs}" for *table, theirs in rows
        ]
        raise ConfigError(
            "\n".join(lines),
            hint="a table belongs to one idxctl: bring these indexes into one configuration, or end the other's capture: "
            f'idxctl watch remove, with [database] schema = "{rows[0][2]}"',
        )


def _require_rights(todo: TriggerChanges) -> None:
    """Name every table whose owner is needed, before anything waits or is changed."""
    needed = {
        (each.member.schema, each.member.name): each.member.owner
        for each in todo.missing
        if not each.member.may_trigger
    }
    needed |= {(each.schema, each.table): each.owner for each in todo.extra if not each.owned}
    lines = [f"table {label(*table)} belongs to {owner}" for table, owner in sorted(needed.items())]
    lines += [f"function {each.name} belongs to {each.owner}" for each in todo.strangers]
    if lines:
        raise PostgresRefused(
            "\n".join([f"triggers can be changed by the owner alone, and {lines[0]}", *lines[1:]]),
            sqlstate="42501",
            hint="idxctl watch sql prints the script for the owner or a DBA",
        )


# Locks -----------------------------------------------------------------------------------------------------------------
def _exclude_others(conn: Connection, wait_seconds: float) -> tuple[str, ...]:
    """Be the only installation until the transaction ends; returns what is to be said of the older lock."""
    (key,) = conn.run(SQL["older_lock"], schema=conn.schema).fetchone() or (0,)
    own_lock.take(conn, _WATCHES, _DOING, wait_seconds=wait_seconds)
    return own_lock.take_older(conn, key, _WATCHES, _DOING, wait_seconds=wait_seconds)


def _set_timeout(conn: Connection, seconds: float) -> None:
    conn.execute(f"SET LOCAL lock_timeout = '{max(int(seconds * 1000), 1)}ms'".encode())


@dataclass
class _Locks:
    """Takes the locks that a change of triggers needs, without ever waiting while it holds one."""

    conn: Connection
    wait_seconds: float
    clock: Callable[[], float]
    pause: Callable[[float], None]

    def take(self, todo: TriggerChanges) -> None:
        modes: dict[int, tuple[str, bool]] = {}
        for each in todo.missing:
            if each.member.owned:
                modes.setdefault(each.member.oid, (each.member.qualified, False))
        for extra in todo.extra:
            modes[extra.oid] = (f"{quoted(extra.schema)}.{quoted(extra.table)}", True)
        deadline = self.clock() + self.wait_seconds
        order = list(modes)
        while order:
            blocked = self._take_in_order(order, modes)
            if blocked is None:
                return
            if self.clock() >= deadline:
                raise self._locked(blocked, modes[blocked])
            self.pause(_PAUSE_SECONDS)
            order.remove(blocked)
            order.insert(0, blocked)  # the next try waits for this one, with nothing in hand

    def _take_in_order(self, order: Sequence[int], modes: dict[int, tuple[str, bool]]) -> int | None:
        """Lock all, waiting for the first alone; returns the one that was not to be had, with none held."""
        blocked: int | None = None
        try:
            with self.conn.savepoint():
                for place, oid in enumerate(order):
                    blocked = oid
                    name, exclusive = modes[oid]
                    _set_timeout(self.conn, min(_TRY_SECONDS, self.wait_seconds))
                    mode = "ACCESS EXCLUSIVE" if exclusive else "SHARE ROW EXCLUSIVE"
                    self.conn.execute(f"LOCK TABLE ONLY {name} IN {mode} MODE{' NOWAIT' if place else ''}".encode())
        except PostgresRefused as error:
            if error.sqlstate != "55P03":
                raise
            return blocked
        return None

    def execute(self, statement: str) -> None:
        """Run one statement; a table that was not ours to lock beforehand may still be waited for here."""
        try:
            self.conn.execute(statement.encode())
        except PostgresRefused as error:
            if error.sqlstate != "55P03":
                raise
            raise Locked(f"a table is in use: {error.detail}", hint="try again when it is quiet") from error

    def _locked(self, oid: int, table: tuple[str, bool]) -> Locked:
        held = [
            f"pid {pid} ({user}{', ' + program if program else ''}): {state}, transaction open for {seconds or 0:.0f} s"
            for pid, user, program, state, seconds in self.conn.run(SQL["holders"], oid=oid, exclusive=table[1])
        ]
        return Locked(
            "\n".join(
                [
                    f"table {table[0].replace(chr(34), '')} is in use, and was not free within {self.wait_seconds:g} s",
                    *held,
                ]
            ),
            hint="try again when these transactions have ended, or end them: SELECT pg_terminate_backend(pid)",
        )
