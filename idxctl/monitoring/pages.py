"""The pages of the documentation that are made from code: the metrics, and what each alert asks for."""

from __future__ import annotations

from idxctl.core import metrics
from idxctl.monitoring.alerts import ALERTS, Alert

RUNBOOK = "alerts.md"


def metrics_page() -> str:
    """Return the table of metrics."""
    rows = [
        f"| `{metric.name}{'_total' if metric.kind is metrics.Kind.COUNTER else ''}` | {metric.kind.value} "
        f"| {', '.join(metric.labels) or '-'} | {metric.help} |"
        for metric in metrics.ALL
    ]
    reasons = [
        f"| `{metric.series[0]}` | `{reason}` | {meaning} |"
        for metric in metrics.ALL
        for reason, meaning in metric.reasons.items()
    ]
    buckets = [
        f"- `{metric.name}`: {', '.join(f'{bound:,.0f}' if bound >= 1000 else f'{bound:g}' for bound in metric.buckets)}"
        for metric in metrics.ALL
        if metric.buckets
    ]
    return "\n".join(
        [
            "# Metrics",
            "",
            "`idxctl worker start --http HOST:PORT` and `idxctl serve` answer `/metrics`. `idxctl monitoring export DIR` writes the",
            "scrape configuration, alert rules with their tests, and a Grafana dashboard over them.",
            "",
            "| metric | type | labels | |",
            "|---|---|---|---|",
            *rows,
            "",
            "Labels are never ids. Names that are not an index, and indexes beyond the first thousand, share the label `other`.",
            "`action` is `index` or `delete`, as the change asked for; `mode` is `sync` for what an",
            "application indexed inline and `async` for what a worker did.",
            "",
            "- Counters and histograms belong to the process: `sum` them over all. Every series starts at 0, so",
            "  that a rate sees the first failure. `serve` counts only the retries that it indexes itself.",
            "- Gauges are read from PostgreSQL at a scrape, at most three seconds old, and are the same from every process:",
            "  take `max by (index)`, never a sum over processes. While PostgreSQL is away they are missing, and",
            "  `opensearch_indexing_postgres_up` is 0.",
            "",
            "## Reasons",
            "",
            "| metric | reason | |",
            "|---|---|---|",
            *reasons,
            "",
            "## Buckets",
            "",
            *buckets,
            "",
        ]
    )


def runbook_page() -> str:
    """Return what each alert means and what to do."""
    head = [
        "# Alerts: what they mean, and what to do",
        "",
        "None of these loses a change: what is committed is in the index, in the queue, in flight or a dead letter. An alert says",
        "that documents are late, or that some need your attention.",
    ]
    return "\n".join([*head, *(line for alert in ALERTS for line in _section(alert))]) + "\n"


def _section(alert: Alert) -> list[str]:
    steps = [f"{number}. {step}" for number, step in enumerate(alert.todo, 1)]
    lasts = f"Fires after {alert.lasts}, {alert.severity}."
    return ["", f"## {alert.name}", "", alert.meaning, "", f"{lasts} `{alert.expr}`", "", *steps]
