"""
The main promise, P2: once changes stop and the queue is empty, every document equals its row.

Judged by `support.judge`, which reads rows and index by itself. IDXCTL_TEST_LISTINGS and IDXCTL_TEST_CHANGES set the size.
"""

import os
import signal
import threading

import psycopg
import pytest

from idxctl.demo.shop import load_shop, write_definition
from support import judge
from support.rig import until
from support.shop import Seller

LISTINGS = int(os.environ.get("IDXCTL_TEST_LISTINGS", "20000"))
CHANGES = int(os.environ.get("IDXCTL_TEST_CHANGES", "5000"))
CONNECTIONS = 3


@pytest.fixture(scope="session")
def large_shop_template(templates, migrate):
    def fill(url):
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            load_shop(connection, LISTINGS)

    return templates("large_shop", fill)


@pytest.fixture
def large_shop(clone, large_shop_template, opensearch_url, unique_name, idxctl):
    """The marketplace, watched and indexed by the commands that users type; yields the database's URL."""
    config = write_definition(idxctl.home / "shop", index=unique_name)
    with clone(large_shop_template) as url:
        idxctl.use(database=url, opensearch=opensearch_url, config=config)
        for arguments in (["watch", "install"], ["reindex"]):
            done = idxctl(*arguments)
            assert done.status == 0, done.stderr
        yield url


def wait_for_rest(url):
    with psycopg.connect(url, autocommit=True) as connection:
        query = "SELECT (SELECT count(*) FROM opensearch_indexing_queue) + (SELECT count(*) FROM opensearch_indexing_inflight) = 0"
        until(lambda: connection.execute(query).fetchone()[0], "the queue is not empty", seconds=120)


def ask(url, query):
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def end(workers):
    """A drain by SIGTERM, as an orchestrator would do it."""
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    for worker in workers:
        _, log = worker.communicate(timeout=60)
        assert worker.returncode == 0, log
        assert "failed" not in log, log


def sell(url, *, until=None):
    sellers = [Seller(url, seed, CHANGES // CONNECTIONS + 1, until=until) for seed in range(1, CONNECTIONS + 1)]
    for seller in sellers:
        seller.start()
    return sellers


def join(sellers):
    for seller in sellers:
        seller.join(180)
        assert not seller.is_alive()
        if seller.error:
            raise seller.error
    return sum(seller.made for seller in sellers)


def query_of(idxctl):
    return (idxctl.home / "shop" / "listings.sql").read_text()


def test_every_document_equals_its_row_after_mixed_changes_to_every_table(
    large_shop, idxctl, opensearch_url, unique_name
):
    query = query_of(idxctl)
    assert judge.differences(large_shop, query, opensearch_url, unique_name) == []
    workers = [idxctl.start("worker", "start", "--workers", 2) for _ in range(2)]
    made = join(sell(large_shop))
    wait_for_rest(large_shop)
    end(workers)
    assert made >= CHANGES
    assert ask(large_shop, "SELECT document_id, last_error FROM opensearch_indexing_dlq") == []
    assert judge.differences(large_shop, query, opensearch_url, unique_name) == []


def test_a_reindex_during_the_changes_loses_none_of_them(large_shop, idxctl, opensearch_url, unique_name):
    over = threading.Event()
    workers = [idxctl.start("worker", "start", "--workers", 2) for _ in range(2)]
    sellers = sell(large_shop, until=over)
    try:
        done = idxctl("reindex", "-o", "json", timeout=300)
    finally:
        over.set()
    made = join(sellers)
    assert done.status == 0, done.stderr
    assert done.json["swapped"]
    wait_for_rest(large_shop)
    end(workers)
    assert made >= CHANGES
    for index in (unique_name, f"{unique_name}-000001"):  # the standby is written as well
        assert judge.differences(large_shop, query_of(idxctl), opensearch_url, index) == []
    assert ask(large_shop, "SELECT physical_name, state FROM opensearch_indexing_generations ORDER BY number") == [
        (f"{unique_name}-000001", "standby"),
        (f"{unique_name}-000002", "live"),
    ]
