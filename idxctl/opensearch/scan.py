"""Reads over a whole index, or over many documents: ids by scroll, sources by ``_mget``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from idxctl.core.errors import IdxctlError
from idxctl.opensearch.client import Client

_PAGE = 5000
_KEEP = "2m"


def ids(client: Client, index: str) -> Iterator[list[str]]:
    """
    Yield pages of the ids of every document that *index* holds as of its last refresh.

    A scroll sorted by ``_doc`` is right on 2.x and 3.x; a point in time sorted by ``_doc`` alone silently loses documents.
    """
    body = {"size": _PAGE, "_source": False, "sort": ["_doc"], "query": {"match_all": {}}}
    params = {"scroll": _KEEP, "filter_path": "_scroll_id,hits.hits._id"}
    answer = client.request("POST", f"/{index}/_search", params=params, body=body)
    scroll = answer.get("_scroll_id")
    try:
        while hits := answer.get("hits", {}).get("hits"):
            yield [hit["_id"] for hit in hits]
            answer = client.request(
                "POST",
                "/_search/scroll",
                params={"filter_path": "_scroll_id,hits.hits._id"},
                body={"scroll": _KEEP, "scroll_id": scroll},
            )
            scroll = answer.get("_scroll_id", scroll)
    finally:
        if scroll:
            with contextlib.suppress(IdxctlError):  # it ends by itself
                client.request("DELETE", "/_search/scroll", body={"scroll_id": [scroll]})


def sources_text(
    client: Client, index: str, wanted: Sequence[bytes], *, routings: Mapping[bytes, bytes] | None = None
) -> bytes:
    """
    Return the unparsed answer of a realtime ``_mget`` for ids given as JSON strings, in their order.

    OpenSearch passes a source on as the very bytes it was sent, so equal documents can be seen equal without parsing.
    """
    if routings:
        ways = {one: way for one, way in routings.items() if way != b"null"}
        docs = [b'{"_id":' + one + (b',"routing":' + ways[one] if one in ways else b"") + b"}" for one in wanted]
        body = b'{"docs":[' + b",".join(docs) + b"]}"
    else:
        body = b'{"ids":[' + b",".join(wanted) + b"]}"
    answer: str = client.raw("POST", f"/{index}/_mget", params={"realtime": "true"}, body=body)
    return answer.encode()


def parse_sources(answer: bytes) -> list[tuple[str, Mapping[str, Any] | None, int | None]]:
    """Return (id, source or None, version) of each document of an ``_mget`` answer."""
    docs = parse(answer)["docs"]
    return [(doc["_id"], doc.get("_source") if doc.get("found") else None, doc.get("_version")) for doc in docs]


def parse(text: bytes) -> Any:
    """Parse JSON as generous as PostgreSQL's and OpenSearch's: with half of a surrogate pair, or a number beyond a double."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def count(client: Client, index: str) -> int:
    """Return how many documents *index* holds as of its last refresh; nested ones do not count."""
    return int(client.request("GET", f"/{index}/_count")["count"])
