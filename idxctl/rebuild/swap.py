"""
The swap, and the other ends of a run.

G4: the intent is recorded, then the one ``_aliases`` call is made, then the outcome is recorded. Where a run died in
between, the alias decides what happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from psycopg.types.json import Jsonb

from idxctl.core.errors import IdxctlError, OpenSearchRefused
from idxctl.core.points import reach
from idxctl.indexes import generations
from idxctl.indexes.generations import Generation
from idxctl.indexes.retire import retire
from idxctl.opensearch import aliases
from idxctl.opensearch.client import Client
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection
from idxctl.queue.settle import write_letters
from idxctl.rebuild.preflight import SQL


def swap(
    conn: Connection,
    client: Client,
    run: int,
    *,
    new: Generation,
    old: Generation | None,
    foreign: str | None,
    replace_index: bool,
    keep: timedelta,
) -> int:
    """
    Point the alias at *new*; returns how many dead letters its refusals became.

    The old generation stays standby, still written, so that going back is instant and current.
    """
    if generations.states(conn, [new.id]).get(new.id) not in ("building", "standby"):
        raise IdxctlError(
            f"{new.name} was taken out of service while it was built, so it may have missed writes; nothing was swapped",
            hint="run idxctl reindex again",
        )
    behind = foreign or (old.name if old is not None else None)
    if behind is not None and not replace_index and not aliases.targets(client, new.index):
        behind = None  # somebody took the alias away: there is nothing to take it from
    intent = {
        "swap": {"new": new.name, "old": behind, "replace_index": replace_index, "keep_seconds": keep.total_seconds()}
    }
    if conn.run(SQL["advance_run"], id=run, phase="swap", generation=None, intent=Jsonb(intent)).fetchone() is None:
        raise IdxctlError(f"the reindex of {new.index} was taken over or cancelled by another run")
    reach("swap.intended")
    try:
        aliases.swap(client, new.index, new=new.name, old=behind, replace_index=replace_index)
    except OpenSearchRefused as error:
        if error.status == 404:
            raise IdxctlError(
                f"alias {new.index} does not stand on {behind} any more; somebody moved it, and nothing was changed",
                hint="look at it (GET _alias), then run idxctl reindex again",
            ) from error
        raise
    reach("swap.made")
    return record(conn, run, new=new, old=old, keep=keep)


def record(conn: Connection, run: int, *, new: Generation, old: Generation | None, keep: timedelta) -> int:
    """
    Record a swap that has been made, in one transaction behind the barrier (G2).

    What the new live generation refused while it was building becomes dead letters in the same commit, and what it
    missed becomes tasks (P1).
    """
    with conn.transaction():
        generations.lock_set(conn, exclusive=True)
        if old is not None:
            generations.set_state(conn, old.id, "standby", expected=("live",), keep=keep)
        generations.set_state(conn, new.id, "live", expected=("building", "standby"))
        letters = write_letters(conn, SQL["failures_to_letters"], index=new.index, generation=new.id)
        conn.run(SQL["missed_to_tasks"], index=new.index, generation=new.id)
        conn.run(SQL["drop_failures"], generation=new.id)
        conn.run(SQL["finish_run"], id=run, phase="done", error=None, documents=None, failed=None)
        detail = {"live": new.name, "before": old.name if old is not None else None}
        audit.record(conn, action="reindex swap", what=new.index, detail=detail)
    reach("swap.recorded")
    return letters


def resolve(
    conn: Connection, client: Client, run: int, intent: Mapping[str, Any] | None, generation: Generation | None
) -> str:
    """
    End a run that died; returns "done" when its swap had been made after all, otherwise "abandoned".

    The alias decides (G4). A generation that is not taken into service is retired; its index is deleted later (G3).
    """
    wanted = (intent or {}).get("swap")
    if generation is not None and wanted is not None and generation.name in aliases.targets(client, generation.index):
        old = generations.live(conn, generation.index)
        keep = timedelta(seconds=float(wanted.get("keep_seconds", 0)))
        record(conn, run, new=generation, old=old if old and old.id != generation.id else None, keep=keep)
        return "done"
    if generation is not None:
        retire(conn, generation.id)
    elif created := (intent or {}).get("create"):
        aliases.delete(client, created)  # made, but never written to: it was not yet registered
    conn.run(
        SQL["finish_run"], id=run, phase="failed", error="the process that ran it is gone", documents=None, failed=None
    )
    return "abandoned"
