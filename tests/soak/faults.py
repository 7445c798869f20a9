"""
The faults of a soak: two lanes, one of short faults and one of long ones, each one fault at a time, in an order that its seed
gives.

Every fault takes back what it did, also when the run ends in the middle of it.
"""

from __future__ import annotations

import collections
import contextlib
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import psycopg

from idxctl.demo.shop import INDEX
from soak.scene import LEASE_SECONDS, Scene, WorkerProcess
from support import judge
from support.gateway import Seen
from support.proxy import Proxy

Fault = Callable[["Lane"], None]
BREATH_SECONDS = 90.0
REBUILD_SECONDS = 600.0  # a rebuild waits for all that was queued before it
SWAPPED = "swapped"


class Lane(threading.Thread):
    """
    Faults from *kinds*, one after the other, until *over*.

    ``injected`` counts them by kind. *still* is held by faults that must not meet: OpenSearch forgets deleted versions when it
    restarts, so that the bytes of a worker stopped meanwhile could bring a deleted document back. That is a limit of the
    protocol that the documentation states, and `verify` finds; here it would only hide other faults.
    """

    def __init__(
        self,
        scene: Scene,
        kinds: dict[str, Fault],
        seed: str,
        *,
        over: threading.Event,
        still: threading.Lock,
        pause: float,
    ) -> None:
        super().__init__(name=seed, daemon=True)
        self.scene = scene
        self.random = random.Random(seed)
        self.over = over
        self.still = still
        self.injected: collections.Counter[str] = collections.Counter()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.error: BaseException | None = None
        self.now = ""
        self._kinds = kinds
        self._pause = pause

    def run(self) -> None:
        try:
            while not self.over.wait(self.random.uniform(0.3, 1.0) * self._pause):
                for kind in self.random.sample(sorted(self._kinds), len(self._kinds)):  # each once, then all anew
                    self._breathe()
                    self.now = kind
                    self.injected[kind] += 1
                    self._kinds[kind](self)
                    self.now = ""
                    if self.over.wait(self.random.uniform(0.3, 1.0) * self._pause):
                        break
        except BaseException as error:  # noqa: BLE001 - the run ends with it
            self.error = error

    def _breathe(self) -> None:
        """
        Let the workers catch up first, if much waits: what hits a system that does nothing tests nothing, and no rebuild
        comes to its swap behind a queue that only grows.
        """
        until = time.monotonic() + BREATH_SECONDS
        while self.scene.crowded.is_set() and time.monotonic() < until and not self.over.wait(0.5):
            pass

    # --- what faults are made of ------------------------------------------------------------------------------------

    def worker(self) -> WorkerProcess:
        return self.random.choice(self.scene.workers)

    def last(self, low: float, high: float) -> None:
        """Let it be for a while."""
        self.over.wait(self.random.uniform(low, high))

    @contextlib.contextmanager
    def links(self) -> Iterator[list[Proxy]]:
        """Yield the way of one worker, or of all, to one of the servers; it is in order again at the end."""
        name = self.random.choice(("postgres", "opensearch"))
        hit = [self.worker()] if self.random.random() < 0.6 else self.scene.workers
        proxies = [getattr(worker, name) for worker in hit]
        try:
            yield proxies
        finally:
            for proxy in proxies:
                proxy.restore()


def kill(lane: Lane) -> None:
    lane.worker().send(signal.SIGKILL)


def drain(lane: Lane) -> None:
    lane.worker().send(signal.SIGTERM)


def cut(lane: Lane) -> None:
    with lane.links() as proxies:
        for _ in range(lane.random.randint(1, 5)):
            for proxy in proxies:
                proxy.cut()
            lane.last(0.1, 1.0)


def slow_down(lane: Lane) -> None:
    with lane.links() as proxies:
        seconds = lane.random.choice((0.02, 0.1, 0.5))
        for proxy in proxies:
            proxy.delay(seconds)
        lane.last(2, 6)


def black_hole(lane: Lane) -> None:
    """Afterwards the connections that lost something stay silent, or are reset."""
    with lane.links() as proxies:
        answers_only, reset = lane.random.random() < 0.5, lane.random.random() < 0.5
        for proxy in proxies:
            proxy.black_hole(answers_only=answers_only)
        lane.last(2, 1.5 * LEASE_SECONDS)
        if reset:
            for proxy in proxies:
                proxy.cut()


def refuse(lane: Lane) -> None:
    with lane.links() as proxies:
        for proxy in proxies:
            proxy.refuse()
        lane.last(2, 6)


def restart_postgres(lane: Lane) -> None:
    mode = lane.random.choice(("fast", "immediate"))
    lane.scene.postgres.stop(mode)
    try:
        lane.last(0, 4)
    finally:
        lane.scene.postgres.start()


def restart_opensearch(lane: Lane) -> None:
    if not lane.still.acquire(blocking=False):
        cut(lane)  # its time will come
        return
    try:
        if lane.random.random() < 0.5:
            lane.scene.opensearch.child.send(signal.SIGKILL)
        lane.scene.opensearch.stop()
        try:
            lane.last(0, 6)
        finally:
            lane.scene.opensearch.start()
    finally:
        lane.still.release()


def block_writes(lane: Lane) -> None:
    with _asked(lane, {"index.blocks.write": True}, {"index.blocks.write": None}):
        lane.last(2, 6)


@contextlib.contextmanager
def _asked(lane: Lane, settings: dict, back: dict) -> Iterator[None]:
    url = lane.scene.opensearch.url
    try:
        judge.call(url, "PUT", f"/{INDEX}/_settings", settings)
        yield
    finally:
        judge.call(url, "PUT", f"/{INDEX}-*/_settings", back)  # all generations: the alias may have moved on


def stop_beyond_the_lease(lane: Lane) -> None:
    with lane.still:
        victim = lane.worker()
        victim.send(signal.SIGSTOP)
        try:
            lane.last(1.1 * LEASE_SECONDS, 1.6 * LEASE_SECONDS)
        finally:
            victim.send(signal.SIGCONT)


def hold_an_old_snapshot(lane: Lane) -> None:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(lane.scene.postgres.url) as session:
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        session.execute("SELECT count(*) FROM listings")
        lane.last(10, 30)


def commit_late(lane: Lane) -> None:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(lane.scene.postgres.url) as session:
        session.execute(
            "UPDATE listings SET city = 'late ' || clock_timestamp() WHERE id IN (SELECT id FROM listings WHERE id > 100 ORDER BY id LIMIT 5)"
        )
        lane.last(2, 8)
        session.commit()


def reindex(lane: Lane) -> None:
    """
    Build, and swap. One that another fault has ended is begun anew, as whoever waits for it would do.

    Half of them are spared restarts of OpenSearch, which end a reindex wherever it is: or none would come to its swap.
    """
    with lane.still if lane.random.random() < 0.5 else contextlib.nullcontext():
        for _ in range(3):
            try:
                done = lane.scene.idxctl("reindex", "-o", "json", timeout=REBUILD_SECONDS)
            except subprocess.TimeoutExpired:  # and is killed: one that a queue keeps waiting has no end of its own
                lane.outcomes["killed after its time"] += 1
                return
            lane.outcomes[SWAPPED if done.returncode == 0 else f"ended with {done.returncode}"] += 1
            if done.returncode == 0 or lane.over.is_set():
                return
            lane.last(3, 6)


def hostile_answers(lane: Lane) -> None:
    """A gateway answers some bulks, or all, in words of its own."""
    chance, share = random.Random(lane.random.random()), lane.random.choice((0.2, 0.6, 1.0))
    with _disliked(lane, lambda seen: seen.is_bulk and chance.random() < share):
        lane.last(2, 6)


def doubtful_body(lane: Lane) -> None:
    """A gateway dislikes one document, whatever stands beside it; afterwards a change of it passes."""
    listing = lane.random.randint(1, 100)
    mark = f'"_id":"{listing}"'.encode()
    change = f"UPDATE listings SET city = 'doubtful ' || clock_timestamp() WHERE id = {listing}"
    with _disliked(lane, lambda seen: seen.is_bulk and mark in seen.body):
        _write(lane, change)
        lane.last(4, 12)
    _write(lane, change)


@contextlib.contextmanager
def _disliked(lane: Lane, dislikes: Callable[[Seen], bool]) -> Iterator[None]:
    gateway = lane.scene.gateway
    gateway.mode = lane.random.choice(GATEWAY_MODES)
    gateway.dislikes = dislikes
    try:
        yield
    finally:
        gateway.dislikes = lambda _: False


def odd_ids(lane: Lane) -> None:
    """Ids that no row has, some that no index takes: their letters are theirs alone."""
    ids = ["x" * 4820, "é" * 300, "9" * 40, "", "a b/c?d#e%20", "12e0", "🚲" * 200]
    for one in lane.random.sample(ids, 4):
        _write(
            lane,
            "INSERT INTO opensearch_indexing_queue (index_name, document_id, action, origin) VALUES (%s, %s, %s, 'api')",
            (INDEX, one, lane.random.choice(("index", "delete"))),
        )


def _write(lane: Lane, statement: str, values: tuple[str, ...] = ()) -> None:
    """Run it, unless PostgreSQL is away."""
    with (
        contextlib.suppress(psycopg.OperationalError),
        psycopg.connect(lane.scene.postgres.url, autocommit=True, connect_timeout=5) as session,
    ):
        session.execute(statement.encode(), values or None)


def rename_a_column(lane: Lane) -> None:
    """A key's column, which the document query reads too, bears another name for a while, and is written by it."""
    _renamed(lane, "listing_id", "parent_id")
    try:
        for _ in range(4):
            listing = lane.random.randint(1, 100)
            _write(
                lane,
                f"UPDATE listing_attributes SET value = 'renamed ' || clock_timestamp() WHERE parent_id = {listing}",
            )
            lane.last(0.5, 2)
    finally:
        _renamed(lane, "parent_id", "listing_id")


def _renamed(lane: Lane, name: str, other: str) -> None:
    """Rename it, however long PostgreSQL is away or others hold the table."""
    there = "SELECT 1 FROM pg_attribute WHERE attrelid = 'listing_attributes'::regclass AND attname = %s AND NOT attisdropped"
    while True:
        try:
            with psycopg.connect(lane.scene.postgres.url, autocommit=True, connect_timeout=5) as session:
                if session.execute(there, (other,)).fetchone():
                    return
                session.execute("SET lock_timeout = '2s'")
                session.execute(f"ALTER TABLE listing_attributes RENAME COLUMN {name} TO {other}")
        except psycopg.OperationalError:
            threading.Event().wait(0.5)


GATEWAY_MODES = ("500", "502", "503", "cut", "half an answer", "403", "403 in JSON", "302", "200 in HTML", "429")
SHORT: dict[str, Fault] = {
    "kill -9": kill,
    "drain": drain,
    "cut": cut,
    "slow link": slow_down,
    "black hole": black_hole,
    "refused": refuse,
    "postgres restart": restart_postgres,
    "opensearch restart": restart_opensearch,
    "write block": block_writes,
    "hostile answers": hostile_answers,
    "doubtful body": doubtful_body,
    "odd ids": odd_ids,
}
LONG: dict[str, Fault] = {
    "SIGSTOP": stop_beyond_the_lease,
    "old snapshot": hold_an_old_snapshot,
    "late commit": commit_late,
    "reindex": reindex,
    "renamed column": rename_a_column,
}
