"""Shutdown: the first signal drains, the second one leaves at once, neither loses anything; and what a start waits for."""

import contextlib
import json
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from idxctl.embedded.ports import free_port
from idxctl.embedded.postgres import Postgres
from support.processes import Process, lapse
from support.rig import ITEMS_SCHEMA, Rig, until, write_items

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
NOWHERE = "http://127.0.0.1:1"


def nothing_is_lost(rig):
    """Nothing was charged, and whoever comes next finishes it."""
    assert rig.letters() == {}
    assert rig.one("SELECT coalesce(max(attempts), 0) FROM opensearch_indexing_queue") == 0
    lapse(rig)
    rig.drain()
    assert rig.differences() == []
    assert rig.letters() == {}


@SIGNALS
def test_the_first_signal_finishes_what_is_in_flight_and_ends_with_0(items, number):
    items.sql("UPDATE items SET name = name || '!'")
    with Process(items, "worker", "start", point="read.done") as process:
        process.wait_until_held()
        process.send(number)
        process.wait_for("1 batches in flight")
        items.sql("UPDATE items SET name = name || '?' WHERE id = 1")
        process.release()
        assert process.status() == 0
        assert "20 indexed" in process.said
    assert items.in_flight() == 0
    assert items.queued() == 1  # what came after the signal is left to others
    assert items.sql("SELECT * FROM opensearch_indexing_workers") == []
    assert items.differences(but=[1]) == []
    nothing_is_lost(items)


@SIGNALS
def test_the_second_signal_leaves_at_once(items, number):
    items.sql("UPDATE items SET name = name || '!'")
    with Process(items, "worker", "start", point="send.done") as process:
        process.wait_until_held()
        process.send(signal.SIGTERM)
        process.wait_for("again to leave at once")
        if number == signal.SIGTERM:  # the same one, which within a second would be the first passed on twice
            threading.Event().wait(1.1)
        process.send(number)
        assert process.status() == 128 + number
    assert items.in_flight() == 1
    nothing_is_lost(items)


def test_a_sigterm_that_is_passed_on_twice_counts_once(items):
    items.sql("UPDATE items SET name = name || '!'")
    with Process(items, "worker", "start", point="send.done") as process:
        process.wait_until_held()
        process.send(signal.SIGTERM)
        process.send(signal.SIGTERM)
        process.wait_for("again to leave at once")
        process.release()
        assert process.status() == 0
    assert items.in_flight() == 0
    nothing_is_lost(items)


def test_what_the_drain_timeout_leaves_over_goes_back_as_it_was(items):
    """Also a document that was alone: no worker was lost, nobody is charged."""
    items.sql("UPDATE items SET name = name || '!' WHERE id = 1")
    with Process(items, "worker", "start", "--drain-timeout", "0s", point="read.done") as process:
        process.wait_until_held()
        process.send(signal.SIGTERM)
        assert process.status() == 0
        assert "their tasks go back to the queue" in process.said
    assert items.in_flight() == 0
    assert items.sql("SELECT document_id, attempts, available_at <= now() FROM opensearch_indexing_queue") == [
        ("1", 0, True)
    ]
    assert items.sql("SELECT * FROM opensearch_indexing_workers") == []
    nothing_is_lost(items)


@contextlib.contextmanager
def hanging_bulks():
    """An OpenSearch that says who it is, and answers nothing else."""
    asked, end = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"version": {"distribution": "opensearch", "number": "3.8.0"}}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            asked.set()
            end.wait()

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_):
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            end.set()
            server.shutdown()


def test_a_bulk_that_hangs_does_not_outlast_the_drain_timeout(items):
    items.sql("UPDATE items SET name = name || '!'")
    with hanging_bulks() as (url, asked):
        env = {"IDXCTL_OPENSEARCH_URL": url}
        with Process(items, "worker", "start", "--drain-timeout", "1s", env=env) as process:
            until(asked.is_set, "no bulk is sent")
            process.send(signal.SIGTERM)
            assert process.status() == 0
    assert items.in_flight() == 0
    nothing_is_lost(items)


def test_a_signal_during_an_outage_of_opensearch_ends_it_with_0(items):
    """It was away at the start as well: workers wait for it."""
    items.sql("UPDATE items SET name = name || '!'")
    with Process(items, "worker", "start", env={"IDXCTL_OPENSEARCH_URL": NOWHERE}) as process:
        process.wait_for("does not answer yet")
        process.wait_for("circuit")
        process.send(signal.SIGTERM)
        assert process.status() == 0
    nothing_is_lost(items)


def test_a_signal_while_documents_back_off_ends_it_with_0_and_keeps_their_attempts(items):
    items.enqueue(1)
    items.sql("UPDATE opensearch_indexing_queue SET attempts = 1, available_at = now() + interval '1 h'")
    with Process(items, "worker", "start") as process:
        process.wait_for("started")
        until(lambda: items.one("SELECT count(*) FROM opensearch_indexing_workers"), "it does not beat")
        process.send(signal.SIGINT)
        assert process.status() == 0
    assert items.sql("SELECT document_id, attempts FROM opensearch_indexing_queue") == [("1", 1)]


# PostgreSQL away -------------------------------------------------------------------------------------------------------


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


def test_a_signal_while_postgresql_is_away_ends_it_with_0(own):
    """With a batch in hand that cannot be settled, and without one."""
    server, rig = own
    rig.sql("UPDATE items SET name = name || '!'")
    with contextlib.ExitStack() as both:
        busy = both.enter_context(Process(rig, "worker", "start", point="send.done"))
        busy.wait_until_held()
        idle = both.enter_context(Process(rig, "worker", "start"))
        until(lambda: rig.one("SELECT count(*) FROM opensearch_indexing_workers") == 2, "they do not beat")
        server.stop()
        idle.wait_for("waiting for it, nothing is lost")
        busy.send(signal.SIGTERM)
        idle.send(signal.SIGTERM)
        busy.wait_for("again to leave at once")
        busy.release()
        assert idle.status() == 0
        assert busy.status() == 0
    server.start()
    again = Rig(rig.database, rig.opensearch, rig.index, rig.directory)
    nothing_is_lost(again)
    again.close()


@SIGNALS
def test_a_signal_before_the_first_connection_stands_ends_it_with_0(items, number):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}/nowhere"
        url = f"postgresql://nobody@{where}?sslmode=disable&gssencmode=disable"
        with Process(items, "worker", "start", env={"IDXCTL_DATABASE_URL": url}) as process:
            silent.settimeout(60)
            while True:  # somebody else may look for a server that had this port
                caller, _ = silent.accept()
                if b"nowhere" in caller.recv(1000):
                    break
            process.send(number)
            assert process.status() == 0


def test_postgresql_must_answer_at_the_start(items):
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/nowhere"
    with Process(items, "worker", "start", env={"IDXCTL_DATABASE_URL": url}) as process:
        assert process.status() == 5
        assert "cannot connect to PostgreSQL at 127.0.0.1" in process.said
