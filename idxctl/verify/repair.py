"""Repair: what differs is enqueued, and written again by the path that writes everything; unless the index is no view of these rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from idxctl.core.errors import CheckFailed
from idxctl.indexes.generations import Generation
from idxctl.opensearch.client import Client
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection
from idxctl.queue import pause
from idxctl.queue.enqueue import enqueue
from idxctl.verify import judge, runs
from idxctl.verify.judge import Kind
from idxctl.verify.runs import Count, Run
from idxctl.worker import registry
from idxctl.worker.index_identity import Identity

_FEW = 100  # documents: of less than that, more than half says nothing
_STRANGERS = 0.1  # of an index's documents


def refuse_strangers(
    client: Client, generation: Generation, counts: Mapping[Kind, Count], checked: int, held: int
) -> None:
    """
    Raise where the index is not what these rows are to be in: another one under its name, mostly foreign, mostly different.

    *checked* rows were compared, *held* documents are in the index.
    """
    force = "if that is what it is, --force repairs it; a rebuild is idxctl reindex"
    verdict = Identity().strangers(client, [generation]).get(generation.id)
    if verdict is not None:
        raise CheckFailed(f"nothing was repaired: {verdict.reason}", hint="idxctl reindex builds it from its rows")
    foreign = sum(counts[kind].foreign for kind in judge.DRIFT)
    if foreign > _FEW and foreign > held * _STRANGERS:
        raise CheckFailed(
            f"nothing was repaired: {foreign:,} of {held:,} documents in {generation.name} were not written by idxctl",
            hint=f"is it the right OpenSearch, and the right database? {force}",
        )
    drift = sum(counts[kind].all for kind in judge.DRIFT)
    everything = checked + counts[Kind.ORPHAN].all
    if drift > _FEW and drift * 2 > everything:
        raise CheckFailed(
            f"nothing was repaired: {drift:,} of {everything:,} documents differ, which is more than half",
            hint=f"is it the right database, and the right OpenSearch? {force}",
        )


def enqueue_differing(conn: Connection, run: Run, *, tick: Callable[[int], None]) -> int:
    """Enqueue what differs, page by page, each noted with its tasks; returns how many documents, and leaves an audit row."""
    count = 0
    for page in runs.differing(conn, run, enqueued=False):
        with conn.transaction():
            for action, kinds in (("index", {Kind.MISSING, Kind.STALE}), ("delete", {Kind.ORPHAN})):
                ids = [one.document_id for one in page if one.kind in kinds]
                if ids:
                    enqueue(conn, index=run.index, ids=ids, action=action, origin="verify")
            runs.enqueued(conn, run, page)
        count += len(page)
        tick(count)
    with conn.transaction():
        audit.record(conn, action="verify repair", what=run.index, count=count, detail={"run": run.id})
    return count


def why_it_waits(conn: Connection, index: str) -> str | None:
    """Return why nothing of *index* moves: it is paused, or nobody works."""
    held = [one for one in pause.pauses(conn) if one.index == index]
    if held:
        return f"{index} is paused: {held[0].reason}"
    return None if registry.alive(conn, index=index) else "no worker is running"


def never_moves(conn: Connection, index: str) -> bool:
    """Whether waiting is of no use: nobody works on *index*, or an operator has paused it."""
    paused = any(one.index == index and one.cause == "operator" for one in pause.pauses(conn))
    return paused or not registry.alive(conn, index=index)
