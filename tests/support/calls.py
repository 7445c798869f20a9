"""A client of idxctl's HTTP, and a server of it in this process over a rig."""

from __future__ import annotations

import contextlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from idxctl.config.settings import Bearer, Settings
from idxctl.core.secret import Secret
from idxctl.web import server

OPERATOR, VIEWER = "operators-token-0123456789", "viewers-token-0123456789"
BEARERS = (Bearer("alice", "operator", Secret(OPERATOR)), Bearer("victor", "viewer", Secret(VIEWER)))
ADMIN = "/api/v1/admin"
GETS = ("/indexer/status", "/queue/stats", "/workers", "/dlq/stats", "/dlq", "/dlq/1", "/openapi.json")
POSTS = ("/dlq/retry", "/dlq/purge?all=true")


@dataclass(frozen=True)
class Answered:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_problem(self) -> bool:
        return self.headers.get("content-type") == "application/problem+json" and self.json["status"] == self.status


class Caller:
    """Asks; *token* is sent unless a request says otherwise."""

    def __init__(self, address: str, token: str | None = None) -> None:
        self.address = address
        self.token = token
        self.answers: list[Answered] = []

    def __call__(
        self,
        method: str,
        path: str,
        body: bytes | dict | None = None,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        token = self.token if token == "" else token
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        if isinstance(body, dict):
            body, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        path = path if path.startswith(("/api", "/live", "/ready", "/metrics", "/openapi", "//")) else ADMIN + path
        request = urllib.request.Request(
            f"http://{self.address}{path}", body, {**sent, **(headers or {})}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                found = Answered(answer.status, _lower(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                found = Answered(error.code, _lower(error.headers), error.read())
        self.answers.append(found)
        return found

    def get(self, path: str, **more: Any) -> Answered:
        return self("GET", path, **more)

    def post(self, path: str, body: bytes | dict | None = None, **more: Any) -> Answered:
        return self("POST", path, body, **more)

    def metrics(self) -> dict[str, float]:
        """Every series with its labels as they are told, such as ``name{index="x"}``."""
        return parse_metrics(self.get("/metrics").body.decode())


def parse_metrics(page: str) -> dict[str, float]:
    lines = [line for line in page.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def names_in(expression: str) -> set[str]:
    """The metrics that a PromQL expression uses."""
    return set(re.findall(r"opensearch_indexing_\w+", expression))


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@contextlib.contextmanager
def served(settings: Settings, *, worker: Any = None, listen: str = "127.0.0.1:0", **http: Any) -> Iterator[Caller]:
    """Serve over *settings*, with ``[http]`` as *http* says; two bearers and no limit to speak of unless it does."""
    given = {"bearers": BEARERS, "rate_limit": 100_000, **http}
    changed = replace(settings, http=replace(settings.http, **given))
    with server.serving(changed, listen=listen, worker=worker) as address:
        yield Caller(address.shown, OPERATOR if given["bearers"] else None)
