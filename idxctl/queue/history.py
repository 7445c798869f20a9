"""What a task and its letter remember of failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from idxctl.core import redaction, texts
from idxctl.postgres.connect import Connection
from idxctl.queue.claim import Task
from idxctl.queue.outcomes import Failure

REMEMBERED = 30  # entries


def remember(task: Task, error_type: str, reason: str, *, at: datetime | None = None, **more: str) -> Task:
    """Return *task* with a failure in its history, which its letter shows should it become one."""
    entry = {
        "at": (at or datetime.now(timezone.utc)).isoformat(),
        "error_type": error_type,
        "reason": reason[:500],
        "attempts": task.attempts,
        "origin": task.origin,
        **more,
    }
    past = [*task.payload.get("history", []), entry][-REMEMBERED:]
    return replace(task, payload={**task.payload, "history": past})


def letter(one: Failure, at: datetime | None, **more: str) -> dict[str, Any]:
    """Return the payload of a letter's task, with all that is remembered of its failures, this one the last."""
    task = remember(one.task, one.error_type, one.reason, at=at, **more)
    payload = dict(task.payload)
    letter = dict(payload.get("letter", {}))
    letter["history"] = [*letter.get("history", []), *payload.pop("history")][-REMEMBERED:]
    payload["letter"] = letter
    return payload


def kept(conn: Connection, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a payload with what is remembered of failures as the database can hold it; the rest of it came from there."""
    kept = {name: _kept_history(conn, one) if name == "history" else one for name, one in payload.items()}
    if kept.get("letter", {}).get("history"):
        kept["letter"] = {**kept["letter"], "history": _kept_history(conn, kept["letter"]["history"])}
    if kept.get("letter", {}).get("data") is not None and not conn.keep_data:
        kept["letter"] = {**kept["letter"], "data": None}
    return kept


def _kept_history(conn: Connection, history: Any) -> Any:
    if not conn.keep_values:
        history = [{**one, "reason": redaction.without_values(str(one.get("reason", "")))} for one in history]
    return texts.all_storable(history, conn.encoding)
