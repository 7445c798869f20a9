"""Leases: kept while their worker lives, taken over when it is gone; and the age of bytes (T3)."""

import itertools
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import psycopg
import pytest

from idxctl.queue import rescue
from idxctl.worker import registry
from support.processes import HERE, PATIENCE, Process, environment, lapse
from support.rig import until

MINUTES = "\n[worker]\nlease = '10m'\n"


def configure(rig, more):
    rig.configure(toml=rig.config.read_text() + more)


@contextmanager
def locked(rig, *tables):
    """Hold tables so that any statement about them waits."""
    with psycopg.connect(rig.database) as connection:
        connection.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE")
        yield


def a_worker(rig):
    return rig.one("SELECT id FROM opensearch_indexing_workers")


# Renewal -------------------------------------------------------------------------------------------------------------


def test_a_batch_of_a_living_worker_is_nobody_elses_however_long_it_takes(items, stops):
    """Its janitor hangs in one statement and its beats in another: leases are renewed all the same."""
    items.sql("UPDATE items SET name = name || '!'")
    stop = stops.at("read.done")
    with items.working(workers=1, lease_seconds=2.0) as worker:
        stop.wait()
        lease = "SELECT lease_until FROM opensearch_indexing_inflight"
        first = items.one(lease)
        with locked(items, "opensearch_indexing_watches", "opensearch_indexing_workers"):
            until(
                lambda: (
                    rescue.rescue(items.conn, max_attempts=3) or items.one("SELECT now() > %s + '2 s'::interval", first)
                ),
                "time stands still",
            )
            assert items.in_flight() == 1
            assert items.one(lease) > first
        stop.release()
        items.wait_for_rest()
    assert worker.counters.lost == 0
    assert items.differences() == []


def test_a_batch_that_is_being_settled_does_not_hold_up_the_renewal_of_others(items):
    from idxctl.queue import claim

    batches = []
    for number in (1, 2):
        items.enqueue(number)
        batches.append(items.hand().claim()[0].token)
    items.conn.execute("SET lock_timeout = '2s'")
    with psycopg.connect(items.database) as settling:
        settling.execute("DELETE FROM opensearch_indexing_inflight WHERE token = %s", (batches[0],))
        assert claim.renew(items.conn, batches, lease_seconds=30) == {batches[1]}


# A worker that is gone -----------------------------------------------------------------------------------------------


def killed_with_a_batch(rig):
    """A worker that was killed with a batch in hand whose lease has minutes to go."""
    configure(rig, MINUTES)
    with Process(rig, "worker", "start", point="read.done") as process:
        rig.sql("UPDATE items SET name = name || '!'")
        process.wait_until_held()
        until(lambda: rig.one("SELECT session_pid FROM opensearch_indexing_workers"), "no session is named")


def long_connected(rig):
    """A connection that has seen others come back, had they been able to."""
    conn = rig.connect()
    age = "SELECT now() - backend_start > %s * interval '1 s' FROM pg_stat_activity WHERE pid = %s"
    until(lambda: rig.one(age, registry.GONE_SECONDS, conn.raw.info.backend_pid), "time stands still")
    return conn


def test_what_a_killed_worker_held_is_taken_over_although_its_lease_stands(items):
    killed_with_a_batch(items)
    assert items.one("SELECT lease_until - now() > interval '8 min' FROM opensearch_indexing_inflight")
    items.drain()
    assert items.differences() == []
    assert items.letters() == {}


def test_a_worker_whose_sessions_tell_nothing_keeps_its_batch_until_the_lease_lapses(items):
    """Behind a pooler no session is named."""
    killed_with_a_batch(items)
    items.sql(
        "UPDATE opensearch_indexing_workers SET session_pid = NULL, session_start = NULL, seen_at = now() - interval '1 h'"
    )
    me = long_connected(items)
    assert registry.gone(me, "me") == []
    lapse(items)
    items.drain()
    assert items.differences() == []


def test_who_has_just_connected_leaves_others_the_time_to_come_back(items):
    """After a restart of the server or a failover nobody's session is known to it."""
    killed_with_a_batch(items)
    items.sql("UPDATE opensearch_indexing_workers SET seen_at = now() - interval '1 h'")
    assert registry.gone(items.connect(), "me") == []


def test_a_living_worker_whose_connections_broke_is_not_taken_for_gone(items, stops):
    watcher = long_connected(items)
    items.sql("UPDATE items SET name = name || '!'")
    stop = stops.at("read.done")
    with items.working(workers=1) as worker:
        stop.wait()
        session = "SELECT session_pid FROM opensearch_indexing_workers"
        with psycopg.connect(items.database, autocommit=True) as other:
            rows = "FROM pg_stat_activity WHERE application_name = 'idxctl' AND datname = current_database()"
            until(lambda: items.one(f"SELECT count(*) {rows} AND pid = ({session})"), "the keeper has not beaten")
            before = items.one(session)
            other.execute(f"SELECT pg_terminate_backend(pid) {rows} AND pid <> %s", (watcher.raw.info.backend_pid,))
            while items.one(session) in (before, None):
                assert registry.gone(watcher, "somebody else") == []
        stop.release()
        items.wait_for_rest()
    assert worker.counters.lost == 0
    assert items.differences() == []
    assert items.letters() == {}


# A document that kills its worker --------------------------------------------------------------------------------------


def poisoned(rig, ident, *, timeout=PATIENCE):
    """Run a worker process that dies when it is about to send a document; returns its status."""
    command = [sys.executable, str(HERE / "poisoned.py"), str(ident), "--config", str(rig.config)]
    done = subprocess.run(
        [*command, "worker", "start", "--until-empty"],
        env=environment(rig),
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return done.returncode


def test_a_document_that_kills_its_workers_dies_alone_and_its_letter_tells_of_each(items, idxctl):
    items.sql("UPDATE items SET name = name || '!' WHERE id BETWEEN 5 AND 10")
    deaths = 0
    while (status := poisoned(items, 7)) == -signal.SIGKILL:
        deaths += 1
        assert deaths < 15
        lapse(items)
        rescue.rescue(items.conn, max_attempts=3)
        items.sql("UPDATE opensearch_indexing_queue SET available_at = now() WHERE document_id = '7'")
    assert status == 0
    assert items.letters()["7"][0] == "worker_lost"
    assert list(items.letters()) == ["7"]
    assert items.differences(but=[7]) == []

    number = items.one("SELECT id FROM opensearch_indexing_dlq")
    run = idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    history = run("dlq", "show", number, "-o", "json").json["history"]
    assert len(history) == deaths
    assert [one["attempts"] for one in history] == [0] * (deaths - 3) + [1, 2, 3]
    assert len({one["worker"] for one in history}) == deaths
    assert [one["at"] for one in history] == sorted(one["at"] for one in history)
    shown = run("dlq", "show", number).stdout
    for one in history:
        assert one["worker"] in shown
        assert one["at"][:10] in shown


def test_documents_that_were_lost_together_come_back_apart(items):
    """Or the next worker's threads hold them together again, and the innocent spend their attempts with the culprit."""
    due = "SELECT document_id, available_at, attempts FROM opensearch_indexing_queue ORDER BY document_id"
    hand = items.hand()
    for number in (1, 2, 3):
        items.enqueue(number)
        hand.claim()
    lapse(items)
    rescue.rescue(items.conn, max_attempts=3)
    (_, first, one), (_, second, two), (_, third, three) = items.sql(due)
    assert (one, two, three) == (1, 1, 1)
    moments = sorted((first, second, third))
    assert min(later - sooner for sooner, later in itertools.pairwise(moments)).total_seconds() > 1


def test_what_was_rescued_is_claimed_under_a_new_token(items):
    items.sql("UPDATE items SET name = name || '!'")
    lost, _ = items.hand().claim()
    lapse(items)
    rescue.rescue(items.conn, max_attempts=3)
    again, _ = items.hand().claim()
    assert {task.document_id for task in again.tasks} < {task.document_id for task in lost.tasks}
    assert again.token > lost.token


# The age of bytes ------------------------------------------------------------------------------------------------------


SHORT = {"age_limit_seconds": 0.5, "request_timeout_seconds": 0.4}  # together below that second


def make_forgetful(items):
    items.ask("PUT", f"/{items.generation().name}/_settings", {"index": {"gc_deletes": "1s"}})


@pytest.fixture
def forgetful(items):
    """Items in an index that forgets a deleted document's version after a second."""
    make_forgetful(items)
    return items


def forgets(rig, ident):
    """Whether the index has forgotten the version under which a document was deleted: it takes an old one for new."""
    name = rig.generation().name
    rig.ask("POST", f"/{name}/_refresh")
    probe = f"/{name}/_doc/{ident}-probe?version_type=external&version="
    if not getattr(rig, "probed", False):
        rig.ask("DELETE", probe + "10")
        rig.probed = True
    forgotten = rig.ask("PUT", probe + "5", {"name": "x"}).get("result") == "created"
    if forgotten:
        rig.ask("DELETE", probe + "6")
    return forgotten


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "deleted and made again"])
def test_bytes_older_than_a_forgotten_delete_are_not_sent_however_their_lease_was_renewed(forgetful, stops, again):
    """T3: a batch that is held for long, by a worker that lives and renews its lease, holds the row as it was."""
    items = forgetful
    items.sql("UPDATE items SET name = 'old' WHERE id = 1")
    stop = stops.at("read.done")
    with items.working(workers=1, lease_seconds=1.0, **SHORT):
        stop.wait()
        items.sql("DELETE FROM items WHERE id = 1")
        items.hand(**SHORT).step()
        until(lambda: forgets(items, 1), "the deleted version is not forgotten")
        if again:
            items.sql("INSERT INTO items (id, name) VALUES (1, 'new')")
            items.hand(**SHORT).step()
            items.sql("DELETE FROM items WHERE id = 1")
            items.hand(**SHORT).step()
            items.probed = False
            until(lambda: forgets(items, 1), "the deleted version is not forgotten")
        assert items.in_flight() == 1
        stop.release()
        items.wait_for_rest()
    assert items.differences(but=["1-probe"]) == []


@pytest.mark.parametrize("beyond", [False, True], ids=["within", "beyond"])
def test_a_key_that_is_used_again_within_and_beyond_the_time_of_its_tombstone(items, stops, beyond):
    items.sql("UPDATE items SET name = 'old' WHERE id = 1")
    stop = stops.at("send.before")
    slow = items.hand()
    with slow.stepping():
        stop.wait()
        make_forgetful(items)
        items.sql("DELETE FROM items WHERE id = 1")
        items.hand(**SHORT).step()
        if beyond:
            until(lambda: forgets(items, 1), "the deleted version is not forgotten")
        items.sql("INSERT INTO items (id, name, category_id) VALUES (1, 'new', 2)")
        items.hand(**SHORT).step()
        stop.release()
    assert slow.worker.counters.superseded
    assert items.document(1)["name"] == "new"
    items.drain(**SHORT)
    assert items.differences(but=["1-probe"]) == []


def test_age_is_checked_again_before_the_next_generation(items):
    """While the first one took its time the bytes have grown too old for the second; nobody is charged."""
    items.register()
    items.sql("UPDATE items SET name = name || '!'")
    hand = items.hand(age_limit_seconds=1.0)
    began = time.monotonic()
    asked = []
    bulk = items.client.bulk

    def slow(index, body, sent, **options):
        asked.append(index)
        until(lambda: time.monotonic() - began > 1.2, "time stands still")
        return bulk(index, body, sent, **options)

    items.client.bulk = slow
    hand.step()
    assert len(asked) == 1
    items.client.bulk = bulk
    assert (
        items.one("SELECT count(*) FROM opensearch_indexing_queue WHERE attempts = 0 AND last_error LIKE 'too_old%%'")
        == 20
    )
    items.drain()
    assert items.differences() == []


def test_after_an_unknown_outcome_the_row_is_read_again_under_a_new_token(items):
    """The way stays down after the answer was lost: a control fails as well."""
    from idxctl.core.errors import OpenSearchUnreachable

    items.sql("UPDATE items SET name = 'first' WHERE id = 1")
    hand = items.hand()
    batch, head = hand.claim()
    asked = []
    bulk = items.client.bulk

    def lose_the_answer(index, body, sent, **options):
        asked.append(sent)
        if len(asked) == 1:
            bulk(index, body, sent, **options)
            items.sql("UPDATE items SET name = 'second' WHERE id = 1")
        raise OpenSearchUnreachable("no answer")

    items.client.bulk = lose_the_answer
    hand.carry((batch, head))
    items.client.bulk = bulk
    assert asked.count(["1"]) == 1
    items.drain()
    assert items.version(1) > batch.token
    assert items.differences() == []


# Stopped beyond the lease ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["read.before", "send.before", "settle.before"])
def test_a_worker_stopped_beyond_its_lease_overwrites_nothing_newer_when_it_goes_on(items, point):
    items.sql("UPDATE items SET name = name || '!' WHERE id <= 12")
    with Process(items, "worker", "start", "--until-empty", point=point) as stopped:
        stopped.wait_until_held()
        stopped.send(signal.SIGSTOP)
        lapse(items)
        items.sql("UPDATE items SET name = 'newer' WHERE id <= 6")
        items.sql("DELETE FROM items WHERE id IN (11, 12)")
        items.drain()
        assert items.differences() == []
        stopped.send(signal.SIGCONT)
        stopped.release()
        assert stopped.status() == 0
        assert "the lease of a batch of 12 tasks had lapsed" in stopped.said
    assert items.differences() == []
    assert items.letters() == {}
    assert items.at_rest()
