"""Write the pages that are made from code again: ``make docs``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # `making` lies beside this script

import psycopg  # noqa: E402

from idxctl.config.settings import DatabaseSettings  # noqa: E402
from idxctl.core.secret import Secret  # noqa: E402
from idxctl.embedded.postgres import Postgres  # noqa: E402
from idxctl.monitoring import pages  # noqa: E402
from idxctl.postgres import migrate  # noqa: E402
from idxctl.postgres.connect import connect  # noqa: E402
from making import commands, conditions, configuration, documents, drift, errors, tables  # noqa: E402


def made() -> Mapping[Path, str]:
    """Return place and text of each page that needs no server."""
    return {
        HERE / "commands.md": commands.commands_page(),
        HERE / "conditions.md": conditions.conditions_page(),
        HERE / "configuration.md": configuration.configuration_page(),
        HERE / "errors.md": errors.errors_page(),
        HERE / "metrics.md": pages.metrics_page(),
        HERE / "how-to" / "alerts.md": pages.runbook_page(),
        HERE / "how-to" / "drift.md": drift.drift_page(),
        HERE / "how-to" / "why-is-a-document-wrong.md": documents.documents_page(),
    }


def tables_page() -> str:
    """Return the page of tables, from a PostgreSQL of its own."""
    with tempfile.TemporaryDirectory() as directory, Postgres(Path(directory) / "postgres", fsync=False) as server:
        with connect(DatabaseSettings(url=Secret(server.url))) as connection:
            migrate.up(connection)
        with psycopg.connect(server.url) as connection:
            return tables.tables_page(tables.found_in(connection))


if __name__ == "__main__":
    for path, text in {**made(), HERE / "tables.md": tables_page()}.items():
        path.write_text(text, encoding="utf-8")
