"""An OpenSearch that can take little: a write queue of one, two megabytes of bulks, four of HTTP. It is obeyed, and nobody is charged."""

from __future__ import annotations

import pytest

from idxctl.embedded.opensearch import OpenSearch
from support.rig import ITEMS_MAPPING, Rig, until, write_items

LITTLE = {
    "node.processors": 1,
    "thread_pool.write.size": 1,
    "thread_pool.write.queue_size": 1,
    "indexing_pressure.memory.limit": "2mb",
    "http.max_content_length": "4mb",
}
MAPPING = {
    "mappings": {
        **ITEMS_MAPPING["mappings"],
        "properties": {
            **ITEMS_MAPPING["mappings"]["properties"],
            "blob": {"type": "keyword", "index": False, "doc_values": False},
        },
    },
}


@pytest.fixture(scope="module")
def weak_url(jar_cache, tmp_path_factory):
    with OpenSearch(tmp_path_factory.mktemp("weak"), cache=jar_cache, quick=True, settings=LITTLE) as server:
        yield server.url


@pytest.fixture
def shards():
    """Each is a request of its own to the write queue: more than it has room for."""
    return 8


@pytest.fixture
def weak(clone, items_template, weak_url, unique_name, tmp_path, shards):
    """Twenty items indexed on the weak node."""
    write_items(tmp_path / "items", unique_name)
    with clone(items_template) as url:
        rig = Rig(url, weak_url, unique_name, tmp_path / "items")
        rig.configure(mapping={**MAPPING, "settings": {"number_of_shards": shards, "number_of_replicas": 0}})
        rig.watch()
        rig.reindex()
        yield rig
        rig.ask("DELETE", f"/{unique_name}-*")
        rig.close()


def insert(rig: Rig, first: int, count: int, *, size: int = 0) -> None:
    rig.sql(
        "INSERT INTO items (id, name, extra) SELECT i, 'new', CASE WHEN %s::int > 0 "
        "THEN jsonb_build_object('blob', repeat('x', %s::int)) ELSE '{}' END FROM generate_series(%s::int, %s::int) i",
        size, size, first, first + count - 1,
    )  # fmt: skip


def nobody_was_charged(rig: Rig) -> None:
    assert rig.letters() == {}
    assert rig.one("SELECT coalesce(max(attempts), 0) FROM opensearch_indexing_queue") == 0


def test_items_that_a_full_queue_refuses_go_back_and_the_others_are_settled(weak: Rig):
    insert(weak, 1001, 500)
    hand = weak.hand(workers=4)
    hand.step()  # to eight shards at once, of which a thread and a queue of one take some
    left = weak.queued()
    assert 0 < left < 500
    assert hand.worker.counters.indexed == 500 - left
    assert "rejected_execution_exception" in weak.one("SELECT max(last_error) FROM opensearch_indexing_queue")
    assert hand.worker.carrier.load.batches < 4
    assert not hand.worker.breaker.open
    nobody_was_charged(weak)
    weak.drain(workers=4)
    nobody_was_charged(weak)
    assert weak.differences() == []


def test_four_threads_are_held_back_until_all_has_passed(weak: Rig):
    for first in range(1001, 4001, 500):
        insert(weak, first, 500)
    worker = weak.drain(workers=4, batch_size=200)
    nobody_was_charged(weak)
    assert weak.differences() == []
    assert worker.counters.retried > 0


@pytest.mark.parametrize("shards", [1])
@pytest.mark.parametrize(("documents", "size"), [(20, 150_000), (35, 150_000)], ids=["429 that never passes", "413"])
def test_body_that_can_never_pass_is_halved_and_its_size_remembered(weak: Rig, stops, documents, size):
    insert(weak, 1001, documents, size=size)
    hand = weak.hand()
    hand.step()
    assert weak.at_rest()
    load = hand.worker.carrier.load
    assert load.body_bytes <= 2_000_000
    stops.seen.clear()
    insert(weak, 2001, documents, size=size)
    hand.step()
    assert stops.seen.count("send.done") == stops.seen.count("send.before") > 1  # no body was refused this time
    nobody_was_charged(weak)
    assert weak.differences() == []


@pytest.mark.parametrize("shards", [1])
def test_document_too_large_for_any_request_is_a_letter_that_says_so_and_stops_nobody(weak: Rig):
    insert(weak, 1001, 1, size=3_000_000)  # 429, never to pass
    insert(weak, 1002, 1, size=5_000_000)  # 413
    insert(weak, 1003, 30, size=100_000)
    weak.hand().rest()
    letters = weak.letters()
    assert {name: kind for name, (kind, _) in letters.items()} == {
        "1001": "rejected_execution_exception",
        "1002": "http_413",
    }
    assert "this document alone is 5.0 MB, more than OpenSearch takes in one request" in letters["1002"][1]
    assert weak.differences(but=letters) == []


@pytest.mark.parametrize("shards", [1])
def test_cluster_that_refuses_everything_opens_the_breaker_and_is_probed(weak: Rig):
    heap = "/_cluster/settings", {"transient": {"indices.breaker.total.limit": "1%"}}
    weak.ask("PUT", *heap)
    try:
        with weak.working(workers=3, batch_size=5) as worker:
            weak.sql("UPDATE items SET name = name || '!'")
            until(lambda: worker.breaker.open, "the breaker stays closed")
            assert "circuit_breaking_exception" in worker.breaker.state().reason
            until(lambda: worker.breaker.probing, "it is not probed")
            until(lambda: not worker.breaker.probing, "the probe has no end")
            assert worker.breaker.open
            nobody_was_charged(weak)
            weak.ask("PUT", "/_cluster/settings", {"transient": {"indices.breaker.total.limit": None}})
            weak.wait_for_rest()
            until(lambda: not worker.breaker.open, "the breaker stays open")
    finally:
        weak.ask("PUT", "/_cluster/settings", {"transient": {"indices.breaker.total.limit": None}})
    nobody_was_charged(weak)
    assert weak.differences() == []
