"""
Which host is asked: in turn, but for those that did not answer lately.

A request of which nothing was sent goes to the next host; one that only reads is repeated there after any failure. What a
write has done whose answer is lost is unknown: repeating it is the caller's decision.

A host is a connection class of opensearch-py: its driver knows the address, the headers, who we are and how to sign; the
exchange beneath it is `exchange`'s, with an end in time and in bytes. The driver's own pool sends any request again, or none,
and brings a host that failed back for all threads at once, so which host is asked is decided here. The only importer of
opensearchpy, which takes a third of a second: `client.connect` imports this module when it is called.
"""

from __future__ import annotations

import gzip
import importlib.util
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import opensearchpy

from idxctl.core.errors import ConfigError
from idxctl.opensearch.exchange import Address, Connection, Endless, Failed, NoResponse, NothingSent, Response

IDLE_CONNECTIONS = 32  # kept for each host
GZIP_LEVEL = 1  # level 9, the driver's, costs four times the CPU for a few per cent
_LEFT_OUT_SECONDS = (5.0, 60.0)  # after a failure, doubling; asked all the same where no other is left

Signer = Callable[[str, str, "bytes | None"], Mapping[str, str]]  # of a method, a URL and a body: headers


class Host(opensearchpy.Connection):
    """A host, its idle connections and whether it answers. Thread-safe."""

    def __init__(
        self,
        address: Address,
        *,
        headers: Mapping[str, str] | None = None,
        compress: bool = False,
        signer: Signer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            host=address.host,
            port=address.port,
            use_ssl=address.context is not None,
            url_prefix=address.prefix,
            headers={**(headers or {}), "host": address.netloc},
            http_compress=compress,
        )
        self.headers.pop("accept", None)  # an environment variable of another product's client
        if compress:
            self.headers["accept-encoding"] = "gzip"  # what `exchange` reads
        self.address = address
        self._signer = signer
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

    def perform_request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,  # noqa: ARG002 - the driver's signature; ours stand in the URL
        body: bytes | None = None,
        timeout: float | None = None,
        ignore: Collection[int] = (),  # noqa: ARG002
        headers: Mapping[str, str] | None = None,
        *,
        most: int = 0,
        repeat: bool = False,
    ) -> Response:
        """
        Exchange *body* for a response of *most* bytes within *timeout* seconds.

        Raises `NothingSent`, `NoResponse` or `Endless`.
        """
        target = self.url_prefix + url
        given = {**self.headers, **(headers or {})}
        if self.http_compress and body:
            body = gzip.compress(body, compresslevel=GZIP_LEVEL, mtime=0)
            given["content-encoding"] = "gzip"
        if self._signer is not None:
            given.update(self._signer(method, f"{self.scheme}://{self.address.netloc}{target}", body))
        seconds = timeout or self.timeout
        connection = self.connection()
        stood = connection.sock is not None
        try:
            response = connection.exchange(method, target, given, body, seconds=seconds, most=most)
        except NoResponse as error:
            if not (stood and repeat and isinstance(error.cause, ConnectionError)):
                raise
            # It was closed while it was idle, and we did not know yet: that says nothing of the host.
            connection = Connection(self.address)
            response = connection.exchange(method, target, given, body, seconds=seconds, most=most)
        self.put_back(connection)
        return response

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


class AwsSigner:
    """
    Signs requests for AWS with the credentials that botocore finds: environment, profile, role.

    They are looked up by the first request, not at construction: asking an instance for its role is a request too.
    """

    def __init__(self, region: str, service: str) -> None:
        if importlib.util.find_spec("botocore") is None:
            raise ConfigError(
                "AWS request signing (aws_region) needs botocore, which is not installed",
                hint="pip install 'idxctl[aws]'",
            )
        self._region = region
        self._service = service
        self._signer: Any = None
        self._lock = threading.Lock()

    def __call__(self, method: str, url: str, body: bytes | None) -> Mapping[str, str]:
        """Return the headers that sign this body, byte for byte as it is sent."""
        with self._lock:
            if self._signer is None:
                self._signer = self._made()
        signed: Mapping[str, str] = self._signer.sign(method, url, body)
        return signed

    def _made(self) -> Any:
        import botocore.session
        from opensearchpy.helpers.signer import AWSV4Signer  # with botocore alone

        credentials = botocore.session.Session().get_credentials()
        if credentials is None:
            raise ConfigError(
                "no AWS credentials to sign requests with",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give this host a role",
            )
        return AWSV4Signer(credentials, self._region, self._service)


class Hosts:
    """All hosts of a cluster. Thread-safe."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = list(hosts)
        self._turn = 0

    def exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        seconds: float,
        most: int,
        repeat: bool,
    ) -> tuple[Address, Response]:
        """
        Exchange with the first host that answers, each within *seconds*.

        Raises `Failed` of the last host that was asked.
        """
        failed: Failed | None = None
        for host in self._in_turn():
            try:
                response = host.perform_request(
                    method, path, body=body, timeout=seconds, headers=headers, most=most, repeat=repeat
                )
            except (NothingSent, NoResponse, Endless) as error:
                host.note(answered=False)
                failed = Failed(host.address, error)
                failed.__cause__ = error
                if isinstance(error, NothingSent) or repeat:
                    continue
                break
            host.note(answered=True)
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
