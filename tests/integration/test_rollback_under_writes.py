"""Swap, rollback and forward under writes: readers of the alias never see less than was there, and every document equals its row."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import psycopg
import pytest

from idxctl.demo.shop import load_shop, write_definition
from support import judge
from support.rig import until
from support.shop import Seller

LISTINGS = int(os.environ.get("IDXCTL_TEST_LISTINGS", "20000"))
MORE = 1000  # changes between one step and the next


@pytest.fixture(scope="session")
def large_shop_template(templates, migrate):
    def fill(url):
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            load_shop(connection, LISTINGS)

    return templates("large_shop", fill)


@pytest.fixture
def shop(clone, large_shop_template, opensearch_url, unique_name, idxctl) -> Iterator[str]:
    config = write_definition(idxctl.home / "shop", index=unique_name)
    with clone(large_shop_template) as url:
        idxctl.use(database=url, opensearch=opensearch_url, config=config)
        for arguments in (["watch", "install"], ["reindex"]):
            done = idxctl(*arguments)
            assert done.status == 0, done.stderr
        yield url


class Reader(threading.Thread):
    """Polls the alias, and keeps the least that it ever saw."""

    def __init__(self, opensearch: str, index: str) -> None:
        super().__init__(daemon=True)
        self.first = self.least = judge.call(opensearch, "GET", f"/{index}/_count")["count"]
        self.polls = 0
        self.over = threading.Event()
        self._ask = (opensearch, "POST", f"/{index}/_search?size=0&track_total_hits=true", {"query": {"match_all": {}}})

    def run(self) -> None:
        while not self.over.is_set():
            self.least = min(self.least, judge.call(*self._ask)["hits"]["total"]["value"])
            self.polls += 1


def at_rest(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        query = "SELECT (SELECT count(*) FROM opensearch_indexing_queue) + (SELECT count(*) FROM opensearch_indexing_inflight) = 0"
        until(lambda: connection.execute(query).fetchone()[0], "the queue is not empty", seconds=180)


class Updates(Seller):
    """A seller who takes no listing out of the index, so that its count may not drop."""

    def _update_listing(self):
        return self._run(
            "UPDATE listings SET title = %(title)s WHERE id = %(id)s", title=self._word(), id=self._listing()
        )

    def _acts(self):
        return [
            one
            for one in super()._acts()
            if one[0] not in {"listing deleted", "listing numbered anew", "translations truncated"}
        ]


@pytest.mark.full
def test_swap_rollback_and_forward_lose_nothing_and_no_reader_sees_less(shop, idxctl, unique_name, opensearch_url):
    query = (idxctl.home / "shop" / "listings.sql").read_text()
    reader = Reader(opensearch_url, unique_name)
    worker = idxctl.start("worker", "start")
    reader.start()
    for number, step in enumerate(
        (["reindex"], ["reindex", "rollback"], ["reindex", "forward"], ["reindex", "rollback"])
    ):
        over = threading.Event()
        sellers = [Updates(shop, 10 * number + seed, MORE // 2, until=over) for seed in (2, 3)]
        for one in sellers:
            one.start()
        done = idxctl(*step, timeout=300)
        over.set()
        for one in sellers:
            one.join(120)
            assert one.error is None
        assert done.status == 0, done.stderr
        at_rest(shop)
        for generation in ("000001", "000002"):
            assert judge.differences(shop, query, opensearch_url, f"{unique_name}-{generation}") == [], step
        assert judge.differences(shop, query, opensearch_url, unique_name) == [], step
    reader.over.set()
    reader.join(60)
    worker.terminate()
    assert reader.polls > 20
    assert reader.least == reader.first > LISTINGS / 2
