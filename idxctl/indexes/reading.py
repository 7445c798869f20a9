"""How documents are read: the settings that hold meanwhile (C5), and what a failure says."""

from __future__ import annotations

from idxctl.core.errors import PostgresRefused
from idxctl.indexes.definitions import Definition
from idxctl.postgres.connect import Connection

# SQLSTATE classes that one row's values can cause; everything else is the query's or the server's.
_VALUE_CLASSES = ("22", "21", "54", "P0")
_ENDED = "57014"


def settings(conn: Connection, definition: Definition) -> dict[str, str | None]:
    """
    Return the settings that documents are read under.

    The limit is ours, whatever the role's. A lock that is waited for says nothing about the documents, so that wait has an
    end of its own before it.
    """
    limit = conn.read_limit_ms
    ours = {"row_security": "off", "statement_timeout": f"{limit}ms", "lock_timeout": f"{max(limit // 2, 1)}ms"}
    return {**definition.in_force, **ours}


def is_of_values(error: PostgresRefused) -> bool:
    """Whether one row's values can be the cause, and not the query or the server."""
    return error.sqlstate.startswith(_VALUE_CLASSES)


def is_too_slow(error: PostgresRefused) -> bool:
    """Whether a statement was ended for the time it took: fewer documents at once may do."""
    return error.sqlstate == _ENDED
