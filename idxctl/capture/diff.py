"""What separates the triggers that are there from those that should be: the one comparison behind install, status and sql."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from idxctl.capture import catalog, triggers
from idxctl.capture.catalog import SQL, Member, quoted
from idxctl.capture.plan import PlannedTable, PlannedWatch
from idxctl.capture.triggers import Function, Trigger
from idxctl.capture.watches import Watch, serving
from idxctl.postgres.connect import Connection


# Rows of opensearch_indexing_watches ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class Addition:
    """A watch that needs a row of its own; it goes on from the *watermark* of the one it replaces."""

    watch: PlannedWatch
    watermark: datetime | None


@dataclass(frozen=True)
class RowChanges:
    """What becomes of the stored watches. A row is never changed but for its place: tasks name it."""

    kept: tuple[Watch, ...]
    moved: tuple[tuple[int, int], ...]  # id, position
    ended: tuple[Watch, ...]
    added: tuple[Addition, ...]

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.moved or self.ended or self.added)


def row_changes(stored: Sequence[Watch], planned: Sequence[PlannedWatch], indexes: Iterable[str]) -> RowChanges:
    """Compare stored watches with the *planned* ones of *indexes*; those of other indexes stay as they are."""
    ours = set(indexes)
    kept = [watch for watch in stored if watch.index not in ours]
    free = [watch for watch in stored if watch.index in ours]
    moved, added = [], []
    for wanted in planned:
        fingerprint = wanted.definition.fingerprint
        same = [watch for watch in free if watch.index == wanted.index and watch.fingerprint == fingerprint]
        if not same:
            added.append(wanted)
            continue
        found = min(same, key=lambda watch: abs(watch.position - wanted.position))
        free.remove(found)
        kept.append(found)
        if found.position != wanted.position:
            moved.append((found.id, wanted.position))
    return RowChanges(tuple(kept), tuple(moved), tuple(free), tuple(Addition(w, _watermark(w, free)) for w in added))


def _watermark(wanted: PlannedWatch, ended: Sequence[Watch]) -> datetime | None:
    """Return the watermark of a watch that is replaced by *wanted* and looks at the same column."""
    one = wanted.definition
    marks = [
        watch.at_watermark
        for watch in ended
        if one.at
        and watch.index == wanted.index
        and watch.definition.table == one.table
        and watch.definition.at == one.at
    ]
    return min((mark for mark in marks if mark is not None), default=None)


# Functions and triggers ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Missing:
    """A trigger to be made or replaced, and why: missing, outdated, disabled."""

    member: Member
    table: tuple[str, str]  # the watched one, at the root
    trigger: Trigger
    function: Function
    why: str
    was_off: bool = False  # enabled again by somebody, and not as it was installed


@dataclass(frozen=True)
class Found:
    """A trigger of ours that is there."""

    oid: int  # of its table
    schema: str
    table: str
    name: str
    function: str
    enabled: str  # O, A, D, R
    type_bits: int
    old: bool
    new: bool
    arguments: bytes
    comment: str
    owned: bool
    owner: str
    copies_disabled: bool


@dataclass(frozen=True)
class StoredFunction:
    """A trigger function of ours that is there."""

    oid: int
    name: str
    body: str
    comment: str
    definer: bool
    owner: str
    owned: bool
    public: bool  # everybody may execute it
    executors: list[str]  # roles that it was granted to, quoted
    settings: list[str]  # name=value, as PostgreSQL keeps them
    writes: bool  # its owner, with whose rights it runs, may write the queue


@dataclass(frozen=True)
class TriggerChanges:
    """What is to be done to functions and triggers."""

    functions: tuple[Function, ...]  # to be made or replaced
    outdated: tuple[tuple[str, str], ...]  # tables whose function is there and says something else
    powerless: Mapping[tuple[str, str], str]  # tables whose function cannot write the queue: its owner
    barred: Mapping[tuple[str, str], tuple[str, ...]]  # tables and their owners, quoted, who may not add a partition
    missing: tuple[Missing, ...]
    extra: tuple[Found, ...]  # triggers that nothing asks for any more
    orphans: tuple[StoredFunction, ...]
    strangers: tuple[StoredFunction, ...]  # functions to be replaced that belong to somebody else
    kept: int = 0  # functions that are asked for
    gap: str = (
        ""  # the schema in which the sequence of gaps is to be made; none where it is there, or asked for by nothing
    )

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.functions or self.missing or self.extra or self.orphans or self.gap)


def trigger_changes(conn: Connection, watches: Sequence[Watch], tables: Sequence[PlannedTable]) -> TriggerChanges:
    """Compare what *watches* over *tables* ask for with the catalog."""
    there = {row[1]: StoredFunction(*row) for row in conn.run(SQL["functions"], schema=conn.schema)}
    found = {(row[0], row[3]): Found(*row) for row in conn.run(SQL["triggers"], schema=conn.schema)}
    functions: list[Function] = []
    outdated: list[tuple[str, str]] = []
    barred: dict[tuple[str, str], tuple[str, ...]] = {}
    powerless: dict[tuple[str, str], str] = {}
    missing: list[Missing] = []
    wanted_functions: set[str] = set()
    wanted_triggers: set[tuple[int, str]] = set()
    for planned in tables:
        mine = serving(watches, planned.key)
        if not mine:
            continue
        function = triggers.function(
            conn.schema, planned.key, mine, partitioned=planned.table.kind == "p", executors=_executors(planned)
        )
        wanted_functions.add(function.name)
        stored = there.get(function.name)
        if stored is None or not _same(stored, function):
            functions.append(function)
            outdated += [planned.key] if stored else []
            if stored and not stored.writes:
                powerless[planned.key] = stored.owner
            if stored and (without := [one for one in function.executors if one not in stored.executors]):
                barred[planned.key] = tuple(without)
        for member in planned.members:
            for trigger in triggers.triggers(member, root_kind=planned.table.kind):
                wanted_triggers.add((member.oid, trigger.name))
                there_now = found.get((member.oid, trigger.name))
                why = _wrong(there_now, trigger, function)
                if why:
                    was_off = there_now is not None and there_now.enabled == "O" and there_now.owned
                    missing.append(Missing(member, planned.key, trigger, function, why, was_off))
    extra = tuple(each for key, each in found.items() if key not in wanted_triggers)
    return TriggerChanges(
        functions=tuple(functions),
        outdated=tuple(outdated),
        barred=barred,
        powerless=powerless,
        missing=tuple(missing),
        extra=extra,
        orphans=tuple(each for name, each in there.items() if name not in wanted_functions),
        strangers=tuple(there[each.name] for each in functions if each.name in there and not there[each.name].owned),
        kept=len(wanted_functions),
        gap=conn.schema if wanted_functions and not _gap_is_there(conn) else "",
    )


def _gap_is_there(conn: Connection) -> bool:
    (there,) = conn.run(SQL["gap_is_there"], gap=f"{quoted(conn.schema)}.opensearch_indexing_gap").fetchone() or (True,)
    return bool(there)


def _executors(planned: PlannedTable) -> tuple[str, ...]:
    """Return the roles that may add partitions."""
    return tuple(sorted({member.owner for member in planned.members if member.kind == "p"}))


def _same(stored: StoredFunction, wanted: Function) -> bool:
    if not (stored.definer and stored.writes and wanted.runs_under(stored.settings)) or stored.public:
        return False
    return stored.body == wanted.body and stored.comment == wanted.comment


def _wrong(found: Found | None, wanted: Trigger, function: Function) -> str | None:
    """Say what is wrong with a trigger: missing, disabled or outdated; None when nothing is."""
    if found is None:
        return "missing"
    if found.enabled in {"D", "R"} or found.copies_disabled:
        return "disabled"
    arguments = wanted.argument.encode() + b"\0" if wanted.argument else b""
    shape = (found.function, found.type_bits, found.old, found.new, found.arguments)
    if shape != (function.name, wanted.type_bits, wanted.old, wanted.new, arguments):
        return "outdated"
    # Without ALWAYS a session in replication role writes unseen; only the owner may say so.
    return "outdated" if found.enabled == "O" and found.owned else None


def tables_of(conn: Connection, watches: Sequence[Watch]) -> tuple[PlannedTable, ...]:
    """Return the tables of stored watches as the catalog has them now; those that are gone are left out."""
    found = []
    for schema, name in sorted({watch.definition.table for watch in watches}):
        row = conn.run(SQL["resolve"], name=f"{quoted(schema)}.{quoted(name)}").fetchone()
        table = catalog.table(conn, row[0]) if row and row[0] else None
        if table is not None and table.kind in {"r", "p"}:
            found.append(PlannedTable(table, catalog.members(conn, table.oid)))
    return tuple(found)
