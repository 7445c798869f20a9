"""Cancel: end a run that was not swapped, and remove what it has built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from idxctl.core.errors import IdxctlError, Locked
from idxctl.core.failpoints import reach
from idxctl.indexes import generations
from idxctl.indexes.generations import Generation
from idxctl.opensearch import aliases
from idxctl.opensearch.client import Client
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection
from idxctl.rebuild import SQL, runs, swap
from idxctl.rebuild.runs import Run


@dataclass(frozen=True)
class Cancelled:
    """What was cancelled. The names are those of ``-o json``. ``index_deleted``: False where OpenSearch is to be asked again."""

    index: str
    run: int
    generation: str | None
    state: str  # that it was in
    documents: int
    index_deleted: bool


def cancel(conn: Connection, client: Client, run: Run, *, warn: Callable[[str], None]) -> Cancelled:
    """
    End *run*; its generation is written to no more, and its index is deleted.

    A write that is on its way may make the index again: it is deleted again once none can be, by a worker or the next
    reindex (G3). Raises `Locked` where the run is being swapped, and `IdxctlError` where it was.
    """
    known = generations.by_ids(conn, [run.generation]) if run.generation is not None else []
    generation = known[0] if known else None
    if generation is not None and "swap" in run.intent:
        _refuse_swapped(conn, client, run, generation)
    with conn.transaction():
        generations.lock_set(conn, exclusive=True)
        if not runs.end(conn, run.id, "cancelled"):
            raise Locked(f"the reindex of {run.index} has ended meanwhile", hint="idxctl reindex status says how")
        if generation is not None:
            generations.set_state(conn, generation.id, "retired", expected=("building",))
            conn.run(SQL["drop_failures"], generation=generation.id)
        name = generation.name if generation is not None else str(run.intent.get("create"))
        audit.record(
            conn,
            action="reindex cancel",
            what=run.index,
            count=run.documents,
            detail={"generation": name, "state": run.state},
        )
    reach("cancel.recorded")
    runs.settle(conn, run.index)
    deleted = _delete(client, run, generation, warn)
    return Cancelled(run.index, run.id, generation.name if generation else None, run.state, run.documents, deleted)


def _refuse_swapped(conn: Connection, client: Client, run: Run, generation: Generation) -> None:
    """G4: a swap that was made is recorded, one that is being made is not disturbed."""
    if run.alive:
        raise Locked(f"{generation.name} is being put into service by {run.owner}", hint="idxctl reindex status")
    if swap.was_made(client, run.intent, generation):
        swap.record_made(conn, run, generation)
        raise IdxctlError(
            f"{generation.name} had been put into service; that is recorded now, and nothing was cancelled"
        )


def _delete(client: Client, run: Run, generation: Generation | None, warn: Callable[[str], None]) -> bool:
    try:
        if generation is None:
            if created := run.intent.get("create"):
                swap.discard(client, created)
        elif held := aliases.delete_unless_searched(client, generation.name):
            warn(f"{generation.name} is kept, since {', '.join(held)} stands on it")
            return False
    except IdxctlError as error:
        warn(f"{error}; the index is deleted by a worker, or by the next reindex")
        return False
    return True
