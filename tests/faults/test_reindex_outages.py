"""A reindex waits for a server that goes away, at any step after its index was created, says so, and goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from idxctl.rebuild import process
from idxctl.rebuild.steps import Options, Steps
from support.proxy import Proxy
from support.reindexing import put_in_order
from support.rig import Rig, until

LINKS = ["postgres", "opensearch"]
POINTS = ["reindex.registered", "chunk.committed", "reindex.filled", "reindex.caught_up", "reindex.checked", "reindex.restored",
          "reindex.ready", "swap.intended", "swap.made"]  # fmt: skip


@contextlib.contextmanager
def network(items: Rig) -> Iterator[dict[str, Proxy]]:
    """The items' engine behind two proxies, meanwhile."""
    with (
        Proxy(items.database) as postgres,
        Proxy(items.opensearch) as opensearch,
        items.by_way_of(database=f"{postgres.url}?connect_timeout=2", opensearch=opensearch.url, request_timeout=5.0),
    ):
        yield {"postgres": postgres, "opensearch": opensearch}


@contextlib.contextmanager
def reindexing(items: Rig) -> Iterator[tuple[Future, list[str]]]:
    """A reindex in a thread, and what it says of its waiting."""
    said: list[str] = []
    steps = Steps(warn=said.append, move=lambda _, note: said.append(note) if note else None)
    with ThreadPoolExecutor(1) as threads:
        plan = items.plan()
        yield (
            threads.submit(process.reindex, items.pool, items.client, items.settings, plan, Options(readers=1), steps),
            said,
        )


@pytest.mark.sampled
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("point", POINTS)
def test_an_outage_at_any_step_is_waited_for(items, stops, point, link):
    stop = stops.at(point)
    with network(items) as links, reindexing(items) as (run, said):
        stop.wait()
        items.sql("UPDATE items SET name = name || '!' WHERE id < 8")
        links[link].refuse()
        stop.release()
        until(lambda: said or run.done(), "nothing is said")
        links[link].restore()
        assert run.result(60).swapped
    assert said
    items.drain()
    put_in_order(items)
    assert items.letters() == {}


@pytest.mark.parametrize("point", ["chunk.committed", "reindex.checked"])
def test_a_full_disk_is_waited_for_until_it_is_cleared(items, stops, point):
    stop = stops.at(point)
    with reindexing(items) as (run, said):
        stop.wait()
        name = items.generation("building").name
        items.ask("PUT", f"/{name}/_settings", {"index.blocks.read_only_allow_delete": True})
        stop.release()
        until(lambda: any("cluster_block_exception" in one for one in said) or run.done(), "nothing is said")
        assert not run.done()
        items.ask("PUT", f"/{name}/_settings", {"index.blocks.read_only_allow_delete": None})
        assert run.result(60).swapped
    put_in_order(items)
    assert items.letters() == {}
