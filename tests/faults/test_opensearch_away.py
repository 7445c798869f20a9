"""OpenSearch goes away under load, and comes back: no attempt is spent, no letter made, and it goes on by itself (P4)."""

from __future__ import annotations

import pytest

from idxctl.embedded.opensearch import OpenSearch
from support.rig import Rig, until, write_items
from support.writers import Writers


@pytest.fixture(scope="module")
def node(jar_cache, tmp_path_factory):
    with OpenSearch(tmp_path_factory.mktemp("node"), cache=jar_cache, quick=True) as server:
        yield server


@pytest.fixture
def own(node, clone, items_template, unique_name, tmp_path):
    """Items on an OpenSearch of the test's own."""
    write_items(tmp_path / "items", unique_name)
    with clone(items_template) as url:
        rig = Rig(url, node.url, unique_name, tmp_path / "items")
        rig.watch()
        rig.reindex()
        yield rig
        rig.close()


def nobody_was_charged(rig: Rig) -> None:
    assert rig.letters() == {}
    assert rig.one("SELECT coalesce(max(attempts), 0) FROM opensearch_indexing_queue") == 0


def test_killed_under_load_and_started_again(own: Rig, node: OpenSearch, idxctl):
    idxctl.use(database=own.database, opensearch=own.opensearch, config=own.config)
    with Writers(own.database) as writers, own.working(workers=3, batch_size=50) as worker:
        until(lambda: worker.counters.indexed > 50, "nothing is indexed")
        node.kill()
        until(lambda: worker.breaker.state().next_probe_seconds, "the breaker stays closed")
        made = writers.made
        until(lambda: writers.made > made + 100, "the writers are held up")
        until(lambda: "refuses connections" in idxctl("worker", "list").stdout, "it is not shown")
        assert "no attempt was spent" in idxctl("queue", "stats").stdout
        nobody_was_charged(own)
        node.start()
        indexed = worker.counters.indexed
        until(lambda: worker.counters.indexed > indexed + 50, "nothing is indexed after its return")
        assert not worker.breaker.open
    own.drain()
    nobody_was_charged(own)
    assert own.differences() == []


def test_frozen_in_the_middle_of_requests_and_thawed(own: Rig, node: OpenSearch):
    """What became of the requests is unknown: they are read and sent again, under newer tokens."""
    own.configure_client(request_timeout_seconds=1.0)
    with Writers(own.database), own.working(workers=3, batch_size=50) as worker:
        until(lambda: worker.counters.indexed > 50, "nothing is indexed")
        node.pause()
        until(lambda: worker.breaker.open, "the breaker stays closed")
        node.resume()
        indexed = worker.counters.indexed
        until(lambda: worker.counters.indexed > indexed + 50, "nothing is indexed after it has thawed")
    own.drain()
    nobody_was_charged(own)
    assert own.differences() == []


def test_one_small_batch_tries_whether_it_works_again(own: Rig, node: OpenSearch):
    own.sql("UPDATE items SET name = name || '!'")
    hand = own.hand(workers=4)
    node.kill()
    hand.step()
    assert hand.worker.breaker.state().state == "open"
    until(lambda: hand.worker.poll() or hand.worker.breaker.state().next_probe_seconds > 0.6, "no ping fails")
    assert own.in_flight() == 0  # nobody answers: nothing is claimed
    node.start()
    own.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")
    taken = hand.claim()
    assert len(taken[0].tasks) == 5
    assert hand.worker.breaker.state().state == "probing"
    assert hand.worker.poll() is None  # one at a time
    hand.carry(taken)
    assert hand.worker.breaker.state().state == "closed"
    hand.rest()
    nobody_was_charged(own)
    assert own.differences() == []
