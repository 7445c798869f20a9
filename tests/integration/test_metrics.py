"""Metrics of a worker under load: exact where they can be, there where anybody asks for them."""

from __future__ import annotations

import csv
import io
import json

import pytest

from idxctl.core import metrics, reasons
from idxctl.monitoring import dashboard
from idxctl.monitoring.alerts import ALERTS
from idxctl.queue import pause
from idxctl.worker import registry
from support.calls import names_in, served

PREFIX = "opensearch_indexing_"


def series(page, name):
    """The labels and values of one series' children."""
    return {
        key.partition("{")[2].rstrip("}"): value
        for key, value in page.items()
        if key.partition("{")[0] == PREFIX + name
    }


def value(page, name, **labels):
    inner = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
    return page[PREFIX + name + (f"{{{inner}}}" if inner else "")]


def test_a_worker_under_load_exports_every_metric_that_an_expression_uses(items):
    items.configure(toml=f'[scrub]\nevery = "24h"\n{items.config.read_text()}')
    with items.working() as worker, served(items.settings, worker=worker) as api:
        items.sql("UPDATE items SET name = 'new', price = CASE WHEN id <= 3 THEN 'dear' ELSE '2' END")
        items.sql("DELETE FROM parts WHERE item_id = 20")
        items.sql("DELETE FROM items WHERE id = 20")
        items.wait_for_rest()
        page = api.metrics()
    exported = {name.partition("{")[0] for name in page}
    expressions = [*(alert.expr for alert in ALERTS), *dashboard.expressions()]
    assert set().union(*map(names_in, expressions)) - exported == set()
    assert {name for metric in metrics.ALL for name in metric.series} - exported == set()


def test_counters_are_exact(items):
    hand = items.hand()
    with served(items.settings, worker=hand.worker) as api:
        items.sql("UPDATE items SET name = 'new', price = CASE WHEN id <= 3 THEN 'dear' ELSE '2' END")
        hand.rest()
        page = api.metrics()
    where = {"index": items.index}
    assert value(page, "success_total", action="index", mode="async", **where) == 17
    assert value(page, "failure_total", action="index", reason="refused", **where) == 3
    assert value(page, "dlq_size", **where) == 3
    assert value(page, "latency_seconds_count", mode="async", **where) == 17
    assert value(page, "latency_seconds_count", mode="sync", **where) == 0
    assert value(page, "batch_size_sum", **where) == 20
    assert value(page, "batch_bytes_sum", **where) > 20 * 50


def test_a_retry_that_serve_indexes_itself_is_counted(items):
    items.sql("UPDATE items SET price = 'dear' WHERE id = 1")
    items.hand().rest()
    with served(items.settings) as api:
        assert value(api.metrics(), "failure_total", action="index", reason="refused", index=items.index) == 0
        assert api.post("/dlq/retry").json["failed"] == 1
        assert value(api.metrics(), "failure_total", action="index", reason="refused", index=items.index) == 1


def test_children_stand_at_zero_before_the_first_failure_and_for_indexes_that_only_the_database_knows(items):
    items.sql(
        "INSERT INTO opensearch_indexing_watches OVERRIDING SYSTEM VALUE SELECT (jsonb_populate_record(w, "
        '\'{"index_name": "elsewhere", "id": 9999}\')).* FROM opensearch_indexing_watches w LIMIT 1'
    )
    items.sql("SELECT opensearch_indexing_enqueue('elsewhere', '1')")
    with served(items.settings) as api:
        page = api.metrics()
    for name in (items.index, "elsewhere"):
        failures = {key: one for key, one in series(page, "failure_total").items() if f'index="{name}"' in key}
        assert len(failures) == 2 * len(metrics.FAILURE.reasons)
        assert set(failures.values()) == {0}
    assert value(page, "queue_size", index="elsewhere") == 1
    assert value(page, "reindex_running", index=items.index) == 0  # its first one is over


def test_names_that_are_no_index_are_one_label_however_many_somebody_makes_up(items, idxctl):
    items.sql("SELECT opensearch_indexing_enqueue('made-up-' || n, '1') FROM generate_series(1, 20000) n")
    items.enqueue(1, 2)
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    with served(items.settings) as api:
        page = api.metrics()
        asked = api.get("/queue/stats").json
        status = api.get("/indexer/status").json
    assert set(series(page, "queue_size")) == {f'index="{items.index}"', 'index="other"'}
    assert value(page, "queue_size", index="other") == 0  # no part of what the capacity is measured against
    assert value(page, "queued", index="other") == 20000
    assert value(page, "queue_size", index=items.index) == 2
    assert (status["queue_size"], status["queued"]) == (2, 20002)
    assert not any("made-up" in key for key in page)
    assert not any('index="other"' in key for key in series(page, "failure_total"))
    assert (asked["queued"], [one["index"] for one in asked["by_index"]]) == (20002, [items.index])
    assert asked["other"].items() >= {"names": 20000, "queued": 20000}.items()
    assert len(asked["other"]["examples"]) == 5
    told = idxctl("queue", "stats").stdout
    assert "20,000 other names (made-up-1, " in told
    assert len(told.splitlines()) < 10


def test_rows_of_queue_stats_hold_each_index_with_its_state_and_its_pause(items, idxctl):
    items.sql("SELECT opensearch_indexing_enqueue('=made+up', '1')")
    items.enqueue(1, 2)
    pause.block(
        items.conn, items.index, why=reasons.Reason(reasons.Kind.REFUSED, "disk"), by="x", probe_after_seconds=60
    )
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    lines = [json.loads(line) for line in idxctl("queue", "stats", "-o", "ndjson").stdout.splitlines()]
    cells = list(csv.DictReader(io.StringIO(idxctl("queue", "stats", "-o", "csv").stdout)))
    for rows in (lines, cells):
        assert [(one["index"], int(one["queued"])) for one in rows] == [(items.index, 2), ("other", 1)]
        assert (rows[0]["pause"], rows[0]["pause_reason"]) == ("blocked", "disk")
        assert rows[0]["state"].startswith("blocked, next try in")
        assert rows[0]["pause_since"]


def test_gauges_are_what_the_database_holds(items):
    items.enqueue(1, 2)
    items.enqueue(3, priority=-1)
    taken = items.hand(batch_size=1).claim()
    pause.block(
        items.conn, items.index, why=reasons.Reason(reasons.Kind.REFUSED, "disk"), by="x", probe_after_seconds=60
    )
    registry.beat(
        items.conn, "host:1:abc", state="running", threads=2, queue_size=77, indexes=None, counters={}, breaker={"state": "open"},
        patience_seconds=10.0,
    )  # fmt: skip
    run = items.one("SELECT max(id) FROM opensearch_indexing_reindex_runs")
    items.sql(
        "UPDATE opensearch_indexing_reindex_runs SET finished_at = NULL, documents = 7, failed = 2 WHERE id = %s", run
    )
    with served(items.settings) as api:
        page = api.metrics()
    where = {"index": items.index}
    told = {
        name: value(page, name, **where)
        for name in ("queue_size", "queued", "in_flight", "reindex_running", "reindex_documents", "reindex_failed")
    }
    assert told == {
        "queue_size": 1,
        "queued": 2,
        "in_flight": 1,
        "reindex_running": 1,
        "reindex_documents": 7,
        "reindex_failed": 2,
    }
    assert value(page, "paused", reason="blocked", **where) == 1
    assert value(page, "paused", reason="operator", **where) == 0
    assert value(page, "oldest_age_seconds", **where) > 0
    assert {name: value(page, name) for name in ("breaker_open", "workers_alive", "queue_capacity", "postgres_up")} == {
        "breaker_open": 1, "workers_alive": 1, "queue_capacity": 77, "postgres_up": 1,
    }  # fmt: skip
    assert taken


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_both_formats_parse(items, accept):
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
    from prometheus_client.parser import text_string_to_metric_families as text

    with served(items.settings) as api:
        answer = api.get("/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(accept.partition(";")[0])
    found = {one.name for one in (openmetrics if "openmetrics" in accept else text)(answer.body.decode())}
    assert {metric.name for metric in metrics.ALL} <= found
