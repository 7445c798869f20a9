"""An HTTP server that passes requests on to a real OpenSearch, but for those that a test has it answer with anything at all."""

from __future__ import annotations

import contextlib
import http.client
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[bytes], bytes]  # of what OpenSearch would have answered makes all the bytes that are sent instead


class Hostile:
    """``spoil`` chooses requests by method and path, and what they get; the request itself is not passed on."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urllib.parse.urlsplit(upstream)
        self._lock = threading.Lock()
        self._chosen: tuple[Callable[[str, str], bool], Answer, int] | None = None
        self.spoilt = 0
        self.done = threading.Event()
        hostile = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self) -> None:
                hostile._serve(self)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = serve  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def spoil(self, chosen: Callable[[str, str], bool], answer: Answer, *, times: int = 1) -> None:
        """Answer the next *times* requests that are *chosen* by method and path with *answer*."""
        with self._lock:
            self._chosen, self.spoilt = (chosen, answer, times), 0

    def behave(self) -> None:
        """Pass everything on."""
        with self._lock:
            self._chosen = None

    def __enter__(self) -> Hostile:  # noqa: PYI034 - Self is 3.11's
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        answer = self._chosen_for(handler.command, handler.path)
        if answer is not None:
            with contextlib.suppress(OSError):
                handler.wfile.write(answer(body))
            handler.close_connection = True
            return
        status, kind, text = self._asked(handler, body)
        handler.send_response(status)
        handler.send_header("content-type", kind)
        handler.send_header("content-length", str(len(text)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(text)

    def _chosen_for(self, method: str, path: str) -> Answer | None:
        with self._lock:
            if self._chosen is None:
                return None
            chosen, answer, times = self._chosen
            if self.spoilt >= times or not chosen(method, path.partition("?")[0]):
                return None
            self.spoilt += 1
            return answer

    def _asked(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection(self._upstream.hostname or "", self._upstream.port)
        headers = {"content-type": handler.headers.get("content-type", "application/json")}
        connection.request(handler.command, handler.path, body=body or None, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, answer.headers.get("content-type", "text/plain"), text


def response(body: bytes, *, status: str = "200 OK", headers: str = "content-type: application/json") -> bytes:
    """Return a whole response."""
    return b"HTTP/1.1 %b\r\n%b\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (
        status.encode(),
        headers.encode(),
        len(body),
        body,
    )
