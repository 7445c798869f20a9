"""
An independent judge: every document of an index against its row, in both directions.

It reads the document query and the index by itself and takes nothing from idxctl but the text of the query.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import psycopg

PATIENCE_SECONDS = 60.0
TOO_MANY = 429


def differences(
    database: str,
    query: str,
    opensearch: str,
    index: str,
    *,
    but: frozenset[str] | set[str] = frozenset(),
    name: Callable[[tuple], str] = lambda row: str(row[0]),
) -> list[str]:
    """
    Return a sentence for each document of *index* that is not its row: missing, stale or without a row.

    *but* are ids that need not agree. *name* makes the id of a row that has more than document_id and document.
    """
    rows = dict(_rows(database, query, name))
    held = dict(held_documents(opensearch, index))
    found = []
    for one in sorted(rows.keys() | held.keys() - but):
        if one in but:
            continue
        if one not in held:
            found.append(f"{one} is missing")
        elif one not in rows:
            found.append(f"{one} has no row")
        elif rows[one] != held[one]:
            fields = [f for f in rows[one].keys() | held[one].keys() if rows[one].get(f) != held[one].get(f)]
            found.append(
                f"{one} is stale in "
                + ", ".join(f"{f}: {held[one].get(f)!r}, row {rows[one].get(f)!r}" for f in fields)
            )
    return found


def _rows(database: str, query: str, name: Callable[[tuple], str]) -> Iterator[tuple[str, dict]]:
    with psycopg.connect(database, client_encoding="utf8") as connection, connection.cursor(name="judge") as cursor:
        cursor.itersize = 5000
        cursor.execute(query.encode())
        for row in cursor:
            if row[-1] is not None:
                yield name(row), row[-1]


def held_documents(opensearch: str, index: str) -> Iterator[tuple[str, dict]]:
    """Yield id and source of every document that *index* holds."""
    call(opensearch, "POST", f"/{index}/_refresh")
    page = _page(call(opensearch, "POST", f"/{index}/_search?scroll=1m", {"size": 2000, "sort": ["_doc"]}))
    try:
        while page["hits"]["hits"]:
            for hit in page["hits"]["hits"]:
                yield hit["_id"], hit["_source"]
            again = {"scroll": "1m", "scroll_id": page["_scroll_id"]}
            page = _page(call(opensearch, "POST", "/_search/scroll", again))
    finally:  # also when whoever reads has seen enough: a node keeps 500 scrolls at the most
        call(opensearch, "DELETE", "/_search/scroll", {"scroll_id": page["_scroll_id"]})


def _page(answer: dict) -> dict:
    if "hits" not in answer:
        raise AssertionError(f"OpenSearch does not answer the judge: {json.dumps(answer)[:1000]}")
    return answer


def call(opensearch: str, method: str, path: str, body: object = None):
    """
    Ask OpenSearch; returns its answer, also when that is an error.

    A 429 is asked again: the node that all tests share has a small heap, and what one test put into it is none of the judge's.
    """
    deadline, pause = time.monotonic() + PATIENCE_SECONDS, threading.Event()
    while True:
        status, answer = _asked(opensearch, method, path, body)
        if status != TOO_MANY or time.monotonic() > deadline:
            return answer
        pause.wait(0.5)


def _asked(opensearch: str, method: str, path: str, body: object) -> tuple[int, dict]:
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(opensearch + path, method=method, data=data)
    request.add_header("Content-Type", "application/x-ndjson" if isinstance(body, bytes) else "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
