"""Fan-outs: lookups after commit (C1), sweeps after TRUNCATE (C3), on real servers."""

import random

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from idxctl.core.errors import IdxctlError
from idxctl.queue import due, gaps, rescue


def test_a_listing_that_moves_into_a_category_while_it_is_renamed_gets_the_new_name(items):
    """C1: the rename's own transaction cannot see the listing that is just moving in."""
    with psycopg.connect(items.database) as moving, psycopg.connect(items.database) as renaming:
        moving.execute("UPDATE items SET category_id = 2 WHERE id = 3")
        renaming.execute("UPDATE categories SET name = 'renamed' WHERE id = 2")
        moving.commit()
        items.hand().steps()
        assert items.document(3)["category"] == "category 2"
        renaming.commit()
    items.drain()
    assert items.document(3)["category"] == "renamed"
    assert items.differences() == []


def test_a_lookup_of_a_lost_lease_is_expanded_by_others_and_not_twice(items, stops):
    items.sql("UPDATE categories SET name = 'renamed' WHERE id = 1")
    stop = stops.at("expand.before")
    with items.hand().stepping():
        stop.wait()
        items.sql("UPDATE opensearch_indexing_inflight SET lease_until = now() - interval '1 second'")
        rescue.rescue(items.conn, max_attempts=3)
        stop.release()
    assert items.sql("SELECT kind FROM opensearch_indexing_queue") == [("keys",)]
    items.drain()
    assert items.differences() == []


def test_a_lookup_that_cannot_run_waits_and_stops_no_other_task(items):
    items.sql("UPDATE categories SET name = 'renamed' WHERE id = 1")
    items.sql("ALTER TABLE items RENAME COLUMN category_id TO category")
    hand = items.hand()
    hand.step()
    ((kind, error),) = items.sql("SELECT kind, last_error FROM opensearch_indexing_queue")
    assert kind == "keys"
    assert "does not run" in error
    items.sql("ALTER TABLE items RENAME COLUMN category TO category_id")
    items.drain()
    assert items.differences() == []


@pytest.mark.parametrize(
    "change",
    [
        ["ALTER TYPE mood RENAME VALUE 'old' TO 'new'"],
        ["ALTER TABLE categories ALTER mood TYPE int USING length(mood::text)"],
        ["ALTER TABLE categories DROP COLUMN mood, ADD COLUMN mood date"],
    ],
)
def test_stored_values_that_their_column_takes_no_more_are_looked_at_as_a_whole(items, change):
    """The lookup over them would wait for ever: its changes are found among all documents instead."""
    items.sql("CREATE TYPE mood AS ENUM ('old')")
    items.sql("ALTER TABLE categories ADD COLUMN mood mood")
    config = items.config.read_text()
    assert "ON i.category_id = c.id" in config
    items.configure(toml=config.replace("ON i.category_id = c.id", "ON i.category_id = c.id AND c.mood::text <> ''"))
    items.watch()
    items.sql("UPDATE categories SET name = 'renamed', mood = 'old' WHERE id = 1")
    for statement in change:
        items.sql(statement)
    items.drain()
    assert items.document(3)["category"] == "renamed"
    assert items.differences() == []


def test_until_empty_ends_with_3_when_a_lookup_cannot_run(items, idxctl):
    """It is tried some times, as a document would be, and not for ever."""
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    items.sql("UPDATE categories SET name = 'renamed' WHERE id = 1")
    items.sql("ALTER TABLE items RENAME COLUMN category_id TO category")
    hand = items.hand()
    for tried in range(1, 4):
        items.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")
        hand.step()
        assert items.sql("SELECT kind, attempts FROM opensearch_indexing_queue") == [("keys", tried)]
    done = idxctl("worker", "start", "--until-empty")
    assert done.status == 3, done.stderr
    assert "lookup" in done.stderr
    items.sql("ALTER TABLE items RENAME COLUMN category TO category_id")
    items.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")
    items.drain()
    assert items.differences() == []


def test_truncate_empties_the_index_once_batches_in_flight_are_through(items, stops):
    """C3: a batch that was read before the TRUNCATE is still under way when the sweep is claimed."""
    items.sql("UPDATE items SET name = 'new' WHERE id = 1")
    stop = stops.at("send.before")
    with items.hand().stepping():
        stop.wait()
        items.sql("TRUNCATE items CASCADE")
        other = items.hand()
        other.step()
        assert items.one("SELECT payload ? 'before' FROM opensearch_indexing_queue WHERE kind = 'sweep' LIMIT 1")
        stop.release()
    items.drain()
    assert items.differences() == []
    assert items.ask("GET", f"/{items.index}/_count")["count"] == 0


def test_truncates_that_piled_up_are_one_sweep(items):
    """Each would enqueue every document of every generation again, and so much faster than it is worked off."""
    for _ in range(5):
        items.sql("TRUNCATE parts")
    items.hand().step()
    assert items.one("SELECT count(*) FROM opensearch_indexing_queue WHERE origin = 'sweep'") == 20
    items.drain()
    assert items.differences() == []


def test_sweeps_that_become_one_wait_for_what_the_last_of_them_waits_for(items):
    """C3: the first could begin; a batch that was read before the second TRUNCATE is still under way."""
    hand = items.hand()
    items.sql("UPDATE items SET name = 'new' WHERE id = 1")
    early = hand.claim()
    items.sql("TRUNCATE items CASCADE")
    hand.step()  # it waits for the early batch
    items.sql("INSERT INTO items (id, name) VALUES (2, 'back')")
    late = hand.claim()
    items.sql("TRUNCATE items CASCADE")
    hand.carry(early)
    items.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")
    hand.step()
    assert items.sql("SELECT kind, count(*) FROM opensearch_indexing_queue GROUP BY 1") == [("sweep", 1)]
    hand.carry(late)
    items.drain()
    assert items.differences() == []


def test_truncate_of_a_child_table_empties_its_part_of_every_document(items):
    items.sql("TRUNCATE parts")
    items.drain()
    assert items.differences() == []
    assert items.document(1)["parts"] == []


def test_a_row_written_after_a_truncate_in_the_same_transaction_is_there(items):
    with psycopg.connect(items.database) as connection:
        connection.execute("TRUNCATE items CASCADE")
        connection.execute("INSERT INTO items (id, name) VALUES (1, 'again'), (99, 'fresh')")
    items.drain()
    assert items.differences() == []


def test_a_sweep_of_a_generation_that_was_retired_meanwhile_leaves_it_out(items, stops):
    from idxctl.indexes.retire import retire
    from idxctl.opensearch import aliases

    going = items.register()
    items.sql("TRUNCATE parts")
    stop = stops.at("expand.before")
    hand = items.hand()
    with hand.stepping():
        stop.wait()
        retire(items.conn, going.id)
        aliases.delete(items.client, going.name)
        stop.release()
    assert not hand.worker.breaker.open
    items.drain()
    assert items.differences() == []


def test_rows_that_become_due_with_time_are_enqueued_once(items):

    items.configure(toml=items.config.read_text().replace('ignore = ["seen"]', 'at = "due"'))
    items.sql("ALTER TABLE items ADD COLUMN due timestamptz")
    items.watch()
    items.sql("UPDATE items SET due = now() + interval '1 hour' WHERE id = 1")
    items.drain()
    items.sql(
        "UPDATE opensearch_indexing_watches SET at_watermark = now() - interval '1 minute' WHERE at_watermark IS NOT NULL"
    )
    items.sql("SET session_replication_role = replica")
    assert due.due(items.conn).enqueued == 0
    items.application.execute("ALTER TABLE items DISABLE TRIGGER ALL")
    items.sql("UPDATE items SET due = now() - interval '30 seconds' WHERE id = 1")
    items.sql(
        "UPDATE opensearch_indexing_watches SET at_watermark = now() - interval '1 minute' WHERE at_watermark IS NOT NULL"
    )
    assert due.due(items.conn).enqueued == 1
    assert items.sql("SELECT document_id, origin FROM opensearch_indexing_queue") == [("1", "at")]
    items.sql(
        "UPDATE opensearch_indexing_watches SET at_watermark = at_watermark - interval '1 second' WHERE at_watermark IS NOT NULL"
    )
    assert due.due(items.conn).enqueued == 0


def test_a_watch_whose_table_is_gone_holds_up_no_other_that_looks_at_the_time(items):

    watches = items.config.read_text().replace('ignore = ["seen"]', 'at = "due"')
    first = f'[[indexes.{items.index}.watch]]\ntable = "events"\nkey_sql = "unnest(ids)"\nat = "due"\n\n'
    items.sql("CREATE TABLE events (ids bigint[], due timestamptz); ALTER TABLE items ADD COLUMN due timestamptz")
    items.configure(
        toml=watches.replace(f"[[indexes.{items.index}.watch]]", first + f"[[indexes.{items.index}.watch]]", 1)
    )
    items.watch()
    items.sql("UPDATE items SET due = now() WHERE id = 1")
    items.sql("INSERT INTO events VALUES ('{2,3}', now())")
    items.drain()
    items.sql(
        "UPDATE opensearch_indexing_watches SET at_watermark = now() - interval '1 minute' WHERE at_watermark IS NOT NULL"
    )
    assert due.due(items.conn) == due.Due(3)
    items.drain()
    items.sql("DROP TABLE events")
    items.sql(
        "UPDATE opensearch_indexing_watches SET at_watermark = now() - interval '1 minute' WHERE at_watermark IS NOT NULL"
    )
    found = due.due(items.conn)
    assert found.enqueued == 1
    ((index, why),) = found.broken
    assert (index, "events" in why.sentence) == (items.index, True)


def open_coarse(items):
    return items.sql("SELECT payload ->> 'coarse' FROM opensearch_indexing_queue WHERE payload ? 'coarse'")


def test_a_key_that_is_renamed_loses_nothing_and_fails_nobody(items):
    """C6: what was written in between is brought in by coarse tasks, rows that went and rows that came too."""
    items.sql("ALTER TABLE items RENAME COLUMN id TO number")
    items.sql("INSERT INTO items (number, name) VALUES (501, 'came')")
    items.sql("DELETE FROM items WHERE number = 3")
    items.sql("UPDATE items SET name = 'changed' WHERE number = 5")
    assert len(open_coarse(items)) >= 3
    items.sql("ALTER TABLE items RENAME COLUMN number TO id")
    items.drain()
    assert items.differences() == []
    assert items.document(501)["name"] == "came"


def test_coarse_tasks_of_many_transactions_are_one_round(items):
    items.sql("ALTER TABLE items RENAME COLUMN id TO number")
    for _ in range(40):
        items.sql("UPDATE items SET name = 'changed' WHERE number = 5")
    items.sql("ALTER TABLE items RENAME COLUMN number TO id")
    rows = items.one("SELECT count(*) FROM items")
    hand = items.hand()
    while open_coarse(items):
        hand.step()
    assert items.one("SELECT count(*) FROM opensearch_indexing_queue WHERE origin = 'coarse'") <= rows
    items.drain()
    assert items.differences() == []


def test_a_second_round_waits_for_the_documents_of_the_first(items):
    coarse = (
        "INSERT INTO opensearch_indexing_queue (index_name, kind, priority, payload) "
        f"VALUES ('{items.index}', 'keys', -1, '{{\"watch\": 1, \"coarse\": \"columns\"}}')"
    )
    items.sql("INSERT INTO opensearch_indexing_queue (index_name, document_id, priority, origin, available_at) "
              f"VALUES ('{items.index}', '1', -1, 'coarse', now() + interval '1 hour')")  # fmt: skip
    items.sql(coarse)
    items.hand().step()
    assert "documents of the last one" in items.one(
        "SELECT last_error FROM opensearch_indexing_queue WHERE kind = 'keys'"
    )
    items.sql("UPDATE opensearch_indexing_queue SET available_at = now()")
    items.drain()
    assert open_coarse(items) == []


def test_a_gap_is_seen_to_once_the_queue_is_back(items):
    items.sql("ALTER TABLE opensearch_indexing_queue RENAME TO away")
    items.sql("UPDATE items SET name = 'unseen' WHERE id = 5")
    items.sql("DELETE FROM items WHERE id = 6")
    items.sql("ALTER TABLE away RENAME TO opensearch_indexing_queue")
    assert items.differences() != []
    assert gaps.unseen(items.conn) == 3  # the DELETE cascades
    assert gaps.repair(items.conn) == 1
    assert (gaps.unseen(items.conn), gaps.repair(items.conn)) == (0, 0)
    items.drain()
    assert items.differences() == []


CAST_LOOKUP = "SELECT i.id FROM items i JOIN changed c ON i.category_id = c.ref::bigint"


def watch_by_cast(items):
    """Categories are found by a column of text, which need not hold a number."""
    items.sql("ALTER TABLE categories ADD COLUMN ref text; UPDATE categories SET ref = id::text")
    text = items.config.read_text()
    items.configure(toml=text.replace("SELECT i.id FROM items i JOIN changed c ON i.category_id = c.id", CAST_LOOKUP))
    items.watch()


def test_a_row_that_breaks_its_lookup_waits_alone(items):
    """P3."""
    watch_by_cast(items)
    items.sql(
        "INSERT INTO categories SELECT i, 'more', CASE i WHEN 50 THEN 'bad' ELSE i::text END FROM generate_series(4, 90) i"
    )
    items.sql("UPDATE categories SET name = 'renamed ' || id")
    items.hand().steps()
    assert items.differences() == []
    waiting = items.sql("SELECT payload->'rows', last_error FROM opensearch_indexing_queue")
    assert [rows for rows, _ in waiting] == [[["bad"]], [["bad"]]]
    assert 'invalid input syntax for type bigint: "bad"' in waiting[0][1]


def test_a_lookup_that_was_mended_since_frees_the_tasks_of_the_old_one(items):
    items.sql("UPDATE categories SET name = 'renamed' WHERE id = 1")
    items.sql("ALTER TABLE items RENAME COLUMN category_id TO category")
    items.hand().step()
    assert "does not run" in items.one("SELECT last_error FROM opensearch_indexing_queue")
    items.configure(
        document=items.query.replace("i.category_id", "i.category"),
        toml=items.config.read_text().replace("i.category_id", "i.category"),
    )
    items.watch()
    items.reindex()
    items.drain()
    assert items.differences() == []


def break_the_live_query(items):
    items.sql("ALTER TABLE items RENAME COLUMN price TO cost")
    items.sql("UPDATE items SET cost = '9'")
    items.hand().step()
    assert "price" in items.one("SELECT reason FROM opensearch_indexing_pauses")
    items.configure(document=items.query.replace("i.price", "i.cost"))


def test_a_reindex_does_not_wait_for_tasks_that_wait_for_it(items, stops):
    """A column that the live generation's query reads is gone: its index is blocked until another generation is live."""
    break_the_live_query(items)
    stops.do("reindex.filled", lambda: items.sql("UPDATE items SET name = 'while it was built' WHERE id = 2"))
    assert items.reindex().swapped
    items.drain()
    assert items.differences() == []
    assert items.sql("SELECT reason FROM opensearch_indexing_pauses") == []


def test_what_no_waiting_task_will_mend_keeps_such_a_reindex_from_its_swap(items, stops):
    break_the_live_query(items)
    unseen = "ALTER TABLE items DISABLE TRIGGER ALL; UPDATE items SET cost = '7'; ALTER TABLE items ENABLE TRIGGER ALL"
    stops.do("reindex.filled", lambda: items.sql("DELETE FROM opensearch_indexing_queue") or items.sql(unseen))
    stops.do("reindex.filled", lambda: items.enqueue(1))
    with pytest.raises(IdxctlError, match="19 documents of the new generation still differ"):
        items.reindex()


STORY = (
    "ALTER TABLE items RENAME COLUMN {name} TO was_{name}",
    "ALTER TABLE parts RENAME COLUMN item_id TO item",
    "ALTER TABLE categories RENAME COLUMN id TO number",
    "ALTER TABLE categories ADD COLUMN more json DEFAULT '{\"a\": 1e400000}'",
    "ALTER TABLE opensearch_indexing_queue RENAME TO away",
)


@pytest.mark.parametrize("seed", range(4))
def test_after_any_change_of_tables_and_back_every_document_is_its_row(items, seed):
    """C6: what was written while capture could not follow is in the index once it can."""
    chance = random.Random(seed)
    name = chance.choice(["id", "name", "category_id"])
    story = [each.replace("{name}", name) for each in chance.sample(STORY, 3)]
    back = {
        "TO was_": f"ALTER TABLE items RENAME COLUMN was_{name} TO {name}",
        "item_id TO item": "ALTER TABLE parts RENAME COLUMN item TO item_id",
        "id TO number": "ALTER TABLE categories RENAME COLUMN number TO id",
        "TO away": "ALTER TABLE away RENAME TO opensearch_indexing_queue",
    }
    for step in story:
        items.sql(step)
        for _ in range(4):
            table = chance.choice(["items", "categories", "parts"])
            row = f"ctid = (SELECT ctid FROM {table} ORDER BY random() LIMIT 1)"
            column = f"was_{name}" if (table, name) == ("items", "name") and any("TO was_" in each for each in story[: story.index(step) + 1]) else "name"  # fmt: skip
            items.sql(f"UPDATE {table} SET {column} = {column} || '!' WHERE {row}")
        items.sql("DELETE FROM parts WHERE ctid = (SELECT ctid FROM parts ORDER BY random() LIMIT 1)")
    for step in reversed(story):
        for mark, statement in back.items():
            if mark in step:
                items.sql(statement)
    items.watch()
    gaps.repair(items.conn)
    items.drain()
    assert items.differences() == []


def test_a_gap_waits_for_writers_of_watched_tables_and_for_no_stranger(items, unique_name):
    items.drain()
    items.sql("ALTER TABLE opensearch_indexing_queue ADD CONSTRAINT no CHECK (origin <> 'trigger')")
    items.sql(f"CREATE ROLE {unique_name} LOGIN")
    try:
        with psycopg.connect(make_conninfo(items.database, user=unique_name)) as stranger:
            stranger.execute("SELECT pg_current_xact_id()")
            with psycopg.connect(items.database) as writer:
                writer.execute("UPDATE items SET name = 'late' WHERE id = 1")
                assert gaps.repair(items.conn) > 0
                hand = items.hand()
                hand.step()
                waits = "SELECT last_error FROM opensearch_indexing_queue WHERE kind = 'keys'"
                assert items.sql(waits) == [("waits for transactions that began before it",)]
            items.drain()
            assert items.document(1)["name"] == "late"
            assert items.differences() == []
    finally:
        items.sql(f"DROP ROLE {unique_name}")


def test_what_an_altered_queue_refused_is_indexed_with_no_word_from_the_application(items):
    """C6: the worker's own tasks pass the constraint, so the gap is seen to while it is still there."""
    items.drain()
    items.sql("ALTER TABLE opensearch_indexing_queue ADD CONSTRAINT no CHECK (origin <> 'trigger')")
    items.sql("UPDATE items SET name = 'refused' WHERE id = 1")
    items.sql("DELETE FROM items WHERE id = 2")
    assert items.sql("SELECT count(*) FROM opensearch_indexing_queue") == [(0,)]
    assert gaps.repair(items.conn) > 0
    items.drain()
    assert items.document(1)["name"] == "refused"
    assert items.differences() == []
