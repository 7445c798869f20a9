"""One run of migrations: one transaction, alone, with limits on its waits; what the server refuses says what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql

from idxctl.core.errors import ConfigError, Locked, PostgresRefused
from idxctl.postgres import own_lock
from idxctl.postgres.bookkeeping import BOOKS, SQL
from idxctl.postgres.connect import Connection
from idxctl.postgres.migrations import Migration

LOCK = 0x69_64_78_63_74_6C_01  # "idxctl", 1: one migration at a time in a database
QUEUE_SECONDS = 60  # how long a run waits for another run
LOCK_SECONDS = 10  # and for a lock on a table: what comes after it waits as long
_MAKING = 3
# Of another first run: the name was taken, the table or its schema is there by now, or is gone again.
_MADE_MEANWHILE = {"23505", "42P06", "42P07", "42P01"}


@contextmanager
def alone(conn: Connection, doing: str, *, default_index: str | None = None) -> Iterator[tuple[str, ...]]:
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


def take_bookkeeping(conn: Connection) -> None:
    """
    Lock the table of migrations, made where it is missing: one run at a time, and the next one sees all of it.

    Two first runs at once make it both: the second hears of a duplicate when the first commits, and finds it then.
    """
    for tried in range(_MAKING):
        try:
            with conn.savepoint():
                _create_schema(conn)
                conn.run(SQL["create_bookkeeping"])
                wait_for_turn(conn)
        except PostgresRefused as error:
            if error.sqlstate not in _MADE_MEANWHILE or tried == _MAKING - 1:
                raise
        else:
            return


def wait_for_turn(conn: Connection) -> None:
    """Lock the table of migrations, which is there, until the end of the transaction: one run at a time."""
    own_lock.take(conn, BOOKS, "migration", wait_seconds=QUEUE_SECONDS)


def _create_schema(conn: Connection) -> None:
    """Create the configured schema where it is missing; IF NOT EXISTS would ask for the right all the same."""
    if conn.execute("SELECT FROM pg_namespace WHERE nspname = %s", (conn.schema,)).fetchone() is None:
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(conn.schema)))


def apply(conn: Connection, step: Migration, text: str) -> None:
    """Run one file of a step; raises `PostgresRefused`, which names the step."""
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
