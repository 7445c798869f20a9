"""Writers: sessions that change the marketplace without end, and find the server again when it was away."""

from __future__ import annotations

import threading

import psycopg

from support.shop import Seller

CHILDREN = ("listing_images", "listing_attributes", "listing_translations")
PACE = 0.02  # seconds between transactions: enough load to be hit by every fault, and a machine left to serve it
TRUNCATES = 4000  # one transaction in so many


class Trader(Seller):
    """A seller that goes on until told to stop, and now and then empties a child table."""

    def __init__(self, database: str, seed: int, until: threading.Event) -> None:
        super().__init__(database, seed, 0, until=until)
        self.name = f"writer-{seed}"
        self.lost = 0  # connections

    def run(self) -> None:
        try:
            while not self._until.is_set():
                try:
                    self._trade()
                except (
                    psycopg.OperationalError,
                    psycopg.InterfaceError,
                ):  # whether its last change was made is the row's to tell
                    self.lost += 1
                    self._until.wait(0.3)
        except BaseException as error:  # noqa: BLE001 - the run ends with it
            self.error = error

    def _trade(self) -> None:
        with psycopg.connect(self._database, autocommit=True, connect_timeout=5) as self._connection:
            self._highest = self._connection.execute("SELECT max(id) FROM listings WHERE id < 1000000").fetchone()[0]
            while not self._until.wait(PACE):
                self._transaction()

    def _acts(self):
        if self._random.randrange(TRUNCATES) == 0:
            table = self._random.choice(CHILDREN)
            return [(f"{table} truncated", lambda: self._empty(table))]
        return super()._acts()

    def _empty(self, table: str) -> int:
        self._run("SET LOCAL lock_timeout = '2s'")
        self._run(f"TRUNCATE {table}")
        return 1
