"""
idxctl's tables: numbered migrations up and down, what they would lose, and the check that every command makes.

A run is one transaction under one lock: it is done or it was not, and a second host waits and then finds nothing to do. Nothing is kept in the session, so PgBouncer in transaction mode may stand in between.

Rules for a new migration (``migrations/NNNNNN_name.up.sql`` and ``.down.sql``):

- Released files never change; a later one corrects an earlier one.
- Additive first: new columns have defaults, new tables and functions are unknown to old workers; what an old worker still
  reads or calls goes a release later. So old and new workers run side by side while a fleet is upgraded.
- It can be run again over its own result (IF NOT EXISTS, OR REPLACE).
- The head of an up file says ``-- Old workers: survive`` (they go on working, and may be started again), ``stop`` (programs
  that do not know it refuse to start) or ``none``. The head of a down file lists the tables whose rows it loses:
  ``-- Loses: table (what its rows are called), ...``.
- Functions pin their search path to ``pg_catalog, pg_temp`` and name the schema of our own objects in their bodies, as
  000003 does; none is executable by PUBLIC; a SECURITY DEFINER trigger function looks at no value before it has checked the
  table. Statements of a step itself set that path before they call anything. Nothing is dropped with CASCADE.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from psycopg import sql

from idxctl.core.errors import ConfigError, Locked, PostgresRefused, Refused, SchemaError, UsageError
from idxctl.postgres import audit, own_lock, surroundings
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load

SQL = load("idxctl.postgres", "migrate.sql")
LOCK = 0x69_64_78_63_74_6C_01  # "idxctl", 1: one migration at a time in a database
BOOKS = "opensearch_indexing_migrations"
DLQ = "opensearch_indexing_dlq"
CAPTURE = "opensearch_indexing_capture"  # how the names of the functions begin that capture triggers run
_MAKING = 3
# Of another first run: the name was taken, the table or its schema is there by now, or is gone again.
_MADE_MEANWHILE = {"23505", "42P06", "42P07", "42P01"}
_OLDEST_SERVER = 140_000  # CREATE OR REPLACE TRIGGER
QUEUE_SECONDS = 60  # how long a run waits for another run
LOCK_SECONDS = 10  # and for a lock on a table: whoever comes after it waits as long

_FILE = re.compile(r"(\d{6})_(\w+)\.up\.sql")
_OLD_WORKERS = re.compile(r"^-- Old workers: (\w+)", re.MULTILINE)
_LOSES = re.compile(r"^-- Loses: (.+)$", re.MULTILINE)
_LOSS = re.compile(r"(\w+) \(([^)]+)\)")


@dataclass(frozen=True)
class Migration:
    """One numbered step, as its files have it."""

    version: int
    name: str
    up: str
    down: str

    @property
    def title(self) -> str:
        """Its number and name, as the file is called."""
        return f"{self.version:06d}_{self.name}"

    @property
    def checksum(self) -> str:
        """Of the up file: tells a file that was edited after it had been applied."""
        return hashlib.sha256(self.up.encode()).hexdigest()

    @property
    def old_workers_survive(self) -> bool:
        """Whether programs that do not know this step go on working over it."""
        found = _OLD_WORKERS.search(self.up)
        return found is not None and found.group(1) == "survive"

    @property
    def loses(self) -> tuple[tuple[str, str], ...]:
        """The tables whose rows the way down loses, each with the word for its rows."""
        return tuple((table, word) for line in _LOSES.findall(self.down) for table, word in _LOSS.findall(line))


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


@dataclass(frozen=True)
class DownPlan:
    """What a way down would undo and lose, and what stands against it."""

    version: int
    to: int
    undoes: tuple[str, ...]
    loses: tuple[tuple[str, int], ...]  # what, how many; without the empty ones
    triggers: tuple[str, ...] = ()  # capture triggers: nothing overrides them
    in_flight: int = 0
    workers: tuple[str, ...] = ()  # seen lately
    holds: tuple[str, ...] = ()  # "tasks in the queue (41)": overridden by force


# Files --------------------------------------------------------------------------------------------------------------


def directory() -> Path:
    """Find the migrations: in the package (a wheel), otherwise in the checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "migrations", package.parent / "migrations"):
        if candidate.is_dir() and any(candidate.glob("*.up.sql")):
            return candidate
    raise ConfigError("idxctl's migrations are missing from this installation", hint="install idxctl again")


def known(place: Path | None = None) -> tuple[Migration, ...]:
    """Return the migrations of this program, in order."""
    return _read(place or directory())


@lru_cache(maxsize=8)
def _read(place: Path) -> tuple[Migration, ...]:
    found = []
    for path in sorted(place.glob("*.up.sql")):
        named = _FILE.fullmatch(path.name)
        if named is None:
            raise ConfigError(f"migration {path.name} is not called NNNNNN_name.up.sql")
        down = path.with_name(path.name.replace(".up.sql", ".down.sql"))
        found.append(
            Migration(
                version=int(named.group(1)),
                name=named.group(2),
                up=path.read_text(encoding="utf-8"),
                down=down.read_text(encoding="utf-8") if down.exists() else "",
            )
        )
    if [step.version for step in found] != list(range(1, len(found) + 1)):
        raise ConfigError(f"migrations are not numbered from 1 on: {', '.join(step.title for step in found)}")
    return tuple(found)


# Up -----------------------------------------------------------------------------------------------------------------


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
    with _alone(conn, "migrate up", default_index=default_index) as passed_over:
        _take_bookkeeping(conn)
        applied = _applied(conn)
        _refuse_newer(applied, steps)
        if not applied and target > 0:
            surroundings.refuse_strangers(conn)
        adoptable = _adoptable(conn)
        ran = []
        for step in steps[:target]:
            if step.version in applied and not repair:
                continue
            _apply(conn, step, step.up)
            if step.version in applied:
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
        version = max([*applied, *(step.version for step in steps[:target])], default=0)
        adopted = adoptable if adoptable is not None and _adoptable(conn) is None else 0
        if version > 0 and default_index is not None:
            conn.run(SQL["set_default_index"], index=default_index)
        index = _setting(conn, "default_index") if adopted else None
        if ran:
            _note(conn, "migrate up", f"to version {version}", len(ran), {"applied": ran})
        notes = tuple(
            f"{place}.{DLQ} is an older DLQ table outside schema {conn.schema}: it stays as it is"
            for place in _older(conn, "public")
            if place != conn.schema
        )
        notes += passed_over
        made = [step.up for step in steps if step.version in applied or step.title in ran]
        notes += surroundings.warnings(conn, surroundings.look(conn, made))
    return Migrated(applied=tuple(ran), version=version, adopted=adopted, adopted_index=index, notes=notes)


@contextmanager
def _alone(conn: Connection, doing: str, *, default_index: str | None = None) -> Iterator[tuple[str, ...]]:
    """
    Open the one transaction of a run, with limits on its waits; yields what is to be said of the lock.

    It is alone beside programs of the release before; beside others of this one once it has `_take_bookkeeping`.
    """
    with _explained(conn, doing), conn.transaction():
        passed_over = own_lock.take_older(conn, LOCK, BOOKS, "migration", wait_seconds=QUEUE_SECONDS)
        conn.execute(
            """SELECT set_config('idxctl.default_index', %s, true),
                      set_config('lock_timeout', %s, true), set_config('statement_timeout', '0', true),
                      set_config('client_min_messages', 'warning', true)""",
            (default_index or "", f"{LOCK_SECONDS}s"),
        )
        yield passed_over


@contextmanager
def _explained(conn: Connection, doing: str) -> Iterator[None]:
    """Turn the server's refusals that people can do something about into errors that say what."""
    try:
        yield
    except PostgresRefused as error:
        if error.sqlstate in {"IDX01", "IDX02"}:
            raise ConfigError(error.detail, hint=error.hint) from error
        if error.sqlstate == "55P03":
            raise Locked(
                f"{doing} waited {LOCK_SECONDS} s for a lock on a table, then gave up; nothing was changed",
                hint="an open transaction holds it: see pg_stat_activity and pg_blocking_pids(), then run it again",
            ) from error
        if error.sqlstate == "42501":
            raise PostgresRefused(
                f"{doing}: {error.detail}; nothing was changed",
                sqlstate=error.sqlstate,
                detail=error.detail,
                hint=_rights_hint(conn, error.detail),
            ) from error
        raise


def _rights_hint(conn: Connection, detail: str) -> str:
    schema = sql.Identifier(conn.schema).as_string(conn.raw)
    user = sql.Identifier(conn.raw.info.user).as_string(conn.raw)
    if "owner" in detail:
        return f"run it as the owner of the table, or make {user} its owner: ALTER TABLE ... OWNER TO {user}"
    if "database" in detail:
        return f"as an administrator: CREATE SCHEMA {schema} AUTHORIZATION {user}"
    return (
        f"as an administrator: GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}; "
        "or give idxctl a schema of its own: [database] schema"
    )


def _take_bookkeeping(conn: Connection) -> None:
    """
    Lock the table of migrations, made where it is missing: one run at a time, and the next one sees all of it.

    Two first runs at once make it both: the second hears of a duplicate when the first commits, and finds it then.
    """
    for tried in range(_MAKING):
        try:
            with conn.savepoint():
                _create_schema(conn)
                conn.run(SQL["create_bookkeeping"])
                own_lock.take(conn, BOOKS, "migration", wait_seconds=QUEUE_SECONDS)
        except PostgresRefused as error:
            if error.sqlstate not in _MADE_MEANWHILE or tried == _MAKING - 1:
                raise
        else:
            return


def _create_schema(conn: Connection) -> None:
    """Create the configured schema where it is missing; IF NOT EXISTS would ask for the right all the same."""
    if conn.execute("SELECT FROM pg_namespace WHERE nspname = %s", (conn.schema,)).fetchone() is None:
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(conn.schema)))


def _apply(conn: Connection, step: Migration, text: str) -> None:
    try:
        with conn.under(sql.Identifier(conn.schema).as_string(None) + ", pg_temp"):
            conn.execute(text)
    except PostgresRefused as error:
        if error.sqlstate in {"IDX01", "IDX02", "55P03", "42501"}:
            raise
        raise PostgresRefused(
            f"migration {step.title} failed and nothing was changed: {error.detail}",
            sqlstate=error.sqlstate,
            detail=error.detail,
            hint=error.hint,
        ) from error


# Down ---------------------------------------------------------------------------------------------------------------


def plan_down(conn: Connection, *, to: int, steps: tuple[Migration, ...] | None = None) -> DownPlan:
    """Say what going down to version *to* would undo and lose, and what stands against it. Changes nothing."""
    steps = known() if steps is None else steps
    applied = _applied(conn) if _exists(conn, "opensearch_indexing_migrations") else {}
    _refuse_newer(applied, steps)
    version = max(applied, default=0)
    if not 0 <= to <= version:
        raise UsageError(f"cannot go down to version {to}", hint=f"the database is at version {version}")
    undone = [step for step in reversed(steps) if step.version > to and step.version in applied]
    loses = []
    for step in undone:
        for table, word in step.loses:
            if _exists(conn, table) and (rows := _lost(conn, table)):
                loses.append((word, rows))
    counts = dict(loses)
    holds = tuple(f"{word} ({counts[word]:,})" for word in ("tasks in the queue", "dead letters") if word in counts)
    in_flight = 0
    workers: tuple[str, ...] = ()
    if applied:
        in_flight = int(_scalar(conn, "in_flight"))
        workers = tuple(row[0] for row in conn.run(SQL["live_workers"]))
    return DownPlan(
        version=version,
        to=to,
        undoes=tuple(step.title for step in undone),
        loses=tuple(loses),
        triggers=tuple(row[0] for row in conn.run(SQL["capture_triggers"], schema=conn.schema, prefix=CAPTURE)),
        in_flight=in_flight,
        workers=workers,
        holds=holds,
    )


def refuse_down(plan: DownPlan, *, force: bool) -> None:
    """Raise `Refused` if something stands against *plan*. Pure."""
    if not plan.undoes:
        return
    if plan.triggers:
        some = ", ".join(plan.triggers[:3]) + (f" and {len(plan.triggers) - 3} more" if len(plan.triggers) > 3 else "")
        raise Refused(
            f"capture triggers are installed ({some}): without idxctl's tables every write of the application would fail",
            hint="idxctl watch remove, then idxctl migrate down",
        )
    if force:
        return
    if plan.in_flight or plan.workers:
        busy = []
        if plan.workers:
            busy.append(f"seen in the last minute: {', '.join(plan.workers[:3])}")
        if plan.in_flight:
            busy.append(f"tasks in flight: {plan.in_flight:,}")
        raise Refused("workers are at work: " + "; ".join(busy), hint="stop them first, or --force")
    if plan.holds:
        raise Refused(
            f"this would lose {' and '.join(plan.holds)}",
            hint="let workers finish and purge the letters first, or --force",
        )


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

    Refuses as `refuse_down` says; an audit row stays as long as there is a table for it. Below version 1 nothing of idxctl
    is left but the schema.
    """
    steps = known() if steps is None else steps
    with _alone(conn, "migrate down"):
        if _exists(conn, BOOKS):
            own_lock.take(conn, BOOKS, "migration", wait_seconds=QUEUE_SECONDS)
        target = down_target(conn, to=to, count=count)
        _hold(conn)
        plan = plan_down(conn, to=target, steps=steps)
        refuse_down(plan, force=force)
        for step in sorted((s for s in steps if s.title in plan.undoes), key=lambda s: -s.version):
            if not step.down:
                raise Refused(f"migration {step.title} has no way down")
            _apply(conn, step, step.down)
            conn.run(SQL["forget"], version=step.version)
        if plan.undoes and target > 0:
            detail = {"undone": list(plan.undoes), "lost": dict(plan.loses), "force": force}
            _note(conn, "migrate down", f"version {plan.version} to {target}", len(plan.undoes), detail)
        if target == 0:
            conn.run(SQL["drop_bookkeeping"])
    return Migrated(applied=plan.undoes, version=target)


def _note(conn: Connection, action: str, what: str, count: int, detail: dict[str, Any]) -> None:
    """Leave an audit row: by the function where this version of the tables has it, otherwise by the owner's right."""
    if _exists_function(conn, "opensearch_indexing_audit_write"):
        audit.record(conn, action=action, what=what, count=count, detail=detail)
    elif _exists(conn, "opensearch_indexing_audit"):
        given = {"action": action, "what": what, "operator": conn.actor.name, "detail": json.dumps(detail)}
        conn.run(audit.SQL["record_without_function"], **given)


def _hold(conn: Connection) -> None:
    """Lock what is about to be counted: nothing is enqueued, claimed or buried between the look and the drop."""
    for table in ("opensearch_indexing_queue", "opensearch_indexing_inflight", DLQ):
        if _exists(conn, table):
            conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(conn.schema, table)))


def down_target(conn: Connection, *, to: int | None, count: int | None) -> int:
    """Return the version that *to* or *count* steps mean here."""
    if to is not None and count is not None:
        raise UsageError("--to and --steps exclude each other")
    if to is not None:
        return to
    version = max(_applied(conn), default=0) if _exists(conn, "opensearch_indexing_migrations") else 0
    return max(version - (1 if count is None else count), 0)


# Looking ------------------------------------------------------------------------------------------------------------


def status(conn: Connection, *, steps: tuple[Migration, ...] | None = None) -> MigrationStatus:
    """Say where the database stands. Changes nothing."""
    steps = known() if steps is None else steps
    applied = _applied(conn) if _exists(conn, "opensearch_indexing_migrations") else {}
    by_version = {step.version: step for step in steps}
    found = surroundings.look(conn, [step.up for step in steps if step.version in applied])
    return MigrationStatus(
        version=max(applied, default=0),
        pending=tuple(step.title for step in steps if step.version not in applied),
        wanted=len(steps),
        unknown=tuple(row.title for row in applied.values() if row.version not in by_version),
        edited=tuple(
            row.title
            for row in applied.values()
            if row.version in by_version and row.checksum != by_version[row.version].checksum
        ),
        adoptable=_adoptable(conn),
        owner=found.owner,
        missing=found.missing,
        warnings=surroundings.warnings(conn, found),
        applied=tuple((row.title, row.applied_at, row.applied_by) for row in applied.values()),
    )


def refuse_old_server(version: int) -> None:
    """Raise `ConfigError` for a server, by its version as libpq counts, that is older than what the tests run on."""
    if version < _OLDEST_SERVER:
        raise ConfigError(
            f"PostgreSQL {version // 10_000} is too old: its triggers cannot be replaced without a gap",
            hint=f"PostgreSQL {_OLDEST_SERVER // 10_000} or newer is needed",
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
        if _scalar(conn, "hidden", schema=conn.schema):
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


@dataclass(frozen=True)
class _Applied:
    version: int
    name: str
    applied_at: str
    checksum: str
    applied_by: str

    @property
    def title(self) -> str:
        return f"{self.version:06d}_{self.name}"


def _applied(conn: Connection) -> dict[int, _Applied]:
    return {row[0]: _Applied(row[0], row[1], row[2].isoformat(), row[3], row[4]) for row in conn.run(SQL["applied"])}


def _refuse_newer(applied: dict[int, _Applied], steps: tuple[Migration, ...]) -> None:
    newer = [row.title for row in applied.values() if row.version > len(steps)]
    if newer:
        raise SchemaError(
            f"idxctl's tables are newer than this program: it does not know {', '.join(newer)}",
            hint="upgrade idxctl on this host",
        )


def _exists(conn: Connection, table: str) -> bool:
    return bool(_scalar(conn, "exists", schema=conn.schema, table=table))


def _exists_function(conn: Connection, name: str) -> bool:
    return bool(_scalar(conn, "exists_function", schema=conn.schema, function=name))


def _scalar(conn: Connection, statement: str, **parameters: object) -> Any:
    row = conn.run(SQL[statement], **parameters).fetchone()
    return row[0] if row else None


def _count(conn: Connection, table: str) -> int:
    row = conn.pinned(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(conn.schema, table))).fetchone()
    return int(row[0]) if row else 0


def _lost(conn: Connection, table: str) -> int:
    """Count the rows that going down loses: of an adopted DLQ table only those its older shape cannot hold."""
    if table == DLQ and _setting(conn, "dlq_adopted") is not None:
        return int(_scalar(conn, "letters_lost"))
    return _count(conn, table)


def _setting(conn: Connection, name: str) -> str | None:
    value = _scalar(conn, "setting", name=name)
    return None if value is None else str(value)


def _adoptable(conn: Connection) -> int | None:
    """Count the letters of a DLQ table of the older shape; None where there is none."""
    return _count(conn, DLQ) if _older(conn, conn.schema) else None


def _older(conn: Connection, *schemas: str) -> list[str]:
    return [row[0] for row in conn.run(SQL["older_dlq"], schemas=list(schemas), table=DLQ, trigger=f"{DLQ}_letter")]


# For a DBA ----------------------------------------------------------------------------------------------------------


def offline_sql(
    *, from_: int = 0, to: int | None = None, schema: str | None = None, default_index: str | None = None
) -> str:
    """
    Return a script that does what `up` does from version *from_*, to be read first and run by psql or any other client.

    It is one transaction and checks that the database stands at *from_*. Without a *schema*, the first of the search path
    of whoever runs it.
    """
    steps = known()
    target = len(steps) if to is None else to
    if not 0 <= from_ <= target <= len(steps):
        raise UsageError(f"cannot go from version {from_} to {target}", hint=f"this program knows 1 to {len(steps)}")
    if schema is None:
        place = (
            "SELECT pg_catalog.set_config('search_path', pg_catalog.quote_ident(pg_catalog.current_schema()::pg_catalog.text) "
            "OPERATOR(pg_catalog.||) ', pg_temp', true);"
        )
        create = ""
    else:
        name = sql.Identifier(schema).as_string(None)
        place = f"SET LOCAL search_path = {name}, pg_temp;"
        create = f"CREATE SCHEMA IF NOT EXISTS {name};\n"
    index = sql.quote(default_index or "")
    parts = [
        f"""\
-- idxctl migrate, version {from_} to {target}: the same as `idxctl migrate up`, to be run by hand.
-- One transaction: all of it or nothing. Run it as the role that is to own the tables, or does own them.
-- Locks: new tables disturb nobody. An existing table opensearch_indexing_dlq of the older shape is locked and rewritten,
-- some seconds for 100,000 rows; its times without a zone are read in the session's time zone (SHOW TimeZone).
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = '{LOCK_SECONDS}s';
SET LOCAL statement_timeout = 0;
SET LOCAL client_min_messages = warning;
{create}{place}
SELECT pg_catalog.set_config('idxctl.default_index', {index}, true);

{SQL["create_bookkeeping"].text}
SET LOCAL lock_timeout = '{QUEUE_SECONDS}s';
LOCK TABLE {BOOKS} IN SHARE UPDATE EXCLUSIVE MODE;    -- one run at a time
SELECT pg_catalog.pg_try_advisory_xact_lock({LOCK});    -- which programs of the release before wait for
SET LOCAL lock_timeout = '{LOCK_SECONDS}s';
DO $guard$
DECLARE
    place text := pg_catalog.current_setting('search_path');
    schema name := pg_catalog.current_schema();
    tables oid := 'opensearch_indexing_migrations'::pg_catalog.regclass;
    owner name;
    version integer;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT pg_get_userbyid(relowner) INTO owner FROM pg_class WHERE oid = tables;
    IF NOT pg_has_role(current_user, owner, 'USAGE') THEN
        RAISE EXCEPTION 'idxctl''s tables belong to %, and this is run by %', owner, current_user
            USING HINT = format('SET ROLE %I, or connect as it', owner);
    END IF;
    IF {from_} = 0 AND EXISTS (
        SELECT FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) AS a
        WHERE n.nspname = schema AND a.grantee = 0 AND a.privilege_type = 'CREATE') THEN
        RAISE EXCEPTION 'everybody may create functions in schema %', schema
            USING HINT = format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, or a schema of its own: [database] schema', schema);
    END IF;
    EXECUTE format('SELECT coalesce(max(version), 0) FROM %s', tables::regclass) INTO version;
    IF version <> {from_} THEN
        RAISE EXCEPTION 'this script starts at version {from_}, the database is at %', version;
    END IF;
    PERFORM set_config('search_path', place, true);
END $guard$;
"""
    ]
    for step in steps[from_:target]:
        survive = "true" if step.old_workers_survive else "false"
        parts.append(
            f"""
-- {step.title} {"-" * (100 - len(step.title))}
{step.up}
INSERT INTO opensearch_indexing_migrations (version, name, checksum, old_workers, applied_by)
VALUES ({step.version}, {sql.quote(step.name)}, {sql.quote(step.checksum)}, {survive}, session_user || ' (sql)');
"""
        )
    if target > 0 and default_index is not None:
        parts.append(
            f"""
INSERT INTO opensearch_indexing_settings (name, value) VALUES ('default_index', {index}) ON CONFLICT (name) DO NOTHING;
"""
        )
    parts.append("\nCOMMIT;\n")
    return "".join(parts)
