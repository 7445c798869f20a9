"""Check a configuration that is sound in itself against the database: the queries run, the watches can be installed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from idxctl.capture.plan import survey
from idxctl.config.load import Problem
from idxctl.config.settings import IndexSettings, Settings
from idxctl.core.errors import ConfigError, PostgresRefused
from idxctl.indexes.definitions import define
from idxctl.postgres.connect import Connection
from idxctl.rebuild.preflight import check_query


@dataclass
class Checked:
    """What the database knows to be wrong, and what it would rather see otherwise."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check(conn: Connection, settings: Settings) -> Checked:
    """Check every document query and every watch, and report all problems at once; nothing is changed."""
    checked = Checked()
    for index in settings.indexes.values():
        _check_query(conn, index, settings.path, checked)
    found = survey(conn, settings.indexes)
    checked.warnings.extend(dict.fromkeys(found.warnings))
    for problem in found.problems:
        line = f" line {problem.watch.line}" if problem.watch.line else ""
        where = f"indexes.{problem.index}.watch {problem.watch.position + 1}"
        checked.problems.append(Problem(f"{_name(settings.path)}{line}", where, problem.what, problem.hint))
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
