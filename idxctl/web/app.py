"""The application: each request through limits and access to a route, and every answer with the same headers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from idxctl.core.to_json import as_json
from idxctl.web import limits, parameters
from idxctl.web.auth import SAFE, Access
from idxctl.web.backend import Backend
from idxctl.web.description import description
from idxctl.web.doors import Doors
from idxctl.web.problems import Problem, of_error
from idxctl.web.routes import ENDPOINTS, Answer, Endpoint, longest


class _LetterNumber(Convertor[int]):
    """A letter's number as PostgreSQL has them: one with thousands of digits is nothing that there is, and no fault of ours."""

    regex = "[0-9]{1,19}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("letter", _LetterNumber())
Handler = Callable[[Request], Awaitable[Response]]
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'"),
    (b"referrer-policy", b"no-referrer"),
]


def make(backend: Backend, access: Access) -> ASGIApp:
    """Return the application."""
    doors = Doors(access, backend.tally, rate=backend.settings.http.rate_limit)
    routes = [_route(backend, doors, endpoint) for endpoint in ENDPOINTS]
    routes += [
        Route("/livez", _told(_livez), methods=["GET"]),
        Route("/readyz", _told(_readyz(backend)), methods=["GET"]),
        Route("/metrics", _told(_metrics(backend, doors)), methods=["GET"]),
        Route("/openapi.json", _told(_description(doors)), methods=["GET"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _not_routed})
    app.router.redirect_slashes = False
    return _with_headers(app)


def _with_headers(app: ASGIApp) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        await app(scope, receive, headed)

    return answer


def _told(handler: Handler) -> Handler:
    """Have a handler's errors answered as problems: none of them leaves as a bare 500."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except asyncio.CancelledError:  # the server stops, and has waited as long as it does
            return Problem(
                503,
                "this server is shutting down; what was asked goes on in the queue, if it had begun",
                headers={"Retry-After": "5"},
            ).response()
        except Exception as error:  # noqa: BLE001 - the boundary of the server: a bug is one request's, and logged
            return of_error(error).response()

    return answer


async def _not_routed(_request: Request, error: Exception) -> Response:
    """404 for a path that there is not, 405 for a method it does not know."""
    assert isinstance(error, HTTPException)
    what = {404: "there is nothing at this path", 405: "this path does not take that method"}
    return Problem(error.status_code, what.get(error.status_code, error.detail), headers=error.headers).response()


def _route(backend: Backend, doors: Doors, endpoint: Endpoint) -> Route:
    async def answer(request: Request) -> Response:
        who = doors.admit(request)
        body = b"" if endpoint.method in SAFE else await limits.body(request, backend.settings.http.max_body)
        media = request.headers.get("content-type", "")
        given = parameters.read(endpoint.parameters, request.query_params.multi_items(), body, media)
        given.update(request.path_params)
        among = "waits" if endpoint.waits else "asked"
        found = await backend.call(lambda: endpoint.act(backend, who, given), among=among, patience=longest(endpoint))
        status, value = (found.status, found.value) if isinstance(found, Answer) else (200, found)
        return _json(value, status)

    path = endpoint.path
    for place in endpoint.places:
        path = path.replace(f"{{{place.name}}}", f"{{{place.name}:{place.convertor}}}")
    return Route(path, _told(answer), methods=[endpoint.method])


async def _livez(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


def _readyz(backend: Backend) -> Handler:
    async def answer(_request: Request) -> Response:
        reasons = await backend.call(backend.unready, among="probes")
        if reasons:
            raise Problem(503, "; ".join(reasons), ready=False, headers={"Retry-After": "5"})
        found = await backend.call(backend.to_look_at, among="probes")
        return _json({"ready": True, **({"reasons": found} if found else {})})

    return answer


def _metrics(backend: Backend, doors: Doors) -> Handler:
    async def answer(request: Request) -> Response:
        doors.admit_scrape(request)
        accept = request.headers.get("accept", "")
        page, media_type = await backend.call(lambda: backend.exporter.scrape(accept), among="probes")
        return Response(page, headers={"Content-Type": media_type})

    return answer


def _description(doors: Doors) -> Handler:
    async def answer(request: Request) -> Response:
        doors.admit(request)
        return _json(description())

    return answer


def _json(value: Any, status: int = 200) -> Response:
    return Response(as_json(value), status, media_type="application/json")
