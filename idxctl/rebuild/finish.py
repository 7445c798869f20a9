"""The end of a rebuild: its standby is kept no longer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from idxctl.core.durations import format_age
from idxctl.core.errors import IdxctlError, Locked
from idxctl.indexes import generations
from idxctl.indexes.generations import Generation
from idxctl.opensearch import aliases
from idxctl.opensearch.client import Client
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection
from idxctl.rebuild.handover import SQL


@dataclass(frozen=True)
class Finished:
    """Generations that are kept no longer."""

    index: str
    retired: tuple[str, ...]
    dry_run: bool = False


def to_finish(conn: Connection, client: Client, index: str) -> list[Generation]:
    """Return the standby generations of *index*; raises where an alias stands on one (G5)."""
    standby = [one for one in generations.of_index(conn, index) if one.state == "standby"]
    for one in standby:
        if held := sorted(aliases.standing(client, one.name) or ()):
            names = ",".join(held)
            raise IdxctlError(
                f"standby {one.name} is searched: {', '.join(held)} stand{'s' if len(held) == 1 else ''} on it; nothing was changed",
                hint=f"once nobody searches it: DELETE /{one.name}/_alias/{names}",
            )
    return standby


def finish(conn: Connection, index: str, standby: list[Generation]) -> Finished:
    """Retire what `to_finish` found: it is written no longer, and its index is deleted once no late write can come (G3)."""
    with conn.transaction():
        generations.lock_set(conn, exclusive=True)
        for one in standby:
            if conn.run(SQL["finish"], id=one.id).fetchone() is None:
                raise Locked(
                    f"{one.name} is standby no longer, or is just being put into service; nothing was changed",
                    hint="run it again in a moment",
                )
        names = tuple(one.name for one in standby)
        if names:
            audit.record(conn, action="reindex finish", what=index, count=len(names), detail={"retired": list(names)})
    return Finished(index, names)


def kept_for(one: Generation) -> str:
    """Say how long a standby has been kept, and until when."""
    until = f", until {one.standby_until:%Y-%m-%d %H:%M}" if one.standby_until is not None else ""
    since = (
        f", last live {format_age((datetime.now(timezone.utc) - one.live_at).total_seconds())} ago"
        if one.live_at
        else ""
    )
    return f"{one.name}{since}{until}"
