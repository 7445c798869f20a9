"""A marketplace to index: its tables, its rows, and the definition of its index beside them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg

from idxctl.postgres import statements

ROWS = 20_000
INDEX = "marketplace_listings"
DEFINITION_FILES = ("idxctl.toml", "listings.sql", "listings.json")


def load_shop(connection: psycopg.Connection[Any], rows: int = ROWS) -> None:
    """
    Make the marketplace's tables and fill them with *rows* listings, the same ones every time.

    The connection is in autocommit: the tables are vacuumed at the end.
    """
    connection.execute((files(__name__) / "schema.sql").read_bytes())
    for statement in statements.load(__name__, "rows.sql").values():
        connection.execute(statement.text.encode(), {"rows": rows})
    connection.execute("VACUUM ANALYZE")


def write_definition(directory: Path, *, index: str = INDEX) -> Path:
    """
    Write the definition of the index into *directory*, as a user would keep it; return the path of its idxctl.toml.

    *index* is the alias that clients query.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name in DEFINITION_FILES:
        text = (files(__name__) / name).read_text(encoding="utf-8")
        (directory / name).write_text(text.replace(INDEX, index), encoding="utf-8")
    return directory / "idxctl.toml"
