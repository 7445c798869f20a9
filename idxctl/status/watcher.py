"""
Watches conditions beside a worker: its log says when one begins and when it ends, its heartbeats what takes a look.

A thread of its own, since a look may have to wait for a server that hangs, and neither leases nor heartbeats may.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone

from idxctl.config.settings import Settings
from idxctl.core.conditions import Condition, Kind
from idxctl.core.errors import IdxctlError
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Pool
from idxctl.status.overview import Looks, identity, overview
from idxctl.worker.options import fact
from idxctl.worker.pool import Worker

log = logging.getLogger("idxctl.worker")
_EVERY = 5.0  # seconds
_SAID_OTHERWISE = frozenset({Kind.CIRCUIT_OPEN, Kind.BLOCKED, Kind.NO_WORKER, Kind.REPEATS})  # by the worker itself


class Watcher:
    """Looks at conditions again and again, and says what has changed."""

    def __init__(self, pool: Pool, client: Client, settings: Settings) -> None:
        self.looks = Looks(lambda: client)
        self._pool = pool
        self._settings = settings
        self._since: dict[tuple[str, ...], tuple[datetime, Condition]] = {}

    def look(self) -> Sequence[Condition]:
        """Look once: what has begun and what has ended is a line of the log each."""
        now = datetime.now(timezone.utc)
        found = [
            one
            for one in overview(self._pool.mine(), self._settings, self.looks).conditions
            if one.kind not in _SAID_OTHERWISE
        ]
        here = {identity(one): one for one in found}
        for key in [key for key in self._since if key not in here]:
            since, one = self._since.pop(key)
            seconds = (now - since).total_seconds()
            fact(
                "condition",
                f"over after {seconds:,.0f} s: {one.reason}",
                kind=one.kind.value,
                index=one.index,
                state="over",
            )
        for key, one in here.items():
            if key not in self._since:
                self._since[key] = (one.since or now, one)
                fix = f"; {one.fix}" if one.fix else ""
                fact("condition", f"{one.reason}{fix}", kind=one.kind.value, index=one.index, state=one.state.value)
        return found

    def run(self, ended: threading.Event) -> None:
        """Look every few seconds until *ended*; what cannot be looked at now is looked at later."""
        while not ended.wait(_EVERY):
            try:
                self.look()
            except IdxctlError as error:  # the worker's own threads say that a server is away
                log.debug("conditions: %s", error)


@contextmanager
def watching(worker: Worker, pool: Pool, client: Client, settings: Settings) -> Iterator[Watcher]:
    """Watch beside *worker* meanwhile, and let its heartbeats carry what is found."""
    watcher, ended = Watcher(pool, client, settings), threading.Event()
    worker.keeper.seen_beside = watcher.looks.told
    threading.Thread(target=watcher.run, args=(ended,), name="conditions", daemon=True).start()
    try:
        yield watcher
    finally:
        ended.set()
