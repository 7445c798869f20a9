"""
One exchange over HTTP: connect, send, read, all of it before one deadline, and no more of an answer than was allowed.

Neither the standard library's client nor urllib3's has an end to a whole exchange: their timeouts begin again with every byte.
So the sockets here know the deadline, and each wait is for what is left of it. Only the name's resolution is the system's.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

CONNECT_SECONDS = 10.0  # a connection must stand sooner than an answer, or another host is tried too late
_PIECE = 1024 * 1024


@dataclass(frozen=True)
class Address:
    """Where a host is, and how it is spoken to; ``prefix`` stands before every path."""

    host: str
    port: int
    prefix: str = ""
    context: ssl.SSLContext | None = None

    @property
    def netloc(self) -> str:
        """Return it as the Host header names it."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.context else 80) else f"{name}:{self.port}"

    @property
    def scheme(self) -> str:
        """Return "http" or "https"."""
        return "https" if self.context else "http"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Response:
    """What came: anything, so far."""

    status: int
    content_type: str
    body: bytes
    location: str = ""  # where a redirect sends


class NothingSent(Exception):  # noqa: N818 - it is what happened
    """No connection came about; ``cause`` is why."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class NoResponse(Exception):  # noqa: N818 - it is what happened
    """The request was sent, all or part of it, and no whole response came; ``cause`` is why."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Endless(Exception):  # noqa: N818 - it is what came
    """The response is larger than any answer can be."""


class Failed(Exception):  # noqa: N818 - it is what happened
    """No host gave a response; ``address`` is the last one that was asked, ``cause`` what happened there."""

    def __init__(self, address: Address, cause: NothingSent | NoResponse | Endless) -> None:
        super().__init__(str(cause))
        self.address = address
        self.cause = cause


class Connection(http.client.HTTPConnection):
    """A connection that is used for one exchange after the other; not by two threads at once."""

    def __init__(self, address: Address) -> None:
        super().__init__(address.host, address.port)
        self._address = address
        self._deadline = 0.0
        self._timed: _Timed | None = None

    @property
    def idle(self) -> bool:
        """Whether it stands, and nothing has come that was not asked for: its end, or more than an answer."""
        if self.sock is None:
            return False
        if cast("_Timed", self.sock).pending():
            return False
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLIN)
        return not poll.poll(0)

    def connect(self) -> None:
        """Connect, to one of the host's addresses after the other."""
        within = min(self._deadline, time.monotonic() + CONNECT_SECONDS)
        try:
            raw = _dialled(self._address, within)
            try:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._address.context is not None:
                    raw.settimeout(_left(within))
                    raw = self._address.context.wrap_socket(raw, server_hostname=self._address.host)
            except BaseException:
                raw.close()
                raise
        except (OSError, ValueError) as error:  # a ValueError: of a name that cannot be one
            raise NothingSent(error) from error
        self._timed = _Timed(raw, self)
        self.sock = cast("Any", self._timed)

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, *, seconds: float, most: int
    ) -> Response:
        """
        Send a request and read the response to it, of *most* bytes.

        Raises `NothingSent`, `NoResponse` or `Endless`; the connection is closed then.
        """
        self._deadline = time.monotonic() + seconds
        try:
            if self.sock is None:
                self.connect()
            broken = self._send(method, target, headers, body)
            try:
                response = self.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise NoResponse(broken or error) from error
            read = self._read(response, most)
            if not 200 <= response.status < 600 or response.will_close:
                self.close()
        except (NothingSent, NoResponse, Endless):
            self._end()
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._end()
            raise NoResponse(error) from error
        except BaseException:
            self._end()
            raise
        return read

    def _end(self) -> None:
        self.close()
        if self._timed is not None:
            self._timed.end()

    def left(self) -> float:
        """Return the seconds until the deadline; raises `TimeoutError` once there are none."""
        return _left(self._deadline)

    def _send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> OSError | None:
        """Send the request; returns what broke it off, since a server may answer (413) and close before it has heard all."""
        self.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            self.putheader(name, value)
        if body is not None or method in {"POST", "PUT"}:
            self.putheader("Content-Length", str(len(body or b"")))
        try:
            self.endheaders(body or None)
        except (BrokenPipeError, ConnectionResetError) as error:
            return error
        return None

    def _read(self, response: http.client.HTTPResponse, most: int) -> Response:
        if response.length is not None and response.length > most:
            raise Endless
        parts: list[bytes] = []
        size = 0
        while part := response.read(min(_PIECE, most + 1 - size)):
            parts.append(part)
            size += len(part)
            if size > most:
                raise Endless
        if response.length:
            raise NoResponse(http.client.IncompleteRead(b"", response.length))
        body = b"".join(parts)
        if response.getheader("content-encoding", "identity").strip().lower() == "gzip":
            body = _unzipped(body, most)
        return Response(
            response.status, response.getheader("content-type", ""), body, response.getheader("location", "")
        )


def _unzipped(body: bytes, most: int) -> bytes:
    unzip = zlib.decompressobj(wbits=31)
    try:
        plain = unzip.decompress(body, most + 1)
    except zlib.error as error:
        raise NoResponse(error) from error
    if len(plain) > most:
        raise Endless
    if not unzip.eof:
        raise NoResponse(http.client.IncompleteRead(b""))
    return plain


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _dialled(address: Address, deadline: float) -> socket.socket:
    found = socket.getaddrinfo(address.host, address.port, 0, socket.SOCK_STREAM)
    last: OSError = OSError("no address")
    for number, (family, kind, protocol, _, where) in enumerate(found):
        one = socket.socket(family, kind, protocol)
        try:
            one.settimeout(_left(deadline) / (len(found) - number))
            one.connect(where)
        except OSError as error:
            one.close()
            last = error
        else:
            return one
    raise last


class _Timed:
    """A socket each of whose waits is for what is left until its connection's deadline."""

    def __init__(self, raw: socket.socket, connection: Connection) -> None:
        self._raw = raw
        self._connection = connection
        self._readers = 0
        self._closed = False

    def sendall(self, data: bytes) -> None:
        view = memoryview(data).cast("B")
        while view:
            self._raw.settimeout(self._connection.left())
            view = view[self._raw.send(view) :]

    def receive_into(self, buffer: Any) -> int:
        self._raw.settimeout(self._connection.left())
        return self._raw.recv_into(buffer)

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        self._readers += 1
        return _Bounded(_Incoming(self), 64 * 1024)

    def fileno(self) -> int:
        return self._raw.fileno()

    def pending(self) -> int:
        return self._raw.pending() if isinstance(self._raw, ssl.SSLSocket) else 0

    def close(self) -> None:
        """Close it, once what still reads of it is through: http.client closes a connection before its last body."""
        self._closed = True
        if not self._readers:
            self._raw.close()

    def let_go(self) -> None:
        self._readers -= 1
        if self._closed and not self._readers:
            self._raw.close()

    def end(self) -> None:
        """Close it, whoever reads of it."""
        self._closed = True
        self._raw.close()


class _Bounded(io.BufferedReader):
    """Reads no more than was asked for: http.client takes "-1" for the size of a chunk, and would read on for ever."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise ValueError("a chunk has no size")
        return super().read(size)


class _Incoming(io.RawIOBase):
    def __init__(self, timed: _Timed) -> None:
        self._timed = timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._timed.receive_into(buffer)

    def close(self) -> None:
        if not self.closed:
            self._timed.let_go()
        super().close()
