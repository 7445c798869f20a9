"""
Every document of an index, by ranges of sequence numbers, from the newest to the oldest.

Each shard numbers its writes; a document has the number of its last one. So the numbers of a range stand for at most as many
documents, a range can be asked for again, by anyone and in any order, and no scroll or point in time has to be kept alive or
given back. It costs OpenSearch what a scroll does. A document that is written meanwhile gets a number beyond all ranges:
it is not seen, or was seen before. Nothing is seen as it never was.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from idxctl.opensearch import hits
from idxctl.opensearch.client import Client, segment
from idxctl.opensearch.hits import Hit

_MOST_BYTES = 256 * 1024 * 1024  # of one answer: a document may be as large as 100 MB


@dataclass(frozen=True)
class Span:
    """Sequence numbers of one shard, from *first* to *last*, both included."""

    shard: int
    first: int
    last: int

    def halves(self) -> tuple[Span, Span] | None:
        """Cut it in two, the newer half first; None for a single number."""
        if self.first == self.last:
            return None
        middle = (self.first + self.last) // 2
        return Span(self.shard, middle + 1, self.last), Span(self.shard, self.first, middle)


def newest(client: Client, index: str, shard: int) -> int | None:
    """Return the greatest sequence number of the documents of *shard* as of its last refresh; None where it has none."""
    body = {"size": 1, "_source": False, "track_total_hits": True, "sort": [{"_seq_no": "desc"}]}
    path, params = _at(index, shard)
    return client.ask("POST", path, hits.newest, params=params, body=body, repeat=True)


def spans(upto: Sequence[int | None], at_once: Callable[[], int]) -> Iterator[Span]:
    """
    Yield the ranges of an index, the newest first; *upto*: by shard, its `newest`.

    Shards are gone through side by side, so what was written together is read together. *at_once*: how many numbers the next
    range may have; it is asked again for each.
    """

    def of_shard(shard: int, newest_: int) -> Iterator[tuple[float, Span]]:
        last = newest_
        while last >= 0:
            first = max(last - max(at_once(), 1) + 1, 0)
            yield 1 - last / (newest_ + 1), Span(shard, first, last)
            last = first - 1

    ways = [of_shard(shard, newest_) for shard, newest_ in enumerate(upto) if newest_ is not None]
    return (span for _, span in heapq.merge(*ways, key=lambda pair: pair[0]))


def read(client: Client, index: str, span: Span, *, sources: bool) -> Sequence[Hit]:
    """
    Return the documents whose sequence numbers lie in *span*, as of the last refresh, in no order.

    Raises what `Client.ask` raises; an answer that lacks a document is none, and one of more than 256 MB is not read.
    """
    numbers = {"gte": span.first, "lte": span.last}
    # No filter_path here: it would have OpenSearch parse each source and print it again, not as it was sent.
    body = {
        "size": span.last - span.first + 1,
        "query": {"bool": {"filter": {"range": {"_seq_no": numbers}}}},
        "sort": ["_doc"],
        "version": True,
        "_source": sources,
        "track_total_hits": True,
    }
    path, params = _at(index, span.shard)
    return client.ask("POST", path, hits.documents, params=params, body=body, most_bytes=_MOST_BYTES, repeat=True)


def _at(index: str, shard: int) -> tuple[str, dict[str, str]]:
    """Return the path and the parameters of a search of one shard."""
    return f"/{segment(index)}/_search", {"preference": f"_shards:{shard}"}
