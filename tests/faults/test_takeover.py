"""Runs of a reindex that died, or only seemed to: who takes over, and what the other one may still do."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from idxctl.core.errors import IdxctlError, Locked
from idxctl.indexes import retire
from idxctl.opensearch import aliases, scan
from idxctl.rebuild.preflight import SQL


def take_over(items) -> None:
    """What another process does with a run that it has not heard of for half a minute."""
    generation = items.generation("building").id
    retire.retire(items.conn, generation)
    items.sql(
        "UPDATE opensearch_indexing_reindex_runs SET state = 'failed', finished_at = clock_timestamp() WHERE finished_at IS NULL"
    )


def test_a_run_that_was_taken_over_takes_no_more_chunks(items, stops):
    """More of them than are planned ahead: planner and reader wait for each other, and both must hear of it."""
    items.sql("INSERT INTO items (id, name) SELECT i, 'more' FROM generate_series(1001, 12000) i")
    stop = stops.at("chunk.before")
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(items.reindex, readers=1)
        stop.wait()
        building = items.generation("building").name
        take_over(items)
        stop.release()
        with pytest.raises(IdxctlError, match="taken over"):
            run.result(60)
    aliases.refresh(items.client, building)
    assert scan.count(items.client, building) == 0
    assert items.generation().number == 1


def test_two_that_find_a_dead_run_do_not_retire_what_the_other_builds(items, stops):
    looked, built = stops.at("reindex.looked"), stops.at("reindex.registered")
    with ThreadPoolExecutor(2) as threads:
        late = threads.submit(items.reindex)
        looked.wait()
        first = threads.submit(items.reindex)
        built.wait()
        looked.release()
        with pytest.raises(Locked):
            late.result(60)
        built.release()
        done = first.result(60)
    assert items.generation().name == done.generation
    items.drain()
    assert items.differences() == []


def test_a_generation_that_was_retired_while_it_was_built_is_not_put_into_service(items, stops):
    stop = stops.at("reindex.checked")
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(items.reindex)
        stop.wait()
        retire.retire(items.conn, items.generation("building").id)
        stop.release()
        with pytest.raises(IdxctlError, match="missed writes"):
            run.result(60)
    assert aliases.targets(items.client, items.index) == [items.generation().name]


def test_what_no_task_is_about_is_told_without_looking_at_each_pair(items):
    items.enqueue(1, 2)
    wanted = {"index": items.index, "ids": ["1", "2", "3"]}
    assert items.conn.run(SQL["not_waiting"], **wanted).fetchall() == [("3",)]
    taken = items.hand().claim()
    assert len(taken[0].tasks) == 2
    assert items.conn.run(SQL["not_waiting"], **wanted).fetchall() == [("3",)]
    items.sql(
        "INSERT INTO opensearch_indexing_queue (index_name, kind, payload) VALUES (%s, 'sweep', '{}')", items.index
    )
    assert items.conn.run(SQL["not_waiting"], **wanted).fetchall() == []
    items.sql(
        "INSERT INTO opensearch_indexing_queue (index_name, document_id) SELECT %s, i::text FROM generate_series(1, 20000) i",
        items.index,
    )
    items.sql("DELETE FROM opensearch_indexing_queue WHERE kind = 'sweep'")
    many = {"index": items.index, "ids": [str(one) for one in range(1, 20_011)]}
    assert len(items.conn.run(SQL["not_waiting"], **many).fetchall()) == 10
