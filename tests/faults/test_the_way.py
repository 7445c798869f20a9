"""What lies between us and OpenSearch fails, on one document or on all: P3 of the one, P4 of the other."""

from __future__ import annotations

import itertools
import math
from contextlib import contextmanager
from dataclasses import replace

import pytest

from idxctl import Indexer
from idxctl.core.errors import IdxctlError
from idxctl.core.reasons import Kind, Reason
from idxctl.worker import way
from support.gateway import ANSWERS, Gateway, Seen
from support.rig import Rig

pytestmark = pytest.mark.sampled

POISON = b"<script>alert"


@pytest.fixture
def gateway(opensearch_url):
    with Gateway(opensearch_url) as gateway:
        yield gateway


def is_poisoned(seen: Seen) -> bool:
    return seen.is_bulk and POISON in seen.body


def is_bulk(seen: Seen) -> bool:
    return seen.is_bulk


@contextmanager
def by_way_of(items: Rig, gateway: Gateway):
    """The patience of a request is short where somebody keeps silent."""
    with items.by_way_of(opensearch=gateway.url, request_timeout=2.0 if gateway.mode == "silence" else 20.0):
        yield


def poison(items: Rig, ident: int = 7) -> None:
    items.sql("UPDATE items SET name = '<script>alert(1)</script>' WHERE id = %s", ident)


def change_all(items: Rig) -> None:
    items.sql("UPDATE items SET name = name || '!' WHERE id <> 7")


def only_the_culprit_is_a_letter(items: Rig) -> None:
    assert list(items.letters()) == ["7"]
    assert items.one("SELECT attempts FROM opensearch_indexing_dlq") == 3
    assert items.queued() == items.in_flight() == 0
    assert items.differences(but=[7]) == []


@pytest.mark.parametrize("mode", ANSWERS)
def test_a_document_that_the_way_fails_on_is_a_letter_and_all_others_are_indexed(items: Rig, gateway: Gateway, mode):
    gateway.mode, gateway.dislikes = mode, is_poisoned
    poison(items)
    change_all(items)
    with by_way_of(items, gateway):
        worker = items.drain()
    only_the_culprit_is_a_letter(items)
    assert worker.counters.dead == 1
    assert items.one("SELECT count(*) FROM opensearch_indexing_pauses") == 0
    error_type, reason = items.letters()["7"]
    assert error_type.startswith("way_")
    assert "while others pass" in reason
    if mode in {"500", "403"}:
        assert "The requested URL was rejected" in reason


@pytest.mark.parametrize("mode", ANSWERS)
def test_a_document_that_the_way_fails_on_does_not_stop_a_reindex(items: Rig, gateway: Gateway, mode):
    items.sql("ALTER TABLE items DISABLE TRIGGER USER")
    poison(items)
    items.sql("ALTER TABLE items ENABLE TRIGGER USER")
    gateway.mode, gateway.dislikes = mode, is_poisoned
    with by_way_of(items, gateway):
        done = items.reindex()
    assert (done.failed, done.documents, done.swapped) == (1, 19, True)
    assert list(items.letters()) == ["7"]
    assert items.queued() == 0
    assert items.differences(but=[7]) == []


@pytest.mark.parametrize("mode", ["502", "cut", "403"])
def test_a_document_that_the_way_fails_on_in_the_check_is_a_letter_and_the_swap_is_made(
    items: Rig, gateway: Gateway, mode
):
    gateway.mode = mode
    gateway.dislikes = lambda seen: "/_mget" in seen.path and b'"7"' in seen.body
    with by_way_of(items, gateway):
        done = items.reindex()
    assert (done.failed, done.documents, done.swapped) == (1, 19, True)
    assert list(items.letters()) == ["7"]
    gateway.dislikes = lambda seen: "/_mget" in seen.path
    with by_way_of(items, gateway), pytest.raises(IdxctlError):
        items.reindex()  # of none can it be told: there is no swap
    assert items.differences() == []


@pytest.mark.parametrize("mode", ANSWERS)
def test_a_way_that_fails_on_every_document_charges_none_and_goes_on_by_itself(items: Rig, gateway: Gateway, mode):
    gateway.mode, gateway.dislikes = mode, is_bulk
    change_all(items)
    poison(items)
    with by_way_of(items, gateway):
        hand = items.hand()
        for _ in range(4):
            items.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")
            items.sql("UPDATE opensearch_indexing_pauses SET probe_at = clock_timestamp()")
            hand.step()
            assert items.letters() == {}
            assert items.one("SELECT max(attempts) FROM opensearch_indexing_queue") == 0
        assert hand.worker.counters.put_back == {items.index: 4}
        gateway.dislikes = lambda _: False
        gateway.released.set()
        items.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")
        items.sql("UPDATE opensearch_indexing_pauses SET probe_at = clock_timestamp()")
        hand.rest()
        assert hand.worker.counters.put_back == {}
    items.nothing_was_charged()


@pytest.mark.parametrize("mode", ["502", "404", "200 in HTML", "403", "302"])
def test_a_gateway_that_answers_questions_itself_and_passes_documents_on_holds_nothing_up(
    items: Rig, gateway: Gateway, mode
):
    """A page at the root, or in place of what is asked about the index, says nothing of writes."""
    gateway.mode = mode
    gateway.dislikes = lambda seen: seen.method == "GET"
    change_all(items)
    with by_way_of(items, gateway):
        hand = items.hand()
        hand.worker.breaker.failed(Reason(Kind.UNREACHABLE, "it was away for a moment"))
        hand.rest()
        assert not hand.worker.breaker.open
    items.nothing_was_charged()


@pytest.mark.parametrize("period", [1, 2, 3, 5])
def test_a_server_that_is_down_every_other_moment_makes_no_letters(items: Rig, gateway: Gateway, period):
    turn = itertools.count()
    gateway.dislikes = lambda seen: seen.is_bulk and next(turn) // period % 2 == 0
    with by_way_of(items, gateway):
        for _ in range(10):
            change_all(items)
            items.drain(workers=1, batch_size=5)
            assert items.letters() == {}
    assert items.differences() == []


def test_the_search_takes_a_few_requests_for_each_halving(items: Rig, gateway: Gateway):
    """A body, its halves and a control for each halving, and a trial of twelve; whatever the others, they pass at once."""
    documents = 512
    items.sql("INSERT INTO items (id, name) SELECT i, 'new' FROM generate_series(1001, 1512) i")
    items.sql("DELETE FROM opensearch_indexing_queue")
    gateway.dislikes = is_poisoned
    for place in (1001, 1256, 1512):
        poison(items, place)
        items.sql("UPDATE items SET name = name || '!' WHERE id BETWEEN 1001 AND 1512 AND id <> %s", place)
        with by_way_of(items, gateway):
            hand = items.hand(batch_size=documents)
            gateway.seen.clear()
            hand.step()
            requests = sum(seen.is_bulk for seen in gateway.seen)
            bodies = 2  # of a claim whose documents are of unknown size
            assert requests <= bodies + 3 * math.ceil(math.log2(documents)) + 1 + 2 * way.TURNS
            assert hand.worker.counters.indexed == documents - 1
            assert not hand.worker.breaker.open
            (attempts, group) = items.sql("SELECT attempts, split_group FROM opensearch_indexing_queue")[0]
            assert attempts == 1
            assert group is not None
        items.sql("DELETE FROM opensearch_indexing_queue")
        items.sql("UPDATE items SET name = 'good' WHERE id = %s", place)
        items.sql("DELETE FROM opensearch_indexing_queue")


def test_what_could_not_be_narrowed_down_in_time_is_claimed_apart(items: Rig, gateway: Gateway):
    gateway.dislikes = is_poisoned
    poison(items)
    change_all(items)
    with by_way_of(items, gateway):
        hand = items.hand()
        carrier = hand.worker.carrier
        usual, carrier.path.limits = carrier.path.limits, replace(carrier.path.limits, search_seconds=-1)
        hand.step()
        groups = items.one("SELECT count(DISTINCT split_group) FROM opensearch_indexing_queue")
        assert groups == 2
        assert (
            items.one("SELECT count(*) FROM opensearch_indexing_queue WHERE split_group IS NULL OR attempts > 0") == 0
        )
        assert not hand.worker.breaker.open
        carrier.path.limits = usual
        hand.rest()
    only_the_culprit_is_a_letter(items)


def test_a_document_that_the_way_to_a_building_generation_fails_on_is_in_the_live_one(items: Rig, gateway: Gateway):
    building = items.register()
    gateway.dislikes = lambda seen: is_poisoned(seen) and building.name in seen.path
    poison(items)
    change_all(items)
    with by_way_of(items, gateway):
        worker = items.drain()
    assert items.letters() == {}
    assert items.differences() == []
    assert worker.counters.indexed == 20
    blamed = items.sql("SELECT document_id FROM opensearch_indexing_generation_failures")
    assert blamed == [("7",)]


def test_a_way_that_is_closed_to_a_building_generation_holds_the_live_one_up_in_nothing(items: Rig, gateway: Gateway):
    building = items.register()
    gateway.dislikes = lambda seen: seen.is_bulk and building.name in seen.path
    change_all(items)
    with by_way_of(items, gateway):
        hand = items.hand()
        hand.step()
        assert not hand.worker.breaker.open
        assert items.queued() == 0
    items.nothing_was_charged()


def test_a_letter_tried_again_without_workers_is_a_letter_again(items: Rig, gateway: Gateway, idxctl):
    gateway.dislikes = is_poisoned
    poison(items)
    with by_way_of(items, gateway):
        items.drain()
    idxctl.use(database=items.database, opensearch=gateway.url, config=items.config)
    done = idxctl("dlq", "retry", "--limit", "100", "--wait", "-o", "json", timeout=120)
    assert '"failed":1' in done.stdout
    assert list(items.letters()) == ["7"]
    gateway.dislikes = lambda _: False
    assert '"succeeded":1' in idxctl("dlq", "retry", "--limit", "100", "--wait", "-o", "json", timeout=120).stdout
    assert items.differences() == []


@pytest.fixture
def through_a_pipeline(items: Rig):
    items.sql(
        "UPDATE opensearch_indexing_generations SET definition = jsonb_set(definition, '{pipeline}', to_jsonb(%s::text))",
        items.index,
    )
    items.ask("PUT", f"/_ingest/pipeline/{items.index}", {"processors": []})
    yield items
    items.ask("DELETE", f"/_ingest/pipeline/{items.index}")


def test_a_pipeline_that_hangs_on_every_document_charges_none_although_controls_pass(
    through_a_pipeline: Rig, gateway: Gateway
):
    items = through_a_pipeline
    gateway.mode = "silence"
    gateway.dislikes = lambda seen: seen.is_bulk and b'"name"' in seen.body
    items.sql("UPDATE items SET name = name || '!' WHERE id <= 2")
    with by_way_of(items, gateway):
        hand = items.hand()
        while hand.worker.counters.batches < 6:
            items.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")
            hand.step()
        assert items.one("SELECT max(attempts) FROM opensearch_indexing_queue") == 0
        assert not hand.worker.breaker.open
        gateway.dislikes = lambda _: False
        gateway.released.set()
        hand.rest()
    items.nothing_was_charged()


def test_a_document_that_a_pipeline_hangs_on_is_a_letter_once_others_have_passed(
    through_a_pipeline: Rig, gateway: Gateway
):
    items = through_a_pipeline
    gateway.mode, gateway.dislikes = "silence", is_poisoned
    poison(items)
    change_all(items)
    with by_way_of(items, gateway):
        items.drain()
    only_the_culprit_is_a_letter(items)


def test_a_request_that_indexes_for_itself_finds_the_culprit_and_leaves_the_rest_flowing(
    untriggered: Rig, gateway: Gateway
):
    items = untriggered
    gateway.dislikes = is_poisoned
    poison(items)
    items.sql("UPDATE items SET name = name || '!' WHERE id <> 7")
    settings = replace(items.settings, opensearch=replace(items.settings.opensearch, urls=(gateway.url,)))
    with Indexer(settings) as indexer:
        for ident in range(1, 21):
            indexer.index(items.index, str(ident))
        assert items.one("SELECT attempts FROM opensearch_indexing_queue") == 1
        assert items.queued() == 1
        assert items.differences(but=[7]) == []


def test_a_control_writes_nothing(items: Rig):
    live = items.generation()
    before = items.ask("GET", f"/{live.name}/_stats?filter_path=_all.primaries.translog.operations")
    assert way.Controls(items.client, live).pass_()
    assert items.ask("GET", f"/{live.name}/_stats?filter_path=_all.primaries.translog.operations") == before
    assert items.differences() == []


def test_batches_that_are_put_back_again_and_again_are_told_of(items: Rig, gateway: Gateway, caplog):
    caplog.set_level("INFO", "idxctl.worker")
    gateway.dislikes = is_bulk
    change_all(items)
    with by_way_of(items, gateway):
        hand = items.hand()
        for _ in range(10):
            items.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")
            hand.step()
        hand.worker.tidier.say_how_it_goes()
    assert hand.worker.counters.shown()["put_back"] == {items.index: 10}
    assert "10 batches in a row were put back: http_502" in caplog.text
    assert f"{items.index}: 10 batches in a row put back" in caplog.text
