"""
What was sent, as sixteen bytes a document, and what a built index holds, compared with that: no row is read again.

Whoever writes a chunk keeps, under its token, a digest of each document's id and one of its bytes. A document found under
that token with those digests is as it was sent, so it is *proved*. All others are told by name: written since under another
token, altered, or of nobody's writing. What was sent and is not found is told by the digest of its id. Both are then compared
with their rows, so a mistake here costs time and no truth.

Digests are 64 bits of XXH3 each, that of the bytes under a seed of its token's own: they guard against faults, and against
who can write to the index and does not know the seed.
"""

from __future__ import annotations

import secrets
import struct
import threading
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from xxhash import xxh3_64_intdigest

_SEED = struct.Struct("<Q")
_BLANK = b" \t\r\n"  # around a document of type json: no part of it
_MOST_HELD = 400_000  # digests in memory, some 40 MB; with more, the chunk opened longest ago is closed


class Held(Protocol):
    """A document as an index holds it."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> int: ...  # noqa: D102
    @property
    def source(self) -> bytes | memoryview: ...  # noqa: D102


def of_id(document_id: str) -> int:
    """Return the digest of an id; one that is no UTF-8 has one, too."""
    return xxh3_64_intdigest(document_id.encode("utf-8", "surrogatepass"))


class Sent:
    """The digests of the documents sent under one token."""

    def __init__(self, *, seed: int | None = None) -> None:
        self._seed = secrets.randbits(64) if seed is None else seed
        self._pairs = array("Q")

    def __len__(self) -> int:
        return len(self._pairs) // 2

    def add(self, ids: Sequence[str], text: bytes) -> None:
        """Take in documents of a bulk body that only indexes: their ids, and two lines for each."""
        seed, pairs = self._seed, self._pairs
        for document_id, line in zip(ids, text.split(b"\n")[1::2], strict=False):
            pairs.append(of_id(document_id))
            pairs.append(xxh3_64_intdigest(line.strip(_BLANK), seed))

    def leave_out(self, ids: Iterable[str]) -> None:
        """Forget documents that were refused: they are not in the index under this token."""
        out = {of_id(one) for one in ids}
        if not out:
            return
        pairs = self._pairs
        self._pairs = array("Q")
        for at in range(0, len(pairs), 2):
            if pairs[at] not in out:
                self._pairs.extend(pairs[at : at + 2])

    def packed(self) -> bytes:
        """Return them as `Digests.unpacked` reads them: the seed, then id and content in turn, eight bytes each, little-endian."""
        return _SEED.pack(self._seed) + struct.pack(f"<{len(self._pairs)}Q", *self._pairs)


@dataclass(frozen=True)
class Digests:
    """What was sent under one token: by digest of the id, that of the content."""

    seed: int
    of: dict[int, int]

    @classmethod
    def unpacked(cls, packed: bytes) -> Digests:
        """Read what `Sent.packed` wrote; raises `ValueError` for anything else."""
        words, rest = divmod(len(packed), 8)
        if rest or words % 2 == 0:
            raise ValueError(f"{len(packed)} bytes are no digests")
        seed, *pairs = struct.unpack(f"<{words}Q", packed)
        return cls(seed, dict(zip(pairs[::2], pairs[1::2], strict=True)))


@dataclass(frozen=True)
class Left:
    """Documents sent under *token* that are not there as they were, and that no other document explains: digests of their ids."""

    token: int
    ids: frozenset[int]


@dataclass(frozen=True)
class Taken:
    """What a page of documents has shown: how many are proved, the ids of the others, and chunks that were closed for room."""

    proved: int
    others: Sequence[str]
    closed: Sequence[Left] = ()


class Ledger:
    """
    What was sent, crossed off as it is found. Thread-safe; memory is bounded, whatever the order of the documents.

    It is smallest where documents come newest first: what was written again since is known before its chunk is come to.
    """

    def __init__(
        self,
        tokens: Collection[int],
        load: Callable[[int], bytes],
        *,
        contents: bool = True,
        most_held: int = _MOST_HELD,
    ) -> None:
        """*load* reads the packed digests of one of *tokens*. Without *contents*, a document is proved by its token alone."""
        self._tokens = frozenset(tokens)
        self._load = load
        self._contents = contents
        self._most = most_held
        self._open: dict[int, Digests] = {}
        self._held = 0
        self._closed: set[int] = set()
        self._newer: set[int] = set()  # digests of ids found under another token
        self._lock = threading.Lock()

    def take(self, documents: Collection[Held]) -> Taken:
        """Cross off the documents of a page that are as they were sent."""
        read = self._read({one.version for one in documents})
        proved, others = 0, []
        with self._lock:
            self._open_up(read)
            for one in documents:
                ident = of_id(one.id)
                sent = self._open.get(one.version)
                if sent is not None and (content := sent.of.get(ident)) is not None:
                    del sent.of[ident]
                    self._held -= 1
                    if not self._contents or content == xxh3_64_intdigest(one.source, sent.seed):
                        proved += 1
                        continue
                self._newer.add(ident)
                others.append(one.id)
            return Taken(proved, others, tuple(self._make_room()))

    def rest(self) -> Iterator[Left]:
        """Yield, chunk by chunk, what was sent and not found, once every document has been seen."""
        for token in sorted(self._tokens):
            read = self._read({token})
            with self._lock:
                self._open_up(read)
                left = self._close(token) if token in self._open else None
            if left is not None:
                yield left

    def _read(self, tokens: Iterable[int]) -> dict[int, Digests]:
        """Read the digests of chunks that were not come to before; not under the lock, since others go on meanwhile."""
        with self._lock:
            known = self._open.keys() | self._closed
            wanted = self._tokens.intersection(tokens) - known
        return {one: Digests.unpacked(self._load(one)) for one in wanted}

    def _open_up(self, read: Mapping[int, Digests]) -> None:
        for token, digests in read.items():
            if token not in self._open and token not in self._closed:
                self._open[token] = digests
                self._held += len(digests.of)

    def _make_room(self) -> Iterator[Left]:
        if len(self._newer) > self._most:
            self._newer.clear()  # what it would have explained is looked up
        while self._held > self._most and len(self._open) > 1:
            if (left := self._close(next(iter(self._open)))) is not None:
                yield left

    def _close(self, token: int) -> Left | None:
        digests = self._open.pop(token)
        self._closed.add(token)
        self._held -= len(digests.of)
        left = frozenset(digests.of.keys() - self._newer)
        return Left(token, left) if left else None
