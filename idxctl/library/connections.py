"""The library's own connections: a few kept, lent to one thread at a time, so that a server's many threads need not many."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from idxctl.config.settings import DatabaseSettings
from idxctl.postgres.connect import Connection, connect

_KEPT = 4


class Connections:
    """Connections to PostgreSQL: as many as are lent at once, of which a few are kept for the next."""

    def __init__(self, settings: DatabaseSettings, *, application_name: str) -> None:
        self._settings = settings
        self._name = application_name
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._kept = _KEPT
        self._schema: str | None = settings.schema

    @property
    def schema(self) -> str:
        """The schema of our tables; the first time it may be asked of the server."""
        if self._schema is None:
            with self.one():
                pass
        assert self._schema is not None
        return self._schema

    @contextmanager
    def one(self) -> Iterator[Connection]:
        """Lend a connection, in autocommit; what is broken or in the middle of something afterwards is closed."""
        conn = self._take() or connect(self._settings, application_name=self._name)
        self._schema = conn.schema
        try:
            yield conn
        except BaseException:
            conn.close()
            raise
        with self._lock:
            if conn.alive and len(self._idle) < self._kept:
                self._idle.append(conn)
                return
        conn.close()

    def _take(self) -> Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                conn = self._idle.pop()
            if conn.alive:
                return conn
            conn.close()

    def drop(self) -> None:
        """Close those that are idle: after a lost one the others are likely to be gone too."""
        with self._lock:
            idle, self._idle = self._idle, []
        for conn in idle:
            conn.close()

    def close(self) -> None:
        """Close those that are idle, and keep none from now on; lending goes on."""
        self._kept = 0
        self.drop()
