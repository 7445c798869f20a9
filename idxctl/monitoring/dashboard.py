"""The Grafana dashboard: queue, success, latency, retries, dead letters, lag and throughput, one panel each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from idxctl.core import metrics as m
from idxctl.monitoring.alerts import LABEL

FILE = "idxctl.dashboard.json"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_HERE = 'job=~"$installation"'
_INDEX = _HERE + ',index=~"$index"'
_WIDTH, _HEIGHT = 8, 8


@dataclass(frozen=True)
class Query:
    """One line, or several, of a panel."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel; ``unit`` is Grafana's name of it."""

    title: str
    help: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    greatest: float | None = None


def _now(metric: m.Metric, *, by: str = "index", more: str = "") -> str:
    """Return a gauge, told once however many processes export it."""
    chosen = ",".join(part for part in (_INDEX, more) if part)
    return f"max by ({by}) ({metric.series[0]}{{{chosen}}})"


def _rate(metric: m.Metric, by: str, *, series: int = 0) -> str:
    return f"sum by ({by}) (rate({metric.series[series]}{{{_INDEX}}}[$__rate_interval]))"


def _total(metric: m.Metric) -> str:
    return f"sum(rate({metric.series[0]}{{{_INDEX}}}[$__rate_interval]))"


def _quantile(share: float) -> Query:
    return Query(f"histogram_quantile({share}, {_rate(m.LATENCY, 'le, mode')})", f"p{round(share * 100)} {{{{mode}}}}")


PANELS = (
    Panel("Queue size", "Due document tasks, and the size at which the queue counts as full.", "short", (
        Query(_now(m.QUEUE_SIZE), "{{index}}"), Query(f"max({m.QUEUE_CAPACITY.series[0]}{{{_HERE}}})", "capacity"))),
    Panel("Success rate", "Of the documents that were finished with: indexed, not given up.", "percentunit", (
        Query(f"{_total(m.SUCCESS)} / ({_total(m.SUCCESS)} + {_total(m.FAILURE)})", "success"),), greatest=1.0),
    Panel("Lag", "Age of the oldest open change.", "s", (Query(_now(m.OLDEST_AGE), "{{index}}"),)),
    Panel("Latency", "From enqueued to indexed.", "s", (_quantile(0.5), _quantile(0.95), _quantile(0.99))),
    Panel("Throughput", "Documents indexed a second, in the request (sync) and behind it (async).", "ops", (
        Query(_rate(m.SUCCESS, "index, mode"), "{{index}} {{mode}}"),)),
    Panel("Retry rate", "Tasks put back a second, and why.", "ops", (Query(_rate(m.RETRY, "reason"), "{{reason}}"),)),
    Panel("Dead letters", "Documents that could not be indexed.", "short", (Query(_now(m.DLQ_SIZE), "{{index}}"),)),
    Panel("Failures", "Documents given up a second, and why.", "ops", (Query(_rate(m.FAILURE, "reason"), "{{reason}}"),)),
    Panel("Waiting and in flight", "All tasks that wait, and those claimed.", "short", (
        Query(_now(m.QUEUED), "{{index}} waiting"), Query(_now(m.IN_FLIGHT), "{{index}} in flight"))),
    Panel("Workers", "Live worker processes, those with an open circuit, and whether PostgreSQL answers.", "short", (
        Query(f"max({m.WORKERS_ALIVE.series[0]}{{{_HERE}}})", "alive"), Query(f"max({m.BREAKER_OPEN.series[0]}{{{_HERE}}})", "circuit open"),
        Query(f"max({m.POSTGRES_UP.series[0]}{{{_HERE}}})", "PostgreSQL up"))),
    Panel("Paused", "1 while nothing is claimed from an index.", "short", (
        Query(_now(m.PAUSED, by="index, reason"), "{{index}} {{reason}}"),), greatest=1.0),
    Panel("Not distinguished", "Tasks after which all of an index is looked at again, and statements that left none.", "short", (
        Query(_now(m.COARSE), "{{index}}"), Query(f"max({m.GAPS.series[0]}{{{_HERE}}})", "no task"))),
    Panel("Conditions", "What is wrong, by kind: 1 to look at, 2 to act on.", "short", (
        Query(_now(m.CONDITION, by="index, kind"), "{{index}} {{kind}}"),), greatest=2.0),
    Panel("Unverified", "Age of the oldest unverified range, and the period in which a scrub is to compare everything once.", "s", (
        Query(_now(m.UNVERIFIED), "{{index}}"), Query(_now(m.SCRUB_PERIOD), "{{index}} period"))),
    Panel("Drift", "Documents a second that scrubs compared, found to differ, and repaired.", "ops", (
        Query(_rate(m.VERIFIED, "index"), "{{index}} compared"), Query(_rate(m.DRIFT, "index, kind"), "{{index}} {{kind}}"),
        Query(_rate(m.DRIFT_REPAIRED, "index, kind"), "{{index}} {{kind}} repaired"))),
    Panel("Reindex", "Documents that a reindex under way has written, and refused ones.", "short", (
        Query(f"{_now(m.REINDEX_DOCUMENTS)} and {_now(m.REINDEX_RUNNING)} > 0", "{{index}}"),
        Query(f"{_now(m.REINDEX_FAILED)} and {_now(m.REINDEX_RUNNING)} > 0", "{{index}} refused"))),
    Panel("Turned away over HTTP", "Requests a second that were refused, and why: wrong tokens for one.", "ops", (
        Query(f"sum by (reason) (rate({m.HTTP_REFUSED.series[0]}{{{_HERE}}}[$__rate_interval]))", "{{reason}}"),)),
    Panel("Batch size", "Documents of a claim, on average.", "short", (
        Query(f"{_rate(m.BATCH_SIZE, 'index', series=1)} / {_rate(m.BATCH_SIZE, 'index', series=2)}", "{{index}}"),)),
    Panel("Batch bytes", "Bytes sent for a claim, on average.", "bytes", (
        Query(f"{_rate(m.BATCH_BYTES, 'index', series=1)} / {_rate(m.BATCH_BYTES, 'index', series=2)}", "{{index}}"),)),
)  # fmt: skip


def expressions() -> list[str]:
    """Return every expression of the dashboard, the variable's query too."""
    return [query.expr for panel in PANELS for query in panel.queries] + [
        one["query"]["query"] for one in _variables()[1:]
    ]


def dashboard(label: str = LABEL) -> str:
    """Return the dashboard's JSON, to be imported; *label* tells installations apart."""
    panels = [_panel(number, panel) for number, panel in enumerate(PANELS)]
    document = {
        "uid": "idxctl", "title": "idxctl: indexing PostgreSQL into OpenSearch", "tags": ["idxctl", "opensearch"],
        "schemaVersion": 39, "version": 1, "editable": True, "graphTooltip": 1, "refresh": "30s", "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"}, "templating": {"list": _variables()}, "annotations": {"list": []},
        "panels": panels,
    }  # fmt: skip
    text = json.dumps(document, indent=2) + "\n"
    return text.replace("job=~", f"{label}=~").replace(", job)", f", {label})")


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    column, row = number % 3, number // 3
    limits = {"min": 0, **({"max": panel.greatest} if panel.greatest is not None else {})}
    return {
        "id": number + 1, "type": panel.kind, "title": panel.title, "description": panel.help, "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, **limits}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                    "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": query.expr, "legendFormat": query.legend}
            for place, query in enumerate(panel.queries)
        ],
    }  # fmt: skip


def _variables() -> list[dict[str, Any]]:
    query = f"label_values({m.QUEUE_SIZE.series[0]}{{{_HERE}}}, index)"
    installations = f"label_values({m.POSTGRES_UP.series[0]}, job)"
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1},
        {"name": "installation", "label": "Installation", "type": "query", "datasource": _SOURCE,
         "query": {"query": installations, "refId": "installation"}, "refresh": 2, "includeAll": False, "multi": False},
        {"name": "index", "label": "Index", "type": "query", "datasource": _SOURCE,
         "query": {"query": query, "refId": "index"}, "refresh": 2, "includeAll": True, "multi": True, "allValue": ".*",
         "current": {"text": "All", "value": "$__all"}},
    ]  # fmt: skip
