"""
The scrub: workers compare every document with its row again and again, once in a period, in quiet moments.

Beside a worker's pool, in a thread of its own. A scrub is a comparison (`verify.runs`) that begins again for ever: its ranges
and slices are taken by any process of any host, one at a time, as the pace has it; what a killed one leaves another takes.
What differs is judged as `verify` judges it, counted, logged with its cause, and enqueued where it is to be repaired.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from idxctl.config.settings import Scrub, Settings
from idxctl.core import backoff, metrics
from idxctl.core.errors import CheckFailed, IdxctlError, OpenSearchRefused
from idxctl.core.tally import Tally
from idxctl.indexes import generations
from idxctl.indexes.generations import Generation
from idxctl.indexes.sizes import Sizes
from idxctl.opensearch import aliases, scan
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection, Pool
from idxctl.verify import again, evidence, ids, repair, runs, scrubs
from idxctl.verify.causes import Cause
from idxctl.verify.judge import DRIFT, Judged, Kind, Versions
from idxctl.verify.pace import Pace
from idxctl.verify.part import Compared, Part, Throttle, carry, take
from idxctl.verify.runs import Run
from idxctl.worker.options import fact
from idxctl.worker.pool import Worker

log = logging.getLogger("idxctl.worker")

_LOOK_SECONDS = 10.0  # between looks at what there is to do, where nothing is due
_NOT_AT_EASE_SECONDS = 0.05
_OTHERS_SECONDS = 1.0  # between looks at what others are at
_AT_A_PAGE_SECONDS = 30.0  # that live work may hold up a slice: its scroll is kept for longer
_SETTLED_SECONDS = 600.0  # that what was lagging, or is enqueued, is waited for at the end
_LONGEST_TROUBLE_SECONDS = 60.0
_LEAVING_SECONDS = 5.0
_NAMED = 5  # documents that are named in the log with their cause


@dataclass(frozen=True)
class Options:
    """Which indexes are scrubbed, how often, and whether they are repaired: of an index by its name, None where it is not."""

    of: Callable[[str], Scrub | None]
    indexes: tuple[str, ...] | None = None  # that the worker serves; None: all

    @classmethod
    def of_settings(cls, settings: Settings, *, indexes: tuple[str, ...] | None) -> Options | None:
        """Return what *settings* say; None where nothing is scrubbed, whatever indexes there are."""
        if not settings.scrub.every_seconds and not any(map(settings.scrub_of, settings.indexes)):
            return None
        return cls(settings.scrub_of, indexes)


class _Yielding(Throttle):
    """A throttle that gives way to live work, for as long as a scroll may wait for its next page."""

    def __init__(self, rate: float, at_ease: Callable[[], bool]) -> None:
        super().__init__(rate)
        self._at_ease = at_ease

    def took(self, documents: int, over: threading.Event, *, tick: Callable[[], None]) -> None:
        super().took(documents, over, tick=tick)
        until = time.monotonic() + _AT_A_PAGE_SECONDS
        while not self._at_ease() and time.monotonic() < until and not over.wait(_NOT_AT_EASE_SECONDS):
            pass


@dataclass
class _Known:
    """What this process knows of the scrub of one index."""

    due_at: float = 0.0  # monotonic: not looked at before
    failed: int = 0  # times in a row
    part: Part | None = None
    refused: bool = False  # the repair, of this run
    settling_since: float | None = None


class Scrubber:
    """
    One process's part in the scrubs of all indexes.

    *at_ease* says whether nothing live is kept waiting, *worker* is the name that others see alive by its heartbeats.
    """

    def __init__(
        self, pool: Pool, client: Client, options: Options, worker: str, *, at_ease: Callable[[], bool], tally: Tally
    ) -> None:
        self.over = threading.Event()
        self._pool = pool
        self._client = client
        self._options = options
        self._worker = worker
        self._at_ease = at_ease
        self._tally = tally
        self._known: dict[str, _Known] = {}
        self._listed_at = float("-inf")

    def periods(self) -> dict[str, float]:
        """Return the period of each index that this process scrubs, in seconds, as far as it has looked."""
        found = {name: self._options.of(name) for name in tuple(self._known)}
        return {name: one.every_seconds for name, one in found.items() if one is not None}

    def run(self) -> None:
        """Take steps until it is over; what is held then others take at once."""
        while not self.over.wait(self.turn()):
            pass
        for one in self._known.values():
            if one.part is not None:
                with contextlib.suppress(IdxctlError):  # the leases lapse
                    scrubs.give_back(self._pool.mine(), one.part.run, self._worker)

    def turn(self) -> float:
        """Take the step that has been due for longest, if live work leaves room; returns the seconds until the next look."""
        try:
            self._list()
        except IdxctlError as error:
            log.debug("scrub: %s", error)
            return _LOOK_SECONDS
        now = time.monotonic()
        due = sorted((one.due_at, name) for name, one in self._known.items() if one.due_at <= now)
        if not due:
            waits = [one.due_at - now for one in self._known.values()]
            return min([*waits, _LOOK_SECONDS])
        if not self._at_ease():
            return _NOT_AT_EASE_SECONDS
        name = due[0][1]
        known = self._known[name]
        try:
            wait = self._step(name, known)
            known.failed = 0
        except IdxctlError as error:
            wait = self._failed(name, known, error)
        known.due_at = time.monotonic() + wait
        return 0.0

    def _list(self) -> None:
        """Look which indexes there are, now and then."""
        if time.monotonic() - self._listed_at < _LOOK_SECONDS:
            return
        served = self._options.indexes
        live = [one.index for one in generations.all_of_them(self._pool.mine()) if one.state == "live"]
        names = {one for one in live if (served is None or one in served) and self._options.of(one) is not None}
        self._known = {name: self._known.get(name) or _Known() for name in sorted(names)}
        self._listed_at = time.monotonic()

    def _failed(self, name: str, known: _Known, error: IdxctlError) -> float:
        """Say it, once; what was held is taken again, by this process or another."""
        known.failed += 1
        if known.failed == 1:
            fact("scrub", f"{name} is not compared for now: {error.message}; tried again", index=name)
        if known.part is not None:
            with contextlib.suppress(IdxctlError):
                scrubs.give_back(self._pool.mine(), known.part.run, self._worker)
        return backoff.before_probe(known.failed, longest=_LONGEST_TROUBLE_SECONDS)

    # --- one step -----------------------------------------------------------------------------------------------------

    def _step(self, name: str, known: _Known) -> float:
        """Do what is due in the scrub of one index; returns the seconds until more is."""
        conn = self._pool.mine()
        scrub, generation = self._options.of(name), generations.live(conn, name)
        if scrub is None or generation is None:
            return _LOOK_SECONDS
        run = scrubs.under_way(conn, name, generation.id)
        if run is None:
            since = scrubs.seconds_since_last(conn, name, generation.id)
            if since is not None and since < scrub.every_seconds:
                return min(scrub.every_seconds - since, _LOOK_SECONDS)
            run = self._begin(conn, generation)
        progress = None if run is None else scrubs.progress(conn, run)
        if run is None or progress is None:
            return 0.0
        pace = Pace.of(int(run.options.get("documents") or 0), scrub.every_seconds)
        if progress.state == "settling":
            return self._settle(conn, self._part(conn, known, run, generation, pace, progress.state), known, scrub)
        ahead = pace.seconds_for(progress.rows, progress.ids) - progress.seconds
        if ahead > 0:
            return min(ahead, _LOOK_SECONDS)
        part = self._part(conn, known, run, generation, pace, progress.state)
        taken = take(conn, part, gone=scrubs.silent_owners(conn, run, self._worker))
        if taken is not None:
            compared = carry(conn, part, taken)
            if compared is not None:
                self._found(conn, part, known, scrub, compared, rows=taken.part is None)
            return 0.0
        if runs.ranges_open(conn, run):
            return _OTHERS_SECONDS
        self._next_pass(conn, part, progress.state)
        return 0.0

    def _begin(self, conn: Connection, generation: Generation) -> Run | None:
        documents = scan.count(self._client, generation.name)
        return scrubs.begin(conn, generation.index, generation.id, documents=documents, owner=self._worker)

    def _part(self, conn: Connection, known: _Known, run: Run, generation: Generation, pace: Pace, state: str) -> Part:
        """Return this process's part in a run, for the pass that it is in."""
        if known.part is None or known.part.run.id != run.id:
            versions, sizes = Versions.of(conn, generation), Sizes()
            known.refused, known.settling_since = False, None
        else:
            versions, sizes = known.part.versions, known.part.sizes
        known.part = Part(
            self._client, run, generation, versions, self._worker, _Yielding(pace.at_most(state), self._at_ease),
            range_size=pace.range_size, sizes=sizes, over=self.over,
        )  # fmt: skip
        return known.part

    def _next_pass(self, conn: Connection, part: Part, state: str) -> None:
        if state == "ids":
            runs.advance(conn, part.run, "ids", "settling", self._worker)
            return
        with contextlib.suppress(OpenSearchRefused):  # a role that may not: the ids are those of the last refresh
            aliases.refresh(part.client, part.generation.name)
        documents = int(part.run.options.get("documents") or 0)
        runs.begin_ids(conn, part.run, ids.slices(documents), self._worker)

    def _settle(self, conn: Connection, part: Part, known: _Known, scrub: Scrub) -> float:
        """Look again at what was lagging or is enqueued; one process does, and ends the scrub once nothing is under way."""
        gone = scrubs.silent_owners(conn, part.run, self._worker)
        if not runs.take_over(conn, part.run, "settling", self._worker, gone=gone):
            return _OTHERS_SECONDS
        known.settling_since = known.settling_since or time.monotonic()
        if scrub.repair and next(runs.differing(conn, part.run, enqueued=False, but_dead=True), None):
            # What was to wait for more to be compared, or was found by a worker that was killed before it was enqueued.
            done = self._repair(conn, part, known, all_compared=True)
            fact(
                "scrub",
                f"{part.run.index} differs from its rows: what was left of it is {done}",
                index=part.run.index,
                done=done,
            )
        began = time.monotonic()
        drifted: list[tuple[str, Judged]] = []
        left = again.look(conn, part, repaired=True, drifted=drifted.extend)
        if drifted:
            self._found(conn, part, known, scrub, Compared(0, drifted), rows=False)
            return 0.0
        waited = time.monotonic() - known.settling_since
        if left.waiting and waited < _SETTLED_SECONDS and not repair.never_moves(conn, part.run.index):
            return backoff.before_look(time.monotonic() - began, shortest=0.2)
        self._finish(conn, part)
        return 0.0

    def _finish(self, conn: Connection, part: Part) -> None:
        counts = runs.counts(conn, part.run)
        progress = scrubs.progress(conn, part.run)
        drifted = [counts[kind] for kind in DRIFT]
        result = {
            **{kind.value: one.all for kind, one in counts.items()},
            "checked": runs.checked(conn, part.run) + counts[Kind.ORPHAN].all,
            "repaired": sum(one.enqueued for one in drifted),
            "left": sum(one.all - one.dead for one in drifted),
            "seconds": round(progress.seconds, 3) if progress is not None else None,
            "sampled": False,
            "generation": part.generation.name,
        }
        runs.finish(conn, part.run, result)

    # --- what was found -----------------------------------------------------------------------------------------------

    def _found(
        self, conn: Connection, part: Part, known: _Known, scrub: Scrub, compared: Compared, *, rows: bool
    ) -> None:
        """Count what was compared; what differs is logged with its cause, and repaired where it is to be."""
        index = part.run.index
        if rows:
            self._tally.add(metrics.VERIFIED, index, amount=compared.checked)
        drift = [(name, said) for name, said in compared.found if said.kind in DRIFT]
        if not drift:
            return
        dead = scrubs.dead_among(conn, index, [name for name, _ in drift])
        kinds = Counter("dead" if name in dead else said.kind.value for name, said in drift)
        for kind, count in kinds.items():
            self._tally.add(metrics.DRIFT, index, kind, amount=count)
        some = [(name, said) for name, said in drift if name not in dead][:_NAMED]
        causes = evidence.causes(conn, part.client, part.generation, some, sizes=part.sizes)
        if kinds.keys() - {"dead"}:
            done = self._repair(conn, part, known, all_compared=False) if scrub.repair else "only reported"
            self._say(index, kinds, causes, done)

    def _repair(self, conn: Connection, part: Part, known: _Known, *, all_compared: bool) -> str:
        """
        Enqueue what differs, and say what came of it.

        Where more than half of what was compared so far differ, and that is little, what is to come decides.
        """
        if known.refused:
            return "not repaired"
        counts, checked = runs.counts(conn, part.run), runs.checked(conn, part.run)
        try:
            held = scan.count(part.client, part.generation.name)
            repair.refuse_strangers(part.client, part.generation, counts, checked, held)
        except CheckFailed as error:
            known.refused = True
            fact("scrub", f"{part.run.index}: {error.message}; until the next scrub", index=part.run.index)
            return "not repaired"
        if not all_compared and repair.mostly_different(counts, checked):
            return "repaired once more is compared"
        repaired = repair.repair(conn, part.client, part.generation, part.run, origin="scrub", but_dead=True)
        for kind, count in repaired.items():
            self._tally.add(metrics.DRIFT_REPAIRED, part.run.index, kind.value, amount=count)
        return "enqueued"

    @staticmethod
    def _say(index: str, kinds: Mapping[str, int], causes: Sequence[tuple[str, Judged, Cause]], done: str) -> None:
        found = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()) if kind != "dead")
        named = "; ".join(f"{name} {said.kind.value}: {cause.sentence}" for name, said, cause in causes)
        fact(
            "drift", f"{index} differs from its rows: {found}, {done} ({named})", index=index, done=done, **kinds,
            documents={name: cause.value for name, _, cause in causes},
        )  # fmt: skip


@contextmanager
def scrubbing(worker: Worker, pool: Pool, client: Client, options: Options | None) -> Iterator[None]:
    """Scrub beside *worker* meanwhile, and let its heartbeats say so; without *options* nothing is done."""
    if options is None:
        yield
        return
    scrubber = Scrubber(pool, client, options, worker.id, at_ease=lambda: worker.at_ease, tally=worker.tally)
    worker.keeper.periods = scrubber.periods
    thread = threading.Thread(target=scrubber.run, name="scrub", daemon=True)
    thread.start()
    try:
        yield
    finally:
        scrubber.over.set()
        thread.join(_LEAVING_SECONDS)
