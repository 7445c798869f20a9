"""Write the files where someone wants them, and over nothing that they changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from idxctl.core.errors import UsageError
from idxctl.monitoring import alerts, dashboard, pages, placing, rules

_TARGET = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")

_LABEL = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Written:
    """One file: ``state`` is written, changed or unchanged."""

    path: Path
    state: str
    what: str


def export(
    directory: Path,
    *,
    targets: Sequence[str],
    runbook: str = pages.RUNBOOK,
    label: str = alerts.LABEL,
    force: bool = False,
) -> list[Written]:
    """
    Write every file below *directory*, which is made if need be.

    A file that stands there with other contents is left, and so are all others: `UsageError`, unless *force* is given.
    """
    for one in targets:
        if not _TARGET.fullmatch(one):
            raise UsageError(f"target {one!r} is not HOST:PORT", hint="such as worker1:9321; without http:// and path")
    if not _LABEL.fullmatch(label):
        raise UsageError(f"--label {label!r} is no label of Prometheus", hint="such as job, namespace or installation")
    wanted = {
        rules.SCRAPE: (rules.scrape(targets), "scrape configuration"),
        rules.RULES: (rules.rules(runbook, label), "alert rules"),
        rules.TESTS: (rules.tests(runbook, label), "tests of the rules, for promtool"),
        dashboard.FILE: (dashboard.dashboard(label), "dashboard, to import into Grafana"),
        pages.RUNBOOK: (pages.runbook_page(), "what each alert means, and what to do"),
    }
    placing.require_no_link(directory, folder=True)
    states = {name: _state(directory / name, text) for name, (text, _) in wanted.items()}
    differing = [name for name, state in states.items() if state == "changed"]
    if differing and not force:
        raise UsageError(
            f"{directory} holds other versions of {', '.join(differing)}; nothing was written",
            hint="--force writes over them",
        )
    directory.mkdir(parents=True, exist_ok=True)
    with placing.opened(directory) as into:
        for name, (text, _) in wanted.items():
            if states[name] != "unchanged":
                placing.put(into, name, text.encode())
    return [Written(directory / name, states[name], what) for name, (_, what) in wanted.items()]


def _state(path: Path, text: str) -> str:
    placing.require_no_link(path)
    try:
        return "unchanged" if path.read_text(encoding="utf-8") == text else "changed"
    except FileNotFoundError:
        return "written"
    except UnicodeDecodeError:
        return "changed"
