"""
A session that keeps an old snapshot keeps dead rows at the head of the queue; claims pass them by, and miss nothing.

Counted in the index entries that scans return, dead ones among them; never by time.
"""

import math
from datetime import timedelta

import psycopg
import pytest

from idxctl.queue.horizon import Horizon
from support.rig import until

TASKS = 5000
FEW = 50
READ = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'opensearch_indexing_queue_claim'"


@pytest.fixture
def old_snapshot(items):
    """A session that has looked once and forgotten to go."""
    with psycopg.connect(items.database) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT count(*) FROM items")
        yield connection


@pytest.fixture
def hand(items):
    """A hand that looks below the floor only when told to."""
    hand = items.hand(batch_size=500)
    hand.worker.poller.swept_at = math.inf
    hand.worker.poller.horizon = Horizon(margin=timedelta(), cheap=0.0)
    return hand


def pass_many(items, hand):
    """Let thousands of tasks pass: their rows are dead, and nobody may remove them."""
    items.sql(
        "INSERT INTO opensearch_indexing_queue (index_name, document_id, origin) SELECT %s, i %% 20 + 1, 'api' FROM generate_series(1, %s) i",
        items.index,
        TASKS,
    )
    hand.steps()
    items.sql("VACUUM opensearch_indexing_queue")
    assert items.queued() == 0


def entries(items):
    """How many entries of the index of claims have been read by scans."""
    if items.conn.raw.info.server_version < 150000:
        return settled(items)
    items.conn.execute(b"SELECT pg_stat_force_next_flush()")
    items.sql("SELECT pg_stat_force_next_flush()")  # what the application counted is not to come in between
    return items.one(READ)


def settled(items):
    """PostgreSQL 14 cannot be told to flush: a session tells its counts twice a second, a collector shows them as often."""
    found = []
    while len(found) < 3 or len(set(found[-3:])) > 1:
        items.conn.execute(b"SELECT pg_sleep(0.6)")
        items.sql("SELECT")
        found.append(items.one(READ))
    return found[-1]


def look_below(hand):
    """Look below the floor once; returns what was claimed."""
    hand.worker.poller.swept_at = 0.0
    taken = hand.worker.poll()
    hand.worker.poller.swept_at = math.inf
    return taken


def test_claims_from_the_floor_do_not_read_the_dead_rows_at_the_head(items, old_snapshot, hand):
    pass_many(items, hand)
    items.enqueue(1)
    before = entries(items)
    hand.step()
    assert entries(items) - before < FEW
    assert hand.worker.poll() is None  # a poll that finds nothing is as cheap
    assert entries(items) - before < FEW


def test_a_look_below_the_floor_reads_them_all(items, old_snapshot, hand):
    """Which is why it is rare; without it the first test would prove nothing."""
    pass_many(items, hand)
    items.enqueue(1)
    before = entries(items)
    hand.carry(look_below(hand))
    assert entries(items) - before >= TASKS


def test_further_looks_below_the_floor_go_no_deeper_than_the_oldest_open_transaction(items, old_snapshot, hand):
    pass_many(items, hand)
    for _ in range(3):
        assert look_below(hand) is None
    items.enqueue(1)
    before = entries(items)
    hand.carry(look_below(hand))
    assert entries(items) - before < FEW


def test_a_look_goes_as_deep_as_a_transaction_that_is_still_open(items, old_snapshot, hand):
    for _ in range(3):
        assert look_below(hand) is None
    with psycopg.connect(items.database) as late:
        late.execute("UPDATE items SET name = 'late' WHERE id = 1")
        assert look_below(hand) is None  # while it is the newest transaction of all
        pass_many(items, hand)
        for _ in range(3):
            assert look_below(hand) is None
        late.commit()
    hand.carry(look_below(hand))  # what has just ended is seen by this look, which must not begin above it
    assert items.document(1)["name"] == "late"


def test_everything_is_looked_at_now_and_then(items, hand):
    """For what lies below the horizon all the same: the tasks of a claim that was rolled back, a clock set back."""
    for _ in range(3):
        items.enqueue(2)
        hand.carry(look_below(hand))
    items.enqueue(1)
    items.sql("UPDATE opensearch_indexing_queue SET available_at = now() - interval '1 day'")
    hand.worker.poller.horizon.everything_at = math.inf  # however long the machine has stood still
    assert look_below(hand) is None
    hand.worker.poller.horizon.everything_at = 0.0
    hand.carry(look_below(hand))
    assert items.at_rest()


def test_a_change_committed_late_lies_below_the_floor_and_is_claimed_by_the_next_look_there(items, hand):
    with psycopg.connect(items.database) as late:
        late.execute("UPDATE items SET name = 'late' WHERE id = 1")  # its task is made now, and seen at the commit
        items.enqueue(2, 3)
        hand.steps()
        late.commit()
    assert items.due() == 1
    assert hand.worker.poll() is None
    hand.carry(look_below(hand))
    assert items.document(1)["name"] == "late"
    assert items.at_rest()


def test_workers_look_below_the_floor_by_themselves(items, old_snapshot):
    with items.working(workers=2) as worker:
        for number in range(1, 6):
            with psycopg.connect(items.database) as late:
                late.execute("UPDATE items SET name = %s WHERE id = 1", (f"late {number}",))
                before = worker.counters.indexed
                items.enqueue(2, 3)
                until(lambda: worker.counters.indexed > before, "nothing passes it")  # noqa: B023 - called at once
                late.commit()
            until(lambda: items.document(1)["name"] == f"late {number}", "it is not found", seconds=10)  # noqa: B023
    assert items.differences() == []


def test_a_full_claim_from_below_the_floor_is_followed_by_the_rest(items, hand):
    with psycopg.connect(items.database) as late:
        late.execute(
            "INSERT INTO opensearch_indexing_queue (index_name, document_id, origin) "
            "SELECT %s, i %% 20 + 1, 'api' FROM generate_series(1, 1200) i",
            (items.index,),
        )
        items.enqueue(2)
        hand.steps()
        late.commit()
    hand.carry(look_below(hand))
    hand.steps()  # from the floor alone, which was moved back
    assert items.at_rest()


@pytest.mark.parametrize("table", ["opensearch_indexing_queue", "opensearch_indexing_inflight"])
def test_the_migration_has_tables_that_turn_over_vacuumed_by_count_and_without_pause(migrated, table):
    """By scale factor, a queue that was once long would not be vacuumed until it is long again."""
    with psycopg.connect(migrated) as connection:
        (options,) = connection.execute("SELECT reloptions FROM pg_class WHERE relname = %s", (table,)).fetchone()
    set_ = dict(option.split("=") for option in options)
    assert set_["autovacuum_vacuum_scale_factor"] == "0"
    assert 0 < int(set_["autovacuum_vacuum_threshold"]) <= 10_000
    assert set_["autovacuum_vacuum_cost_delay"] == "0"
    assert "autovacuum_enabled" not in set_
