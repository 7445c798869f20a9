"""The OpenAPI description, made from the table of routes and the engine's own result types."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Any

from idxctl import __version__, dlq
from idxctl.core import conditions
from idxctl.doctor import words
from idxctl.doctor.facts import Facts
from idxctl.queue import stats
from idxctl.web.auth import SAFE
from idxctl.web.problems import MEDIA_TYPE
from idxctl.web.routes import ENDPOINTS, Endpoint

_PLAIN: Mapping[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
    type(None): {"type": "null"},
}


def _schema(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type as `plain_value` turns its values into JSON."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if dataclasses.is_dataclass(kind):
        return _object({name: _schema(one) for name, one in _hints(kind).items()})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [one.value for one in kind]}
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        return {"anyOf": [_schema(one) for one in inner]}
    if origin in {list, tuple, Sequence}:
        return {"type": "array", "items": _schema(inner[0])}
    if origin in {dict, Mapping}:
        return {"type": "object", "additionalProperties": _schema(inner[1])}
    return {}


def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {item.name: hints[item.name] for item in dataclasses.fields(kind)}


def _object(properties: Mapping[str, Any], *, required: Sequence[str] | None = None) -> dict[str, Any]:
    names = list(properties) if required is None else list(required)
    return {"type": "object", "properties": dict(properties), "required": names}


def _schemas() -> dict[str, Any]:
    number, text, count = _PLAIN[float], _PLAIN[str], _PLAIN[int]
    indexer = {
        "status": {"enum": ["enabled", "disabled"]}, "mode": {"enum": ["asynchronous", "synchronous"]},
        "healthy": _PLAIN[bool], "queue_size": count, "queue_capacity": count, "queued": count, "in_flight": count,
        "oldest_age_seconds": {"anyOf": [number, _PLAIN[type(None)]]}, "dead": count, "workers": count, "circuits_open": count,
        "paused": {"type": "array", "items": text},
    }  # fmt: skip
    queue = _schema(stats.QueueStats)
    worker = {
        "worker": text,
        "host": text,
        "pid": count,
        "version": text,
        "state": text,
        "threads": count,
        "breaker": text,
    }
    return {
        "Indexer": _object(indexer),
        "Queue": _object(
            {
                **queue["properties"],
                "workers": count,
                "breaker": {"type": ["object", "null"]},
                "states": {"type": "object", "additionalProperties": text},
                "conditions": _conditions(),
            }
        ),
        "Document": _object({**_schema(Facts)["properties"], "verdict": _verdict(), "conditions": _conditions()}),
        "Workers": _object({"workers": {"type": "array", "items": _object(worker)}}),
        "DeadLetters": _schema(dlq.Stats),
        "Letters": _object(
            {
                "letters": {"type": "array", "items": {"$ref": "#/components/schemas/Letter"}},
                "next_cursor": _schema(str | None),
            }
        ),
        "Letter": _schema(dlq.Letter),
        "LetterInFull": _schema(dlq.LetterInFull),
        "Retried": _schema(dlq.Retried),
        "Purged": _schema(dlq.Purged),
        "Ready": _object({"ready": _PLAIN[bool], "reasons": {"type": "array", "items": text}}, required=("ready",)),
        "Problem": _object(
            {"type": text, "title": text, "status": count, "detail": text, "field": text, "hint": text},
            required=("type", "title", "status", "detail"),
        ),
    }


def _verdict() -> dict[str, Any]:
    text = _PLAIN[str]
    kinds, states = _schema(words.Kind), _schema(conditions.State)
    return _object(
        {"kind": kinds, "state": states, "reason": text, "fix": _schema(str | None), "facts": {"type": "object"}}
    )


def _conditions() -> dict[str, Any]:
    text = _PLAIN[str]
    one = {
        "kind": text, "index": _schema(str | None), "group": text, "state": text, "reason": text,
        "since": {"type": ["string", "null"], "format": "date-time"}, "fix": _schema(str | None), "facts": {"type": "object"},
    }  # fmt: skip
    return {"type": "array", "items": _object(one)}


def _json(name: str, media: str = "application/json") -> dict[str, Any]:
    return {"content": {media: {"schema": {"$ref": f"#/components/schemas/{name}"}}}}


def _problems(*statuses: int) -> dict[str, Any]:
    return {str(one): {"$ref": "#/components/responses/Problem"} for one in statuses}


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": endpoint.summary.partition(". ")[0].rstrip("."),
        "description": endpoint.summary,
        "operationId": endpoint.act.__name__.strip("_"),
        "parameters": [
            {"name": one.name, "in": "query", "description": one.help, "schema": one.schema()}
            for one in endpoint.parameters
        ],
        "responses": {
            "200": {"description": "Done.", **_json(endpoint.answer)},
            **_problems(400, 401, 403, 405, 429, 503),
        },
    }
    if endpoint.places:
        described["parameters"][:0] = [
            {"name": one.name, "in": "path", "required": True, "schema": dict(one.schema)} for one in endpoint.places
        ]
        described["responses"].update(_problems(404))
    if endpoint.method not in SAFE:
        properties = {one.name: {**one.schema(), "description": one.help} for one in endpoint.parameters}
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        described["requestBody"] = {
            "description": "The same parameters, if they do not stand in the query.",
            "content": {"application/json": {"schema": schema}},
        }
        described["responses"].update(_problems(408, 409, 413, 415))
    if endpoint.waits:
        described["responses"]["202"] = {
            "description": "In the queue, and not all settled yet.",
            **_json(endpoint.answer),
        }
    # On loopback reading needs no token.
    described["security"] = [{"bearer": []}] if endpoint.method not in SAFE else [{}, {"bearer": []}]
    return described


def _probes() -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    ready = {"200": {"description": "Ready.", **_json("Ready")}, **_problems(405, 503)}
    return {
        "/livez": {"get": {"summary": "The process lives; no server is asked", "operationId": "livez", "security": [],
                           "responses": {"200": {"description": "It lives.", "content": text}, **_problems(405)}}},
        "/readyz": {"get": {"summary": "Documents can be indexed now, or why not", "operationId": "readyz", "security": [],
                            "responses": ready}},
        "/metrics": {"get": {"summary": "Metrics for Prometheus", "operationId": "metrics", "security": [],
                             "responses": {"200": {"description": "All metrics.", "content": text}, **_problems(405, 429, 503)}}},
    }  # fmt: skip


@lru_cache(maxsize=1)
def description() -> dict[str, Any]:
    """Return the whole of it, OpenAPI 3.1."""
    paths: dict[str, Any] = _probes()
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    problem = {"description": "What is wrong, and where.", **_json("Problem", MEDIA_TYPE)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "idxctl", "version": __version__, "description": "Operate the indexing of PostgreSQL into OpenSearch."},
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "responses": {"Problem": problem},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }  # fmt: skip
