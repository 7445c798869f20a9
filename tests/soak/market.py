"""Writers: sessions that change the marketplace without end, and find the server again when it was away."""

from __future__ import annotations

import threading
import time

import psycopg
from psycopg import errors

from soak.scene import Scene
from support.shop import Seller

CHILDREN = ("listing_images", "listing_attributes", "listing_translations")
PACE, CROWDED_PACE = 0.02, 0.4  # seconds between transactions
LOST = (psycopg.OperationalError, psycopg.InterfaceError, errors.UndefinedColumn)  # a column is renamed by a fault
TRUNCATE_EVERY = 45.0  # seconds, by one of them: each makes a task of every document in every generation


class Trader(Seller):
    """A seller that goes on until told to stop; the first of them empties a child table now and then."""

    def __init__(self, scene: Scene, seed: int, until: threading.Event) -> None:
        super().__init__(scene.postgres.url, seed, 0, until=until)
        self.name = f"writer-{seed}"
        self._crowded = scene.crowded
        self.lost = 0  # connections
        self._emptied_at = time.monotonic()

    def run(self) -> None:
        try:
            while not self._until.is_set():
                try:
                    self._trade()
                except LOST:  # whether its last change was made is for the row to tell
                    self.lost += 1
                    self._until.wait(0.3)
        except BaseException as error:  # noqa: BLE001 - the run ends with it
            self.error = error

    def _trade(self) -> None:
        with psycopg.connect(self._database, autocommit=True, connect_timeout=5) as self._connection:
            self._highest = self._connection.execute("SELECT max(id) FROM listings WHERE id < 1000000").fetchone()[0]
            while not self._until.wait(CROWDED_PACE if self._crowded.is_set() else PACE):
                self._transaction()

    def _acts(self):
        due = time.monotonic() - self._emptied_at > TRUNCATE_EVERY
        if self._seed == 1 and due and not self._crowded.is_set():
            self._emptied_at = time.monotonic()
            table = self._random.choice(CHILDREN)
            return [(f"{table} truncated", lambda: self._empty(table))]
        return super()._acts()

    def _empty(self, table: str) -> int:
        self._run("SET LOCAL lock_timeout = '2s'")
        self._run(f"TRUNCATE {table}")
        return 1
