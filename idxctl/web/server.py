"""Bind, serve in a thread, stop: inside a worker's process or alone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from idxctl.config import bearers
from idxctl.config.settings import HttpSettings, Settings
from idxctl.config.trust import not_said_yet
from idxctl.core.errors import ConfigError, IdxctlError
from idxctl.web import app
from idxctl.web.auth import Access, is_loopback
from idxctl.web.backend import Backend
from idxctl.worker.options import fact
from idxctl.worker.pool import Worker

_GRACE_SECONDS = 5
_MOST_CONNECTIONS = 128
_REQUEST_SECONDS = 10.0  # from a connection, or a request's first byte, to its last header
_ADDRESS = re.compile(r"(?:(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\s\[\]]*)):)?(?P<port>\d{1,5})")


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    @property
    def shown(self) -> str:
        """It as a URL has it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read HOST:PORT, [IPV6]:PORT, or PORT alone for loopback; an empty host is every address of the machine."""
    found = _ADDRESS.fullmatch(text.strip())
    if found is None or int(found["port"]) > 65_535:
        raise ConfigError(
            f"cannot listen on {text!r}: it is not HOST:PORT", hint="such as 127.0.0.1:9321, [::1]:9321 or 0.0.0.0:9321"
        )
    host = found["six"] or found["host"]
    return Address("127.0.0.1" if host is None else host or "0.0.0.0", int(found["port"]))  # noqa: S104 - asked for


@contextlib.contextmanager
def serving(settings: Settings, *, listen: str | None = None, worker: Worker | None = None) -> Iterator[Address]:
    """
    Serve until the block ends, then finish what is being answered; yields the address, with the port that was got.

    Raises `ConfigError` before anything is served when the address is not one to listen on, or not without a token.
    """
    wanted = parse_address(listen or settings.http.listen)
    with contextlib.closing(_bound(wanted)) as bound:
        host, port = bound.getsockname()[:2]
        loopback = is_loopback(host)
        if not loopback:
            _require_safe(wanted, settings.http)
        backend = Backend(settings, worker=worker)
        try:
            access = Access(
                settings.http.bearers,
                read_only=settings.http.read_only,
                loopback=loopback,
                host=wanted.host,
                anonymous=settings.http.anonymous_read,
            )
            with _running(app.make(backend, access), bound):
                address = Address(host, port)
                _tell(settings, address)
                yield address
        finally:
            backend.close()


def _require_safe(wanted: Address, http: HttpSettings) -> None:
    """Raise `ConfigError` where others could read, or change, what they should not."""
    if not http.bearers and not http.anonymous_read:
        raise ConfigError(
            f"refused to listen on {wanted.shown}: others can reach it, and no token is configured",
            hint="set IDXCTL_HTTP_TOKEN or IDXCTL_HTTP_TOKENS_FILE, or listen on 127.0.0.1",
        )
    short = [one.name for one in http.bearers if bearers.is_short(one.token)]
    if short:
        raise ConfigError(
            f"refused to listen on {wanted.shown}: others can reach it, and the token of {', '.join(short)} is shorter "
            f"than {bearers.SHORTEST} characters",
            hint="a random one: openssl rand -base64 24",
        )


def _tell(settings: Settings, address: Address) -> None:
    people = len(settings.http.bearers)
    changes = "read-only" if settings.http.read_only or not people else f"{people} token{'' if people == 1 else 's'}"
    fact("http", f"http://{address.shown}, {changes}", address=address.shown)
    for remark in (*map(str, not_said_yet(settings.http.remarks)), *_remarks(settings.http)):
        fact("http", remark)


def _remarks(http: HttpSettings) -> Iterator[str]:
    """Yield what is unwise: behind a proxy, loopback is as open as the proxy is."""
    short = [one.name for one in http.bearers if bearers.is_short(one.token)]
    if short:
        yield f"the token of {', '.join(short)} is shorter than {bearers.SHORTEST} characters, and can be guessed"
    if http.anonymous_read:
        yield "anonymous_read: anyone who can connect reads letters, which may hold people's data"


def _bound(wanted: Address) -> socket.socket:
    """Return a socket that listens there, or say why there is none."""
    try:
        found = socket.getaddrinfo(wanted.host, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(f"cannot listen on {wanted.shown}: {error.strerror or 'no such host'}") from error
    family, kind, protocol, _, place = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(_MOST_CONNECTIONS)
    except OSError as error:
        listening.close()
        raise _no(wanted, error) from error
    return listening


def _no(wanted: Address, error: OSError) -> IdxctlError:
    if error.errno == errno.EADDRINUSE:
        return IdxctlError(
            f"cannot listen on {wanted.shown}: the port is in use", hint="another idxctl? choose a port with --http"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(f"cannot listen on {wanted.shown}: this machine has no such address")
    return IdxctlError(f"cannot listen on {wanted.shown}: {error.strerror}")


class _Protocol(H11Protocol):
    """
    A connection that is closed when no request comes of it in time, and makes room when there are too many.

    uvicorn itself waits for headers for ever, and answers 503 to everybody, probes included, while silent clients hold
    all the connections there may be.
    """

    since: float | None = None  # when it began to wait for a request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > _MOST_CONNECTIONS:
            waiting = [one for one in self.connections if isinstance(one, _Protocol) and not one.under_way]
            longest = min(waiting, key=lambda one: one.since or 0.0)
            self.connections.discard(longest)  # many are accepted in one go, before any is told that it is lost
            longest.transport.abort()

    @property
    def under_way(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a request that has begun, and no longer once it is whole."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self.since = None
        elif self.since is None and not self.under_way:
            self._wait()

    def _wait(self) -> None:
        self.since = self.loop.time()
        self.loop.call_later(_REQUEST_SECONDS, self._give_up, self.cycle)

    def _give_up(self, cycle: RequestResponseCycle | None) -> None:
        if self.since is not None and self.cycle is cycle:
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn in a thread: signals are the process's business."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.up.set()


@contextlib.contextmanager
def _running(application: object, bound: socket.socket) -> Iterator[None]:
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what clients send wrong is not the log's business
    config = uvicorn.Config(
        application,  # type: ignore[arg-type]
        loop="asyncio",
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS + 1,  # for requests under way: connections never reach it
        timeout_keep_alive=5,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="http", daemon=True)
    thread.start()
    server.up.wait(10)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_GRACE_SECONDS + 2)
