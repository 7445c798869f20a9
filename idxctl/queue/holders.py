"""Who holds a lock that claims wait for: an operator's open transaction, a maintenance job, a migration."""

from __future__ import annotations

from idxctl.postgres.connect import Connection
from idxctl.postgres.own_lock import Holder, named
from idxctl.queue import SQL

__all__ = ["Holder", "holders", "named"]

WAIT_SECONDS = 5.0  # for a lock before it is said who holds it; nothing of ours holds one for as long


def holders(conn: Connection, *, for_seconds: float = 0.0) -> list[Holder]:
    """Return the sessions that hold a lock which keeps claims waiting, those that have held one for longer than a while."""
    return [Holder(*row) for row in conn.run(SQL["holders"], seconds=for_seconds)]
