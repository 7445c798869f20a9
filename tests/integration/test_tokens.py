"""Tokens and versions: T2 to T6, on real servers. T1 is in test_claim.py."""

import time
from dataclasses import replace

from idxctl.indexes.retire import retire
from idxctl.opensearch import aliases, bulk
from idxctl.opensearch.bulk import Body
from idxctl.queue import rescue, tokens
from support.rig import until


def rename(rig, item, name):
    rig.sql("UPDATE items SET name = %s WHERE id = %s", name, item)


def spoil(rig, item):
    """Give an item a price that the mapping refuses."""
    rig.sql("UPDATE items SET price = 'dear' WHERE id = %s", item)


def mend(rig, item):
    rig.sql("UPDATE items SET price = '2' WHERE id = %s", item)


def write_by_hand(rig, item, version):
    """Write as somebody else would who uses versions of their own."""
    head = {"index": {"_id": str(item), "version": version, "version_type": "external"}}
    lines = f'{__import__("json").dumps(head)}\n{{"name": "foreign"}}\n'
    answer = rig.ask("POST", f"/{rig.generation().name}/_bulk", lines.encode())
    assert not answer["errors"], answer


def sequence(rig):
    return rig.one("SELECT last_value FROM opensearch_indexing_token")


# T3 ------------------------------------------------------------------------------------------------------------------


def test_bytes_that_have_grown_too_old_are_not_sent_but_read_again(items):
    rename(items, 1, "new")
    hand = items.hand(age_limit_seconds=60.0)
    batch, head = hand.claim()
    hand.carry((replace(batch, born=batch.born - 61), head))
    assert items.document(1)["name"] == "item 1"
    assert items.sql("SELECT document_id, attempts FROM opensearch_indexing_queue") == [("1", 0)]
    until(items.due, "the task is not due again")
    hand.step()
    assert items.document(1)["name"] == "new"


def test_the_age_of_bytes_is_counted_from_before_their_token_was_drawn(items, stops):
    rename(items, 1, "new")
    moments = []
    stops.do("claim.locked", lambda: moments.append(time.monotonic()))
    batch, _ = items.hand().claim()
    assert batch.born <= moments[0]


# T4 ------------------------------------------------------------------------------------------------------------------


def test_a_version_above_the_sequence_is_overtaken(items):
    foreign = sequence(items) + 10**9
    write_by_hand(items, 1, foreign)
    rename(items, 1, "ours")
    items.drain()
    assert items.differences() == []
    assert items.version(1) > foreign
    assert sequence(items) > foreign


def test_a_version_in_the_gap_that_a_jump_left_is_overtaken(items):
    in_gap = sequence(items) + 500
    write_by_hand(items, 1, in_gap)
    tokens.advance(items.conn, in_gap + 500, "a jump over it")
    rename(items, 1, "ours")
    write_by_hand(items, 2, in_gap + 1)
    hand = items.hand()
    batch, head = hand.claim()
    # a batch that was claimed before the jump meets a version of the gap
    items.sql("UPDATE opensearch_indexing_inflight SET token = %s WHERE token = %s", in_gap - 100, batch.token)
    hand.carry((replace(batch, token=in_gap - 100), head))
    hand.steps()
    assert items.differences(but=[2]) == []


def test_a_version_of_ours_that_is_newer_counts_as_success(items, stops):
    jumps = items.sql("SELECT count(*) FROM opensearch_indexing_token_jumps")
    rename(items, 1, "first")
    stop = stops.at("send.before")
    slow = items.hand()
    with slow.stepping():
        stop.wait()
        rename(items, 1, "second")
        items.hand().step()
        stop.release()
    assert slow.worker.counters.superseded == 1
    assert items.at_rest()
    assert items.document(1)["name"] == "second"
    assert items.sql("SELECT count(*) FROM opensearch_indexing_token_jumps") == jumps


def test_a_version_that_the_sequence_can_never_reach_is_a_dead_letter(items):
    write_by_hand(items, 1, 2**63 - 2)
    rename(items, 1, "ours")
    items.drain()
    assert items.letters()["1"][0] == "version_conflict_engine_exception"


def test_a_sequence_that_went_back_is_moved_to_the_clock_when_a_worker_connects(items):
    before = sequence(items)
    items.sql("ALTER SEQUENCE opensearch_indexing_token RESTART WITH 1000")
    rename(items, 1, "after the restore")
    items.drain()
    assert sequence(items) >= before
    assert items.differences() == []


# T5 ------------------------------------------------------------------------------------------------------------------


def test_an_older_success_leaves_the_letter_of_a_newer_failure(items, stops):
    rename(items, 1, "good")
    stop = stops.at("settle.before")
    with items.hand().stepping():
        stop.wait()
        spoil(items, 1)
        items.hand().step()
        assert "1" in items.letters()
        stop.release()
    assert "1" in items.letters()


def test_an_older_failure_does_not_take_the_place_of_a_newer_one(items, stops):
    spoil(items, 1)
    stop = stops.at("settle.before")
    with items.hand().stepping():
        stop.wait()
        items.sql("UPDATE items SET price = '1', divisor = 0 WHERE id = 1")
        items.hand().step()
        stop.release()
    assert items.letters()["1"][0] == "sql_22012"


def test_a_newer_success_heals_the_letters_of_every_action(items):
    spoil(items, 1)
    items.drain()
    items.sql(
        "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, token) VALUES (%s, '1', 'delete', 1)",
        items.index,
    )
    mend(items, 1)
    worker = items.drain()
    assert items.letters() == {}
    assert worker.counters.healed == 2


# The lease -----------------------------------------------------------------------------------------------------------


def test_a_settle_whose_lease_was_lost_writes_nothing(items, stops):
    spoil(items, 1)
    stop = stops.at("settle.before")
    slow = items.hand()
    with slow.stepping():
        stop.wait()
        items.sql("UPDATE opensearch_indexing_inflight SET lease_until = now() - interval '1 second'")
        rescue.rescue(items.conn, max_attempts=3)
        mend(items, 1)
        items.hand().rest()
        stop.release()
    assert slow.worker.counters.lost == 1
    assert items.letters() == {}
    assert items.at_rest()
    assert items.differences() == []


def test_a_successful_settle_whose_lease_was_lost_heals_nothing(items, stops):
    rename(items, 1, "good")
    stop = stops.at("settle.before")
    slow = items.hand()
    with slow.stepping():
        stop.wait()
        items.sql("UPDATE opensearch_indexing_inflight SET lease_until = now() - interval '1 second'")
        rescue.rescue(items.conn, max_attempts=3)
        items.sql(
            "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, token) VALUES (%s, '1', 'index', 1)",
            items.index,
        )
        stop.release()
    assert slow.worker.counters.lost == 1
    assert "1" in items.letters()
    assert items.queued() == 1


# T6, and what is sent ------------------------------------------------------------------------------------------------


def test_a_bulk_in_flight_during_a_swap_reaches_the_index_it_was_meant_for(items, stops):
    old, new = items.generation(), items.register()
    rename(items, 1, "new")
    stop = stops.at("send.before")
    with items.hand().stepping():
        stop.wait()
        aliases.swap(items.client, items.index, new=new.name, old=old.name)
        stop.release()
    assert items.document(1, old.name)["name"] == "new"
    assert items.document(1, new.name)["name"] == "new"


def test_the_same_token_may_reach_a_document_twice(items):
    name, token = items.generation().name, sequence(items) + 1
    text = b'{"index":{"_id":"1","version":%d,"version_type":"external_gte"}}\n{"name":"x"}\n' % token
    for body in (Body(["1"], text), bulk.deletes(["2"], token, {})):
        assert bulk.send(items.client, name, body) == []
        assert bulk.send(items.client, name, body) == []


def test_everything_a_worker_sends_may_be_sent_again_under_its_token(items, stops):
    """After an unknown outcome: the first answer is lost, the same bytes come once more."""
    rename(items, 1, "new")
    items.sql("DELETE FROM items WHERE id = 2")
    hand = items.hand()
    taken = hand.claim()
    twice = []
    bulk = items.client.bulk

    def again(index, body, sent, **options):
        twice.append(bulk(index, body, sent, **options))
        return bulk(index, body, sent, **options)

    items.client.bulk = again
    hand.carry(taken)
    assert twice
    assert hand.worker.counters.superseded == 0
    assert items.differences() == []


# G3 ------------------------------------------------------------------------------------------------------------------


def test_a_retired_generation_that_is_gone_holds_nothing_up(items, stops):
    going = items.register()
    rename(items, 1, "new")
    stop = stops.at("send.before")
    hand = items.hand()
    with hand.stepping():
        stop.wait()
        retire(items.conn, going.id)
        aliases.delete(items.client, going.name)
        stop.release()
    assert items.at_rest()
    assert items.sql("SELECT * FROM opensearch_indexing_pauses") == []
    assert items.letters() == {}
    assert not items.client.exists(f"/{going.name}")
    assert items.differences() == []
