"""What operators did: one row an action, in the transaction that does it."""

from __future__ import annotations

import getpass
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from idxctl.core import texts
from idxctl.postgres.connect import Connection
from idxctl.postgres.named import load

SQL = load("idxctl.postgres", "audit.sql")


@dataclass(frozen=True)
class Entry:
    """One action of an operator."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


@lru_cache(maxsize=1)
def actor() -> str:
    """Name who runs this program: the system's user and host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def record(
    conn: Connection, *, action: str, subject: str, detail: Mapping[str, Any] | None = None, actor: str | None = None
) -> None:
    """Leave a row in the caller's transaction, so that it stands if and only if the action does."""
    conn.run(
        SQL["record"],
        actor=conn.storable(actor or _default_actor()),
        action=action,
        subject=conn.storable(subject),
        detail=json.dumps(texts.all_storable(dict(detail or {}), conn.encoding), default=str, ensure_ascii=False),
    )


_default_actor = actor  # `record` has a parameter of that name


def recent(conn: Connection, limit: int = 50) -> list[Entry]:
    """Return the latest entries, newest first."""
    return [Entry(*row) for row in conn.run(SQL["recent"], limit=limit)]
