"""What is looked up once more of single documents that differ, to tell why."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from idxctl.indexes import render
from idxctl.indexes.generations import Generation
from idxctl.indexes.ids import routings
from idxctl.indexes.sizes import Sizes
from idxctl.opensearch import scan
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection
from idxctl.verify import causes as causes_of
from idxctl.verify.causes import Cause
from idxctl.verify.judge import Judged, Kind

_BYTES = 8 * 1024 * 1024
_SOURCE = b'"_source":'  # before it stand names and numbers alone, as its own are quoted


def causes(
    conn: Connection, client: Client, generation: Generation, some: Sequence[tuple[str, Judged]], *, sizes: Sizes
) -> list[tuple[str, Judged, Cause]]:
    """Return the cause of each of *some* documents, which are no dead letters; a stale one is read again, a request each."""
    found = []
    for name, said in some:
        row = held = b""
        if said.kind is Kind.STALE:
            row, held = _both(conn, client, generation, name, sizes)
        found.append(
            (name, said, causes_of.of(said, row=row, held=held, pipeline=generation.definition.pipeline is not None))
        )
    return found


def _both(conn: Connection, client: Client, generation: Generation, name: str, sizes: Sizes) -> tuple[bytes, bytes]:
    """Return a document as its row renders it now, and its source as the index has it, as bytes."""
    definition = generation.definition
    read = render.by_ids(conn, definition, [name], token=None, max_bytes=_BYTES, sizes=sizes)
    row = b"".join(lines.text for lines in read.found)
    wanted = orjson.dumps(name)
    ways = {orjson.dumps(one): way for one, way in routings(conn, definition, [name]).items()}
    text = scan.sources_text(client, generation.name, [wanted], routings=ways).text
    return row, text.partition(_SOURCE)[2]
