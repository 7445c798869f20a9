"""
An outage of OpenSearch under load: python -m soak.outage, with SECONDS_AWAY, RATE and LISTINGS from the environment.

Writers change RATE listings a second, each in a transaction of its own, before, during and after it. Once each way that a server can be
away: connections refused, and connections that take everything and answer nothing. No attempt may be spent and no letter made, and what
has piled up is gone within as many seconds of its end as it took. Exits with 1 when that is not so.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass

import psycopg

from soak.program import carried_out
from soak.scene import Scene
from support.proxy import Proxy

WORKERS, WRITERS = 2, 2
BEFORE, AFTER = 10.0, 10.0
FRESH_SECONDS = 1.0  # what is no older than this has not piled up
ATTEMPTS = """
    SELECT greatest((SELECT max(attempts) FROM opensearch_indexing_queue),
                    (SELECT max(a) FROM opensearch_indexing_inflight, unnest(attempts) a), 0),
           (SELECT count(*) FROM opensearch_indexing_dlq), (SELECT count(*) FROM opensearch_indexing_queue),
           coalesce(extract(epoch FROM clock_timestamp() - least(
               (SELECT min(enqueued_at) FROM opensearch_indexing_queue),
               (SELECT min(e) FROM opensearch_indexing_inflight, unnest(enqueued_at) e))), 0)::float"""


class Writer(threading.Thread):
    """Changes one listing after the other, so many a second; late ones are caught up."""

    def __init__(self, scene: Scene, number: int, rate: float, listings: int, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.made = 0
        self._scene, self._number, self._rate, self._listings, self._over = scene, number, rate, listings, over

    def run(self) -> None:
        began = time.monotonic()
        with psycopg.connect(self._scene.postgres.url, autocommit=True) as session:
            while not self._over.wait(max(began + self.made / self._rate - time.monotonic(), 0)):
                listing = (self.made * WRITERS + self._number) % self._listings + 1
                session.execute("UPDATE listings SET price = price + 0.01 WHERE id = %s", (listing,))
                self.made += 1


@dataclass
class Seen:
    """The worst of what was looked at, twice a second."""

    attempts: int = 0
    letters: int = 0
    queued: int = 0
    age: float = 0.0

    def look(self, scene: Scene) -> None:
        attempts, letters, queued, self.age = scene.ask(ATTEMPTS)
        self.attempts, self.letters = max(self.attempts, attempts), max(self.letters, letters)
        self.queued = max(self.queued, queued)


def refused(proxy: Proxy) -> None:
    proxy.refuse()


def silent(proxy: Proxy) -> None:
    proxy.black_hole()


def outage(scene: Scene, way, seconds: float, rate: float, listings: int) -> list[str]:
    """Go through one; returns what is not as promised."""
    over, rest = threading.Event(), threading.Event()
    writers = [Writer(scene, number, rate / WRITERS, listings, over) for number in range(WRITERS)]
    began = time.monotonic()
    for writer in writers:
        writer.start()
    rest.wait(BEFORE)
    seen = Seen()
    for worker in scene.workers:
        way(worker.opensearch)
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        rest.wait(min(left, 0.5))
        if left > 1:
            seen.look(scene)
    for worker in scene.workers:
        worker.opensearch.restore()
    back = time.monotonic()
    drained = None
    while drained is None and time.monotonic() - back < 10 * seconds:
        seen.look(scene)
        if seen.age < FRESH_SECONDS:
            drained = time.monotonic() - back
        rest.wait(0.1)
    rest.wait(AFTER)
    over.set()
    for writer in writers:
        writer.join(30)
    made, took = sum(writer.made for writer in writers), time.monotonic() - began
    while seen.age and time.monotonic() - back < 20 * seconds:
        seen.look(scene)
        rest.wait(0.1)
    documents, differences = scene.differences()
    print(
        f"{way.__name__:<8} {seconds:g} s at {made / took:.0f} changes/s: {seen.queued:,} queued at most, attempts {seen.attempts}, DLQ {seen.letters}, "
        f"{'not drained' if drained is None else f'drained {drained:.1f} s'} after its end; {documents:,} documents compared, difference {len(differences)}",
        flush=True,
    )
    return [
        *([f"{way.__name__}: {seen.attempts} attempts spent"] if seen.attempts else []),
        *([f"{way.__name__}: {seen.letters} letters"] if seen.letters else []),
        *([f"{way.__name__}: drained after {drained} s"] if drained is None or drained > seconds else []),
        *([f"{way.__name__}: only {made / took:.0f} changes/s"] if made / took < 0.95 * rate else []),
        *differences[:5],
    ]  # fmt: skip


def main() -> int:
    seconds, rate = float(os.environ.get("SECONDS_AWAY") or 30), float(os.environ.get("RATE") or 200)
    listings = int(os.environ.get("LISTINGS") or 5000)

    def work(scene: Scene) -> list[str]:
        return [one for way in (refused, silent) for one in outage(scene, way, seconds, rate, listings)]

    return carried_out("outage", work, workers=WORKERS, listings=listings, times="")


if __name__ == "__main__":
    sys.exit(main())
