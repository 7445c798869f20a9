"""Reads over a whole index, or over many documents: ids by scroll, sources by ``_mget``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from idxctl.core.errors import IdxctlError, OpenSearchUnintelligible
from idxctl.opensearch import answers
from idxctl.opensearch.client import Client

_PAGE = 5000
_KEEP = "2m"
_ASKED = {
    "filter_path": "_scroll_id,timed_out,_shards.total,_shards.successful,_shards.failed,hits.total,hits.hits._id"
}
_MOST_BYTES = (
    256 * 1024 * 1024
)  # of documents read at once: rows of 8 MB were asked for, what an index holds may be larger


def ids(client: Client, index: str) -> Iterator[list[str]]:
    """
    Yield pages of the ids of every document that *index* holds as of its last refresh.

    A scroll sorted by ``_doc`` is right on 2.x and 3.x; a point in time sorted by ``_doc`` alone silently loses documents.
    """
    body = {"size": _PAGE, "_source": False, "track_total_hits": True, "sort": ["_doc"], "query": {"match_all": {}}}
    page = client.ask(
        "POST", f"/{index}/_search", answers.page, params={"scroll": _KEEP, **_ASKED}, body=body, repeat=True
    )
    total, seen = page.total, 0
    try:
        while page.ids:
            seen += len(page.ids)
            if seen > total:
                break  # it may never end, and each id would become a task
            yield page.ids
            # Not repeated: the scroll may have moved on, and a page would be skipped.
            following = {"scroll": _KEEP, "scroll_id": page.scroll}
            page = client.ask("POST", "/_search/scroll", answers.page, params=_ASKED, body=following)
    finally:
        with contextlib.suppress(IdxctlError):  # it ends by itself
            client.ask("DELETE", "/_search/scroll", answers.parsed, body={"scroll_id": [page.scroll]})
    if seen != total:
        raise OpenSearchUnintelligible(
            f"a scroll over {index} ended after {seen:,} of {total:,} documents",
            answered=f"{seen:,} of {total:,} documents",
        )


def sources_text(
    client: Client, index: str, wanted: Sequence[bytes], *, routings: Mapping[bytes, bytes] | None = None
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
    return client.ask(
        "POST",
        f"/{index}/_mget",
        answers.unread,
        params={"realtime": "true"},
        body=body,
        most_bytes=_MOST_BYTES,
        repeat=True,
    )


def count(client: Client, index: str) -> int:
    """Return how many documents *index* holds as of its last refresh; nested ones do not count."""
    return client.ask("GET", f"/{index}/_count", answers.count)
