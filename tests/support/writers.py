"""Writers: connections of the application that go on changing items."""

from __future__ import annotations

import threading

import psycopg


class Writers:
    """Two connections that change items until told to stop, and find the server again when it was away."""

    def __init__(self, database, *, pause=0.002):
        self.made = 0
        self._pause = pause
        self._database = database
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(seed,), daemon=True) for seed in (1, 2)]

    def _write(self, seed):
        while not self._end.is_set():
            try:
                with psycopg.connect(self._database, autocommit=True, connect_timeout=2) as connection:
                    while not self._end.wait(self._pause):
                        number = (self.made * 7 + seed) % 20 + 1
                        connection.execute("UPDATE items SET price = %s WHERE id = %s", (str(self.made), number))
                        self.made += 1
            except psycopg.Error:
                self._end.wait(0.05)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join(10)
