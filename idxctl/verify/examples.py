"""Some of the documents that differ, with what they differ in."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from idxctl.core.errors import IdxctlError
from idxctl.indexes import render
from idxctl.indexes.generations import Generation
from idxctl.indexes.ids import routings
from idxctl.indexes.sizes import Sizes
from idxctl.opensearch import scan
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection
from idxctl.verify.compare import differing_fields, parsed_row
from idxctl.verify.judge import Judged, Kind

_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Difference:
    """A field as the row has it, and as the index does; None where there is none."""

    field: str
    row: Any
    index: Any


@dataclass(frozen=True)
class Example:
    """
    A document that is no equal of its row, and why, as far as that was to be told again.

    ``routing``: an orphan that is a copy under another routing than its id has.
    """

    document_id: str
    kind: str
    fields: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    routing: str | None = None


def examples(
    conn: Connection,
    client: Client,
    generation: Generation,
    found: Sequence[tuple[str, Judged]],
    show: int,
    sizes: Sizes,
) -> list[Example]:
    """Return what was *found*, the first *show* of them with their values, read again."""
    made = []
    for place, (name, said) in enumerate(found):
        differences: list[Difference] = []
        if place < show and said.kind is Kind.STALE:
            with contextlib.suppress(IdxctlError):  # it is an example, and the counts stand
                differences = _differences(conn, client, generation, name, sizes)
        made.append(Example(name, said.kind.value, list(said.fields), differences, said.routing))
    return made


def _differences(conn: Connection, client: Client, generation: Generation, name: str, sizes: Sizes) -> list[Difference]:
    definition = generation.definition
    read = render.by_ids(conn, definition, [name], token=None, max_bytes=_BYTES, sizes=sizes)
    text = b"".join(lines.text for lines in read.found).rstrip(b"\n")
    ways = routings(conn, definition, [name])
    wanted = [orjson.dumps(name)]
    routed = {orjson.dumps(one): way for one, way in ways.items()}
    (held,) = scan.sources_text(client, generation.name, wanted, routings=routed).read([name])
    if not text or held.source is None:
        return []
    row = parsed_row(text)
    names = differing_fields(row, held.source, definition.verify_ignore)
    return [Difference(one, row.get(one), held.source.get(one)) for one in names]
