"""An HTTP(S) server that looks at each request, then asks a real OpenSearch, or answers itself."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict
    body: bytes
    client: str | None  # the name in the client's certificate


@dataclass
class Refusal:
    """What a gate answers instead of passing a request on."""

    status: int
    body: bytes = b""
    headers: dict = field(default_factory=dict)


class StandIn:
    """An HTTP(S) server that lets *gate* look at each request, then asks the real OpenSearch."""

    def __init__(self, upstream, gate=lambda asked: None, context=None):
        self.upstream, self.gate = urlsplit(upstream), gate
        self.seen: list[Asked] = []
        self.connections = 0
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self):
                stand_in.connections += 1
                super().setup()

            def serve(self):
                stand_in.answer(self)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = serve  # noqa: N815

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                connection, address = super().get_request()
                if context:
                    connection = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                return connection, address

            def finish_request(self, request, client_address):
                # In the connection's own thread, so that a client that turns away stops nobody.
                with contextlib.suppress(OSError):
                    if context:
                        request.do_handshake()
                    super().finish_request(request, client_address)

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.scheme = "https" if context else "http"
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self):
        return f"{self.scheme}://localhost:{self.port}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, handler):
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        asked = Asked(handler.command, handler.path, {k.lower(): v for k, v in handler.headers.items()}, body, None)
        if isinstance(handler.connection, ssl.SSLSocket) and (shown := handler.connection.getpeercert()):
            asked.client = dict(pair[0] for pair in shown["subject"])["commonName"]
        self.seen.append(asked)
        answer = self.gate(asked) or self.forward(asked)
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(answer.body)))
        handler.end_headers()
        if asked.method != "HEAD":
            handler.wfile.write(answer.body)

    def forward(self, asked):
        connection = http.client.HTTPConnection(self.upstream.hostname, self.upstream.port)
        kept = {name: asked.headers[name] for name in ("content-type", "content-encoding") if name in asked.headers}
        connection.request(asked.method, asked.path, body=asked.body or None, headers=kept)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return Refusal(answer.status, body, {"content-type": answer.headers.get("content-type", "text/plain")})
