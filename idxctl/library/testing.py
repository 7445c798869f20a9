"""For an application's own tests: make what idxctl needs in a database, and index in process until nothing is left."""

from __future__ import annotations

import threading

from idxctl.capture.install import install
from idxctl.capture.plan import plan
from idxctl.core.errors import WaitTimeout
from idxctl.indexes import generations
from idxctl.library.indexer import Indexer
from idxctl.opensearch import aliases
from idxctl.opensearch.client import connect
from idxctl.postgres import migrate
from idxctl.postgres.connect import Pool
from idxctl.rebuild import preflight, process
from idxctl.rebuild.steps import Options as Reindexing
from idxctl.rebuild.steps import Steps
from idxctl.worker.pool import Options, Worker

_NAME = "idxctl-testing"


def prepare(indexer: Indexer) -> None:
    """
    Do what a team does once: ``migrate up``, ``watch install``, and a first ``reindex`` of each index that has none.

    The application's tables must be there.
    """
    settings = indexer.settings
    pool = Pool(settings.database, application_name=_NAME)
    try:
        conn = pool.mine()
        migrate.up(conn)
        install(conn, plan(conn, settings.indexes, path=settings.path), list(settings.indexes))
        with connect(settings.opensearch) as client:
            for index in settings.indexes.values():
                if generations.live(conn, index.name) is None:
                    planned = preflight.plan(conn, client, index, take_alias=False)
                    process.reindex(pool, client, settings, planned, Reindexing(), Steps())
    finally:
        pool.close()


def drain(indexer: Indexer, *, timeout: float = 60.0) -> None:
    """
    Index what is queued for the indexer's indexes, in this process, and return once nothing waits or is in flight.

    What was committed before is findable then, after a refresh; tasks that back off are waited for. Raises `WaitTimeout`.
    """
    settings = indexer.settings
    pool = Pool(settings.database, application_name=_NAME)
    late = threading.Event()
    try:
        with connect(settings.opensearch) as client:
            options = Options.of(settings, workers=1, until_empty=True, indexes=settings.indexes)
            worker = Worker(pool, client, options)

            def give_up() -> None:
                late.set()
                worker.stop()

            patience = threading.Timer(timeout, give_up)
            patience.daemon = True
            patience.start()
            try:
                worker.run()
            finally:
                patience.cancel()
            for index in settings.indexes:
                aliases.refresh(client, index)
    finally:
        pool.close()
    if late.is_set():
        raise WaitTimeout(
            f"the queue is not empty after {timeout:g} s", hint="idxctl queue stats and idxctl dlq stats say more"
        )
