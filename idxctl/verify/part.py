"""
One process's part in a comparison: it takes ranges of keys and slices of ids, compares each, and says what it found.

A range is compared with the index (`verify.compare`), a slice of the index's ids is looked up among the rows (`verify.ids`);
what differs is judged at once (`verify.judge`) by the connection that compared it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from psycopg import sql

from idxctl.core.failpoints import reach
from idxctl.indexes.generations import Generation
from idxctl.indexes.ids import next_boundary
from idxctl.indexes.sizes import Sizes
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection
from idxctl.verify import compare, ids, judge, runs
from idxctl.verify.judge import Judged, Kind, Versions
from idxctl.verify.runs import Range, Run

RANGE = 2_000  # documents of a range, where nothing else is said
_SAMPLED = 200  # of a sample: smaller ranges, more of them
_BYTES = 8 * 1024 * 1024  # of a range
_RENEW_SECONDS = 15.0  # of a lease of a minute


class Throttle:
    """At most so many documents a second, of all threads; None: as many as there are."""

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def took(self, documents: int, over: threading.Event, *, tick: Callable[[], None]) -> None:
        """Wait as long as so many documents may take; *tick* is called every few seconds meanwhile."""
        if self.rate is None:
            return
        with self._lock:
            self._next = max(self._next, time.monotonic()) + documents / self.rate
            until = self._next
        while (wait := until - time.monotonic()) > 0 and not over.wait(min(wait, _RENEW_SECONDS)):
            tick()


@dataclass
class Part:
    """
    What all threads of a process's part are given; they share ``done``, ``over`` and the throttle.

    ``range_size``: documents of a range, `RANGE` where it is None. ``share``: of a sample. ``where``: a condition over the document query.
    """

    client: Client
    run: Run
    generation: Generation
    versions: Versions
    owner: str
    throttle: Throttle
    where: sql.Composable | None = None
    share: float | None = None
    range_size: int | None = None
    sizes: Sizes = field(default_factory=Sizes)
    over: threading.Event = field(default_factory=threading.Event)
    done: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, documents: int) -> None:
        """Count documents, for who watches."""
        with self._lock:
            self.done += documents

    def judged(self, conn: Connection, names: Sequence[str]) -> dict[str, Judged]:
        """Return the judgement on those of *names* that are no equals of their rows."""
        return judge.twice(conn, self.client, self.generation, names, versions=self.versions, sizes=self.sizes)


@dataclass(frozen=True)
class Compared:
    """A range as it was compared: how many documents, and what is to be said of those that are no equals of their rows."""

    checked: int
    found: Sequence[tuple[str, Judged]]


def take(conn: Connection, part: Part, *, gone: Sequence[str] = ()) -> Range | None:
    """Take what nobody is at, or the next range of keys; None where there is nothing to take now. *gone*: processes that ended."""
    return runs.retake(conn, part.run, part.owner, gone=gone) or _plan(conn, part)


def _plan(conn: Connection, part: Part) -> Range | None:
    """Make the next range, and take it; None when there is no more to make. Who is not the first to do so tries again."""
    definition = part.generation.definition
    while (plan := runs.plan(conn, part.run)) is not None and not plan.all:
        after = plan.upto
        size = min(
            part.sizes.at_once(definition, _BYTES), (part.range_size or RANGE) if part.share is None else _SAMPLED
        )
        skipped = _skipped(part.share) if part.share is not None else 0
        if skipped:
            after = next_boundary(conn, definition, after, skipped * size)
            if after is None:
                runs.planned(conn, part.run, plan, None)
                continue
        upto = next_boundary(conn, definition, after, size)
        taken = runs.add_range(conn, part.run, plan, after, upto, part.owner)
        if taken is not None:
            return taken
    return None


def _skipped(share: float) -> int:
    """Return how many ranges to pass over, so that each is taken with a chance of *share*."""
    skipped = 0
    while random.random() >= share:  # noqa: S311 - a sample, no secret
        skipped += 1
    return skipped


def carry(conn: Connection, part: Part, taken: Range) -> Compared | None:
    """
    Compare what was taken, and note what was found; None where the part is over before it, or another process was first.

    The lease is renewed meanwhile. Raises what the servers raise: the range is then to be taken again.
    """
    renewed = time.monotonic()

    def tick() -> None:
        nonlocal renewed
        if time.monotonic() - renewed >= _RENEW_SECONDS:
            runs.renew(conn, part.run, taken.number, part.owner)
            renewed = time.monotonic()

    compared = _rows(conn, part, taken, tick) if taken.part is None else _ids(conn, part, taken, tick)
    if compared is None:
        return None
    reach("verify.compared" if taken.part is None else "verify.ids")
    noted = runs.range_done(conn, part.run, taken.number, compared.checked, compared.found)
    reach("verify.noted")
    return compared if noted else None


def _rows(conn: Connection, part: Part, taken: Range, tick: Callable[[], None]) -> Compared | None:
    """Compare a range of keys, then judge what differs in it: one connection does one after the other."""
    checked = 0
    doubtful: list[str] = []
    found: dict[str, Judged] = {}
    for page in compare.compare_range(
        conn, part.client, part.generation, taken.after, taken.upto, sizes=part.sizes, where=part.where
    ):
        checked += page.checked
        doubtful += [*page.missing, *page.stale]
        found.update((one, Judged(Kind.UNREADABLE)) for one in [*page.unreadable, *page.unanswered])
        part.count(page.checked)
        part.throttle.took(page.checked, part.over, tick=tick)
        if part.over.is_set():
            return None
        tick()
    found.update(part.judged(conn, doubtful))
    return Compared(checked, list(found.items()))


def _ids(conn: Connection, part: Part, taken: Range, tick: Callable[[], None]) -> Compared | None:
    """Look up a slice of the index's ids among the rows."""
    seen = 0
    found: list[tuple[str, Judged]] = []
    pages = ids.look(
        conn, part.client, part.generation,
        part=taken.part, share=part.share, rate=part.throttle.rate, judged=lambda names: part.judged(conn, names),
    )  # fmt: skip
    for page in pages:
        seen += page.seen
        found += page.found
        part.count(page.seen)
        part.throttle.took(page.asked, part.over, tick=tick)
        if part.over.is_set():
            return None
        tick()
    return Compared(seen, found)
