"""
Documents against rows: which ids of the index have no row, and which documents stand where their id does not belong.

The index is read in slices, so that several processes share it and one that is killed loses a slice.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from idxctl.indexes import ids as row_ids
from idxctl.indexes.generations import Generation
from idxctl.opensearch import scan
from idxctl.opensearch.answers import Hit
from idxctl.opensearch.client import Client
from idxctl.opensearch.scan import Slice
from idxctl.postgres.connect import Connection
from idxctl.verify.judge import Judged, Kind

_OF_A_SLICE = 100_000  # documents, about
_MOST_SLICES = 256  # each has OpenSearch look at every id
_PAGE = 5000
_OF_THE_SCROLL = 0.25  # of the time for which a scroll is kept, between two of its pages


@dataclass(frozen=True)
class Page:
    """What a page of ids showed: how many were seen, how many of them were asked for, and what is to be said of some."""

    seen: int
    asked: int
    found: Sequence[tuple[str, Judged]]


def slices(documents: int) -> int:
    """Return in how many slices to read an index of so many documents."""
    return min(max(-(-documents // _OF_A_SLICE), 1), _MOST_SLICES)


def look(
    conn: Connection,
    client: Client,
    generation: Generation,
    *,
    part: Slice | None,
    share: float | None,
    rate: float | None,
    judged: Callable[[Sequence[str]], Mapping[str, Judged]],
) -> Iterator[Page]:
    """
    Yield what the ids of a *part* of the index show: those without a row, and copies of documents under another routing.

    *share*: of a sample, the same ids each time. *rate*: documents a second, which a page must not outlast its scroll by.
    """
    size = _PAGE if rate is None else max(min(_PAGE, int(rate * scan.KEPT_SECONDS * _OF_THE_SCROLL)), 1)
    for hits in scan.hits(client, generation.name, part=part, page_size=size):
        asked = hits if share is None else [one for one in hits if _drawn(one.document_id, share)]
        misplaced = _misplaced(conn, client, generation, asked)
        elsewhere = {(one, said.routing) for one, said in misplaced}
        names = [one.document_id for one in asked if (one.document_id, one.routing) not in elsewhere]
        there = set(row_ids.existing(conn, generation.definition, names))
        said = judged([one for one in names if one not in there])
        # A row that came meanwhile is no orphan; what it differs in, the first pass was to find.
        orphans = [(one, what) for one, what in said.items() if what.kind in {Kind.ORPHAN, Kind.LAGGING}]
        yield Page(len(hits), len(asked), [*orphans, *misplaced])


def _drawn(document_id: str, share: float) -> bool:
    """Whether an id is in a sample of that *share*."""
    return zlib.crc32(document_id.encode(errors="surrogatepass")) < share * 2**32


# --- copies under another routing ------------------------------------------------------------------------------------


def _misplaced(
    conn: Connection, client: Client, generation: Generation, hits: Sequence[Hit]
) -> list[tuple[str, Judged]]:
    """
    Return documents that stand under another routing than idxctl writes their id under (T7).

    No read or write of idxctl's reaches such a copy, and each search finds it beside the document. A search tells of it as of
    the last refresh, so it is looked at once more.
    """
    definition = generation.definition
    if definition.routing is None:
        doubtful = [one for one in hits if one.routing is not None]
    else:
        wanted = routings(conn, generation, [one.document_id for one in hits])
        doubtful = [one for one in hits if one.routing != wanted.get(one.document_id)]
    places = [(one.document_id, one.routing) for one in doubtful]
    return [
        (name, Judged(Kind.ORPHAN, routing=routing or ""))
        for (name, routing), held in zip(places, scan.copies(client, generation.name, places), strict=True)
        if held.source is not None and held.routing == routing
    ]


def routings(conn: Connection, generation: Generation, names: Sequence[str]) -> dict[str, str]:
    """Return the routing of those of *names* that have one."""
    found = row_ids.routings(conn, generation.definition, names)
    return {one: orjson.loads(text) for one, text in found.items() if text != b"null"}
