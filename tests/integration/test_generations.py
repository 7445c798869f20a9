"""The set of generations and its barrier (G1, G2), on real servers."""

import threading
from datetime import timedelta

import pytest

from idxctl.indexes import generations, retire
from support.rig import ITEMS_DOCUMENT, ITEMS_MAPPING, until


def rename(rig, item, name):
    rig.sql("UPDATE items SET name = %s WHERE id = %s", name, item)


def waits_for_the_barrier(rig):
    return rig.one(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )


def test_a_generation_registered_between_two_claims_is_written_by_the_second(items):
    hand = items.hand()
    rename(items, 1, "first")
    hand.step()
    building = items.register()
    rename(items, 2, "second")
    hand.step()
    assert items.document(2, building.name)["name"] == "second"


def test_a_claim_that_waited_for_a_change_of_the_set_sees_it(items):
    """G2: taken by the claim's own statement, the lock would let it keep a snapshot from before the change."""
    rename(items, 1, "new")
    registering = items.connect()
    from idxctl.indexes.definitions import define
    from idxctl.opensearch import aliases

    definition = define(items.conn, items.settings.indexes[items.index])
    name = generations.physical_name(items.index, 2)
    aliases.create(items.client, name, settings={"index": dict(definition.settings)}, mappings=definition.mappings)
    with registering.transaction():
        generations.register(registering, items.index, 2, definition)
        thread = threading.Thread(target=items.hand().step, daemon=True)
        thread.start()
        until(lambda: waits_for_the_barrier(items), "the claim does not wait")
    thread.join(30)
    assert items.document(1, name)["name"] == "new"


def test_a_change_of_the_set_waits_for_an_open_claim(items, stops):
    rename(items, 1, "new")
    stop = stops.at("claim.taken")
    with items.hand().stepping():
        stop.wait()
        registered = []
        thread = threading.Thread(target=lambda: registered.append(items.register()), daemon=True)
        thread.start()
        until(lambda: waits_for_the_barrier(items), "the registration does not wait")
        assert items.sql("SELECT count(*) FROM opensearch_indexing_generations") == [(1,)]
        stop.release()
        thread.join(30)
    assert registered


def stricter(without):
    properties = {name: value for name, value in ITEMS_MAPPING["mappings"]["properties"].items() if name != without}
    return {"dynamic": "strict", "properties": properties}


def test_a_building_generation_that_refuses_a_document_makes_no_letter_for_the_live_one(items):
    building = items.register(mappings=stricter("share"))
    rename(items, 1, "new")
    items.drain()
    assert items.letters() == {}
    assert items.sql("SELECT * FROM opensearch_indexing_pauses") == []
    assert items.document(1)["name"] == "new"
    assert items.sql("SELECT generation, document_id, error_type FROM opensearch_indexing_generation_failures") == [
        (building.id, "1", "strict_dynamic_mapping_exception")
    ]


def test_a_building_generation_whose_query_is_broken_pauses_nothing(items):
    items.sql("CREATE TABLE doomed AS SELECT id, 'x' AS word FROM items")
    query = "SELECT id AS document_id, jsonb_build_object('name', word) AS document FROM doomed"
    items.configure(document=query)
    building = items.register()
    items.sql("DROP TABLE doomed")
    items.configure(document=ITEMS_DOCUMENT)
    rename(items, 1, "new")
    items.drain()
    assert items.sql("SELECT * FROM opensearch_indexing_pauses") == []
    assert items.letters() == {}
    assert items.document(1)["name"] == "new"
    assert items.sql(
        "SELECT behind_since IS NOT NULL FROM opensearch_indexing_generations WHERE id = %s", building.id
    ) == [(True,)]


def test_a_building_generation_that_blocks_writes_pauses_nothing(items):
    building = items.register()
    items.ask("PUT", f"/{building.name}/_settings", {"index.blocks.write": True})
    rename(items, 1, "new")
    items.drain()
    assert items.sql("SELECT * FROM opensearch_indexing_pauses") == []
    assert items.document(1)["name"] == "new"


def test_each_generation_gets_documents_of_its_own_shape(items):
    query = ITEMS_DOCUMENT.replace("jsonb_build_object('name', i.name", "jsonb_build_object('title', i.name")
    items.configure(document=query)
    new = items.register(
        mappings={"dynamic": "strict", "properties": {**stricter("name")["properties"], "title": {"type": "keyword"}}}
    )
    rename(items, 1, "both")
    items.drain()
    assert items.document(1)["name"] == "both"
    assert items.document(1, new.name)["title"] == "both"


def test_a_document_that_a_generation_takes_after_all_is_no_failure_of_it_any_more(items):
    items.register(
        mappings={
            **ITEMS_MAPPING["mappings"],
            "properties": {**ITEMS_MAPPING["mappings"]["properties"], "name": {"type": "integer"}},
        }
    )
    rename(items, 1, "no number")
    items.drain()
    assert items.one("SELECT count(*) FROM opensearch_indexing_generation_failures") == 1
    rename(items, 1, "12")
    items.drain()
    assert items.one("SELECT count(*) FROM opensearch_indexing_generation_failures") == 0


def test_what_a_generation_refused_is_the_indexs_letter_once_it_is_live(items, stops):
    """The swap comes between the write and the settle."""
    old, building = items.generation(), items.register(mappings=stricter("share"))
    rename(items, 1, "new")
    stop = stops.at("settle.before")
    with items.hand().stepping():
        stop.wait()
        with items.conn.transaction():
            generations.lock_set(items.conn, exclusive=True)
            generations.set_state(items.conn, old.id, "standby", expected=("live",))
            generations.set_state(items.conn, building.id, "live", expected=("building",))
        stop.release()
    assert items.letters()["1"][0] == "strict_dynamic_mapping_exception"


@pytest.mark.parametrize("cause", ["write block", "index closed"])
def test_a_change_that_a_generation_missed_while_it_was_building_is_not_lost_when_it_goes_live(items, stops, cause):
    """P1: the block comes after the check and ends before the swap."""
    stop = stops.at("reindex.checked")
    errors = []

    def reindex():
        try:
            items.reindex()
        except Exception as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    thread = threading.Thread(target=reindex, daemon=True)
    thread.start()
    stop.wait()
    name = items.generation("building").name
    if cause == "write block":
        items.ask("PUT", f"/{name}/_settings", {"index.blocks.write": True})
    else:
        items.ask("POST", f"/{name}/_close")
    rename(items, 1, "meanwhile")
    items.hand().step()
    if cause == "write block":
        items.ask("PUT", f"/{name}/_settings", {"index.blocks.write": None})
    else:
        items.ask("POST", f"/{name}/_open")
    stop.release()
    thread.join(60)
    assert not thread.is_alive()
    items.drain()
    assert items.differences() == []


def test_a_chunk_of_a_backfill_is_read_after_its_token_was_drawn(items, stops):
    """T1 for backfills: read before, it would carry older bytes under a greater token than a worker's."""
    before, filled = stops.at("chunk.before"), stops.at("reindex.filled")
    thread = threading.Thread(target=lambda: items.reindex(readers=1), daemon=True)
    thread.start()
    before.wait()
    building = items.generation("building").name
    rename(items, 1, "meanwhile")
    items.hand().step()
    before.release()
    filled.wait()
    assert items.document(1, building)["name"] == "meanwhile"
    filled.release()
    thread.join(60)
    assert not thread.is_alive()


def test_an_index_is_kept_while_a_batch_under_way_may_write_to_it(items, stops):
    """G2, G3: deleted too early, a late delete with an external version would create it again."""
    going = items.register()
    items.sql("DELETE FROM items WHERE id = 1")
    stop = stops.at("send.before")
    with items.hand().stepping():
        stop.wait()
        retire.retire(items.conn, going.id)
        items.sql(
            "UPDATE opensearch_indexing_generations SET retired_at = now() - interval '1 day' WHERE state = 'retired'"
        )
        assert retire.sweep_up(items.conn, items.client, age_limit=timedelta(seconds=60)) == []
        assert items.client.exists(f"/{going.name}")
        stop.release()
    assert retire.sweep_up(items.conn, items.client, age_limit=timedelta(seconds=60)) == [going.name]


def test_an_index_is_kept_until_bytes_of_a_lost_lease_are_too_old_to_be_sent(items):
    """G3: no batch is in flight any more, but a zombie may hold its bytes."""
    going = items.register()
    retire.retire(items.conn, going.id)
    assert retire.sweep_up(items.conn, items.client, age_limit=timedelta(seconds=60)) == []
    assert retire.sweep_up(items.conn, items.client, age_limit=timedelta(0)) == [going.name]
