"""PostgreSQL goes away under load, and comes back: nobody is charged for it (P1, P4)."""

import psycopg
import pytest

from idxctl.core.errors import PostgresUnreachable
from idxctl.core.reasons import Kind, Reason
from idxctl.embedded.postgres import Postgres
from idxctl.queue import pause
from support.rig import ITEMS_SCHEMA, Rig, until, write_items
from support.stops import installed
from support.writers import Writers


@pytest.fixture
def own(tmp_path, migrate, opensearch_url, unique_name):
    """A PostgreSQL of the test's own, and a rig on it."""
    with Postgres(tmp_path / "postgres") as server:
        migrate(server.url)
        write_items(tmp_path / "items", unique_name)
        rig = Rig(server.url, opensearch_url, unique_name, tmp_path / "items")
        rig.sql(ITEMS_SCHEMA)
        rig.watch()
        rig.reindex()
        yield server, rig
        rig.close()


def again(rig):
    """The rig of a server that was away: its own connection of the application is gone."""
    found = Rig(rig.database, rig.opensearch, rig.index, rig.directory)
    rig.close()
    return found


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_under_load_is_survived(own, mode):
    server, rig = own
    with Writers(rig.database) as writers, rig.working(workers=3, batch_size=5) as worker:
        for _ in range(3):
            before = worker.counters.indexed
            until(lambda: worker.counters.indexed > before + 50, "nothing is indexed")  # noqa: B023 - called at once
            server.stop(mode)
            server.start()
        before = worker.counters.indexed
        until(lambda: worker.counters.indexed > before + 50, "nothing is indexed after the last restart")
    assert writers.made > 100
    rig = again(rig)
    rig.drain()
    rig.nothing_was_charged()
    rig.close()


@pytest.mark.parametrize("point", ["read.before", "send.done"])
def test_a_batch_of_one_that_meets_the_outage_is_charged_no_attempt(own, point):
    server, rig = own
    with installed() as stops:
        for _ in range(4):  # more often than a document may be tried
            stop = stops.at(point)
            with rig.working(workers=1):
                rig.sql("UPDATE items SET price = price || '1' WHERE id = 1")
                stop.wait()
                server.stop("immediate")
                stop.release()
                server.start()
                rig = again(rig)
                rig.wait_for_rest()
    rig.nothing_was_charged()
    rig.close()


def test_a_claim_whose_answer_was_lost_is_given_back(items):
    with installed() as stops:
        items.enqueue(1)

        def lose_the_answer() -> None:
            raise PostgresUnreachable("lost the connection to PostgreSQL (claim)")

        stops.do("claim.committed", lose_the_answer)
        with items.working(workers=1):
            items.wait_for_rest(seconds=10)  # well before its lease lapses
    items.nothing_was_charged()


def test_a_probe_whose_connection_breaks_after_its_claim_is_given_back(items):
    """Between the claim and the note that keeps others from probing: nobody carries that batch, so nobody may hold it."""
    pause.block(items.conn, items.index, why=Reason(Kind.REFUSED, "flood stage"), by="test", probe_after_seconds=0)
    items.enqueue(1)

    def end_the_session() -> None:
        items.sql("SELECT pg_terminate_backend(%s)", items.pool.mine().raw.info.backend_pid)

    with installed() as stops:
        stops.do("claim.committed", end_the_session)
        with items.working(workers=1):
            items.wait_for_rest(seconds=10)  # well before its lease lapses
    assert pause.pauses(items.conn) == []
    items.nothing_was_charged()


def test_sessions_that_an_administrator_ends_are_replaced(items):
    with items.working(workers=2) as worker:
        until(lambda: items.one("SELECT count(*) FROM opensearch_indexing_workers"), "it does not start")
        for number in range(1, 6):
            items.sql("UPDATE items SET price = price || '1' WHERE id = %s", number)
            items.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'idxctl%' AND datname = current_database()"
            )
        items.wait_for_rest()
        until(lambda: worker.counters.indexed >= 5, "not all were indexed")  # counted once the settle has returned
    items.nothing_was_charged()


def test_a_claim_that_an_administrator_cancels_is_made_again(items):
    with items.working(workers=1), psycopg.connect(items.database) as blocker:
        blocker.execute("LOCK TABLE opensearch_indexing_queue IN ACCESS EXCLUSIVE MODE")
        waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        until(lambda: items.one(f"SELECT count(*) {waiting}"), "nobody waits")
        assert items.one(f"SELECT bool_and(pg_cancel_backend(pid)) {waiting}")
        blocker.rollback()
        items.sql("UPDATE items SET price = '3' WHERE id = 1")
        items.wait_for_rest()
    items.nothing_was_charged()


def test_credentials_that_are_not_there_yet_charge_no_document(items, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    items.configure_client(aws_region="eu-west-1")
    items.enqueue(1)
    hand = items.hand()
    hand.step()
    hand.worker.carrier.give_back(items.conn)
    assert (items.queued(), items.in_flight()) == (1, 0)
    assert items.one("SELECT attempts FROM opensearch_indexing_queue") == 0
