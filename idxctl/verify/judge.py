"""
Judge documents that did not equal their rows: is it drift, or is something under way?

While changes go on, a row that was read and a document that was read a moment later differ without a fault. Four looks, in
this order, tell: where the sequence of tokens stands; the row; what waits for the document in the queue or in flight; the
document with its version. A change that the row shows has a task, which waits still (lagging), or was settled before the
third look, and then the fourth sees it. A change that came after the row was read is written under a token drawn later, so
the document's version is greater than the first look (moving). What is left differs, and nothing will change that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import orjson

from idxctl.core import texts
from idxctl.indexes import render
from idxctl.indexes.generations import Generation
from idxctl.indexes.ids import routings
from idxctl.indexes.render import Lines
from idxctl.indexes.sizes import Sizes
from idxctl.opensearch import scan
from idxctl.opensearch.answers import Source
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection
from idxctl.verify import SQL
from idxctl.verify.compare import differing_fields, parsed_row

AT_ONCE = 1000  # documents of one judgement
_BYTES = 8 * 1024 * 1024
_AN_HOUR = 3_600_000_000  # tokens follow the clock, in microseconds


class Kind(str, Enum):
    """What a document that is no equal of its row is."""

    MISSING = "missing"  # a row, and no document
    STALE = "stale"  # they differ
    ORPHAN = "orphan"  # a document, and no row
    LAGGING = "lagging"  # a task waits for it, or it was written while it was looked at
    UNREADABLE = "unreadable"  # its row cannot be read, or its document: nobody can tell


DRIFT = frozenset({Kind.MISSING, Kind.STALE, Kind.ORPHAN})


@dataclass(frozen=True)
class Judged:
    """
    The judgement on one document. ``foreign``: its version was not drawn for this generation, so somebody else wrote it.

    ``routing`` is of an orphan that is a copy under another routing than its id has: it has no row there.
    """

    kind: Kind
    fields: tuple[str, ...] = ()
    foreign: bool = False
    moving: bool = False
    routing: str | None = None


@dataclass(frozen=True)
class Versions:
    """Which versions of a generation's documents are ours: drawn since its build began, and drawn at all."""

    first: int | None

    @classmethod
    def of(cls, conn: Connection, generation: Generation) -> Versions:
        """Read them."""
        row = conn.run(SQL["first_token"], generation=generation.id).fetchone()
        return cls(None if row is None or row[0] is None else int(row[0]) - _AN_HOUR)

    def foreign(self, version: int | None, last: int) -> bool:
        """Whether somebody else wrote *version*; *last* is the last token drawn."""
        return version is not None and (version > last or (self.first is not None and version < self.first))


@dataclass
class _Page:
    """Rows as they were read: a document by id; what cannot be read; and what has no row."""

    rows: dict[str, bytes] = field(default_factory=dict)
    routings: dict[str, bytes] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    gone: list[str] = field(default_factory=list)


def judge(
    conn: Connection, client: Client, generation: Generation, ids: Sequence[str], *, versions: Versions, sizes: Sizes
) -> dict[str, Judged]:
    """
    Return the judgement on each of *ids* that is no equal of its row; those that are, are left out.

    About 8 MB of documents are held at once. Raises what the servers raise.
    """
    judged: dict[str, Judged] = {}
    rest = list(ids)
    while rest:
        since = last_token(conn)
        read = render.by_ids(conn, generation.definition, rest, token=None, max_bytes=_BYTES, sizes=sizes)
        page = _Page()
        for lines in read.found:
            _take_in(page, lines)
        page.unreadable = {*read.failures, *read.unfit}
        later = set(read.rest)
        page.gone = [one for one in rest if one not in page.rows and one not in page.unreadable and one not in later]
        judged.update(_judge_page(conn, client, generation, page, since, versions))
        rest = read.rest
    return judged


def _take_in(page: _Page, lines: Lines) -> None:
    page.rows.update(zip(lines.ids, lines.text.split(b"\n"), strict=False))
    page.routings.update(zip(lines.ids, lines.routings or (), strict=False))


def _judge_page(
    conn: Connection, client: Client, generation: Generation, page: _Page, since: int, versions: Versions
) -> dict[str, Judged]:
    names = [*page.rows, *page.gone]
    judged = {one: Judged(Kind.UNREADABLE) for one in page.unreadable}
    if not names:
        return judged
    waiting = _waiting(conn, generation.index, names)
    page.routings.update(routings(conn, generation.definition, page.gone))
    held = _held(client, generation, names, page.routings)
    last = last_token(conn)
    for name in names:
        found = _differs(page.rows.get(name), held[name], generation.definition.verify_ignore)
        if found is None:
            continue
        version = held[name].version
        foreign = versions.foreign(version, last)
        moving = version is not None and version > since and not foreign
        if name in waiting or moving:
            found = Judged(Kind.LAGGING, found.fields, moving=moving and name not in waiting)
        judged[name] = Judged(found.kind, found.fields, foreign, found.moving)
    return judged


def _differs(row: bytes | None, held: Source, ignore: Sequence[str]) -> Judged | None:
    if row is None:
        return None if held.source is None else Judged(Kind.ORPHAN)
    if held.source is None:
        return Judged(Kind.MISSING)
    fields = differing_fields(parsed_row(row), held.source, ignore)
    return Judged(Kind.STALE, tuple(fields)) if fields else None


def _waiting(conn: Connection, index: str, ids: Sequence[str]) -> set[str]:
    """Return those of *ids* that something waiting may still change; a fan-out may be about any of them."""
    known = [one for one in ids if not texts.unknown_to(one, conn.encoding)]
    row = conn.run(SQL["open_for"], index=index, ids=known).fetchone()
    if row is None:
        return set()
    return set(ids) if row[0] else set(row[1])


def _held(
    client: Client, generation: Generation, ids: Sequence[str], routings: Mapping[str, bytes]
) -> dict[str, Source]:
    wanted = [orjson.dumps(one) for one in ids]
    routed = {orjson.dumps(one): way for one, way in routings.items()}
    answer = scan.sources_text(client, generation.name, wanted, routings=routed)
    return {one.document_id: one for one in answer.read(ids)}


def last_token(conn: Connection) -> int:
    """Return where the sequence of tokens stands: whatever is claimed from now on is written under a greater one."""
    row = conn.run(SQL["last_token"]).fetchone()
    return int(row[0]) if row else 0


def twice(
    conn: Connection, client: Client, generation: Generation, ids: Iterable[str], *, versions: Versions, sizes: Sizes
) -> dict[str, Judged]:
    """
    Judge *ids*, and once more those that seem to have drifted: a document without a version, since it was just deleted and
    made again, shows nothing of when. Drift is what is drift twice.
    """
    found: dict[str, Judged] = {}
    rest = list(ids)
    for at in range(0, len(rest), AT_ONCE):
        part = judge(conn, client, generation, rest[at : at + AT_ONCE], versions=versions, sizes=sizes)
        drifted = [one for one, said in part.items() if said.kind in DRIFT]
        if drifted:
            again = judge(conn, client, generation, drifted, versions=versions, sizes=sizes)
            for one in drifted:
                part.pop(one)
            part.update(again)
        found.update(part)
    return found
