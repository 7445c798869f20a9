"""
The network between a worker and its servers is cut, slow, or swallows what passes (P1, P2, P4).

Each test ends at rest, with every document compared with its row, no letter and no attempt spent.
"""

import signal

import pytest

from support.proxy import Proxy
from support.rig import until
from support.writers import Writers

pytestmark = pytest.mark.sampled

# A worker gives PostgreSQL up after half a lease of silence, two seconds here: within the lease.
PATIENT = {"lease_seconds": 4.0, "age_limit_seconds": 2.0, "request_timeout_seconds": 1.0, "batch_size": 5}
LINKS = ["postgres", "opensearch"]


class Network:
    """A proxy before each server."""

    def __init__(self, postgres, opensearch):
        self.postgres, self.opensearch = postgres, opensearch

    def __getitem__(self, name):
        return getattr(self, name)


@pytest.fixture
def network(items):
    """The items' engine behind two proxies."""
    with (
        Proxy(items.database) as postgres,
        Proxy(items.opensearch) as opensearch,
        items.by_way_of(database=f"{postgres.url}?connect_timeout=2", opensearch=opensearch.url, request_timeout=1.0),
    ):
        yield Network(postgres, opensearch)


def more(worker, documents=30):
    """Wait until some more are indexed."""
    before = worker.counters.indexed
    until(lambda: worker.counters.indexed >= before + documents, "nothing is indexed")


def rename(items, *ids, to="renamed"):
    items.sql("UPDATE items SET name = %s WHERE id = ANY(%s)", to, list(ids))


@pytest.mark.parametrize("link", LINKS)
def test_connections_cut_under_load_cost_nothing(items, network, link):
    with Writers(items.database), items.working(workers=3, **PATIENT) as worker:
        for _ in range(6):
            more(worker)
            network[link].cut()
        more(worker)
    items.drain()
    items.nothing_was_charged()


@pytest.mark.parametrize("link", LINKS)
def test_a_server_that_cannot_be_reached_is_waited_for(items, network, link):
    with Writers(items.database), items.working(workers=3, **PATIENT) as worker:
        more(worker)
        network[link].refuse()
        if link == "opensearch":
            until(lambda: worker.breaker.open, "the breaker stays closed")
        else:
            until(lambda: worker.poller.postgres_down >= 3, "the outage goes unnoticed")
        network[link].restore()
        more(worker)
    items.drain()
    items.nothing_was_charged()


@pytest.mark.parametrize("link", LINKS)
def test_a_slow_link_is_only_slow(items, network, link):
    network[link].delay(0.02)
    with Writers(items.database), items.working(workers=3, **PATIENT) as worker:
        more(worker)
        network[link].restore()
    items.drain()
    items.nothing_was_charged()


def test_answers_later_than_the_request_timeout_are_outcomes_unknown(items, network):
    with Writers(items.database), items.working(workers=3, **PATIENT) as worker:
        more(worker)
        network.opensearch.delay(0.7)  # each way: the bulk is applied, its answer comes when nobody waits any more
        until(lambda: worker.breaker.open, "the breaker stays closed")
        network.opensearch.restore()
        more(worker)
    items.drain()
    items.nothing_was_charged()


@pytest.mark.parametrize("answers_only", [True, False])
@pytest.mark.parametrize("link", LINKS)
def test_a_black_hole_under_load_is_given_up_and_left(items, network, link, answers_only):
    with Writers(items.database), items.working(workers=3, **PATIENT) as worker:
        more(worker)
        network[link].black_hole(answers_only=answers_only)
        if link == "opensearch":
            until(lambda: worker.breaker.open, "the breaker stays closed")
        else:
            until(lambda: worker.poller.postgres_down, "nobody gives the silent server up")
        network[link].restore()  # for new connections: those that lost something stay silent
        more(worker)
    items.drain()
    items.nothing_was_charged()


def test_the_lost_answer_of_a_bulk_that_was_applied_is_found_by_writing_again(items, network, stops):
    rename(items, 1, to="first")
    stop = stops.at("send.before")
    with items.working(**PATIENT):
        stop.wait()
        network.opensearch.black_hole(answers_only=True)
        stop.release()
        until(lambda: items.document(1)["name"] == "first", "the bulk was not delivered")
        rename(items, 1, to="second")
        network.opensearch.restore()
        items.wait_for_rest()
    assert items.document(1)["name"] == "second"
    items.nothing_was_charged()


def test_a_claim_whose_commit_got_no_answer_is_given_back(items, network, stops):
    rename(items, 1)
    stop = stops.at("claim.taken")
    with items.working(workers=1, **PATIENT):
        stop.wait()
        network.postgres.black_hole(answers_only=True)
        stop.release()
        until(items.in_flight, "the claim was not committed")
        network.postgres.restore()
        items.wait_for_rest()
    items.nothing_was_charged()


def test_a_claim_that_never_reaches_its_commit_leaves_the_tasks_to_others(items, network, stops):
    """The server hears nothing of a client that is gone without a word, and holds its locks until told otherwise."""
    rename(items, 1)
    stop = stops.at("claim.taken")
    with items.working(workers=1, **PATIENT):
        stop.wait()
        network.postgres.black_hole()
        stop.release()
        until(lambda: network.postgres.swallowed["requests"], "it sends nothing")
        network.postgres.restore()
        items.wait_for_rest(seconds=20)
    items.nothing_was_charged()


@pytest.mark.parametrize("point", ["settle.checked", "settle.written"])
def test_a_settle_whose_answer_was_lost_is_settled_once(items, network, stops, point):
    items.sql("UPDATE items SET price = 'poison' WHERE id = 7" if point == "settle.written" else "SELECT")
    rename(items, 1, 2, 3)
    stop = stops.at(point)
    with items.working(workers=1, **{**PATIENT, "batch_size": 50}):
        stop.wait()
        network.postgres.black_hole(answers_only=True)
        stop.release()
        until(lambda: not items.in_flight(), "the settle was not carried out")
        network.postgres.restore()
        items.wait_for_rest()
    if point == "settle.written":
        assert items.one("SELECT count(*) FROM opensearch_indexing_dlq") == 1
        assert items.differences(but=[7]) == []
    else:
        items.nothing_was_charged()


def test_a_read_that_gets_no_answer_is_made_again(items, network, stops):
    rename(items, 1)
    stop = stops.at("read.before")
    with items.working(workers=1, **PATIENT):
        stop.wait()
        network.postgres.black_hole()
        stop.release()
        until(lambda: network.postgres.swallowed["requests"], "it reads nothing")
        network.postgres.restore()
        items.wait_for_rest()
    items.nothing_was_charged()


def test_a_worker_that_waits_for_a_lock_gives_up_and_takes_its_statement_with_it(items):
    """A statement left waiting on the server would be one more each time."""
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    seen = set()
    with items.working(workers=1, lease_seconds=2.0), items.connect() as blocker:
        with blocker.raw.transaction():
            blocker.execute(b"LOCK TABLE opensearch_indexing_queue IN ACCESS EXCLUSIVE MODE")
            until(lambda: seen.update(items.sql(waiting)) or len(seen) >= 5, "it waits for ever")
            assert len(items.sql(waiting)) <= 2  # the thread's and the janitor's
        rename(items, 1)
        items.wait_for_rest()
    items.nothing_was_charged()


def test_a_worker_process_comes_through_a_bad_night(items, network, idxctl):
    """One after the other on a real process: cut, black hole, slow, refused; then a drain by SIGTERM that ends well."""
    config = items.config.read_text() + "\n[worker]\nlease = '4s'\n[opensearch]\nrequest_timeout = '1s'\n"
    items.configure(toml=config)
    idxctl.use(database=network.postgres.url, opensearch=network.opensearch.url, config=items.config)
    worker = idxctl.start("worker", "start", "--workers", 2)
    with Writers(items.database):
        for proxy in (network.postgres, network.opensearch):
            for fault in (proxy.cut, proxy.black_hole, lambda: proxy.delay(0.2), proxy.refuse):  # noqa: B023 - called at once
                settle_one(items)
                fault()
                lost = sum(proxy.swallowed.values())
                if fault == proxy.black_hole:
                    until(lambda: sum(proxy.swallowed.values()) > lost, "nothing passes")  # noqa: B023 - called at once
                proxy.restore()
        settle_one(items)
    items.wait_for_rest()
    worker.send_signal(signal.SIGTERM)
    _, log = worker.communicate(timeout=30)
    assert worker.returncode == 0, log
    items.nothing_was_charged()


def settle_one(items):
    """Wait until a change made now is in the index."""
    name = f"at {items.one('SELECT clock_timestamp()')}"
    rename(items, 20, to=name)
    until(lambda: items.document(20)["name"] == name, "nothing is indexed")
