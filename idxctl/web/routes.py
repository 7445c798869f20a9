"""Every path that is answered: what it takes, who may ask it, and the function of the engine behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from idxctl import dlq
from idxctl.core.actor import Actor
from idxctl.core.errors import UsageError
from idxctl.doctor import look
from idxctl.indexes import names
from idxctl.postgres.connect import Connection
from idxctl.queue import stats
from idxctl.status import views
from idxctl.status.overview import overview
from idxctl.web.auth import Who
from idxctl.web.backend import Backend, Given
from idxctl.web.parameters import Parameter, cursor
from idxctl.web.problems import Problem
from idxctl.worker import registry

_ROOT = "/api/v1/admin"
_LONGEST_ID = 4096  # characters of a document's id; dead letters name some that no index takes
_LONGEST_WAIT = timedelta(minutes=5)
_DEFAULT_WAIT = timedelta(seconds=30)

INDEX = Parameter("index", "text", "Only this index.")
ERROR = Parameter("error", "text", "Only letters of this group of errors, by its fingerprint.")
DOCUMENT = Parameter("document", "text", "Only letters of this document, by its id.")
OLDER_THAN = Parameter("older_than", "duration", "Only letters created longer ago.")
IDS = Parameter("id", "ids", "Letters by number; may be repeated.")
DRY_RUN = Parameter("dry_run", "flag", "Say what would be done, and do nothing.", default=False)
_SELECTORS = (INDEX, ERROR, DOCUMENT, OLDER_THAN, IDS)


@dataclass(frozen=True)
class Answer:
    """What a route answers, when it is not 200."""

    status: int
    value: Any


@dataclass(frozen=True)
class Place:
    """A part of a path that varies: how the router reads it, and what it may be, as JSON Schema."""

    name: str
    convertor: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Endpoint:
    """One path with its method; ``answer`` names the schema of what it returns."""

    method: str
    path: str
    summary: str
    act: Callable[[Backend, Who, Given], Any]
    answer: str
    parameters: tuple[Parameter, ...] = ()
    waits: bool = False  # it may take as long as the client says
    places: tuple[Place, ...] = ()


def _status(backend: Backend, _who: Who, _given: Given) -> Any:
    conn = backend.connection()
    shown = views.indexer(
        stats.stats(conn, known=backend.settings.indexes),
        registry.alive(conn),
        capacity=backend.settings.worker.queue_size,
    )
    return {**shown, "healthy": shown["healthy"] and not backend.stopping}


def _asked(backend: Backend, given: Given) -> Connection:
    """Return a connection, after the index that was asked for was found to be one that someone knows."""
    conn = backend.connection()
    try:
        names.check_known(conn, backend.settings, given["index"])
    except UsageError as error:
        raise Problem(400, error.message, field="index", hint=error.hint) from None
    return conn


def _dlq_stats(backend: Backend, _who: Who, given: Given) -> Any:
    return dlq.stats(_asked(backend, given), index=given["index"])


def _selection(given: Given) -> dlq.Selection:
    documents = None if given["document"] is None else (given["document"],)
    return dlq.Selection(given["index"], given["error"], given["id"], given["older_than"], documents)


def _letters(backend: Backend, _who: Who, given: Given) -> Any:
    limit = given["limit"]
    found = dlq.letters(_asked(backend, given), _selection(given), limit=limit + 1, after=given["cursor"])
    page = found[:limit]
    following = cursor((page[-1].last_attempt_at, page[-1].id)) if len(found) > limit else None
    return {"letters": page, "next_cursor": following}


def _letter(backend: Backend, _who: Who, given: Given) -> Any:
    found = dlq.show(backend.connection(), str(given["number"]))
    if found is None:
        raise Problem(404, f"there is no dead letter {given['number']}", hint="one that was indexed since is gone")
    return found


def _retry(backend: Backend, who: Who, given: Given) -> Any:
    chosen, limit = _selection(given), given["limit"]
    conn = _asked(backend, given)
    if given["dry_run"]:
        return dlq.plan_retry(conn, chosen, limit=limit)
    timeout = min(given["timeout"] or _DEFAULT_WAIT, _LONGEST_WAIT)
    try:
        with backend.own_pool(who.name) as pool:
            return dlq.retry(
                pool,
                backend.opensearch,
                backend.settings,
                chosen,
                limit=limit,
                wait=given["wait"],
                timeout=timeout,
                tally=backend.tally,
            )
    except dlq.NotSettled as error:  # the letters are in the queue, and someone will index them
        return Answer(202, error.done)


def _purge(backend: Backend, who: Who, given: Given) -> Any:
    chosen = _selection(given)
    if chosen.empty and not given["all"]:
        raise Problem(
            400,
            "which letters? a purge takes older_than, error, document, index or id",
            field="older_than",
            hint="older_than=7d, or all=true for all of them",
        )
    conn = _asked(backend, given)
    if given["dry_run"]:
        return dlq.plan_purge(conn, chosen, everything=given["all"])
    with conn.acting(Actor("http", who.name)):
        return dlq.purge(conn, chosen, everything=given["all"])


def _queue(backend: Backend, _who: Who, given: Given) -> Any:
    seen = overview(_asked(backend, given), backend.settings, backend.looks, index=given["index"])
    return views.queue(seen.found, seen.workers, seen.conditions, seen.proved)


def _workers(backend: Backend, _who: Who, _given: Given) -> Any:
    return {"workers": [views.worker(one) for one in registry.alive(backend.connection())]}


def _document(backend: Backend, _who: Who, given: Given) -> Any:
    index, document_id = given["index"], given["document"]
    if not 0 < len(document_id) <= _LONGEST_ID:
        raise Problem(400, f"an id has 1 to {_LONGEST_ID:,} characters", field="document")
    conn = backend.connection()
    try:
        names.the_index(conn, backend.settings, index)
    except UsageError as error:
        raise Problem(404, error.message, field="index", hint=error.hint) from None
    with backend.opensearch() as client:
        return look.explain(conn, client, backend.settings, backend.looks, index, document_id).shown()


_NUMBER = Place("number", "letter", {"type": "integer", "minimum": 1, "maximum": 10**18 - 1})
_INDEX_NAME = Place("index", "str", {"type": "string", "minLength": 1})
_DOCUMENT_ID = Place("document", "path", {"type": "string", "minLength": 1, "maxLength": _LONGEST_ID})

ENDPOINTS = (
    Endpoint("GET", f"{_ROOT}/indexer/status", "Whether indexing keeps up.", _status, "Indexer"),
    Endpoint("GET", f"{_ROOT}/queue/stats", "What waits, by index, and why it does not move.", _queue, "Queue", (INDEX,)),
    Endpoint("GET", f"{_ROOT}/workers", "The workers that run, on every host.", _workers, "Workers"),
    Endpoint("GET", f"{_ROOT}/dlq/stats", "Dead letters in groups that failed alike.", _dlq_stats, "DeadLetters", (INDEX,)),
    Endpoint(
        "POST",
        f"{_ROOT}/dlq/retry",
        "Put letters back into the queue, the least recently attempted first. Without a live worker they are indexed here, "
        "and the answer says what became of them; 202 when that takes longer than the timeout.",
        _retry,
        "Retried",
        (
            Parameter("limit", "count", "Most letters to retry.", default=100, most=10_000),
            *_SELECTORS,
            Parameter("wait", "flag", "With workers running: wait, and report what became of them.", default=False),
            Parameter("timeout", "duration", "How long to wait: 30s, five minutes at most."),
            DRY_RUN,
        ),
        waits=True,
    ),
    Endpoint(
        "POST",
        f"{_ROOT}/dlq/purge",
        "Delete letters for good. Needs a selector, or all=true.",
        _purge,
        "Purged",
        (*_SELECTORS, Parameter("all", "flag", "All of them.", default=False), DRY_RUN),
    ),
    Endpoint(
        "GET",
        f"{_ROOT}/dlq",
        "Letters, the newest failure first, page by page.",
        _letters,
        "Letters",
        (
            *_SELECTORS,
            Parameter("limit", "count", "Letters of a page.", default=20, most=1000),
            Parameter("cursor", "cursor", "next_cursor of the page before."),
        ),
    ),
    Endpoint("GET", f"{_ROOT}/dlq/{{number}}", "One letter with its past.", _letter, "LetterInFull", places=(_NUMBER,)),
    Endpoint(
        "GET",
        f"{_ROOT}/documents/{{index}}/{{document}}",
        "One document in one look: whether it is equal to its row, and if not, why. Its id is URL-encoded, slashes included.",
        _document,
        "Document",
        places=(_INDEX_NAME, _DOCUMENT_ID),
    ),
)  # fmt: skip


def longest(endpoint: Endpoint) -> float:
    """Return the seconds after which an answer of this route is given up."""
    return _LONGEST_WAIT.total_seconds() + 60 if endpoint.waits else 30.0
