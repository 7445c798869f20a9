"""``kill -9`` at every step: nothing is lost, and whoever comes next finishes it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from support.processes import HERE, PATIENCE, environment, lapse
from support.rig import Rig

pytestmark = pytest.mark.sampled


def killed_at(rig: Rig, point: str, *arguments: str, nth: int = 1) -> None:
    """Run a command that must die at *point*."""
    done = subprocess.run(
        [sys.executable, str(HERE / "killed.py"), point, str(nth), "--config", str(rig.config), *arguments],
        env=environment(rig),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, f"{point} was never reached: {done.stderr.decode()}"


WORKER_POINTS = [
    "claim.locked",
    "claim.taken",
    "claim.committed",
    "read.before",
    "read.done",
    "send.before",
    "send.done",
    "settle.before",
    "settle.done",
]


@pytest.mark.parametrize("point", WORKER_POINTS)
def test_killed_worker_loses_nothing_and_another_finishes_its_batch(items: Rig, point):
    items.sql("UPDATE items SET name = name || '!' WHERE id <= 12")
    items.sql("DELETE FROM items WHERE id IN (13, 14)")
    items.sql("INSERT INTO items (id, name, category_id) VALUES (100, 'new', 1)")
    killed_at(items, point, "worker", "start", "--until-empty")
    lapse(items)
    items.drain()
    assert items.differences() == []
    assert items.letters() == {}


@pytest.mark.parametrize("point", ["settle.before", "settle.moved", "settle.done"])
def test_killed_in_a_settle_with_failures_a_letter_is_there_once(items: Rig, point):
    items.sql("UPDATE items SET price = 'poison' WHERE id = 7")
    items.sql("UPDATE items SET name = name || '!' WHERE id <= 12")
    killed_at(items, point, "worker", "start", "--until-empty")
    lapse(items)
    items.drain()
    assert items.differences(but=[7]) == []
    assert list(items.letters()) == ["7"]


@pytest.mark.parametrize("point", ["expand.before", "expand.moved"])
def test_lookup_killed_while_it_expands_is_expanded_by_another(items: Rig, point):
    items.sql("UPDATE categories SET name = name || '!'")
    killed_at(items, point, "worker", "start", "--until-empty")
    lapse(items)
    items.drain()
    assert items.differences() == []


@pytest.mark.parametrize("point", ["expand.before", "expand.swept_page", "expand.moved"])
def test_sweep_killed_half_way_is_swept_by_another(items: Rig, point):
    items.sql("TRUNCATE items CASCADE")
    items.sql("INSERT INTO items (id, name, category_id) VALUES (3, 'back again', 1)")
    killed_at(items, point, "worker", "start", "--until-empty")
    lapse(items)
    items.drain()
    assert items.differences() == []


def test_rescue_killed_half_way_leaves_the_batch_to_the_next(items: Rig):
    items.sql("UPDATE items SET name = name || '!'")
    killed_at(items, "read.done", "worker", "start", "--until-empty")
    lapse(items)
    killed_at(items, "rescue.moved", "worker", "start", "--until-empty")
    assert items.in_flight() == 1
    items.drain()
    assert items.differences() == []


RUN_POINTS = [
    ("reindex.started", 1),
    ("reindex.created", 1),
    ("reindex.registered", 1),
    ("chunk.before", 1),
    ("chunk.committed", 1),
    ("chunk.done", 1),
    ("reindex.filled", 1),
    ("reindex.checked", 1),
    ("reindex.restored", 1),
    ("reindex.copied", 1),
    ("swap.intended", 1),
    ("swap.made", 1),
    ("swap.recorded", 1),
]


@pytest.mark.parametrize(("point", "nth"), RUN_POINTS)
def test_killed_reindex_is_put_in_order_by_the_next_one(items: Rig, point, nth):
    before = items.generation().name
    killed_at(items, point, "reindex", nth=nth)
    items.sql("UPDATE items SET name = name || '!' WHERE id < 5")
    items.drain()
    assert items.differences() == []  # whatever the alias stands on is current
    items.sql(
        "UPDATE opensearch_indexing_reindex_runs SET seen_at = now() - interval '1 minute' WHERE finished_at IS NULL"
    )
    first = subprocess.run(
        [sys.executable, "-m", "idxctl", "--config", str(items.config), "reindex", "-o", "json"],
        env=environment(items),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    if point == "swap.made":  # the swap had been made after all: that is recorded, and said
        assert first.returncode == 1
        assert b"died after its swap" in first.stderr
    else:
        assert first.returncode == 0, first.stderr.decode()
    assert items.generation().name != before
    alias = items.ask("GET", f"/_alias/{items.index}")
    assert list(alias) == [items.generation().name]
    assert items.differences() == []
    states = [row[0] for row in items.sql("SELECT state FROM opensearch_indexing_generations")]
    assert states.count("live") == 1
    assert "building" not in states


def reindexed_by_the_next(items: Rig) -> subprocess.CompletedProcess[bytes]:
    """Run `idxctl reindex` once the killed one has been silent for long enough."""
    items.sql(
        "UPDATE opensearch_indexing_reindex_runs SET seen_at = now() - interval '1 minute' WHERE finished_at IS NULL"
    )
    return subprocess.run(
        [sys.executable, "-m", "idxctl", "--config", str(items.config), "reindex"],
        env=environment(items),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("point", ["reindex.restored", "swap.intended", "swap.made", "swap.recorded"])
def test_killed_around_its_swap_every_alias_stands_on_one_index_with_what_it_carries(items: Rig, point):
    """G5."""
    old, alias = items.generation().name, f"{items.index}-public"
    more = {"filter": {"term": {"category": "category 1"}}, "is_write_index": True}
    items.ask("POST", "/_aliases", {"actions": [{"add": {"index": old, "alias": alias, **more}}]})
    killed_at(items, point, "reindex")
    done = reindexed_by_the_next(items)
    assert done.returncode == (1 if point == "swap.made" else 0), done.stderr.decode()
    live = items.generation().name
    assert live != old
    found = items.ask("GET", f"/_alias/{alias}")
    assert found == {live: {"aliases": {alias: more}}}
    assert list(items.ask("GET", f"/_alias/{items.index}")) == [live]


def test_killed_before_it_could_take_a_templates_aliases_off_it_leaves_none_to_the_next(items: Rig):
    path = f"/_index_template/{items.index}"
    body = {"index_patterns": [f"{items.index}-*"], "priority": 7, "template": {"aliases": {items.index: {}}}}
    items.ask("PUT", path, body)
    try:
        killed_at(items, "reindex.created", "reindex", "--force")
    finally:
        items.ask("DELETE", path)
    assert len(items.ask("GET", f"/_alias/{items.index}")) == 2
    done = reindexed_by_the_next(items)
    assert done.returncode == 0, done.stderr.decode()
    assert list(items.ask("GET", f"/_alias/{items.index}")) == [items.generation().name]


DLQ_POINTS = ["dlq.requeued", "claim.committed", "read.done", "send.done", "settle.moved", "settle.done"]


@pytest.mark.parametrize("point", DLQ_POINTS)
def test_retry_that_indexes_by_itself_killed_half_way_loses_no_letter(items: Rig, point):
    items.sql("UPDATE items SET price = 'poison' WHERE id <= 5")
    items.drain()
    items.sql("ALTER TABLE items DISABLE TRIGGER ALL")
    items.sql("UPDATE items SET price = '1' WHERE id <= 4")
    items.sql("ALTER TABLE items ENABLE TRIGGER ALL")
    killed_at(items, point, "dlq", "retry")
    lapse(items)
    items.drain()
    assert list(items.letters()) == ["5"]
    assert items.letters()["5"][0] == "mapper_parsing_exception"
    assert items.differences(but=[5]) == []


def test_killed_retry_leaves_every_letter_in_exactly_one_place(items: Rig):
    items.sql("UPDATE items SET price = 'poison' WHERE id <= 5")
    items.drain()
    assert len(items.letters()) == 5
    items.sql("ALTER TABLE items DISABLE TRIGGER ALL")
    items.sql("UPDATE items SET price = '1' WHERE id <= 4")
    items.sql("ALTER TABLE items ENABLE TRIGGER ALL")
    killed_at(items, "dlq.requeued", "dlq", "retry", "--limit", "3")
    places = items.sql(
        "SELECT document_id FROM opensearch_indexing_dlq UNION ALL SELECT document_id FROM opensearch_indexing_queue ORDER BY 1"
    )
    assert places == [("1",), ("2",), ("3",), ("4",), ("5",)]
    items.drain()
    assert items.differences(but=[4, 5]) == []
