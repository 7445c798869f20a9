"""What stands in the database of idxctl's tables: the steps applied, and what is asked before the tables are known to be there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from idxctl.core.errors import SchemaError
from idxctl.postgres.connect import Connection
from idxctl.postgres.migrations import Migration
from idxctl.postgres.statements import load

SQL = load("idxctl.postgres", "migrate.sql")
BOOKS = "opensearch_indexing_migrations"
DLQ = "opensearch_indexing_dlq"


@dataclass(frozen=True)
class Applied:
    """A step that was applied."""

    version: int
    name: str
    applied_at: str
    checksum: str
    applied_by: str

    @property
    def title(self) -> str:
        """Its number and name, as the file is called."""
        return f"{self.version:06d}_{self.name}"


def applied(conn: Connection) -> dict[int, Applied]:
    """Return the steps that were applied, by version."""
    return {row[0]: Applied(row[0], row[1], row[2].isoformat(), row[3], row[4]) for row in conn.run(SQL["applied"])}


def refuse_newer(applied: dict[int, Applied], steps: tuple[Migration, ...]) -> None:
    """Raise `SchemaError` where the database has steps that this program does not know."""
    newer = [row.title for row in applied.values() if row.version > len(steps)]
    if newer:
        raise SchemaError(
            f"idxctl's tables are newer than this program: it does not know {', '.join(newer)}",
            hint="upgrade idxctl on this host",
        )


def exists(conn: Connection, table: str) -> bool:
    """Whether a table of ours is there."""
    return bool(scalar(conn, "exists", schema=conn.schema, table=table))


def exists_function(conn: Connection, name: str) -> bool:
    """Whether a function of ours is there."""
    return bool(scalar(conn, "exists_function", schema=conn.schema, function=name))


def scalar(conn: Connection, statement: str, **parameters: object) -> Any:
    """Return the one value of a statement of `SQL`; None where it has no row."""
    row = conn.run(SQL[statement], **parameters).fetchone()
    return row[0] if row else None


def _count(conn: Connection, table: str) -> int:
    row = conn.pinned(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(conn.schema, table))).fetchone()
    return int(row[0]) if row else 0


def rows_lost(conn: Connection, table: str) -> int:
    """Count the rows that going down loses: of an adopted DLQ table only those its older shape cannot hold."""
    if table == DLQ and setting(conn, "dlq_adopted") is not None:
        return int(scalar(conn, "letters_lost"))
    return _count(conn, table)


def setting(conn: Connection, name: str) -> str | None:
    """Return what is set, in the table of settings."""
    value = scalar(conn, "setting", name=name)
    return None if value is None else str(value)


def adoptable(conn: Connection) -> int | None:
    """Count the letters of a DLQ table of the older shape; None where there is none."""
    return _count(conn, DLQ) if older_dlqs(conn, conn.schema) else None


def older_dlqs(conn: Connection, *schemas: str) -> list[str]:
    """Return those of *schemas* that hold a DLQ table of the older shape."""
    return [row[0] for row in conn.run(SQL["older_dlq"], schemas=list(schemas), table=DLQ, trigger=f"{DLQ}_letter")]
