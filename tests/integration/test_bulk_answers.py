"""What a real OpenSearch answers to a bulk, and what becomes of the tasks. Those of an overloaded node: faults/test_overload.py."""

from __future__ import annotations

import socket
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from idxctl import dlq
from idxctl.indexes import generations
from idxctl.opensearch.bulk import Body
from idxctl.opensearch.client import connect
from idxctl.queue.claim import Batch
from idxctl.worker.load import Load
from idxctl.worker.send import send
from idxctl.worker.written import Learnt, Limits, Written
from support.rig import ITEMS_DOCUMENT, ITEMS_MAPPING, Rig, until

pytestmark = pytest.mark.sampled


def change(items: Rig, *ids: int) -> None:
    items.sql("UPDATE items SET name = name || '!' WHERE id = ANY(%s)", list(ids or range(1, 21)))


def paused_for(items: Rig) -> str | None:
    rows = items.sql("SELECT reason FROM opensearch_indexing_pauses WHERE cause = 'blocked'")
    return rows[0][0] if rows else None


def nobody_was_charged(items: Rig) -> None:
    assert items.letters() == {}
    assert items.one("SELECT coalesce(max(attempts), 0) FROM opensearch_indexing_queue") == 0


def let_it_probe(items: Rig) -> None:
    """A blocked index is tried again in seconds, up to a minute: now, for the test."""
    items.sql("UPDATE opensearch_indexing_pauses SET probe_at = clock_timestamp()")
    items.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")


# The index's trouble -------------------------------------------------------------------------------------------------


def close(items, name):
    items.ask("POST", f"/{name}/_close")
    return lambda: items.ask("POST", f"/{name}/_open?wait_for_active_shards=1")


def delete(items, name):
    items.ask("DELETE", f"/{name}")
    return lambda: items.ask("PUT", f"/{name}", {**ITEMS_MAPPING, "aliases": {items.index: {}}})


def block(setting):
    def act(items, name):
        items.ask("PUT", f"/{name}/_settings", {setting: True})
        return lambda: items.ask("PUT", f"/{name}/_settings", {setting: None})

    return act


def take_the_shards_away(items, name):
    """Make it anew where no node may hold its shard: so it is after the loss of a node."""
    items.ask("DELETE", f"/{name}")
    nowhere = {**ITEMS_MAPPING["settings"], "gc_deletes": "5m", "index.routing.allocation.require.place": "nowhere"}
    items.ask(
        "PUT", f"/{name}?wait_for_active_shards=0", {**ITEMS_MAPPING, "settings": nowhere, "aliases": {items.index: {}}}
    )
    return lambda: (
        items.ask("PUT", f"/{name}/_settings", {"index.routing.allocation.require.place": None}),
        items.ask("GET", f"/_cluster/health/{name}?wait_for_status=yellow"),
    )


TROUBLES = {
    "index closed": (close, "index_closed_exception"),
    "index deleted and brought back": (delete, "index_not_found_exception"),
    "write block": (block("index.blocks.write"), "cluster_block_exception"),
    "flood stage": (block("index.blocks.read_only_allow_delete"), "cluster_block_exception"),
    "shards away": (take_the_shards_away, "unavailable_shards_exception"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_index_that_takes_no_writes_is_paused_for_its_reason_and_resumes_by_itself(items: Rig, trouble):
    provoke, error_type = TROUBLES[trouble]
    items.configure_client(request_timeout_seconds=1.5)  # shards away are waited for, a third of it
    mend = provoke(items, items.generation().name)
    change(items)
    items.sql("DELETE FROM items WHERE id = 20")
    hand = items.hand()
    hand.step()
    assert error_type in paused_for(items)
    assert items.queued() == 20
    assert hand.worker.poll() is None  # nothing is claimed while it is paused
    let_it_probe(items)
    taken = hand.claim()
    assert len(taken[0].tasks) <= 5  # a probe is small
    hand.carry(taken)
    assert error_type in paused_for(items)
    nobody_was_charged(items)
    mend()
    let_it_probe(items)
    hand.step()
    assert paused_for(items) is None
    items.enqueue(*range(1, 21))  # an index brought back is empty
    items.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")
    hand.steps()
    nobody_was_charged(items)
    assert items.differences() == []


def test_only_a_probe_that_failed_counts_as_one(items: Rig):
    """Five threads that meet a block at once have not tried five times whether it passes."""
    mend = block("index.blocks.write")(items, items.generation().name)
    change(items)
    hands = [items.hand(batch_size=5) for _ in range(4)]
    taken = [hand.claim() for hand in hands]
    for hand, one in zip(hands, taken, strict=True):
        hand.carry(one)
    pauses = "SELECT probes, probe_at < clock_timestamp() + interval '3 seconds' FROM opensearch_indexing_pauses"
    assert items.sql(pauses) == [(0, True)]
    let_it_probe(items)
    hands[0].step()
    assert items.sql(pauses) == [(1, True)]
    mend()
    let_it_probe(items)
    hands[0].steps()
    assert paused_for(items) is None


def test_a_probe_that_has_expanded_a_lookup_has_tried_nothing_and_the_next_one_is_due(items: Rig):
    """Or each lookup at the head of the queue would keep a blocked index ten seconds longer."""
    mend = block("index.blocks.write")(items, items.generation().name)
    change(items)
    items.hand().step()
    mend()
    hand = items.hand()
    items.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")
    items.sql("UPDATE categories SET name = 'renamed'")
    items.sql(
        "UPDATE opensearch_indexing_queue SET available_at = available_at - interval '1 hour' WHERE kind = 'keys'"
    )
    items.sql("UPDATE opensearch_indexing_pauses SET probe_at = clock_timestamp()")
    hand.step()
    assert items.one("SELECT count(*) FROM opensearch_indexing_queue WHERE kind = 'keys'") == 0
    assert items.sql("SELECT probe_at <= clock_timestamp() FROM opensearch_indexing_pauses") == [(True,)]
    hand.step()
    assert paused_for(items) is None


def test_pipeline_that_does_not_exist_pauses_the_index_until_somebody_makes_it(items: Rig):
    items.sql(
        "UPDATE opensearch_indexing_generations SET definition = jsonb_set(definition, '{pipeline}', to_jsonb(%s::text))",
        items.index,
    )
    change(items, 1, 2)
    hand = items.hand()
    hand.step()
    assert "does not exist" in paused_for(items)
    nobody_was_charged(items)
    items.ask("PUT", f"/_ingest/pipeline/{items.index}", {"processors": []})
    let_it_probe(items)
    hand.steps()
    items.ask("DELETE", f"/_ingest/pipeline/{items.index}")
    assert paused_for(items) is None
    assert items.differences() == []


def test_a_pause_of_one_index_shows_in_queue_stats_with_its_reason(items: Rig, idxctl):
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    close(items, items.generation().name)
    change(items)
    items.hand().step()
    assert "index_closed_exception" in idxctl("queue", "stats").stdout
    (shown,) = idxctl("queue", "stats", "-o", "json").json["by_index"]
    assert "index_closed_exception" in shown["pauses"][0]["reason"]


def test_write_of_a_retired_generation_that_is_gone_is_dropped(items: Rig, stops):
    """G3: its 404 pauses nobody, makes no letter and holds up nothing."""
    building = items.register()
    change(items, 1)
    stop = stops.at("read.done")
    with items.hand().stepping():
        stop.wait()
        with items.conn.transaction():
            generations.lock_set(items.conn, exclusive=True)
            generations.set_state(items.conn, building.id, "retired", expected=("building",))
        items.ask("DELETE", f"/{building.name}")
        stop.release()
    assert paused_for(items) is None
    nobody_was_charged(items)
    assert items.queued() == 0
    assert items.document(1)["name"] == "item 1!"
    # A bulk to an index that is not there creates it where OpenSearch is left to its defaults; ours is not.
    assert items.ask("GET", f"/{building.name}")["status"] == 404


def test_shards_of_a_building_generation_that_are_away_hold_nothing_up(items: Rig):
    items.configure_client(request_timeout_seconds=1.5)
    building = items.register()
    items.ask("DELETE", f"/{building.name}")
    settings = {**ITEMS_MAPPING["settings"], "index.routing.allocation.require.place": "nowhere"}
    items.ask("PUT", f"/{building.name}?wait_for_active_shards=0", {"settings": settings})
    change(items, 1)
    items.hand().step()
    assert paused_for(items) is None
    assert items.queued() == 0
    assert items.document(1)["name"] == "item 1!"
    assert items.sql("SELECT error_type FROM opensearch_indexing_generation_failures") == [("missed_write",)]


# The documents' trouble ----------------------------------------------------------------------------------------------


def test_each_permanent_error_makes_the_letter_of_its_document_alone(items: Rig):
    fields = {f"f{number}": {"type": "keyword"} for number in range(20)}
    mapping = {
        "settings": {**ITEMS_MAPPING["settings"], "index.mapping.total_fields.limit": 30},
        "mappings": {"dynamic": True, "properties": {**ITEMS_MAPPING["mappings"]["properties"], **fields}},
    }
    items.configure(mapping=mapping)
    items.reindex()
    items.sql("""UPDATE items SET extra = '{"parts": {"an": "object"}}' WHERE id = 1""")
    items.sql("""UPDATE items SET extra = jsonb_build_object('f1', repeat('x', 40000)) WHERE id = 2""")
    items.sql(
        """UPDATE items SET extra = (SELECT jsonb_object_agg('new' || n, 'x') FROM generate_series(1, 20) n) WHERE id = 3"""
    )
    items.sql("UPDATE items SET price = 'dear' WHERE id = 4")
    change(items, 5)
    items.drain()
    letters = items.letters()
    assert {name: kind for name, (kind, _) in letters.items()} == {
        "1": "mapper_parsing_exception",
        "2": "illegal_argument_exception",
        "3": "illegal_argument_exception",
        "4": "mapper_parsing_exception",
    }
    assert "immense term" in letters["2"][1]
    assert "total fields" in letters["3"][1]
    assert items.differences(but=letters) == []


def test_delete_of_what_is_not_there_and_a_write_that_came_second_are_done(items: Rig):
    old = items.hand()
    change(items, 1)
    taken = old.claim()
    change(items, 1)
    items.hand().step()  # a newer token writes first
    old.carry(taken)
    assert old.worker.counters.superseded == 1
    items.enqueue(4711)
    items.hand().step()
    assert items.at_rest()
    nobody_was_charged(items)
    assert items.differences() == []


# An error that all documents share -----------------------------------------------------------------------------------

MORE = "INSERT INTO items (id, name) SELECT i, 'more' FROM generate_series(21, 200) i"
LABELLED = ITEMS_DOCUMENT.replace("'price', i.price", "'price', i.price, 'label', upper(i.name)")


def ask_for_a_field_that_the_mapping_refuses(items: Rig) -> None:
    items.sql(MORE)
    items.drain()
    items.sql("""UPDATE items SET extra = '{"label": "x"}'""")


def test_a_mapping_that_refuses_every_document_pauses_the_index_and_goes_on_once_mended(items: Rig):
    ask_for_a_field_that_the_mapping_refuses(items)
    hand = items.hand()
    hand.step()
    assert "strict_dynamic_mapping_exception" in paused_for(items)
    assert items.queued() == 200
    let_it_probe(items)
    items.hand().step()  # by another process
    assert "strict_dynamic_mapping_exception" in paused_for(items)
    assert items.queued() == 200
    nobody_was_charged(items)
    items.ask("PUT", f"/{items.generation().name}/_mapping", {"properties": {"label": {"type": "keyword"}}})
    let_it_probe(items)
    with items.working(workers=2):
        items.wait_for_rest()
    assert paused_for(items) is None
    nobody_was_charged(items)
    assert items.differences() == []


def test_until_empty_leaves_an_index_that_stays_blocked_and_ends_with_3(items: Rig, idxctl):
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    ask_for_a_field_that_the_mapping_refuses(items)
    items.hand().step()
    items.sql("UPDATE opensearch_indexing_pauses SET probes = 3")
    done = idxctl("worker", "start", "--until-empty")
    assert done.status == 3, done.stderr
    assert items.queued() == 200


def test_a_rebuild_with_the_right_mapping_is_a_way_out_of_the_pause(items: Rig):
    ask_for_a_field_that_the_mapping_refuses(items)
    items.hand().step()
    properties = {**ITEMS_MAPPING["mappings"]["properties"], "label": {"type": "keyword"}}
    items.configure(mapping={**ITEMS_MAPPING, "mappings": {"dynamic": "strict", "properties": properties}})
    let_it_probe(items)
    items.reindex()
    items.drain()
    assert paused_for(items) is None
    assert items.differences() == []


def test_a_probe_that_finds_a_good_document_ends_the_pause(items: Rig):
    ask_for_a_field_that_the_mapping_refuses(items)
    items.hand().step()
    items.sql("UPDATE items SET extra = '{}' WHERE id > 2")
    let_it_probe(items)
    hand = items.hand()
    until(lambda: let_it_probe(items) or hand.step() or paused_for(items) is None, "it stays paused")
    hand.rest()
    assert items.letters().keys() <= {"1", "2"}
    assert items.differences(but=items.letters()) == []


def test_a_query_that_fails_for_every_row_pauses_the_index(items: Rig):
    items.sql(MORE)
    items.drain()
    items.sql("UPDATE items SET divisor = 0")
    items.hand().step()
    assert "division by zero" in paused_for(items)
    nobody_was_charged(items)
    items.sql("UPDATE items SET divisor = 1")
    let_it_probe(items)
    items.hand().rest()
    nobody_was_charged(items)
    assert items.differences() == []


def test_a_building_generation_that_refuses_every_document_pauses_nothing(items: Rig):
    items.sql(MORE)
    items.drain()
    without = {name: kind for name, kind in ITEMS_MAPPING["mappings"]["properties"].items() if name != "name"}
    items.register(mappings={"dynamic": "strict", "properties": without})
    items.sql("UPDATE items SET name = name || '!'")
    items.drain()
    assert paused_for(items) is None
    nobody_was_charged(items)
    assert items.differences() == []


def test_many_hopeless_letters_tried_again_stay_letters(items: Rig):
    items.sql(MORE)
    items.drain()
    for first in range(1, 161, 40):  # forty bad ones among two hundred at a time
        items.sql("UPDATE items SET price = 'dear' WHERE id BETWEEN %s AND %s", first, first + 39)
        items.sql("UPDATE items SET name = name || '!' WHERE price <> 'dear'")
        items.drain()
    assert len(items.letters()) == 160
    dlq.requeue(items.conn, dlq.Selection(), limit=160)
    items.drain()
    assert len(items.letters()) == 160
    assert paused_for(items) is None


# Reads ---------------------------------------------------------------------------------------------------------------


def test_rows_hidden_by_a_policy_are_an_error_and_not_deletes(items: Rig):
    """C5: read with row_security off, or every hidden row would leave the index."""
    role = f"{items.index}_worker"
    items.sql(f"CREATE ROLE {role} LOGIN")
    try:
        items.grant(worker=role)
        items.sql("ALTER TABLE items ENABLE ROW LEVEL SECURITY")
        change(items, 1, 2)
        with items.as_role(role) as theirs:
            theirs.hand().step()
            assert "row-level security" in paused_for(items)
        nobody_was_charged(items)
        assert items.document(1) is not None
        items.sql("ALTER TABLE items DISABLE ROW LEVEL SECURITY")
        let_it_probe(items)
        items.hand().steps()
        assert items.differences() == []
    finally:
        items.sql(f"DROP OWNED BY {role}")
        items.sql(f"DROP ROLE {role}")


def test_a_server_too_slow_to_answer_is_sent_less(items: Rig):
    """What it was too slow for is still in its queues: the same again would fill them for good."""
    load = Load(batches=4)
    batch = Batch(1, items.index, "document", (), (), datetime.now(timezone.utc))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with connect(replace(items.settings.opensearch, urls=(url,), request_timeout_seconds=0.2)) as client:
            body = Body(["1"], b'{"index":{"_id":"1"}}\n{}\n')
            send(client, batch, items.generation(), body, Limits(), Learnt(load=load), Written())
    assert load.batches == 2
