"""A gateway in front of a real OpenSearch: an HTTP proxy that answers in its own words to what it is told to dislike."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

PAGE = b"<html><head><title>Request Rejected</title></head><body>The requested URL was rejected. Support ID: %d</body></html>"


@dataclass(frozen=True)
class Seen:
    """One request that came by."""

    method: str
    path: str
    body: bytes

    @property
    def is_bulk(self) -> bool:
        return "/_bulk" in self.path


class Gateway:
    """Passes requests on, but for those that *dislikes* names: they are treated as *mode* says."""

    def __init__(self, url: str, *, remembers: bool = True) -> None:
        self.mode = "502"
        self.dislikes: Callable[[Seen], bool] = lambda _seen: False
        self.seen: list[Seen] = []
        self.disliked: list[Seen] = []
        self.released = threading.Event()  # for those who hang
        self._upstream = urlsplit(url)
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def handle_any(self) -> None:
                size = int(self.headers.get("content-length") or 0)
                seen = Seen(self.command, self.path, self.rfile.read(size) if size else b"")
                if remembers:
                    gateway.seen.append(seen)
                if gateway.dislikes(seen):
                    if remembers:
                        gateway.disliked.append(seen)
                    ANSWERS[gateway.mode](self, gateway)
                else:
                    gateway._pass_on(self, seen)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any  # noqa: N815 - the library's names

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None: ...  # a client that went away

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def _pass_on(self, handler: BaseHTTPRequestHandler, seen: Seen) -> None:
        upstream = http.client.HTTPConnection(str(self._upstream.hostname), self._upstream.port, timeout=60)
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in {"host", "connection"}}
        try:
            upstream.request(seen.method, seen.path, body=seen.body or None, headers=headers)
            answer = upstream.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):  # nobody there, or not until the end
            cut(handler)
            return
        finally:
            upstream.close()
        with contextlib.suppress(OSError):  # whoever asked waits no more
            reply(handler, answer.status, text, answer.getheader("content-type") or "application/json")

    def __enter__(self) -> Gateway:  # noqa: PYI034 - Self is 3.11's
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)


def reply(handler: BaseHTTPRequestHandler, status: int, text: bytes, kind: str = "text/html", **headers: str) -> None:
    handler.send_response(status)
    handler.send_header("content-type", kind)
    handler.send_header("content-length", str(len(text)))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(text)


def cut(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)


def _page(status: int, **headers: str) -> Any:
    return lambda handler, gateway: reply(handler, status, PAGE % len(gateway.seen), **headers)


def _half(handler: BaseHTTPRequestHandler, _: Gateway) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"took":1,"err')
    cut(handler)


def _hang(handler: BaseHTTPRequestHandler, gateway: Gateway) -> None:
    gateway.released.wait(60)
    cut(handler)


ANSWERS: dict[str, Callable[[BaseHTTPRequestHandler, Gateway], None]] = {
    "500": _page(500),
    "502": _page(502),
    "503": _page(503),
    "cut": lambda handler, _: cut(handler),
    "half an answer": _half,
    "403": _page(403),
    "403 in JSON": lambda handler, _: reply(handler, 403, b'{"message":"Forbidden"}', "application/json"),
    "401": _page(401),
    "404": _page(404),
    "400": _page(400),
    "406": _page(406),
    "302": _page(302, location="/blocked"),
    "200 in HTML": _page(200),
    "429": _page(429),
    "silence": _hang,
}
