"""A chunk of a backfill: its range of keys, how far it has come, what it is cut into, and what it leaves where it failed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from idxctl.indexes.generations import Generation
from idxctl.opensearch.bulk import Body
from idxctl.postgres.connect import Connection
from idxctl.queue.outcomes import Blamed
from idxctl.queue.refused import blame_each
from idxctl.worker import outcomes
from idxctl.worker.outcomes import Verdict


@dataclass(frozen=True)
class Chunk:
    """A range of keys and the token it is written under."""

    number: int
    after: Sequence[str] | None
    upto: Sequence[str] | None
    token: int
    born: float


@dataclass
class Progress:
    """How far a backfill has come; read by whoever shows it."""

    documents: int = 0
    failed: int = 0
    size: int = 0  # bytes of documents
    waiting: str | None = None  # why nothing moves, while an outage lasts
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, documents: int, failed: int, size: int) -> None:
        """Count a chunk that is done."""
        with self.lock:
            self.documents += documents
            self.failed += failed
            self.size += size
            self.waiting = None


@dataclass
class Done:
    """How far a chunk has come whose documents are too slow to be read at once."""

    upto: Sequence[str] | None
    documents: int = 0
    failed: int = 0
    sent: dict[int, bytes] = field(default_factory=dict)  # by token, digests of what is in the index under it


class TooSlow(Exception):  # noqa: N818 - it is tried again
    """The time that a statement has was too short for the documents asked for."""


def cut_apart(body: Body, apart: Mapping[str, frozenset[str]]) -> Iterator[Body]:
    """Yield the documents of a body that go together: those of no group, then each group for itself."""
    groups = {apart[one] for one in body.ids if one in apart}
    everybody = set(body.ids)
    rest = body.without({one for one in body.ids if one in apart})
    if rest.ids:
        yield rest
    for group in groups:
        part = body.without(everybody - {one for one in group if apart.get(one) == group})
        if part.ids:
            yield part


def blame(conn: Connection, generation: Generation, token: int, refused: dict[str, Verdict]) -> None:
    """Record documents that *generation* refused under *token*."""
    blame_each(
        conn,
        token,
        [
            Blamed(
                generation.id,
                name,
                "index",
                one.error_type,
                outcomes.fingerprint(one),
                one.reason,
            )
            for name, one in sorted(refused.items())
        ],
    )
