"""Whether what is installed is what is configured, watch by watch, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from idxctl.capture import triggers
from idxctl.capture.catalog import Member, label, require_tables
from idxctl.capture.diff import Missing, TriggerChanges, row_changes, tables_of, trigger_changes
from idxctl.capture.plan import PlannedTable, PlannedWatch, Problem, Survey, survey
from idxctl.capture.watches import Definition, Watch, installed_watches
from idxctl.config.settings import IndexSettings
from idxctl.postgres.connect import Connection

OK = "ok"
NOT_INSTALLED = "not installed"
OUTDATED = "outdated"
MISSING = "missing"
POWERLESS = "powerless"
DISABLED = "disabled"
NEW_PARTITION = "new partition"
TABLE_GONE = "table dropped"
INVALID = "invalid"
COARSE = "coarse"
FAILING = "writes fail"
NOT_CONFIGURED = "not configured"

Reasons = tuple[tuple[str, str], ...]  # a state, and why

# The worst first: changes are being lost, then changes are captured by an older rule.
_WORST = (
    TABLE_GONE,
    INVALID,
    NOT_INSTALLED,
    MISSING,
    POWERLESS,
    DISABLED,
    NEW_PARTITION,
    FAILING,
    COARSE,
    OUTDATED,
    NOT_CONFIGURED,
    OK,
)
LOSING = frozenset({TABLE_GONE, INVALID, NOT_INSTALLED, MISSING, POWERLESS, DISABLED, NEW_PARTITION})


@dataclass(frozen=True)
class WatchStatus:
    """One watch: how it stands, and every reason."""

    index: str
    watch: int  # counted from 1, as in the file
    table: str
    key: str  # how a row leads to its documents
    state: str
    detail: tuple[str, ...] = ()

    @property
    def losing(self) -> bool:
        """Whether changes are lost as long as it stands so."""
        return self.state in LOSING


def status(conn: Connection, indexes: Mapping[str, IndexSettings]) -> list[WatchStatus]:
    """
    Compare configuration, stored watches and triggers; nothing is changed.

    What PostgreSQL cannot tell anybody is not seen here either: ATTACH, DETACH and DROP of a partition, ALTER TYPE and
    changes that were made while a trigger was disabled fired nothing.
    """
    require_tables(conn)
    found, stored = survey(conn, indexes), installed_watches(conn)
    rows = row_changes(stored, found.watches, indexes)
    tables = tables_of(conn, stored)
    todo = trigger_changes(conn, stored, tables)
    there = {table.key for table in tables}
    replaced = {(watch.index, watch.position) for watch in rows.ended}
    new = [addition.watch for addition in rows.added]
    unfit = {(watch.index, watch.position): _unfit(watch, tables) for watch in stored}
    shown = [_configured(each, todo, new, replaced, unfit) for each in found.watches]
    shown += [_broken(problem, rows.ended, unfit, there) for problem in _first_each(found)]
    shown += [_left_over(watch, watch.definition.table in there) for watch in stored if watch.index not in indexes]
    places = {(index.name, watch.position) for index in indexes.values() for watch in index.watches}
    gone = [watch for watch in rows.ended if (watch.index, watch.position) not in places]
    shown += [_left_over(watch, watch.definition.table in there) for watch in gone]
    return sorted(shown, key=lambda one: (one.index, one.watch))


def _configured(
    each: PlannedWatch,
    todo: TriggerChanges,
    new: Sequence[PlannedWatch],
    replaced: set[tuple[str, int]],
    unfit: Mapping[tuple[str, int], Reasons],
) -> WatchStatus:
    table = each.definition.table
    reasons: list[tuple[str, str]] = list(unfit.get((each.index, each.position), ()))
    if each in new:
        changed = (each.index, each.position) in replaced
        reasons.append((OUTDATED, "the configuration or the table changed since") if changed else (NOT_INSTALLED, ""))
    if not any(state == NOT_INSTALLED for state, _ in reasons):
        reasons += _of_triggers(table, todo)
    return _stands(each, reasons)


def _stands(one: PlannedWatch | Watch, reasons: Sequence[tuple[str, str]]) -> WatchStatus:
    """Return a watch with the worst of its reasons, and all of them in words."""
    worst = min((state for state, _ in reasons), key=_WORST.index, default=OK)
    detail = tuple(dict.fromkeys(text for _, text in reasons if text))
    table = label(*one.definition.table)
    return WatchStatus(one.index, one.position + 1, table, _how(one.definition), worst, detail)


def installed(conn: Connection, index: str) -> list[WatchStatus]:
    """Return how the watches of *index* stand as they are installed; the configuration is not needed."""
    stored = installed_watches(conn)
    mine = [watch for watch in stored if watch.index == index]
    tables = tables_of(conn, mine)
    there = {table.key for table in tables}
    todo = trigger_changes(conn, stored, tables)
    return [
        _stands(watch, [*_unfit(watch, tables), *_of_triggers(watch.definition.table, todo)])
        if watch.definition.table in there
        else _stands(watch, [(TABLE_GONE, "")])
        for watch in sorted(mine, key=lambda one: one.position)
    ]


def _of_triggers(table: tuple[str, str], todo: TriggerChanges) -> list[tuple[str, str]]:
    reasons: list[tuple[str, str]] = []
    absent = [each for each in todo.missing if each.table == table and each.why == MISSING]
    for oid in dict.fromkeys(each.member.oid for each in todo.missing if each.table == table):
        mine = [each for each in todo.missing if each.table == table and each.member.oid == oid]
        name = label(mine[0].member.schema, mine[0].member.name)
        whole = mine[0].member.depth > 0 and sum(each in absent for each in mine) >= len(_STATEMENT_EVENTS)
        if whole:
            reasons.append((NEW_PARTITION, f"{name} has no triggers yet{_of_whom(mine[0].member)}"))
            continue
        reasons += [(each.why, f"trigger {each.trigger.name} on {name} {_how_it_stands(each)}") for each in mine]
    if todo.gap:
        reasons.append((OUTDATED, _NO_GAP))
    if table in todo.powerless:
        reasons.append((POWERLESS, _how_powerless(table, todo)))
    elif table in todo.outdated:
        reasons.append((OUTDATED, _how_outdated(table, todo)))
    elif any(function.name for function in todo.functions if function.table == table):
        reasons.append((MISSING, "the trigger function is missing"))
    return reasons


def _of_whom(member: Member) -> str:
    """Name the owner of a table on which this role may make no triggers: `watch install` will refuse."""
    if member.may_trigger:
        return ""
    return f", and belongs to {member.owner}: idxctl watch sql prints what that role or a DBA is to run"


_NO_GAP = "the sequence opensearch_indexing_gap is not there: a change that the queue refuses would be in the server's log alone"


def _how_powerless(table: tuple[str, str], todo: TriggerChanges) -> str:
    return (
        f"the trigger function of {label(*table)} belongs to {todo.powerless[table]}, who may not write the queue: changes are lost "
        "until idxctl watch install"
    )


def _how_outdated(table: tuple[str, str], todo: TriggerChanges) -> str:
    barred = todo.barred.get(table)
    if barred:
        return f"{label(*table)} belongs to {', '.join(barred)}, who cannot add a partition until idxctl watch install"
    return f"the trigger function of {label(*table)} is not the one that belongs here"


def _how_it_stands(each: Missing) -> str:
    if each.was_off:
        return "was enabled by someone: what was written while it was off is not captured; idxctl watch install looks for it"
    return f"is {each.why}"


_STATEMENT_EVENTS = ("insert", "update", "delete", "truncate")


def _first_each(found: Survey) -> list[Problem]:
    """Return one problem a watch, the first."""
    first: dict[tuple[str, int], Problem] = {}
    for problem in found.problems:
        first.setdefault((problem.index, problem.watch.position), problem)
    taken = {(watch.index, watch.position) for watch in found.watches}
    return [problem for place, problem in first.items() if place not in taken]


def _broken(
    problem: Problem,
    ended: Sequence[Watch],
    unfit: Mapping[tuple[str, int], Reasons],
    there: Collection[tuple[str, str]],
) -> WatchStatus:
    """Say what becomes of a watch that cannot be installed as configured: the one that is installed may go on."""
    place = (problem.index, problem.watch.position)
    before = next((watch for watch in ended if (watch.index, watch.position) == place), None)
    watch = problem.watch
    how = ", ".join(watch.key) or (f"({watch.key_sql})" if watch.key_sql else "lookup")
    detail = [problem.what]
    if before is None:
        state = INVALID
    elif before.definition.table not in there:
        state = TABLE_GONE
    elif unfit.get(place):
        state = unfit[place][0][0]
        detail += [text for _, text in unfit[place]]
    else:
        state = OUTDATED
        detail.append("the watch that is installed goes on")
    return WatchStatus(problem.index, watch.position + 1, watch.table, how, state, tuple(detail))


def _unfit(watch: Watch, tables: Sequence[PlannedTable]) -> Reasons:
    """C6: say which of the columns that capture rests on are not what they were, and what every change leaves therefore."""
    table = next((each.table for each in tables if each.key == watch.definition.table), None)
    if table is None:
        return ()
    state, what = (
        (FAILING, "every change fails")
        if watch.definition.strict
        else (COARSE, "every change leaves a coarse task, all of the index is looked at again,")
    )
    reasons = []
    for name, tag in watch.definition.shape:
        column = table.column(name) or table.column(watch.definition.old_names.get(name, name))
        if column is not None and triggers.alike(watch.definition, column.tag, tag):
            continue
        now = f"column {name} of {table.label} is " + ("gone" if column is None else f"{column.type_name} now")
        reasons.append((state, f"{now}: {what} until idxctl watch install"))
    return tuple(reasons)


def _left_over(watch: Watch, table_there: bool) -> WatchStatus:
    one = watch.definition
    state, why = (NOT_CONFIGURED, "installed, and not in this configuration") if table_there else (TABLE_GONE, "")
    return WatchStatus(watch.index, watch.position + 1, label(*one.table), _how(one), state, (why,) if why else ())


def _how(one: Definition) -> str:
    how = ", ".join(one.key) or (f"({one.key_sql})" if one.key_sql else "lookup")
    return f"{how}, deferred" if one.deferred else how


def unwatched(conn: Connection) -> tuple[str, ...]:
    """
    Return the partitions and children of watched tables that have no triggers (C2), for workers and doctor.

    It asks the catalog alone; the configuration is not needed.
    """
    stored = installed_watches(conn)
    todo = trigger_changes(conn, stored, tables_of(conn, stored))
    return tuple(
        dict.fromkeys(
            label(each.member.schema, each.member.name)
            for each in todo.missing
            if each.why == MISSING and each.member.depth
        )
    )


def of_installed(conn: Connection, watches: Sequence[Watch]) -> list[tuple[str, str, str]]:
    """
    Return what is wrong with capture as installed that its triggers' presence does not show: index, state and why.

    A column that it rests on (C6), a function that is not the one that belongs there, a trigger that somebody enabled again.
    """
    tables = tables_of(conn, watches)
    todo = trigger_changes(conn, watches, tables)
    found = [(watch.index, state, what) for watch in watches for state, what in _unfit(watch, tables)]
    for watch in watches:
        table = watch.definition.table
        if todo.gap:
            found.append((watch.index, OUTDATED, _NO_GAP))
        if table in todo.powerless:
            found.append((watch.index, POWERLESS, _how_powerless(table, todo)))
        elif table in todo.outdated:
            found.append((watch.index, OUTDATED, _how_outdated(table, todo)))
        found += [
            (
                watch.index,
                OUTDATED,
                f"trigger {each.trigger.name} on {label(each.member.schema, each.member.name)} {_how_it_stands(each)}",
            )
            for each in todo.missing
            if each.table == table and each.was_off
        ]
    return list(dict.fromkeys(found))
