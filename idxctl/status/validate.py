"""Check a configuration against both servers: the queries run, the watches can be installed, the mappings can be made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from idxctl.capture.plan import survey
from idxctl.config.problems import Problem
from idxctl.config.settings import IndexSettings, Settings
from idxctl.core.errors import ConfigError, IdxctlError, PostgresRefused
from idxctl.indexes.definitions import define
from idxctl.opensearch import templates
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection
from idxctl.rebuild.preflight import check_query

_PATIENCE_SECONDS = 5.0


@dataclass
class Checked:
    """What the servers know to be wrong, and what they would rather see otherwise."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check(conn: Connection, settings: Settings) -> Checked:
    """
    Check every document query and every watch, and report all problems at once; nothing is changed.

    An index without a query, which was reported where it is missing, has its watches checked all the same.
    """
    checked = Checked()
    for index in settings.indexes.values():
        if index.document:
            _check_query(conn, index, settings.path, checked)
    found = survey(conn, settings.indexes)
    checked.warnings.extend(dict.fromkeys(found.warnings))
    for problem in found.problems:
        line = f" line {problem.watch.line}" if problem.watch.line else ""
        where = f"indexes.{problem.index}.watch {problem.watch.position + 1}"
        checked.problems.append(Problem(f"{_name(settings.path)}{line}", where, problem.what, problem.hint))
    return checked


def check_mappings(client: Client, settings: Settings) -> Checked:
    """Have OpenSearch try every mapping; nothing is made. Without an answer nothing is said but that."""
    checked = Checked()
    for index in settings.indexes.values():
        try:
            why = templates.refusal(client, index.mapping, timeout_seconds=_PATIENCE_SECONDS)
        except IdxctlError as error:
            checked.warnings.append(f"OpenSearch was not asked whether it takes the mappings: {error.message}")
            break
        if why is not None:
            checked.problems.append(
                Problem(_name(settings.path), f"indexes.{index.name}.mapping", f"OpenSearch refuses it: {why}")
            )
    return checked


def _check_query(conn: Connection, index: IndexSettings, path: Path | None, checked: Checked) -> None:
    try:
        _, warnings = check_query(conn, index.name, define(conn, index))
    except (ConfigError, PostgresRefused) as error:
        source = str(index.document_path or _name(path))
        checked.problems.append(Problem(source, f"indexes.{index.name}.document", error.message, error.hint or ""))
    else:
        checked.warnings.extend(warnings)


def _name(path: Path | None) -> str:
    return str(path) if path else "configuration"
