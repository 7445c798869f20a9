"""Errors as ``application/problem+json`` (RFC 9457), one shape for all of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from idxctl.core.errors import (
    IdxctlError,
    Locked,
    PostgresRefused,
    Refused,
    SchemaError,
    Unreachable,
    UsageError,
)

log = logging.getLogger("idxctl.http")
MEDIA_TYPE = "application/problem+json"
_LATER = {"Retry-After": "5"}


class Problem(Exception):  # noqa: N818 - the name that the RFC gives it
    """An answer that is an error: *field* is what the client must change, *more* are further members."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})
        given = {"detail": detail, "field": field, "hint": hint, **more}
        self.members = {name: value for name, value in given.items() if value is not None}

    def response(self) -> Response:
        """Return it as it is sent."""
        title = HTTPStatus(self.status).phrase
        body = {"type": "about:blank", "title": title, "status": self.status, **self.members}
        return Response(orjson.dumps(body), self.status, self.headers, MEDIA_TYPE)


def of_error(error: Exception) -> Problem:
    """
    Return the problem that an error of the engine is: the client's, a server's that is away, or a bug.

    Messages of ours carry no secret; those of others are not passed on.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, UsageError):
        return Problem(400, error.message, hint=error.hint)
    if isinstance(error, Locked):
        return Problem(409, error.message, hint=error.hint)
    if isinstance(error, PostgresRefused) and error.sqlstate.startswith("22"):
        return Problem(400, f"a value cannot be used: {error.detail}")
    passing = isinstance(error, PostgresRefused) and error.passing
    if passing or isinstance(error, (Unreachable, SchemaError)):
        assert isinstance(error, IdxctlError)
        return Problem(503, error.message, hint=error.hint, headers=_LATER)
    if isinstance(error, Refused):
        log.error("%s", error.message)
        return Problem(500, error.message, hint=error.hint)
    log.error("internal error: %s", type(error).__name__, exc_info=log.isEnabledFor(logging.DEBUG) and error)
    return Problem(500, f"internal error: {type(error).__name__}", hint="this is a bug in idxctl; its log says more")
