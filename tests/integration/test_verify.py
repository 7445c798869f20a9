"""``idxctl verify``: what is missing, stale or orphaned is counted exactly, what is under way is not, and a repair repairs."""

from __future__ import annotations

import json
import threading

import psycopg
import pytest

from idxctl.verify import ids, part, run, runs
from support import judge
from support.drift import behind_our_back, copy_under, in_five_shards
from support.rig import Rig, until


@pytest.fixture
def cli(idxctl, items):
    return idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)


def verified(rig: Rig, **options) -> run.Verified:
    return run.verify(rig.pool, rig.client, rig.index, run.Options(**options), run.Steps())


def found(one: run.Verified) -> tuple[int, int, int, int, int]:
    return (one.missing, one.stale, one.orphan, one.lagging, one.unreadable)


def test_an_index_that_equals_its_rows_is_equal(items):
    one = verified(items)
    assert found(one) == (0, 0, 0, 0, 0)
    assert (one.checked, one.drift, one.generation) == (20, 0, items.generation().name)


def test_what_was_done_behind_our_back_is_counted_and_repaired(items, cli):
    behind_our_back(items, deleted=(1, 2), altered=(3, 4, 5), added=("x", "10001"))
    shown = cli("verify", "-o", "json")
    assert shown.status == 7
    (one,) = json.loads(shown.stdout)
    assert {key: one[key] for key in ("missing", "stale", "orphan", "lagging", "unreadable", "repaired")} == {
        "missing": 2, "stale": 3, "orphan": 2, "lagging": 0, "unreadable": 0, "repaired": 0,
    }  # fmt: skip
    assert one["index"] == items.index
    assert one["checked"] == 22
    with items.working():
        until(lambda: cli("worker", "list", "-o", "json").json, "no worker")
        repaired = cli("verify", "--repair", "--wait", "--reason", "drill", "-o", "json")
    assert repaired.status == 0, repaired.stderr
    (one,) = json.loads(repaired.stdout)
    assert (one["missing"], one["stale"], one["orphan"], one["repaired"]) == (0, 0, 0, 7)
    assert items.differences() == []
    assert cli("audit", "list", "-o", "json").json[0]["action"] == "verify repair"


def test_changes_that_wait_are_lagging_and_no_drift(items, cli):
    items.sql("UPDATE items SET name = 'later' WHERE id <= 3")
    items.sql("DELETE FROM items WHERE id = 4")
    items.sql("INSERT INTO items (id, name, category_id) VALUES (21, 'new', 1)")
    shown = cli("verify", "--timeout", "1s")
    assert shown.status == 8
    assert "5 lagging: no worker is running" in shown.stdout
    with items.working():
        one = verified(items)
    assert found(one) == (0, 0, 0, 0, 0)
    assert items.differences() == []


def test_a_fan_out_that_waits_makes_what_differs_lagging(items):
    items.sql("UPDATE categories SET name = 'renamed' WHERE id = 1")
    one = verified(items)
    assert one.drift == 0
    assert one.lagging > 0


def test_drift_is_counted_exactly_while_changes_go_on(items):
    """Fifty of each, with a hundred changes a second beside it: no change under way is taken for drift."""
    items.sql(
        "INSERT INTO items (id, name, category_id) SELECT i, 'item ' || i, i % 3 + 1 FROM generate_series(100, 1500) i"
    )
    items.drain()
    behind_our_back(items, deleted=range(100, 150), altered=range(200, 250), added=[f"stranger{n}" for n in range(50)])
    over = threading.Event()

    def write() -> None:
        with psycopg.connect(items.database, autocommit=True) as connection:
            number = 0
            while not over.wait(0.005):
                number += 1
                ident = 300 + number * 7 % 1000
                connection.execute("UPDATE items SET name = %s WHERE id = %s", [f"changed {number}", ident])
                if number % 10 == 0:
                    connection.execute("DELETE FROM items WHERE id = %s", [ident])
                    connection.execute("INSERT INTO items (id, name, category_id) VALUES (%s, 'again', 1)", [ident])

    writer = threading.Thread(target=write)
    with items.working():
        writer.start()
        try:
            for _ in range(10):
                one = verified(items)
                assert found(one) == (50, 50, 50, 0, 0), one
        finally:
            over.set()
            writer.join()


def test_a_document_that_changes_all_the_time_is_no_drift(items):
    over = threading.Event()

    def write() -> None:
        with psycopg.connect(items.database, autocommit=True) as connection:
            number = 0
            while not over.is_set():
                number += 1
                connection.execute("UPDATE items SET name = %s WHERE id = 7", [f"changed {number}"])

    writer = threading.Thread(target=write)
    with items.working():
        writer.start()
        try:
            for _ in range(10):
                assert verified(items).drift == 0
        finally:
            over.set()
            writer.join()


def test_a_repair_of_an_index_that_is_mostly_different_is_refused_unless_forced(items, cli):
    items.sql(
        "INSERT INTO items (id, name, category_id) SELECT i, 'item ' || i, i % 3 + 1 FROM generate_series(100, 400) i"
    )
    items.drain()
    behind_our_back(items, deleted=range(100, 300))
    refused = cli("verify", "--repair")
    assert refused.status == 7
    assert "200 of 321 documents differ, which is more than half" in refused.stderr
    assert items.queued() == 0
    assert cli("verify", "--repair", "--force").status == 7
    assert items.queued() == 200


def test_documents_of_strangers_are_not_deleted_by_a_repair_unless_forced(items, cli):
    items.sql(
        "INSERT INTO items (id, name, category_id) SELECT i, 'item ' || i, i % 3 + 1 FROM generate_series(100, 500) i"
    )
    items.drain()
    behind_our_back(items, added=[f"stranger{n}" for n in range(120)])
    refused = cli("verify", "--repair")
    assert refused.status == 7
    assert "were not written by idxctl" in refused.stderr
    assert items.queued() == 0


def test_differing_fields_are_shown_with_both_values(items, cli):
    behind_our_back(items, altered=(3,))
    shown = cli("verify", "--show", "10")
    assert "stale      3" in shown.stdout
    assert 'name: "item 3" in the row, "altered" in the index' in shown.stdout
    named = cli("verify")
    assert "stale      3: name" in named.stdout


def test_a_row_that_cannot_be_read_is_unreadable(items, cli):
    items.sql("UPDATE items SET divisor = 0 WHERE id = 5")
    items.drain()
    shown = cli("verify", "-o", "json")
    assert (shown.status, json.loads(shown.stdout)[0]["unreadable"]) == (3, 1)


def test_a_dead_letter_is_drift_that_is_named_as_one(items):
    items.sql("UPDATE items SET price = 'dear' WHERE id = 5")
    items.drain()
    one = verified(items)
    assert (one.stale, one.dead) == (1, 1)


def test_only_rows_of_a_condition_are_compared(items, cli):
    behind_our_back(items, altered=(3, 15), added=("x",))
    shown = cli("verify", "--where", "document_id > 10", "-o", "json")
    (one,) = json.loads(shown.stdout)
    assert (one["checked"], one["stale"], one["orphan"]) == (10, 1, 0)
    for condition in ("true) OR (true", "document_id > 1; DELETE FROM items", "no_such_column = 1"):
        refused = cli("verify", "--where", condition)
        assert refused.status == 2, condition
        assert "the condition does not run" in refused.stderr
    assert items.one("SELECT count(*) FROM items") == 20


def test_a_sample_compares_some(items):
    items.sql(
        "INSERT INTO items (id, name, category_id) SELECT i, 'item ' || i, i % 3 + 1 FROM generate_series(100, 6000) i"
    )
    items.drain()
    one = verified(items, sample=run.Sample(share=0.3))
    assert 0 < one.checked < 5921
    assert one.drift == 0
    assert one.sampled


@pytest.mark.parametrize("text", ["0", "-1", "101%", "many", "1.5", "nan", "inf%"])
def test_a_sample_that_cannot_be_meant_is_refused(cli, text):
    assert cli("verify", "--sample", text).status == 2


def test_a_standby_is_verified_by_its_own_definition(items, cli):
    items.reindex()
    standby = items.generation("standby")
    one = verified(items, generation=str(standby.number))
    assert (one.generation, one.drift, one.checked) == (standby.name, 0, 20)
    assert cli("verify", "--generation", "99").status == 2


def test_a_comparison_that_was_stopped_is_gone_on_with(items, monkeypatch):
    items.sql(
        "INSERT INTO items (id, name, category_id) SELECT i, 'item ' || i, i % 3 + 1 FROM generate_series(100, 3000) i"
    )
    items.drain()
    behind_our_back(items, altered=(200, 2900))
    monkeypatch.setattr(part, "RANGE", 500)
    seen = []

    def stop(place: str) -> None:
        seen.append(place)
        if seen.count("verify.noted") == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(part, "reach", stop)
    with pytest.raises(KeyboardInterrupt):
        verified(items, readers=1)
    monkeypatch.undo()
    before = items.one("SELECT sum(checked) FROM opensearch_indexing_verify_ranges")
    assert before > 0
    resumed = []
    original = runs.range_done

    def count(conn, comparison, number, checked, what):
        resumed.append(checked)
        return original(conn, comparison, number, checked, what)

    monkeypatch.setattr(runs, "range_done", count)
    # What was under way is taken at once, and not when its lease is over.
    assert items.one(
        "SELECT coalesce(bool_and(lease_until <= now()), true) FROM opensearch_indexing_verify_ranges WHERE done_at IS NULL"
    )
    one = verified(items, resume=True)
    assert (one.checked, one.stale) == (2921, 2)
    assert sum(resumed) + before == 2 * 2921  # as rows and as ids; nothing that was done is read again


def test_ranges_of_a_process_that_was_killed_are_taken_at_once_by_who_resumes(items):
    comparison = runs.begin(items.conn, items.index, items.generation().id, {}, "killed")
    assert runs.add_range(items.conn, comparison, runs.Plan(None, all=False), None, ["7"], "killed") is not None
    items.sql("UPDATE opensearch_indexing_verify_runs SET seen_at = now() - interval '31 seconds'")
    runs.resume(items.conn, items.index)
    assert runs.retake(items.conn, comparison, "another") is not None


def test_a_second_comparison_is_locked_out_and_may_take_part(items, cli):
    with items.conn.transaction():
        comparison = runs.begin(items.conn, items.index, items.generation().id, {}, "somebody")
    refused = cli("verify")
    assert refused.status == 6
    assert "verify --resume" in refused.stderr
    one = verified(items, resume=True)
    assert one.checked == 20
    assert runs.open_run(items.conn, items.index) is None
    assert comparison.id > 0
    assert cli("verify", "--resume").status == 2


def test_two_processes_share_a_comparison(items, monkeypatch):
    items.sql(
        "INSERT INTO items (id, name, category_id) SELECT i, 'item ' || i, i % 3 + 1 FROM generate_series(100, 5000) i"
    )
    items.drain()
    behind_our_back(items, altered=(200, 2900), added=("x",))
    monkeypatch.setattr(part, "RANGE", 200)
    results: list[run.Verified] = []
    with items.conn.transaction():
        runs.begin(items.conn, items.index, items.generation().id, {}, "somebody")
    both = [threading.Thread(target=lambda: results.append(verified(items, resume=True, readers=1))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(results) == 2
    for result in results:
        assert (result.checked, result.stale, result.orphan) == (4922, 2, 1)


@pytest.mark.parametrize("own", [None, "'r' || document_id"])
def test_copies_under_another_routing_are_found_and_go_with_a_repair(items, cli, own):
    """A search finds them beside the document; no read or write of idxctl's reaches them, but where both ways lead to one shard."""
    in_five_shards(items, routing=own)
    for number in range(1, 9):
        copy_under(items, 7, f"elsewhere{number}")
    copy_under(items, "nobody", "elsewhere")
    if own:
        copy_under(items, 8, "")
    hits = items.ask("POST", f"/{items.index}/_search", {"size": 50, "query": {"term": {"name": "a copy"}}})["hits"][
        "hits"
    ]
    assert len(hits) > 3
    shown = cli("verify", "--show", "20")
    assert shown.status == 7
    assert "(a copy under routing 'elsewhere" in shown.stdout
    assert ("(a copy without its routing)" in shown.stdout) == (own is not None)
    one = verified(items)
    assert one.orphan == len(hits)
    with items.working():
        until(lambda: cli("worker", "list", "-o", "json").json, "no worker")
        done = verified(items, repair=True, wait=True)
    assert (done.drift, done.lagging, done.repaired) == (0, 0, one.drift)
    assert items.differences() == []
    found = items.ask(
        "POST", f"/{items.index}/_search", {"size": 50, "query": {"ids": {"values": ["7", "8", "nobody"]}}}
    )
    assert sorted(hit["_id"] for hit in found["hits"]["hits"]) == ["7", "8"]


def test_an_index_is_looked_up_in_slices(items, monkeypatch):
    items.sql(
        "INSERT INTO items (id, name, category_id) SELECT i, 'item ' || i, i % 3 + 1 FROM generate_series(100, 900) i"
    )
    items.drain()
    behind_our_back(items, added=[f"stranger{n}" for n in range(9)])
    monkeypatch.setattr(ids, "_OF_A_SLICE", 100)
    one = verified(items)
    assert (one.checked, one.orphan, one.drift) == (830, 9, 9)
    assert items.sql(
        "SELECT count(*), sum(checked) FROM opensearch_indexing_verify_ranges WHERE slice IS NOT NULL"
    ) == [(9, 830)]


def test_an_index_that_is_gone_is_said_to_be(items, cli):
    items.ask("DELETE", f"/{items.generation().name}")
    shown = cli("verify")
    assert shown.status == 1
    assert "there is no index" in shown.stderr


def test_without_a_generation_there_is_nothing_to_verify(items, cli):
    items.sql("UPDATE opensearch_indexing_generations SET state = 'retired'")
    shown = cli("verify")
    assert shown.status == 2
    assert "idxctl reindex makes one" in shown.stderr


def test_an_empty_table_is_equal_to_an_empty_index(items):
    items.sql("TRUNCATE items CASCADE")
    items.drain()
    assert judge.call(items.opensearch, "POST", f"/{items.index}/_refresh")
    one = verified(items)
    assert (one.checked, one.drift, one.lagging) == (0, 0, 0)
