"""The scrub: workers compare everything again and again; what differs is found, told and repaired within a period."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
from collections.abc import Iterator

import pytest

from idxctl.config.settings import Scrub
from idxctl.core import metrics
from idxctl.status import gauges, proofs
from idxctl.status.overview import overview
from idxctl.verify import pace, scrub
from idxctl.worker import registry
from idxctl.worker.pool import Worker
from support.drift import behind_our_back
from support.processes import Process
from support.rig import Rig, until

RUNS = "opensearch_indexing_verify_runs"
RANGES = "opensearch_indexing_verify_ranges"


@pytest.fixture
def cli(idxctl, items):
    return idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)


@pytest.fixture
def small_ranges(monkeypatch):
    """Ranges of ten documents, as fast as there is time."""
    monkeypatch.setattr(pace.Pace, "of", classmethod(lambda cls, *_: cls(1e6, 1e6)))
    monkeypatch.setattr(pace, "_SMALLEST_RANGE", 10)
    monkeypatch.setattr(pace, "_LARGEST_RANGE", 10)


def options(every: float = 0.5, *, repair: bool = True) -> scrub.Options:
    return scrub.Options(lambda _name: Scrub(every, repair))


@contextlib.contextmanager
def scrubbing(rig: Rig, given: scrub.Options | None = None) -> Iterator[Worker]:
    with rig.working() as worker, scrub.scrubbing(worker, rig.pool, rig.client, given or options()):
        yield worker


def scrubber(rig: Rig, worker: Worker, given: scrub.Options | None = None) -> scrub.Scrubber:
    """One that takes its steps when a test says so, under the name of a worker that lives."""
    return scrub.Scrubber(
        rig.pool, rig.client, given or options(), worker.id, at_ease=lambda: worker.at_ease, tally=worker.tally
    )


def finished(rig: Rig) -> int:
    return rig.one(f"SELECT count(*) FROM {RUNS} WHERE scrub AND state = 'finished'")


def another_round(rig: Rig) -> None:
    """Return once a scrub that began from now on has ended."""
    now = rig.one("SELECT clock_timestamp()")
    until(
        lambda: rig.one(f"SELECT count(*) FROM {RUNS} WHERE scrub AND state = 'finished' AND started_at > %s", now),
        "no scrub came to its end",
    )


def proof(rig: Rig) -> proofs.Proof | None:
    return proofs.read(rig.conn, [], scrub_of=lambda _name: None).last.get(rig.index)


def test_what_was_done_behind_our_back_is_found_told_and_healed(items, cli, caplog):
    caplog.set_level(logging.INFO, "idxctl.worker")
    behind_our_back(items, deleted=(1,), altered=(3,), added=("x",))
    with scrubbing(items) as worker:
        until(lambda: items.differences() == [], "not healed")
        another_round(items)
    counted = worker.tally.counters(metrics.DRIFT)
    repaired = worker.tally.counters(metrics.DRIFT_REPAIRED)
    for kind in ("missing", "stale", "orphan"):
        assert counted[(items.index, kind)] == repaired[(items.index, kind)] == 1
    assert counted[(items.index, "dead")] == 0
    assert worker.tally.counters(metrics.VERIFIED)[(items.index,)] >= 40
    said = [one for one in caplog.records if getattr(one, "fact", "") == "drift"]
    named = {name: cause for one in said for name, cause in one.fields["documents"].items()}
    assert named.keys() == {"1", "3", "x"}
    assert named["1"] == "not_written"
    assert named["3"] in {"foreign", "rewritten"}
    assert "enqueued" in said[0].getMessage()
    assert cli("audit", "list", "-o", "json").json[0]["action"] == "scrub repair"
    last = proof(items)
    assert last is not None
    assert (last.equal, last.scrubbed) == (True, True)


def test_queue_stats_say_as_of_when_an_index_is_proved_equal(items, cli):
    assert cli("queue", "stats", "-o", "json").json["by_index"][0]["compared"] is None
    assert "proved equal" not in cli("queue", "stats").stdout
    assert cli("verify").status == 0
    (shown,) = cli("queue", "stats", "-o", "json").json["by_index"]
    assert (shown["compared"]["equal"], shown["compared"]["by"]) == (True, "verify")
    behind_our_back(items, altered=(3,))
    with scrubbing(items, options(repair=False)):
        another_round(items)
    (shown,) = cli("queue", "stats", "-o", "json").json["by_index"]
    assert (shown["compared"]["equal"], shown["compared"]["by"], shown["compared"]["differing"]) == (False, "scrub", 1)
    assert "ago, but 1 differ" in cli("queue", "stats").stdout
    assert cli("queue", "stats", "-o", "csv").stdout.splitlines()[0].endswith(",compared_at,differing")


def test_a_scrub_that_only_reports_leaves_it_and_a_condition_says_so(items, cli):
    behind_our_back(items, altered=(3,))
    with scrubbing(items, options(repair=False)):
        another_round(items)
    assert items.one("SELECT count(*) FROM opensearch_indexing_queue") == 0
    (found,) = overview(items.conn, items.settings, None).conditions
    assert (found.kind.value, found.reason) == ("drift", f"{items.index}: 1 document differs from its row")
    with scrubbing(items):
        until(lambda: overview(items.conn, items.settings, None).conditions == (), "the condition stays")
    assert items.differences() == []


def test_a_dead_letter_is_left_to_its_retries(items):
    items.sql("UPDATE items SET price = 'dear' WHERE id = 5")
    items.drain()
    letters = items.sql("SELECT id, attempts, last_attempt_at FROM opensearch_indexing_dlq")
    behind_our_back(items, altered=(3,))  # what is repaired beside it does not take it along
    with scrubbing(items) as worker:
        another_round(items)
        counted = worker.tally.counters(metrics.DRIFT)
    assert counted[(items.index, "dead")] >= 1
    assert counted[(items.index, "stale")] == 1
    assert items.differences(but=[5]) == []
    assert items.sql("SELECT id, attempts, last_attempt_at FROM opensearch_indexing_dlq") == letters
    assert overview(items.conn, items.settings, None).conditions == ()


def test_an_index_that_is_mostly_different_is_not_repaired(items, caplog):
    caplog.set_level(logging.INFO, "idxctl.worker")
    items.sql(
        "INSERT INTO items (id, name, category_id) SELECT i, 'item ' || i, i % 3 + 1 FROM generate_series(100, 400) i"
    )
    items.drain()
    behind_our_back(items, deleted=[*range(1, 21), *range(100, 300)])
    with scrubbing(items, options(0.2)):
        another_round(items)
    assert items.one("SELECT count(*) FROM opensearch_indexing_audit WHERE action = 'scrub repair'") == 0
    assert any("which is more than half; until the next scrub" in one.getMessage() for one in caplog.records)
    last = proof(items)
    assert last is not None
    assert last.differing == 220


def test_a_scrub_gives_way_to_live_work(items, stops):
    sending = stops.at("send.before")
    with items.working() as worker:
        taken = scrubber(items, worker)
        items.sql("UPDATE items SET name = 'later' WHERE id = 3")
        sending.wait()
        for _ in range(5):
            assert taken.turn() > 0
        assert items.one(f"SELECT count(*) FROM {RUNS}") == 0
        sending.release()
        until(lambda: worker.at_ease, "there is no quiet moment")
        until(lambda: taken.turn() == 0.0 and finished(items), "nothing is compared")
    assert "verify.noted" in stops.seen


def test_refusals_for_overload_keep_a_scrub_waiting(items):
    with items.working() as worker:
        until(lambda: worker.at_ease, "there is no quiet moment")
        worker.carrier.load.overloaded(1_000_000, began=1e12, partly=True)
        assert not worker.at_ease


def test_two_processes_share_a_scrub(items, stops, small_ranges):
    items.sql("INSERT INTO items (id, name, category_id) SELECT i, 'item ' || i, 1 FROM generate_series(100, 179) i")
    items.drain()
    held = stops.at("verify.compared")
    with scrubbing(items, options(60)), scrubbing(items, options(60)):
        held.wait()
        until(
            lambda: items.one(f"SELECT count(*) FILTER (WHERE done_at IS NULL) = 1 AND count(*) >= 10 FROM {RANGES}"),
            "the other process takes no ranges",
        )
        held.release()
        until(lambda: finished(items), "it does not end")
    assert items.sql(f"SELECT sum(checked), count(DISTINCT owner) FROM {RANGES} WHERE slice IS NULL") == [(100, 2)]
    assert items.one(f"SELECT count(*) FROM {RUNS}") == 1


def test_what_a_killed_worker_was_at_another_goes_on_with(items):
    items.sql("INSERT INTO items (id, name, category_id) SELECT i, 'item ' || i, 1 FROM generate_series(100, 679) i")
    items.drain()
    behind_our_back(items, altered=(7,))
    with Process(items, "worker", "start", "--scrub", "1h", point="verify.noted") as first:
        first.wait_until_held()
        first.send(signal.SIGKILL)
    (before,) = items.sql(f"SELECT number, checked, owner FROM {RANGES} WHERE done_at IS NOT NULL")
    assert before[:2] == (1, 100)
    with Process(items, "worker", "start", "--scrub", "1h", point="verify.compared") as second:
        second.wait_until_held()
        second.send(signal.SIGKILL)
    assert items.sql(f"SELECT number FROM {RANGES} WHERE done_at IS NULL") == [(2,)]
    items.sql("UPDATE opensearch_indexing_workers SET seen_at = now() - %s * interval '1 s'", registry.ALIVE_SECONDS)
    with Process(items, "worker", "start", "--scrub", "1h") as third:
        until(lambda: finished(items), "it is not gone on with", seconds=60)
        third.wait_for("what was left of it is enqueued")
    done = items.sql(f"SELECT number, checked, owner FROM {RANGES} WHERE slice IS NULL ORDER BY number")
    assert done[0] == before
    assert sum(checked for _, checked, _ in done) == 600
    assert len({owner for _, _, owner in done}) == 2  # the third went on where the second stood
    assert items.differences() == []  # what the first had noted, and was killed before it was enqueued
    assert items.one(f"SELECT count(*) FROM {RUNS}") == 1


def test_a_scrub_of_a_generation_that_is_not_live_any_more_is_dropped(items, stops, small_ranges):
    held = stops.at("verify.noted")
    with scrubbing(items, options(60)):
        held.wait()
        items.reindex(force=True)
        held.release()
        until(lambda: finished(items), "the new generation is not compared")
    assert items.sql(f"SELECT state, generation = %s FROM {RUNS} ORDER BY id", items.generation().id) == [
        ("abandoned", False),
        ("finished", True),
    ]


def test_a_scrub_and_a_comparison_that_somebody_runs_are_beside_each_other(items, cli, stops, small_ranges):
    held = stops.at("verify.noted")
    with scrubbing(items, options(60)):
        held.wait()
        assert cli("verify").status == 0
        held.release()
        until(lambda: finished(items), "the scrub does not end")


def test_without_a_period_nothing_is_scrubbed(items):
    assert scrub.Options.of_settings(items.settings, indexes=None) is None
    with items.working() as worker, scrub.scrubbing(worker, items.pool, items.client, None):
        assert worker.keeper.periods() == {}
    assert items.one(f"SELECT count(*) FROM {RUNS}") == 0


def test_the_age_of_what_is_unverified_is_a_metric_and_twice_the_period_a_condition(items, cli):
    assert gauges.read(items.conn, items.settings)[metrics.UNVERIFIED.name] == {}
    items.configure(
        toml=f'[scrub]\nevery = "1h"\n[indexes.{items.index}.scrub]\nevery = "2h"\n' + items.config.read_text()
    )
    read = gauges.read(items.conn, items.settings)
    assert read[metrics.SCRUB_PERIOD.name] == {(items.index,): 7200.0}
    assert 0 <= read[metrics.UNVERIFIED.name][(items.index,)] < 3600  # it has been live for as long
    assert cli("verify").status == 0
    items.sql(f"UPDATE {RUNS} SET started_at = now() - interval '241 minutes'")
    assert gauges.read(items.conn, items.settings)[metrics.UNVERIFIED.name][(items.index,)] > 14_400
    (found,) = overview(items.conn, items.settings, None).conditions
    assert found.kind.value == "scrub_behind"
    assert "within 4 h, twice the scrub's period" in found.reason


def test_heartbeats_say_what_is_scrubbed(items, cli):
    with scrubbing(items, options(3600)):
        until(
            lambda: [one.counters.get("scrub") for one in registry.alive(items.conn)] == [{items.index: 3600.0}],
            "no heartbeat says it",
        )
        assert metrics.SCRUB_PERIOD.name in gauges.read(items.conn, items.settings)


def test_a_worker_without_the_rights_says_so_and_works_on(items, caplog, unique_name):
    caplog.set_level(logging.INFO, "idxctl.worker")
    role = f"{unique_name}_worker"
    items.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        items.grant(worker=role)
        items.sql(f"REVOKE ALL ON opensearch_indexing_verify_runs FROM {role}")
        with items.as_role(role) as theirs, scrubbing(theirs):
            until(
                lambda: any("is not compared for now" in one.getMessage() for one in caplog.records), "it is not said"
            )
            items.sql("UPDATE items SET name = 'still indexed' WHERE id = 3")
            until(lambda: items.document(3)["name"] == "still indexed", "it is not indexed")
            assert overview(theirs.conn, theirs.settings, None).conditions == ()
    finally:
        items.sql(f"DROP OWNED BY {role}")
        items.sql(f"DROP ROLE {role}")


def test_a_flag_names_the_period_and_the_file_may_leave_an_index_out(items, cli):
    items.configure(toml=f'[indexes.{items.index}.scrub]\nevery = "off"\n' + items.config.read_text())
    shown = json.loads(cli("config", "show", "-o", "json").stdout)["settings"]
    assert shown[f"indexes.{items.index}.scrub.every"]["value"] == "off"
    assert cli("worker", "start", "--scrub", "soon").status == 2
