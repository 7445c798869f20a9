"""
Which host is asked: in turn, but for those that did not answer lately.

A request of which nothing was sent goes to the next host; one that only reads is repeated there after any failure. What a
write has done whose answer is lost is unknown: repeating it is the caller's decision.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from idxctl.opensearch.exchange import Address, Connection, Endless, NoResponse, NothingSent, Response

IDLE_CONNECTIONS = 32  # kept for each host
_LEFT_OUT_SECONDS = (5.0, 60.0)  # after a failure, doubling; asked all the same where no other is left


class Host:
    """A host, its idle connections and whether it answers. Thread-safe."""

    def __init__(self, address: Address, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.address = address
        self._clock = clock
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._failures = 0
        self._out_until = float("-inf")

    def take(self) -> bool:
        """Tell whether it may be asked; of one that was left out and is due, to one caller at a time."""
        with self._lock:
            now = self._clock()
            if self._out_until > now:
                return False
            if self._failures:
                self._out_until = now + _LEFT_OUT_SECONDS[0]
            return True

    def note(self, *, answered: bool) -> None:
        """Take note of how it went."""
        with self._lock:
            self._failures = 0 if answered else self._failures + 1
            shortest, longest = _LEFT_OUT_SECONDS
            wait = min(shortest * 2.0 ** min(self._failures - 1, 10), longest)
            self._out_until = float("-inf") if answered else self._clock() + wait

    def connection(self) -> Connection:
        """Return an idle connection that still stands, or a new one."""
        while True:
            with self._lock:
                one = self._idle.pop() if self._idle else None
            if one is None:
                return Connection(self.address)
            if one.idle:
                return one
            one.close()

    def put_back(self, connection: Connection) -> None:
        """Keep a connection that still stands for the next exchange."""
        if connection.sock is None:
            return
        with self._lock:
            if len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for one in idle:
            with suppress(OSError):
                one.close()


class Failed(Exception):  # noqa: N818 - it is what happened
    """No host gave a response; ``address`` is the last one that was asked, ``cause`` what happened there."""

    def __init__(self, address: Address, cause: NothingSent | NoResponse | Endless) -> None:
        super().__init__(str(cause))
        self.address = address
        self.cause = cause


class Hosts:
    """All hosts of a cluster. Thread-safe."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._hosts = [Host(one) for one in addresses]
        self._turn = 0

    def exchange(
        self,
        method: str,
        path: str,
        headers: Callable[[Address, str], Mapping[str, str]],
        body: bytes | None,
        *,
        seconds: float,
        most: int,
        repeat: bool,
    ) -> tuple[Address, Response]:
        """
        Exchange with the first host that answers; *headers* are made for each, since some sign where a request goes.

        Raises `Failed` of the last host that was asked.
        """
        failed: Failed | None = None
        for host in self._in_turn():
            target = host.address.prefix + path
            given = headers(host.address, target)
            connection = host.connection()
            stood = connection.sock is not None
            try:
                try:
                    response = connection.exchange(method, target, given, body, seconds=seconds, most=most)
                except NoResponse as error:
                    if not (stood and repeat and isinstance(error.cause, ConnectionError)):
                        raise
                    # It was closed while it was idle, and we did not know yet: that says nothing of the host.
                    connection = Connection(host.address)
                    response = connection.exchange(method, target, given, body, seconds=seconds, most=most)
            except (NothingSent, NoResponse, Endless) as error:
                host.note(answered=False)
                failed = Failed(host.address, error)
                failed.__cause__ = error
                if isinstance(error, NothingSent) or repeat:
                    continue
                break
            host.note(answered=True)
            host.put_back(connection)
            return host.address, response
        assert failed is not None
        raise failed

    def _in_turn(self) -> Iterator[Host]:
        """Yield the hosts that may be asked, from the next in turn on, and only then those that are left out."""
        self._turn += 1  # not exact among threads, and need not be
        hosts = [self._hosts[(self._turn + place) % len(self._hosts)] for place in range(len(self._hosts))]
        left_out = []
        for host in hosts:
            if host.take():
                yield host
            else:
                left_out.append(host)
        yield from left_out

    def close(self) -> None:
        """Close every idle connection."""
        for host in self._hosts:
            host.close()
