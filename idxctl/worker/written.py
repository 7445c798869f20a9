"""What bounds a batch while it is under way, what its process has learnt, and what has become of its documents so far."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from idxctl.indexes.generations import Generation
from idxctl.indexes.sizes import Sizes
from idxctl.queue.claim import Batch
from idxctl.worker import outcomes
from idxctl.worker.load import Load
from idxctl.worker.outcomes import Kind, Verdict
from idxctl.worker.way import Witnesses


@dataclass(frozen=True)
class Limits:
    """The figures of a batch, as configured."""

    batch_bytes: int = 8 * 1024 * 1024  # of a bulk body, about
    age_limit_seconds: float = 60.0  # how old bytes may be when they are sent, from their token (T3)
    search_seconds: float = 20.0  # within a claim, for what the way fails on; the rest is then put back apart
    waits: bool = True  # for a document that is slow to be answered, once more


@dataclass(frozen=True)
class Learnt:
    """What the batches of a process learn of documents and of OpenSearch, for one another. Thread-safe; asks nobody."""

    sizes: Sizes = field(default_factory=Sizes)
    load: Load = field(default_factory=Load)
    witnesses: Witnesses = field(default_factory=Witnesses)

    def body_bytes(self, limits: Limits) -> int:
        """Return the bytes of a bulk body now, about."""
        return min(limits.batch_bytes, self.load.body_bytes)


@dataclass
class Search:
    """How far the search for what the way fails on has come, within one claim."""

    began: float | None = None
    failed_at: float = 0.0  # when the first body that failed so was sent
    trials: int = 0
    down: set[int] = field(default_factory=set)  # generations to which no control passed any more

    def is_over(self, limits: Limits) -> bool:
        """Tell whether it has taken its time; the first look begins it."""
        now = time.monotonic()
        self.began = self.began or now
        return now - self.began > limits.search_seconds


@dataclass
class Written:
    """
    What has become of each document in each generation, filled while a batch is under way.

    ``verdicts`` has the failures; ``answered`` counts all documents that were answered for, by generation.
    """

    verdicts: dict[tuple[str, int], Verdict] = field(default_factory=dict)
    answered: dict[int, int] = field(default_factory=dict)
    passed: bool = False  # OpenSearch has taken a body, or part of one
    largest: int = 0  # bytes of one document at the most, where that is more than a few
    sent_bytes: int = 0
    slow: int = 0  # documents that were asked for at once, and too many for the time that there is
    search: Search = field(default_factory=Search)
    apart: dict[str, frozenset[str]] = field(default_factory=dict)  # documents, and those they are sent with next time
    live: Generation | None = None  # has answered for a body

    def note(self, ids: Collection[str], generations: Iterable[Generation], verdict: Verdict) -> None:
        """Give all of *ids* the same verdict in all of *generations*."""
        for generation in generations:
            self.count(generation, len(ids))
            for one in ids:
                self.verdicts[one, generation.id] = verdict

    def put_apart(self, ids: Sequence[str], generation: Generation, verdict: Verdict) -> None:
        """Have documents sent again, without the others of their batch and without being charged."""
        verdict = Verdict(Kind.TRANSIENT, outcomes.APART, verdict.answered or verdict.reason)
        self.note(ids, [generation], verdict)
        group = frozenset(ids)
        for one in ids:
            if one not in self.apart or len(group) < len(self.apart[one]):
                self.apart[one] = group

    def forget(self, ids: Iterable[str], generation: Generation) -> None:
        """Take back what was noted of documents that are sent again."""
        for one in ids:
            self.verdicts.pop((one, generation.id), None)

    def count(self, generation: Generation, documents: int) -> None:
        """Count documents answered for by *generation*."""
        self.answered[generation.id] = self.answered.get(generation.id, 0) + documents


def too_old(batch: Batch, limits: Limits) -> bool:
    """Tell whether bytes read under this token may no longer be sent; counted from the token, not the lease (T3)."""
    return time.monotonic() - batch.born > limits.age_limit_seconds
