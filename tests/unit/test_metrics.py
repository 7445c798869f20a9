"""The registry of metrics, what a process counts, and what is made from both."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from idxctl.core import metrics, reasons
from idxctl.core.errors import OpenSearchRefused, OpenSearchUnreachable, UsageError
from idxctl.core.metrics import Kind
from idxctl.core.reasons import Reason
from idxctl.core.tally import Tally
from idxctl.monitoring import dashboard, files, pages, rules, yaml
from idxctl.monitoring.alerts import ALERTS
from idxctl.queue.claim import Batch, Task
from idxctl.queue.outcomes import Again, Failure, Outcomes, Settled
from idxctl.web.exporter import Exporter
from idxctl.worker import accounting
from idxctl.worker import outcomes as sorting
from idxctl.worker.outcomes import Verdict
from support.calls import names_in

ROOT = Path(__file__).parents[2]
KNOWN = {name for metric in metrics.ALL for name in metric.series}
NOW = datetime.now(timezone.utc)


# --- the registry ----------------------------------------------------------------------------------------------------


def test_names_are_those_that_teams_have_in_their_dashboards():
    wanted = (
        "queue_size",
        "success_total",
        "failure_total",
        "retry_total",
        "latency_seconds_bucket",
        "dlq_size",
        "oldest_age_seconds",
    )
    assert {f"opensearch_indexing_{name}" for name in wanted} <= KNOWN


def test_labels_are_few_and_never_ids():
    for metric in metrics.ALL:
        assert set(metric.labels) <= {"index", "action", "reason", "mode", "kind"}
        assert bool({"reason", "kind"} & set(metric.labels)) == bool(metric.reasons), metric.name
        assert metric.help.endswith(".")
        assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
        assert list(metric.buckets) == sorted(metric.buckets)
    assert len({metric.name for metric in metrics.ALL}) == len(metrics.ALL)


# --- counting --------------------------------------------------------------------------------------------------------


def task(number, *, action="index", attempts=0, age=1.0):
    return Task(str(number), action, 0, attempts, NOW - timedelta(seconds=age), "api", "", {})


def failure(error_type, *, permanent=True, attempts=0):
    return Failure(task(9, attempts=attempts), error_type, "f", "boom", permanent)


def counted(outcomes, settled, **more):
    tally = Tally(["a"])
    tasks = (*outcomes.done, *(one.task for one in outcomes.again), *(one.task for one in outcomes.failed))
    batch = Batch(1, "a", "document", (1,), tuple(tasks), NOW)
    accounting.count(tally, batch, outcomes, settled, max_attempts=3, **more)
    return tally


def nonzero(tally, metric):
    return {labels[1:]: value for labels, value in tally.counters(metric).items() if value}


def test_children_stand_at_zero_from_the_start():
    tally = Tally(["a", "b"])
    for metric in metrics.COUNTED:
        children = tally.counters(metric) if metric.kind is Kind.COUNTER else tally.histograms(metric)
        assert set(children) == {labels for index in "ab" for labels in metric.children(index)}
    assert set(tally.counters(metrics.FAILURE).values()) == {0.0}
    assert len(tally.counters(metrics.FAILURE)) == 2 * 2 * len(metrics.FAILURE.reasons)


def test_more_indexes_than_prometheus_should_be_given_are_one():
    tally = Tally(f"index-{number}" for number in range(metrics.MOST_INDEXES + 500))
    tally.add(metrics.SUCCESS, "yet-another", "index", "async", amount=3)
    tally.observe(metrics.LATENCY, [1.0], "yet-another", "async")
    assert len({labels[0] for labels in tally.counters(metrics.SUCCESS)}) == metrics.MOST_INDEXES + 1
    assert tally.counters(metrics.SUCCESS)["other", "index", "async"] == 3
    assert ("other", "async") in tally.histograms(metrics.LATENCY)


def test_what_was_indexed_is_counted_by_action_and_its_latency_by_mode():
    tally = counted(
        Outcomes([task(1), task(2), task(3, action="delete", age=20)]),
        Settled(held=True, done=3),
        mode="sync",
        sent_bytes=700,
    )
    assert nonzero(tally, metrics.SUCCESS) == {("index", "sync"): 2, ("delete", "sync"): 1}
    latency = tally.histograms(metrics.LATENCY)["a", "sync"]
    assert (sum(latency.counts), round(latency.sum)) == (3, 22)
    assert tally.histograms(metrics.BATCH_SIZE)["a",].sum == 3
    assert tally.histograms(metrics.BATCH_BYTES)["a",].sum == 700


def test_a_lost_lease_counts_nothing():
    outcomes = Outcomes(
        [task(1)], [Again(task(2), 1.0, Reason(reasons.Kind.UNREACHABLE))], [failure("mapper_parsing_exception")]
    )
    tally = counted(outcomes, Settled(held=False))
    assert not any(nonzero(tally, one) for one in metrics.COUNTED if one.kind is Kind.COUNTER)
    histograms = [tally.histograms(one) for one in metrics.COUNTED if one.kind is Kind.HISTOGRAM]
    assert sum(sum(child.counts) for one in histograms for child in one.values()) == 0


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (failure("mapper_parsing_exception"), "refused"),
        (failure("sql_22012"), "unreadable"),
        (failure("duplicate_document"), "duplicate"),
        (failure("http_413"), "too_large"),
        (failure("rejected_execution_exception"), "too_large"),
        (failure("script_exception", permanent=False, attempts=2), "attempts"),
    ],
)
def test_what_was_given_up_has_a_reason(one, reason):
    tally = counted(Outcomes(failed=[one]), Settled(held=True, dead=1))
    assert nonzero(tally, metrics.FAILURE) == {("index", reason): 1}
    assert nonzero(tally, metrics.RETRY) == {}


def test_a_failure_that_is_tried_again_is_a_retry_and_not_yet_a_failure():
    tally = counted(Outcomes(failed=[failure("script_exception", permanent=False)]), Settled(held=True, retried=1))
    assert nonzero(tally, metrics.RETRY) == {("index", "attempt"): 1}
    assert nonzero(tally, metrics.FAILURE) == {}


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (sorting.of_request(OpenSearchUnreachable("connection refused")), "unreachable"),
        (sorting.of_request(OpenSearchRefused("busy", status=503)), "unreachable"),
        (sorting.of_request(OpenSearchRefused("busy", status=429)), "overload"),
        (sorting.of_item(503, "unavailable_shards_exception", "primary is not active"), "unreachable"),
        (sorting.of_item(503, "cluster_manager_not_discovered_exception", "none"), "unreachable"),
        (sorting.of_item(429, "rejected_execution_exception", "full"), "overload"),
        (sorting.of_item(403, "cluster_block_exception", "disk"), "blocked"),
        (sorting.of_item(404, "index_not_found_exception", "none"), "blocked"),
        (sorting.of_item(403, "security_exception", "no"), "blocked"),
        (Verdict(sorting.Kind.BLOCKED, "sql_42703", "column"), "blocked"),
        (sorting.of_item(400, "strict_dynamic_mapping_exception", "held while the index is paused"), "blocked"),
        (Verdict(sorting.Kind.TRANSIENT, sorting.TOO_OLD, "read too long ago"), "outdated"),
        (Verdict(sorting.Kind.TRANSIENT, sorting.FOREIGN_VERSION, "there"), "outdated"),
    ],
)
def test_what_was_put_back_has_a_reason(verdict, reason):
    again = Again(task(1), 1.0, sorting.why(verdict))
    tally = counted(Outcomes(again=[again]), Settled(held=True, retried=1))
    assert nonzero(tally, metrics.RETRY) == {("index", reason): 1}


def test_what_settling_decided_otherwise_is_counted_as_it_was_settled():
    tally = counted(Outcomes([task(1), task(2), task(3)]), Settled(held=True, done=1, dead=1, retried=1))
    assert [sum(tally.counters(metric).values()) for metric in (metrics.SUCCESS, metrics.FAILURE, metrics.RETRY)] == [
        1,
        1,
        1,
    ]


def test_a_value_on_a_bound_is_within_it():
    tally = Tally(["a"])
    tally.observe(metrics.BATCH_SIZE, [1, 2, 5, 6, 9999], "a")
    assert tally.histograms(metrics.BATCH_SIZE)["a",].counts == [1, 2, 1, 0, 0, 0, 0, 0, 0, 1]


def test_gauges_are_read_once_in_a_few_seconds():
    reads, now = [], [0.0]

    def read():
        reads.append(now[0])
        return {metrics.POSTGRES_UP.name: {(): 1.0}}

    exporter = Exporter(Tally(), read, clock=lambda: now[0])
    for now[0] in (0.0, 1.0, 2.9, 3.0, 4.0):
        assert b"opensearch_indexing_postgres_up 1.0" in exporter.scrape("")[0]
    assert reads == [0.0, 3.0]


# --- what is made from it --------------------------------------------------------------------------------------------


def test_expressions_use_known_metrics_only():
    for expression in (*(alert.expr for alert in ALERTS), *dashboard.expressions()):
        assert names_in(expression), expression
        assert names_in(expression) <= KNOWN, expression


def test_every_metric_is_in_the_dashboard():
    used = set().union(*(names_in(expression) for expression in dashboard.expressions()))
    assert [metric.name for metric in metrics.ALL if not used & set(metric.series)] == []


def test_gauges_are_never_summed_over_processes():
    gauges = [metric.name for metric in metrics.ALL if metric.kind is Kind.GAUGE]
    for expression in (*(alert.expr for alert in ALERTS), *dashboard.expressions()):
        for gauge in gauges:
            for found in re.finditer(rf"\b{gauge}\b", expression):
                before = expression[: found.start()]
                assert before.endswith(("max(", "max_over_time(", "absent(", "label_values(")) or re.search(
                    r"max by \([a-z, ]+\) \($", before
                ), expression


def test_every_alert_has_its_page_and_proofs_of_both_kinds():
    page = pages.runbook_page()
    for alert in ALERTS:
        assert f"\n## {alert.name}\n" in page
        assert {proof.fires is None for proof in alert.proofs} == {True, False}
    assert f'runbook_url: "https://wiki/alerts#{ALERTS[0].anchor}"' in rules.rules("https://wiki/alerts")


def test_panels_do_not_overlap_and_fit_the_page():
    taken = set()
    for panel in json.loads(dashboard.dashboard())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_dashboard_is_one_to_grafanas_own_types():
    """Read by Grafana's SDK and written again it is the same: no field is unknown to the schema of dashboard, panels or queries."""
    pytest.importorskip("grafana_foundation_sdk", reason="it needs Python 3.11")
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    ours = json.loads(dashboard.dashboard())
    theirs = json.loads(json.dumps(Dashboard.from_json(ours), cls=JSONEncoder))
    assert list(lost(ours, theirs)) == []


def lost(ours, theirs, place="dashboard"):
    """Yield the places where *theirs* lacks something of *ours*; what it adds are defaults."""
    if isinstance(ours, dict):
        for key, one in ours.items():
            if isinstance(theirs, dict) and key in theirs:
                yield from lost(one, theirs[key], f"{place}.{key}")
            else:
                yield f"{place}.{key}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(one, other, f"{place}[{number}]")
    elif ours != theirs:
        yield f"{place}: {ours!r} is {theirs!r}"


def test_yaml_quotes_what_would_be_read_as_something_else():
    text = yaml.dump(
        {"a": ["no", "5m", "x: y", "", "1", 'say "so"'], "b": {"c": 1, "d": []}, "e": [{"f": 1, "g": [2]}]}
    )
    assert text == (
        'a:\n  - "no"\n  - 5m\n  - "x: y"\n  - ""\n  - "1"\n  - "say \\"so\\""\nb:\n  c: 1\n  d: []\ne:\n  - f: 1\n    g:\n      - 2\n'
    )


@pytest.mark.parametrize("target", ["worker1", "http://worker1:9321", "worker1:9321/metrics", 'a"b:1', "a b:1", ""])
def test_a_target_that_prometheus_would_not_take_is_refused(tmp_path, target):
    with pytest.raises(UsageError, match="is not HOST:PORT"):
        files.export(tmp_path / "new", targets=["a:1", target])
    assert not (tmp_path / "new").exists()


def test_an_export_writes_over_nothing_that_was_changed(tmp_path):
    directory = tmp_path / "new" / "monitoring"
    assert {one.state for one in files.export(directory, targets=["a:1"])} == {"written"}
    assert {one.state for one in files.export(directory, targets=["a:1"])} == {"unchanged"}
    assert '"a:1"' in (directory / "prometheus.yml").read_text()
    (directory / "idxctl.rules.yml").write_text("ours")
    with pytest.raises(UsageError, match=r"idxctl\.rules\.yml; nothing was written"):
        files.export(directory, targets=["b:2"])
    assert '"a:1"' in (directory / "prometheus.yml").read_text()
    assert (directory / "idxctl.rules.yml").read_text() == "ours"
    files.export(directory, targets=["b:2"], force=True)
    assert '"b:2"' in (directory / "prometheus.yml").read_text()
