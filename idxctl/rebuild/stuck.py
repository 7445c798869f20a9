"""
A live generation that PostgreSQL cannot render any more: a column that its stored query reads was dropped or renamed.

Its index is blocked then, so its tasks wait, and the way out is the very reindex that would wait for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from idxctl.core.errors import DocumentError, PostgresRefused
from idxctl.core.reasons import Kind
from idxctl.indexes.generations import Generation
from idxctl.postgres.connect import Connection
from idxctl.queue import pause
from idxctl.rebuild import SQL, preflight


def unreadable(conn: Connection, live: Generation | None) -> str | None:
    """Return why the index is blocked, if it is by the *live* generation's own query."""
    if live is None:
        return None
    held = pause.blocked(conn, live.index)
    if held is None:
        return None
    if held.why.kind is Kind.UNTOLD:  # by a worker of before, which stores no more than a sentence
        return held.reason if _is_refused(conn, live) else None
    return held.reason if held.why.kind is Kind.UNREADABLE and held.why.generation == live.name else None


def _is_refused(conn: Connection, live: Generation) -> bool:
    """Ask PostgreSQL itself whether it still takes a generation's query."""
    try:
        preflight.check_query(conn, live.index, live.definition)
    except DocumentError:  # slow, and readable
        return False
    except PostgresRefused as error:
        return not error.passing
    return False


def not_waiting(conn: Connection, index: str, ids: Sequence[str]) -> list[str]:
    """Return those of *ids* that no waiting task will bring up to date; a fan-out may be about any of them."""
    return [row[0] for row in conn.run(SQL["not_waiting"], index=index, ids=list(ids))]
