"""
Compare documents with their rows, by pages, in bounded memory.

A page is a range of keys: the rows of the generation's own document query on one side, a realtime ``_mget`` of the same ids
on the other. Equal bytes are equal; the rest is parsed and compared field by field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from psycopg import sql

from idxctl.core.errors import OpenSearchRefused, OpenSearchUnreachable, PostgresRefused
from idxctl.indexes import ranges, render
from idxctl.indexes.generations import Generation
from idxctl.indexes.ids import existing, routings
from idxctl.indexes.key_sql import between
from idxctl.indexes.render import Lines
from idxctl.indexes.sizes import Sizes
from idxctl.opensearch import scan
from idxctl.opensearch.answers import Sources
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection
from idxctl.worker import outcomes, way
from idxctl.worker.outcomes import Verdict

# What stands in an answer before a document's id, and between that and its source.
_HEAD = re.compile(rb'(?:\{"docs":\[|\},)\{"_index":"[^"\\]*","_id":')
_FOUND = re.compile(
    rb',"_version":\d+,"_seq_no":\d+,"_primary_term":\d+,(?:"_(?!source)[a-z_]+":(?:"[^"\\]*"|\[[^][{}]*\]),)*"found":true,"_source":'
)
_PAGE_BYTES = 8 * 1024 * 1024
_PAGE_DOCUMENTS = 2000
_MOST_UNANSWERED = 50  # documents of a page that the way fails on; where there are more, it fails on reads as such


@dataclass
class Compared:
    """What a comparison found: ids by kind of difference, and for stale ones the fields that differ."""

    checked: int = 0
    missing: list[str] = field(default_factory=list)
    stale: dict[str, list[str]] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)  # whose own values make the document query fail
    unanswered: dict[str, Verdict] = field(default_factory=dict)  # that the way fails on, and on no other

    @property
    def differing(self) -> list[str]:
        """All ids that do not agree; of an unreadable row nobody can tell."""
        return [*self.missing, *self.stale, *self.orphans]

    def add(self, other: Compared) -> None:
        """Take in what another page found."""
        self.checked += other.checked
        self.missing.extend(other.missing)
        self.stale.update(other.stale)
        self.orphans.extend(other.orphans)
        self.unreadable.extend(other.unreadable)
        self.unanswered.update(other.unanswered)


def compare_range(
    conn: Connection,
    client: Client,
    generation: Generation,
    after: Sequence[str] | None,
    upto: Sequence[str] | None,
    *,
    sizes: Sizes,
    where: sql.Composable | None = None,
) -> Iterator[Compared]:
    """
    Compare the documents of a range of keys, a page at a time: *after* exclusive, *upto* inclusive, None open.

    *where*: of those only the ones that this holds for, a condition over the columns of the document query.
    """
    definition = generation.definition
    condition = between(definition, after, upto)
    if where is not None:
        condition = sql.SQL("{} AND (\n{}\n)").format(condition, where)
    failures: dict[str, PostgresRefused] = {}
    readable = ranges.readable(
        conn, definition, condition, token=None, max_bytes=_PAGE_BYTES, sizes=sizes, failures=failures
    )
    for page in _pages(readable):
        sizes.note(definition, len(page.ids), len(page.text))
        yield compare_page(client, generation, page)
    if failures:
        yield Compared(checked=len(failures), unreadable=sorted(failures))


def _pages(pieces: Iterable[Lines]) -> Iterator[Lines]:
    ids: list[str] = []
    routings: list[bytes] = []
    texts: list[bytes] = []
    size = 0
    for piece in pieces:
        ids.extend(piece.ids)
        routings.extend(piece.routings)
        texts.append(piece.text)
        size += len(piece.text)
        if size >= _PAGE_BYTES or len(ids) >= _PAGE_DOCUMENTS:
            yield Lines(ids, b"".join(texts), routings)
            ids, routings, texts, size = [], [], [], 0
    if ids:
        yield Lines(ids, b"".join(texts), routings)


def compare_page(client: Client, generation: Generation, page: Lines) -> Compared:
    """
    Compare rendered documents, a line each, with what the generation's index holds now.

    One document that the way to OpenSearch fails on is found by halving (`worker.way`), and keeps none from being compared.
    """
    try:
        answer = _asked(client, generation, page)
    except (OpenSearchRefused, OpenSearchUnreachable) as error:
        controls = way.Controls(client, generation)
        if not outcomes.of_request(error).suspect or not controls.pass_():
            raise
        if len(page.ids) > 1:
            compared = Compared()
            for half in _halves(page):
                compared.add(compare_page(client, generation, half))
            if len(compared.unanswered) > _MOST_UNANSWERED:
                raise
            return compared
        found = way.by_turns(lambda: _why_unanswered(client, generation, page), controls)
        if found.guilty and found.verdict is not None:
            return Compared(checked=1, unanswered={page.ids[0]: outcomes.of_the_way(found.verdict)})
        if found.down or found.verdict is not None:
            raise
        return compare_page(client, generation, page)
    return _compare_answer(generation, page, answer)


def _why_unanswered(client: Client, generation: Generation, page: Lines) -> Verdict | None:
    """Ask once more; returns why there is no answer, None when there is."""
    try:
        _asked(client, generation, page)
    except (OpenSearchRefused, OpenSearchUnreachable) as error:
        return outcomes.of_request(error)
    return None


def _halves(page: Lines) -> Iterator[Lines]:
    middle = len(page.ids) // 2
    rows = page.text.split(b"\n")
    for part in (slice(None, middle), slice(middle, len(page.ids))):
        text = b"".join(row + b"\n" for row in rows[part])
        yield Lines(page.ids[part], text, list(page.routings or ())[part])


def _asked(client: Client, generation: Generation, page: Lines) -> Sources:
    """Return what the index holds of the documents of a page, as it was answered."""
    wanted = [orjson.dumps(one) for one in page.ids]
    routed = dict(zip(wanted, page.routings or (), strict=False))
    return scan.sources_text(client, generation.name, wanted, routings=routed)


def _compare_answer(generation: Generation, page: Lines, answer: Sources) -> Compared:
    compared = Compared(checked=len(page.ids))
    rows = page.text.split(b"\n")
    wanted = [orjson.dumps(one) for one in page.ids]
    ignore = generation.definition.verify_ignore
    places: Sequence[int] = range(len(wanted)) if ignore else _unequal_bytes(answer.text, wanted, rows)
    if not places:
        return compared
    held = {one.document_id: one.source for one in answer.read(page.ids)}
    for place in places:
        name = page.ids[place]
        source = held.get(name)
        if source is None:
            compared.missing.append(name)
            continue
        fields = differing_fields(parsed_row(rows[place]), source, ignore)
        if fields:
            compared.stale[name] = fields
    return compared


def parsed_row(row: bytes) -> Any:
    """Parse a row as generously as PostgreSQL writes it: with half of a surrogate pair, or a number beyond a double."""
    try:
        return orjson.loads(row)
    except orjson.JSONDecodeError:
        return json.loads(row)


def _unequal_bytes(answer: bytes, wanted: Sequence[bytes], rows: Sequence[bytes]) -> Sequence[int]:
    """
    Return the places of documents that are not seen, byte by byte, to be there and equal to their rows.

    From the first such place on it is all of them: what stands behind it might as well stand within a document, which may hold
    anything, or be the source of a neighbour.
    """
    place = 0
    for number, ident in enumerate(wanted):
        row = rows[number]
        head = _HEAD.match(answer, place)
        found = _FOUND.match(answer, head.end() + len(ident)) if head and answer.startswith(ident, head.end()) else None
        if not found or not answer.startswith(row, found.end()):
            return range(number, len(wanted))
        place = found.end() + len(row)
    return () if answer.startswith(b"}]}", place) else range(len(wanted))


def differing_fields(row: Mapping[str, Any], source: Mapping[str, Any], ignore: Sequence[str] = ()) -> list[str]:
    """Return the top-level fields in which a document differs from its row, apart from *ignore*."""
    names = sorted((row.keys() | source.keys()) - set(ignore))
    return [name for name in names if (name in row) != (name in source) or row.get(name) != source.get(name)]


def compare_ids(
    conn: Connection, client: Client, generation: Generation, ids: Sequence[str], *, sizes: Sizes
) -> Compared:
    """
    Compare single documents, rows or none: one that the index holds without a row is an orphan.

    ``checked`` leaves out those that are on neither side.
    """
    compared = Compared(checked=len(ids))
    definition = generation.definition
    rest = list(ids)
    while rest:
        read = render.by_ids(conn, definition, rest, token=None, max_bytes=_PAGE_BYTES, sizes=sizes)
        for page in _pages(read.found):
            part = compare_page(client, generation, page)
            compared.missing.extend(part.missing)
            compared.stale.update(part.stale)
            compared.unanswered.update(part.unanswered)
        compared.unreadable.extend([*read.failures, *read.unfit])
        known = read.ids | read.failures.keys() | set(read.rest) | read.unfit.keys() | read.impossible
        gone = [one for one in rest if one not in known]
        orphans = _held(client, generation, gone, routings(conn, definition, gone))
        compared.orphans.extend(orphans)
        compared.checked -= len(gone) - len(orphans)
        rest = read.rest
    return compared


def _held(client: Client, generation: Generation, ids: Sequence[str], routings: Mapping[str, bytes]) -> list[str]:
    if not ids:
        return []
    routed = {orjson.dumps(one): routing for one, routing in routings.items()}
    answer = scan.sources_text(client, generation.name, [orjson.dumps(one) for one in ids], routings=routed)
    return [one.document_id for one in answer.read(ids) if one.source is not None]


def orphans(conn: Connection, client: Client, generation: Generation) -> Iterator[list[str]]:
    """Yield pages of ids that the index holds, as of its last refresh, and no row has."""
    for page in scan.ids(client, generation.name):
        known = set(existing(conn, generation.definition, page))
        gone = [one for one in page if one not in known]
        if gone:
            yield gone
