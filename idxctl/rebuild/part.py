"""A part in the backfill of a run that another process carries on: chunks are taken until none is left."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from idxctl.config.settings import Settings
from idxctl.core.errors import IdxctlError, Locked, UsageError
from idxctl.core.failpoints import reach
from idxctl.indexes import generations
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Pool
from idxctl.queue import tokens
from idxctl.rebuild import SQL, runs
from idxctl.rebuild.backfill import Backfill
from idxctl.rebuild.steps import Steps
from idxctl.worker import registry
from idxctl.worker.written import Learnt, Limits

_EARLY = {"planned", "created"}  # chunks are about to be made
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Taken:
    """What this process's part came to. The names are those of ``-o json``."""

    index: str
    run: int
    generation: str
    documents: int
    failed: int
    seconds: float


def take_part(pool: Pool, client: Client, settings: Settings, index: str, *, readers: int, steps: Steps) -> Taken:
    """
    Fill chunks of the run of *index* until none is left, chunks of processes that are gone included.

    Raises `UsageError` where no run is at its backfill, and `Locked` where the run was cancelled or ended meanwhile.
    """
    began = time.monotonic()
    conn = pool.mine()
    run = runs.open_run(conn, index)
    while run is not None and run.alive and run.state in _EARLY:
        time.sleep(_LOOK_SECONDS)
        run = runs.open_run(conn, index)
    if run is None or run.state != "backfilling" or run.generation is None:
        state = "there is no reindex of it under way" if run is None else f"its reindex is {run.state}"
        raise UsageError(
            f"{index} has no chunks to take: {state}", hint="idxctl reindex begins one, and says when it fills"
        )
    (generation,) = generations.by_ids(conn, [run.generation])
    tokens.catch_up_with_clock(conn)  # T4: chunks draw tokens without a claim
    owner = registry.new_id()
    limits = Limits(settings.worker.batch_bytes, settings.worker.age_limit_seconds)
    fill = Backfill(pool, client, generation, run.id, owner, limits=limits, learnt=Learnt(), readers=readers)
    steps.begin("backfill", run.total)

    def tick() -> None:
        done = fill.progress
        steps.move(done.documents, done.waiting or (f"{done.failed:,} refused" if done.failed else ""))

    try:
        fill.run(tick=tick)
    except Locked:  # its last chunk was done, and its process went on
        now = runs.open_run(conn, index)
        if now is None or now.id != run.id:
            raise
    except BaseException:
        with contextlib.suppress(IdxctlError):  # others need not wait for the leases
            pool.mine().run(SQL["release_chunks"], run=run.id, owner=owner)
        raise
    reach("part.done")
    done = fill.progress
    steps.end(f"{done.documents:,} documents" + (f", {done.failed:,} refused" if done.failed else ""))
    return Taken(index, run.id, generation.name, done.documents, done.failed, round(time.monotonic() - began, 3))
