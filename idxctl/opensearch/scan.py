"""Reads over a whole index, or over many documents: ids by scroll, sources by ``_mget``; and the end of one copy of a document."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from idxctl.core.errors import IdxctlError, OpenSearchRefused, OpenSearchUnintelligible
from idxctl.opensearch import answer_parts, answers
from idxctl.opensearch.answers import Hit
from idxctl.opensearch.client import Client, segment

_PAGE = 5000
KEPT_SECONDS = 120.0
_KEEP = f"{KEPT_SECONDS:.0f}s"
_ASKED = {
    "filter_path": "_scroll_id,timed_out,_shards.total,_shards.successful,_shards.failed,hits.total,hits.hits._id,hits.hits._routing"
}
_MOST_COPIES = 20
_NO_FIELD = "\0"  # of which no document has one
_MOST_BYTES = (
    256 * 1024 * 1024
)  # of documents read at once: rows of 8 MB were asked for, what an index holds may be larger


@dataclass(frozen=True)
class Slice:
    """One of *of* parts of an index's documents, from 0; together they are all of them."""

    number: int
    of: int


def ids(client: Client, index: str) -> Iterator[list[str]]:
    """Yield pages of the ids of every document that *index* holds as of its last refresh."""
    for page in hits(client, index):
        yield [one.document_id for one in page]


def hits(client: Client, index: str, *, part: Slice | None = None, page_size: int = _PAGE) -> Iterator[list[Hit]]:
    """
    Yield pages of every document that *index* holds as of its last refresh, or those of a *part*, without their sources.

    The next page is to be asked for within `KEPT_SECONDS`. A scroll sorted by ``_doc`` is right on 2.x and 3.x; a point in time
    sorted by ``_doc`` alone silently loses documents.
    """
    body: dict[str, Any] = {
        "size": page_size, "_source": False, "track_total_hits": True, "sort": ["_doc"], "query": {"match_all": {}},
    }  # fmt: skip
    if part is not None and part.of > 1:
        body["slice"] = {"id": part.number, "max": part.of}
    page = client.ask(
        "POST", f"/{index}/_search", answers.page, params={"scroll": _KEEP, **_ASKED}, body=body, repeat=True
    )
    total, seen = page.total, 0
    try:
        while page.hits:
            seen += len(page.hits)
            if seen > total:
                break  # it may never end, and each id would become a task
            yield page.hits
            # Not repeated: the scroll may have moved on, and a page would be skipped.
            following = {"scroll": _KEEP, "scroll_id": page.scroll}
            page = client.ask("POST", "/_search/scroll", answers.page, params=_ASKED, body=following)
    finally:
        with contextlib.suppress(IdxctlError):  # it ends by itself
            client.ask("DELETE", "/_search/scroll", answer_parts.parsed, body={"scroll_id": [page.scroll]})
    if seen != total:
        raise OpenSearchUnintelligible(
            f"a scroll over {index} ended after {seen:,} of {total:,} documents",
            answered=f"{seen:,} of {total:,} documents",
        )


def sources_text(
    client: Client,
    index: str,
    wanted: Sequence[bytes],
    *,
    routings: Mapping[bytes, bytes] | None = None,
    timeout_seconds: float | None = None,
) -> answers.Sources:
    """
    Return the answer of a realtime ``_mget`` for ids given as JSON strings, in their order, as bytes that are read when asked.

    OpenSearch passes a source on as the very bytes it was sent, so equal documents can be seen equal without parsing.
    """
    if routings:
        ways = {one: way for one, way in routings.items() if way != b"null"}
        docs = [b'{"_id":' + one + (b',"routing":' + ways[one] if one in ways else b"") + b"}" for one in wanted]
        body = b'{"docs":[' + b",".join(docs) + b"]}"
    else:
        body = b'{"ids":[' + b",".join(wanted) + b"]}"
    return _mget(client, index, body, timeout_seconds)


def copies(client: Client, index: str, places: Sequence[tuple[str, str | None]]) -> list[answers.Source]:
    """Return what stands now under each id and routing, in their order, with an empty source; None and "" are no routing."""
    if not places:
        return []
    docs = [
        {"_id": name, "_source": [_NO_FIELD], **({"routing": routing} if routing else {})} for name, routing in places
    ]
    return _mget(client, index, orjson.dumps({"docs": docs})).read([name for name, _ in places])


def _mget(client: Client, index: str, body: bytes, timeout_seconds: float | None = None) -> answers.Sources:
    return client.ask(
        "POST",
        f"/{index}/_mget",
        answers.unread,
        params={"realtime": "true"},
        body=body,
        most_bytes=_MOST_BYTES,
        repeat=True,
        timeout_seconds=timeout_seconds,
    )


def everywhere(client: Client, index: str, document_id: str, *, timeout_seconds: float) -> list[Hit]:
    """
    Return every copy of a document that *index* holds as of its last refresh, whatever routing it was written under.

    There is one in each shard at the most; a read by the id finds that of one routing alone.
    """
    body = {"size": _MOST_COPIES, "_source": False, "query": {"ids": {"values": [document_id]}}}
    return client.ask(
        "POST",
        f"/{index}/_search",
        answers.hits,
        params=_ASKED,
        body=body,
        repeat=True,
        timeout_seconds=timeout_seconds,
    )


def count(client: Client, index: str) -> int:
    """Return how many documents *index* holds as of its last refresh; nested ones do not count."""
    return client.ask("GET", f"/{index}/_count", answers.count)


def remove(client: Client, index: str, document_id: str, *, routing: str | None, place: tuple[int, int]) -> bool:
    """Delete the copy of a document that stands at *place*, under *routing* or none; False where it is no longer there."""
    number, term = place
    params: dict[str, Any] = {"if_seq_no": number, "if_primary_term": term}
    if routing is not None:
        params["routing"] = routing
    try:
        client.ask("DELETE", f"/{index}/_doc/{segment(document_id)}", answer_parts.parsed, params=params)
    except OpenSearchRefused as error:
        if error.status in {404, 409}:
            return False
        raise
    return True
