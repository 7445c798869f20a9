"""How a pool runs, what it has done, and how it says so."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from idxctl.config import sums
from idxctl.config.settings import Settings

_log = logging.getLogger("idxctl.worker")


def fact(name: str, text: str, **fields: Any) -> None:
    """Log one fact: its name, the sentence for people and the fields for machines."""
    _log.info("%s", text, extra={"fact": name, "fields": fields})


@dataclass(frozen=True)
class Options:
    """How a pool runs."""

    workers: int = 5
    queue_size: int = 1000
    batch_size: int = 1000
    batch_bytes: int = 8 * 1024 * 1024
    max_attempts: int = 3
    lease_seconds: float = 30.0
    age_limit_seconds: float = 60.0
    request_timeout_seconds: float = 30.0
    until_empty: bool = False
    indexes: tuple[str, ...] | None = None  # None: every index that has a generation

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        workers: int | None = None,
        queue_size: int | None = None,
        until_empty: bool = False,
        indexes: Iterable[str] | None = None,
    ) -> Options:
        """
        Return how a pool runs as *settings* say; what is named beside them is this pool's own.

        The one place that makes them: C3, G3 and T3 rest on these figures, so that a pool which believed in others than
        are configured would break them.
        """
        return cls(
            workers=settings.worker.workers if workers is None else workers,
            queue_size=settings.worker.queue_size if queue_size is None else queue_size,
            batch_size=settings.worker.batch_size,
            batch_bytes=settings.worker.batch_bytes,
            max_attempts=settings.worker.max_attempts,
            lease_seconds=settings.worker.lease_seconds,
            age_limit_seconds=settings.worker.age_limit_seconds,
            request_timeout_seconds=settings.opensearch.request_timeout_seconds,
            until_empty=until_empty,
            indexes=None if indexes is None else tuple(indexes),
        )

    @property
    def bytes_gone_after_seconds(self) -> float:
        """How long after its token a batch's bytes may still arrive (C3, G3)."""
        return sums.bytes_gone_after(self.age_limit_seconds, self.request_timeout_seconds)


@dataclass
class Counters:
    """What a pool has done since it started. Latencies are seconds from enqueued to indexed, the last few thousand."""

    indexed: int = 0
    dead: int = 0
    retried: int = 0
    healed: int = 0
    superseded: int = 0
    expanded: int = 0
    batches: int = 0
    lost: int = 0
    put_back: dict[str, int] = field(default_factory=dict)  # index -> batches in a row of which nothing got anywhere
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=4096))

    def percentile(self, share: float) -> float | None:
        """Return the latency below which *share* of the last tasks were, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else None

    def note_batch(self, index: str, *, moved: bool) -> int:
        """Count a batch; returns how many of *index* in a row have been put back whole, with no attempt spent."""
        if moved:
            self.put_back.pop(index, None)
            return 0
        self.put_back[index] = self.put_back.get(index, 0) + 1
        return self.put_back[index]

    def shown(self) -> dict[str, Any]:
        """Return the numbers as a heartbeat carries them."""
        p95 = self.percentile(0.95)
        return {"indexed": self.indexed, "dead": self.dead, "retried": self.retried, "batches": self.batches,
                "healed": self.healed, "superseded": self.superseded, "expanded": self.expanded, "lost": self.lost,
                "put_back": dict(self.put_back),
                "p95_seconds": None if p95 is None else round(p95, 4)}  # fmt: skip
