"""Who holds a lock that claims wait for: an operator's open transaction, a maintenance job, a migration."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from idxctl.postgres.connect import Connection
from idxctl.queue import SQL

WAIT_SECONDS = 5.0  # for a lock before it is said who holds it; nothing of ours holds one for as long


@dataclass(frozen=True)
class Holder:
    """A session that holds a lock; ``since`` is when its transaction began, None where its role hides that."""

    pid: int
    role: str
    application: str
    since: datetime | None

    def __str__(self) -> str:
        application = f", application {self.application}" if self.application else ""
        since = f", since {self.since:%H:%M:%S}" if self.since else ""
        return f"pid {self.pid}, role {self.role}{application}{since}"


def holders(conn: Connection, *, for_seconds: float = 0.0) -> list[Holder]:
    """Return the sessions that hold a lock which keeps claims waiting, those that have held one for longer than a while."""
    return [Holder(*row) for row in conn.run(SQL["holders"], seconds=for_seconds)]


def named(found: list[Holder]) -> str:
    """Return them in a line."""
    return "; ".join(str(one) for one in found) or "a session that has ended since"
