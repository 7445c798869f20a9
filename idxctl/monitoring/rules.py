"""Prometheus' files: scrape configuration, alert rules and their tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from idxctl.monitoring import yaml
from idxctl.monitoring.alerts import LABEL, Alert, Proof, told_apart

RULES = "idxctl.rules.yml"
TESTS = "idxctl.rules.test.yml"
SCRAPE = "prometheus.yml"
_LABELS = {"service": "idxctl"}


def rules(runbook: str, label: str = LABEL) -> str:
    """Return the alert rules; *runbook* is the page that explains them, *label* tells installations apart."""
    group = {"name": "idxctl", "rules": [_rule(alert, runbook) for alert in told_apart(label)]}
    return yaml.dump({"groups": [group]}, comment="Alerts on idxctl; made by idxctl monitoring export.")


def _rule(alert: Alert, runbook: str) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.lasts,
        "labels": {"severity": alert.severity, **_LABELS},
        "annotations": _annotations(alert, runbook),
    }


def _annotations(alert: Alert, runbook: str) -> dict[str, str]:
    return {
        "summary": alert.summary,
        "description": alert.meaning,
        "runbook_url": f"{runbook}#{alert.anchor}",
    }


def tests(runbook: str, label: str) -> str:
    """Return tests of the rules, for ``promtool test rules``: each alert fires where it must, and not where it must not."""
    cases = [_case(alert, proof, runbook) for alert in told_apart(label) for proof in alert.proofs]
    document = {"rule_files": [RULES], "evaluation_interval": "1m", "tests": cases}
    return yaml.dump(document, comment=f"promtool test rules {TESTS}")


def _case(alert: Alert, proof: Proof, runbook: str) -> dict[str, Any]:
    wanted: dict[str, Any] = {"eval_time": proof.at, "alertname": alert.name, "exp_alerts": []}
    if proof.fires is not None:
        labels = {"severity": alert.severity, **_LABELS, **proof.labels}
        annotations = {**_annotations(alert, runbook), "summary": proof.fires}
        wanted["exp_alerts"] = [{"exp_labels": labels, "exp_annotations": annotations}]
    series = [{"series": name, "values": values} for name, values in proof.series.items()]
    return {"interval": "1m", "input_series": series, "alert_rule_test": [wanted]}


def scrape(targets: Sequence[str]) -> str:
    """Return a scrape configuration of *targets*, as ``host:port``."""
    job = {"job_name": "idxctl", "static_configs": [{"targets": list(targets)}]}
    document = {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": [RULES],
        "scrape_configs": [job],
    }
    return yaml.dump(document, comment="Take scrape_configs and rule_files over into your own configuration.")
