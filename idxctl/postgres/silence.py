"""
The driver's connection, with an end to its patience.

A server may go silent without a word: a firewall drops the flow, a failover takes the address away, a proxy goes on
acknowledging for a server that is gone. The kernel's own timers (`KEEPALIVES`) find the first two; nothing below us finds
the third, and without either a thread waits for ever.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

Result = TypeVar("Result")

# Linux waits two hours before it asks an idle peer whether it lives, and resends for a quarter of an hour. These end a
# dead connection within 25 to 30 s, about a lease; a server that works on a long statement answers them all the while.
KEEPALIVES = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds; where the system does not know it, it is ignored
}
_CANCEL_SECONDS = 2.0


class PatientConnection(psycopg.Connection[tuple[Any, ...]]):
    """
    A connection that gives the server up once it has been silent for ``patience`` seconds; None waits for ever.

    It is closed then, and the statement raises an `OperationalError`: whether it was carried out is unknown. The server is
    asked to cancel it, so that what only waits for a lock does not go on waiting after us.
    """

    patience: float | None = None

    def wait(self, gen: Generator[Any, Any, Result], *args: Any, **kwargs: Any) -> Result:
        """Drive one exchange with the server, as the driver does."""
        if self.patience is None:
            return super().wait(gen, *args, **kwargs)
        try:
            return super().wait(_bounded(gen, self.patience), *args, **kwargs)
        except _Silent:
            with contextlib.suppress(psycopg.Error):
                self.cancel_safe(timeout=_CANCEL_SECONDS)
            self.close()
            raise


class _Silent(psycopg.OperationalError):
    """The server sent nothing, and took nothing, for as long as we were willing to wait."""


def _bounded(gen: Generator[Any, Any, Result], seconds: float) -> Generator[Any, Any, Result]:
    """Pass on what *gen* waits for; the driver wakes us now and then to say that nothing has come."""
    heard = time.monotonic()
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                heard = time.monotonic()
            elif time.monotonic() - heard > seconds:
                gen.close()
                raise _Silent(f"no answer for {seconds:g} s")
            wanted = gen.send(ready)
    except StopIteration as done:
        result: Result = done.value
        return result
