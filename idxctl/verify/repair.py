"""Repair: what differs is enqueued, and written again by the path that writes everything; unless the index is no view of these rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from idxctl.core.errors import CheckFailed
from idxctl.indexes.generations import Generation
from idxctl.opensearch import scan
from idxctl.opensearch.client import Client
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection
from idxctl.queue import pause
from idxctl.queue.enqueue import enqueue
from idxctl.verify import judge, runs
from idxctl.verify.ids import routings
from idxctl.verify.judge import Kind
from idxctl.verify.runs import Count, Found, Run
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
    if drift > _FEW and mostly_different(counts, checked):
        raise CheckFailed(
            f"nothing was repaired: {drift:,} of {everything:,} documents differ, which is more than half",
            hint=f"is it the right database, and the right OpenSearch? {force}",
        )


def mostly_different(counts: Mapping[Kind, Count], checked: int) -> bool:
    """Whether more than half of what was compared differ."""
    drift = sum(counts[kind].all for kind in judge.DRIFT)
    return drift * 2 > checked + counts[Kind.ORPHAN].all


def repair(
    conn: Connection,
    client: Client,
    generation: Generation,
    run: Run,
    *,
    origin: str = "verify",
    but_dead: bool = False,
    tick: Callable[[int], None] = lambda _count: None,
) -> Counter[Kind]:
    """
    Enqueue what differs, page by page, each noted with its tasks; returns how many documents of each kind, and leaves an audit row.

    *but_dead*: dead letters are left to their retries.

    Copies under another routing than their id's are deleted where they stand: no task's write reaches them.
    """
    count: Counter[Kind] = Counter()
    for page in runs.differing(conn, run, enqueued=False, but_dead=but_dead):
        with conn.transaction():
            for action in ("index", "delete"):
                ids = [one.document_id for one in page if _action(one) == action]
                if ids:
                    enqueue(conn, index=run.index, ids=ids, action=action, origin=origin)
            runs.enqueued(conn, run, page)
        _remove_copies(conn, client, generation, page)
        count.update(one.kind for one in page)
        tick(sum(count.values()))
    if count:
        with conn.transaction():
            audit.record(
                conn, action=f"{origin} repair", what=run.index, count=sum(count.values()), detail={"run": run.id}
            )
    return count


def _action(found: Found) -> str:
    """Return what is advised: there may be a row of an id of which a copy stands elsewhere."""
    return "delete" if found.kind is Kind.ORPHAN and found.routing is None else "index"


def _remove_copies(conn: Connection, client: Client, generation: Generation, found: Sequence[Found]) -> None:
    """
    Delete copies that stand under another routing, unless one is what the id's own routing leads to as well.

    Two routings may lead to one shard, which holds an id once: the task that was enqueued writes that document again.
    """
    elsewhere = [(one.document_id, one.routing or None) for one in found if one.routing is not None]
    own = routings(conn, generation, [name for name, _ in elsewhere])
    there = scan.copies(client, generation.name, elsewhere)
    here = scan.copies(client, generation.name, [(name, own.get(name)) for name, _ in elsewhere])
    for (name, routing), copy, reached in zip(elsewhere, there, here, strict=True):
        if copy.place is not None and copy.routing == routing and reached.routing != routing:
            scan.remove(client, generation.name, name, routing=routing, place=copy.place)


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
