"""G2's lock takes a right on our tables: who has none stops nobody, who has one is named, and older programs keep to it."""

from __future__ import annotations

import threading

import psycopg
import pytest
from psycopg import sql

from idxctl.core.errors import PostgresRefused
from idxctl.indexes import generations
from idxctl.queue import claim, holders, stats
from support.rig import Rig, until

pytestmark = pytest.mark.sampled

OLDER = "hashtextextended('opensearch_indexing generations ' || current_schema(), 0)"


@pytest.fixture
def stranger(items: Rig, unique_name: str):
    """A session of a role that may connect, and nothing else."""
    role = sql.Identifier(f"{unique_name}_stranger")
    items.application.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
    with psycopg.connect(items.database, user=f"{unique_name}_stranger", application_name="nobody") as session:
        yield session
    items.application.execute(sql.SQL("DROP ROLE {}").format(role))


def take(rig: Rig, conn=None):
    return claim.claim(
        conn or rig.conn, index=rig.index, priority=0, worker="test:1:a", limit=10, lease_seconds=30
    )  # fmt: skip


@pytest.mark.parametrize("lock", ["pg_advisory_lock", "pg_advisory_lock_shared"])
def test_a_stranger_who_holds_the_older_lock_stops_no_claim_and_no_change_of_the_set(items: Rig, stranger, lock: str):
    stranger.execute(f"SELECT {lock}({OLDER})")
    items.enqueue(1)
    assert take(items) is not None
    with items.conn.transaction():
        generations.lock_set(items.conn, exclusive=True)
        assert items.sql(
            "SELECT 1 FROM pg_locks WHERE mode = 'ExclusiveLock' AND relation = 'opensearch_indexing_barrier'::regclass"
        )


def test_a_stranger_cannot_take_the_lock(stranger):
    for mode in ("ACCESS SHARE", "ROW SHARE", "EXCLUSIVE", "ACCESS EXCLUSIVE"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            stranger.execute(f"LOCK TABLE opensearch_indexing_barrier IN {mode} MODE")
        stranger.rollback()


def waiting(items: Rig) -> int:
    """How many wait for an advisory lock of this database."""
    return items.one(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )


@pytest.mark.parametrize("mode", ["pg_advisory_xact_lock", "pg_advisory_xact_lock_shared"])
def test_a_change_of_the_set_waits_for_programs_of_the_release_before(items: Rig, mode: str):
    changed = threading.Event()
    mine = items.connect()

    def change() -> None:
        with mine.transaction():
            generations.lock_set(mine, exclusive=True)
            changed.set()

    with psycopg.connect(items.database) as older:
        older.execute(f"SELECT {mode}({OLDER})")
        thread = threading.Thread(target=change, daemon=True)
        thread.start()
        until(lambda: waiting(items), "it does not wait")
        assert not changed.is_set()
    thread.join(30)
    assert changed.is_set()


def test_a_claim_waits_for_a_change_by_a_program_of_the_release_before(items: Rig):
    items.enqueue(1)
    claimed = threading.Event()
    mine = items.connect()

    def claim_it() -> None:
        if take(items, mine) is not None:
            claimed.set()

    with psycopg.connect(items.database) as older:
        older.execute(f"SELECT pg_advisory_xact_lock({OLDER})")
        thread = threading.Thread(target=claim_it, daemon=True)
        thread.start()
        until(lambda: waiting(items), "it does not wait")
        assert not claimed.is_set()
    thread.join(30)
    assert claimed.is_set()


@pytest.mark.parametrize("table", ["queue", "dlq", "inflight", "workers", "migrations", "generations", "watches"])
def test_queue_stats_names_who_keeps_it_from_reading(items: Rig, idxctl, table: str):
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    with psycopg.connect(items.database, application_name="a vacuum") as holder:
        holder.execute(f"LOCK TABLE opensearch_indexing_{table} IN ACCESS EXCLUSIVE MODE")
        number = holder.info.backend_pid
        told = idxctl("queue", "stats")
    assert told.status == 6
    assert f"pid {number}, role" in told.stderr
    assert "a vacuum" in told.stderr
    assert idxctl("queue", "stats").status == 0


@pytest.mark.parametrize(
    "lock", ["opensearch_indexing_barrier IN EXCLUSIVE MODE", "opensearch_indexing_queue IN SHARE ROW EXCLUSIVE MODE"]
)
def test_who_holds_claims_up_is_named(items: Rig, idxctl, monkeypatch, lock: str):
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    monkeypatch.setattr(holders, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(stats, "_HELD_SECONDS", 0.0)
    items.enqueue(1)
    with psycopg.connect(items.database, application_name="a migration") as holder:
        holder.execute(f"LOCK TABLE {lock}")
        with pytest.raises(
            PostgresRefused, match=rf"wait for a lock: pid {holder.info.backend_pid}, role .*a migration"
        ) as said:
            take(items)
        assert said.value.passing
        (found,) = stats.stats(items.conn).held_by
        assert (found.pid, found.application) == (holder.info.backend_pid, "a migration")
        told = until(lambda: "wait for a lock" in (out := idxctl("queue", "stats").stdout) and out, "nobody says so")
        assert "a migration" in told.splitlines()[0]
    assert take(items) is not None
    assert stats.stats(items.conn).held_by == []
