"""Bulk bodies: lines around ready-made documents, and the answer by item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from idxctl.opensearch.bulk_answers import Refusal
from idxctl.opensearch.client import Client

_DELETE = b'{"delete":'


@dataclass(frozen=True)
class Body:
    """Lines of a bulk body, the documents they write, in their order, and which of these are deletes."""

    ids: list[str]
    text: bytes
    deleted: frozenset[str] = frozenset()

    def halves(self) -> tuple[Body, Body]:
        """Cut it in two; a delete is one line, any other item two."""
        middle = len(self.ids) // 2
        place = 0
        for _ in range(middle):
            lines = 1 if self.text.startswith(_DELETE, place) else 2
            for _ in range(lines):
                place = self.text.index(b"\n", place) + 1
        return (
            Body(self.ids[:middle], self.text[:place], self.deleted),
            Body(self.ids[middle:], self.text[place:], self.deleted),
        )

    def without(self, ids: set[str]) -> Body:
        """Return it without the items of some documents."""
        if len(self.ids) == 1:
            return Body([], b"") if self.ids[0] in ids else self
        if not ids.intersection(self.ids):
            return self
        first, second = self.halves()
        return join([first.without(ids), second.without(ids)])


def deletes(ids: Sequence[str], token: int, routings: Mapping[str, bytes]) -> Body:
    """
    Return the lines that delete documents unless something newer than *token* is there; *routings* are JSON, by id.

    ``external_gte`` and not ``external``: the same token may reach a document twice, after an unknown outcome.
    """
    lines = []
    for one in ids:
        route = b',"routing":' + routings[one] if one in routings else b""
        lines.append(
            b'{"delete":{"_id":%b,"version":%d,"version_type":"external_gte"%b}}\n' % (orjson.dumps(one), token, route)
        )
    return Body(list(ids), b"".join(lines), frozenset(ids))


def join(bodies: Sequence[Body]) -> Body:
    """Return one body of several."""
    if len(bodies) == 1:
        return bodies[0]
    return Body(
        [one for body in bodies for one in body.ids],
        b"".join([body.text for body in bodies]),
        frozenset().union(*(body.deleted for body in bodies)),
    )


def gather(pieces: Iterable[Body], *, max_bytes: int) -> Iterator[Body]:
    """Join *pieces* into bodies of *max_bytes* at most, or of one document; empty ones are left out."""
    run: list[Body] = []
    size = 0
    for piece in (part for whole in pieces for part in _cut(whole, max_bytes)):
        if run and size + len(piece.text) > max_bytes:
            yield join(run)
            run, size = [], 0
        run.append(piece)
        size += len(piece.text)
    if run:
        yield join(run)


def _cut(piece: Body, max_bytes: int) -> Iterator[Body]:
    """Yield *piece* in parts of *max_bytes* at most, or of one document."""
    if len(piece.text) <= max_bytes or len(piece.ids) <= 1:
        if piece.ids:
            yield piece
        return
    for half in piece.halves():
        yield from _cut(half, max_bytes)


def send(
    client: Client, index: str, body: Body, *, pipeline: str | None = None, timeout_seconds: float | None = None
) -> list[Refusal]:
    """
    Write *body* to the concrete *index* (T6) in one request; returns the items that were refused, and all others are done.

    Raises what the client raises for the whole request. The index stands in the address and not in the lines: the same
    bytes serve every generation of one shape.
    """
    return client.bulk(
        index, body.text, body.ids, deleted=body.deleted, pipeline=pipeline, timeout_seconds=timeout_seconds
    )
