"""
A live generation that PostgreSQL cannot render any more: a column that its stored query reads was dropped or renamed.

Its index is blocked then, so its tasks wait, and the way out is the very reindex that would wait for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from idxctl.indexes.generations import Generation
from idxctl.postgres.connect import Connection
from idxctl.queue import pause
from idxctl.rebuild.preflight import SQL


def unreadable(conn: Connection, live: Generation | None) -> str | None:
    """Return why the index is blocked, if it is by the *live* generation's own query."""
    if live is None:
        return None
    held = [one for one in pause.pauses(conn) if one.index == live.index and one.cause == "blocked"]
    return next((one.reason for one in held if one.reason.startswith(f"{live.name}: sql_")), None)


def not_waiting(conn: Connection, index: str, ids: Sequence[str]) -> list[str]:
    """Return those of *ids* that no waiting task will bring up to date; a fan-out may be about any of them."""
    return [row[0] for row in conn.run(SQL["not_waiting"], index=index, ids=list(ids))]
