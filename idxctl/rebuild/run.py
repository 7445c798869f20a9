"""
A reindex from plan to swap: one state machine, each phase recorded before the next begins.

    planned → created → backfill → catch_up → check → restore → swap → done
       any of them → failed (and its generation retired)

Reads never see a half-built index: the alias moves last, in one call, after every document has been compared.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from idxctl.config.settings import IndexSettings, Settings
from idxctl.core import backoff
from idxctl.core.errors import DocumentError, IdxctlError, Locked, OpenSearchRefused
from idxctl.core.failpoints import reach
from idxctl.indexes import generations, retire
from idxctl.indexes.generations import Generation
from idxctl.indexes.render import Sizes
from idxctl.opensearch import aliases, copies, scan
from idxctl.opensearch.client import Client
from idxctl.opensearch.copies import Copies
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection, Pool
from idxctl.queue import SQL as QUEUE
from idxctl.queue import pause, tokens
from idxctl.queue.enqueue import enqueue
from idxctl.rebuild import lifetime as lifetime_
from idxctl.rebuild import stuck, swap
from idxctl.rebuild.backfill import Backfill, blame
from idxctl.rebuild.preflight import SQL, Plan
from idxctl.rebuild.swap import Swap
from idxctl.verify import compare
from idxctl.verify.compare import Compared
from idxctl.worker import registry, tombstones
from idxctl.worker.batch import Limits
from idxctl.worker.in_background import beside
from idxctl.worker.pool import Options as WorkerOptions
from idxctl.worker.pool import Worker

_DEAD_AFTER_SECONDS = 30.0  # a run not heard of for longer has died
_ROUNDS = 5  # of comparing again what differed
_POLL_SECONDS = 0.2
_LETTERS = 500  # compared at once


@dataclass(frozen=True)
class Options:
    """How a reindex runs."""

    readers: int = 3
    keep: timedelta = timedelta(days=1)
    take_alias: bool = False
    wait_for_copies: timedelta = timedelta(minutes=30)  # replicas that can be allocated must have started by then
    max_failed: int | None = None  # documents; None: ten, or one in a hundred


@dataclass(frozen=True)
class Reindexed:
    """What a reindex did. The names are those of ``-o json``."""

    index: str
    generation: str | None
    documents: int
    failed: int
    seconds: float
    swapped: bool | None  # None: the swap was under way, and OpenSearch could not be asked what became of it
    previous: str | None = None
    standby_until: datetime | None = None
    dry_run: bool = False
    error: str | None = None  # why it went no further


@dataclass
class Steps:
    """What a reindex tells whoever watches. Each is called from the thread that called `reindex`."""

    begin: Callable[[str, int | None], None] = lambda _step, _total: None  # a step and its total, if known
    move: Callable[[int, str], None] = lambda _done, _note: None
    end: Callable[[str], None] = lambda _summary: None
    warn: Callable[[str], None] = lambda _sentence: None
    failed: Callable[[Reindexed], None] = lambda _so_far: None  # what is known of a run whose error is raised next


def reindex(
    pool: Pool, client: Client, settings: Settings, index: IndexSettings, plan: Plan, options: Options, steps: Steps
) -> Reindexed:
    """
    Build a new generation of *index* as *plan* says and put it into service.

    Raises `Locked` while another run of this index lives, and `IdxctlError` when the new generation is not fit for
    service; the old one then stays, and the new one is retired. Ctrl-C ends a run the same way.
    """
    return _Run(pool, client, settings, index, plan, options, steps).go()


class _Run:
    """One run, while it lasts."""

    def __init__(
        self,
        pool: Pool,
        client: Client,
        settings: Settings,
        index: IndexSettings,
        plan: Plan,
        options: Options,
        steps: Steps,
    ) -> None:
        self.pool = pool
        self.client = client
        self.settings = settings
        self.index = index
        self.plan = plan
        self.options = options
        self.steps = steps
        self.owner = registry.new_id()
        self.started = time.monotonic()
        self.documents = 0
        self.failed = 0
        self.sizes = Sizes()
        self.id = 0
        self.generation: Generation | None = None
        self.swapping = False

    @property
    def conn(self) -> Connection:
        return self.pool.mine()

    def go(self) -> Reindexed:
        """Take every step, and tell of a failure what is known of it."""
        try:
            return self._go()
        except IdxctlError as error:
            self.steps.failed(
                replace(self._result(swapped=self.swapping and self._swapped_if_known()), error=str(error))
            )
            raise

    def _go(self) -> Reindexed:
        """Take every step in order; on the way out of a failure, leave nothing half-built in the set."""
        age = timedelta(seconds=self.settings.bytes_gone_after_seconds)
        tombstones.require(  # T3: writes go to what is active already, as long as the run lasts
            self.client,
            generations.of_index(self.conn, self.plan.index),
            age_limit_seconds=self.settings.worker.age_limit_seconds,
            request_timeout_seconds=self.settings.opensearch.request_timeout_seconds,
        )
        tokens.catch_up_with_clock(self.conn)  # T4: chunks draw tokens without a claim
        retire.sweep_up(self.conn, self.client, age_limit=age)
        self._start()
        try:
            self._create()
            with self._alive():
                self._backfill()
                self._catch_up()
                self._check()
                self._restore()
                return self._swap()
        except BaseException as error:
            self._give_up(error)
            raise

    # --- steps ------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Record the run, after ending one that died; a living one keeps us out."""
        found = self.conn.run(SQL["open_run"], index=self.plan.index).fetchone()
        if found is not None:
            run, _, generation, _, phase, intent, owner, started_at, silent = found
            if float(silent) < _DEAD_AFTER_SECONDS:
                raise Locked(
                    f"a reindex of {self.plan.index} is under way: phase {phase}, run by {owner} since {started_at:%H:%M:%S}",
                    hint="wait for it; a run that died is noticed after half a minute",
                )
            known = generations.by_ids(self.conn, [generation]) if generation else []
            if swap.resolve(self.conn, self.client, run, intent, known[0] if known else None) == "done":
                raise IdxctlError(
                    f"the last reindex of {self.plan.index} died after its swap; that is recorded now, and {known[0].name} is live",
                    hint="run idxctl reindex again if you still want another one",
                )
        reach("reindex.looked")
        row = self.conn.run(
            SQL["start_run"],
            index=self.plan.index,
            previous=self.plan.live.id if self.plan.live else None,
            options=Jsonb({"readers": self.options.readers}),
            intent=Jsonb({"create": self.plan.name}),
            owner=self.owner,
        ).fetchone()
        if row is None:
            raise Locked(f"another reindex of {self.plan.index} has just begun", hint="wait for it")
        self.id = int(row[0])
        for one in generations.of_index(self.conn, self.plan.index):
            if one.state == "building":  # of a run that has ended, since ours is the only one that is open
                retire.retire(self.conn, one.id)
        audit.record(self.conn, action="reindex", what=self.plan.index, detail={"generation": self.plan.name})
        reach("reindex.started")

    def _create(self) -> None:
        """Create the index as it is best filled, then let workers know of it (G2); the order matters to them."""
        building = self.plan.lifetime.building
        try:
            aliases.create(
                self.client, self.plan.name, settings={"index": building}, mappings=self.plan.definition.mappings
            )
        except OpenSearchRefused as error:
            if error.status != 400:
                raise
            raise DocumentError(
                f"index {self.plan.index}: OpenSearch refuses the mapping or settings: {error.reason or error.message}",
                hint=f"see mapping under [indexes.{self.plan.index}] in the configuration; nothing was changed",
            ) from error
        reach("reindex.created")
        self._require_bare()
        with self.conn.transaction():
            self.generation = generations.register(self.conn, self.plan.index, self.plan.number, self.plan.definition)
            self._advance("created", generation=self.generation.id)
            if self.plan.lost and self.plan.live is not None:  # writes to it would be refused, and hold the queue up
                generations.set_state(self.conn, self.plan.live.id, "retired", expected=("live",))
        if self.plan.lost:
            self.plan = replace(self.plan, live=None)
        reach("reindex.registered")

    def _require_bare(self) -> None:
        """G5: nobody may search an index before it is whole, and what is to come along must fit it."""
        name = self.plan.name
        if unasked := aliases.standing(self.client, name):
            aliases.take_off(self.client, name, unasked)
            if not set(unasked) <= set(self.plan.given.aliases):  # those were said before, and gone on with
                raise DocumentError(
                    f"{name} was given aliases as it was made: {', '.join(sorted(unasked))}; they were taken off it at once, and nothing else was changed",
                    hint="take them out of the index template; aliases that stand on the live index come along with a swap",
                )
        for alias, more in self._to_carry().items():
            if (query := more.get("filter")) is not None and not aliases.fits(self.client, name, query):
                raise DocumentError(
                    f"index {self.plan.index}: the filter of alias {alias} cannot be one on the new mapping, so it could not come along; nothing was changed",
                    hint="change the filter, or keep the fields that it names in the mapping",
                )

    def _to_carry(self) -> Mapping[str, Mapping[str, Any]]:
        behind = self.plan.behind
        held = (aliases.standing(self.client, behind) if behind else None) or {}
        return {name: more for name, more in held.items() if not self.plan.foreign or name == self.plan.index}

    def _backfill(self) -> None:
        assert self.generation is not None
        self._advance("backfill")
        self.steps.begin("backfill", self.plan.rows)
        worker = self.settings.worker
        limits = Limits(worker.batch_bytes, worker.age_limit_seconds, self.sizes)
        fill = Backfill(
            self.pool, self.client, self.generation, self.id, self.owner, limits=limits, readers=self.options.readers
        )

        def tick() -> None:
            done = fill.progress
            self.documents, self.failed = done.documents, done.failed
            self.steps.move(done.documents, done.waiting or (f"{done.failed:,} refused" if done.failed else ""))

        fill.run(tick=tick)
        self.steps.end(f"{self.documents:,} documents" + (f", {self.failed:,} refused" if self.failed else ""))
        reach("reindex.filled")

    def _catch_up(self) -> None:
        """Wait until the queue has passed all that was enqueued until now; without a live worker, work it off ourselves."""
        self._advance("catch_up")
        before = self._now()
        waiting = self._open_tasks(before)
        self.steps.begin("catch up", waiting)
        if self._wait_until_passed(before, waiting):
            self.steps.end(f"{waiting:,} changes" if waiting else "nothing had changed")
        else:
            self.steps.end(f"{waiting:,} changes wait for the swap, since the live generation cannot be read")

    def _check(self) -> None:
        """Compare every document with its row; what differs is compared again once the queue has passed it."""
        assert self.generation is not None
        self._advance("check")
        aliases.refresh(self.client, self.generation.name)
        self.steps.begin("check", self.documents)
        compared = self._compare_all()
        if compared.unanswered:  # nobody can tell whether they are equal: their letters say so
            blame(self.conn, self.generation, 0, compared.unanswered)
        for _ in range(_ROUNDS):
            refused = self._refused()
            doubtful = [one for one in compared.differing if one not in refused]
            if not doubtful:
                break
            before = self._now()
            if _ > 0:  # still different once the queue had passed it: not lag, so write it again
                enqueue(self.conn, index=self.plan.index, ids=doubtful, origin="verify")
                before = self._now()
            if not self._wait_until_passed(before, 0):
                break
            again = compare.compare_ids(self.conn, self.client, self.generation, doubtful, sizes=self.sizes)
            compared = Compared(compared.checked, again.missing, again.stale, again.orphans, again.unreadable)
        refused = self._refused()
        drift = [one for one in compared.differing if one not in refused]
        if drift and stuck.unreadable(self.conn, self.plan.live):  # what a waiting task will mend after the swap
            drift = stuck.not_waiting(self.conn, self.plan.index, drift)
        if drift:
            self._refuse_drift(compared, drift)
        self.failed = len(refused)
        self.documents = max(compared.checked - len(refused), 0)
        self._judge_failures(compared.checked)
        self.steps.end(f"{self.documents:,} documents equal" + (f", {self.failed:,} refused" if self.failed else ""))
        reach("reindex.checked")

    def _compare_all(self) -> Compared:
        assert self.generation is not None
        generation, total = self.generation, Compared()

        def compare_chunk(keys: tuple[list[str] | None, list[str] | None]) -> Compared:
            found = Compared()
            for page in compare.compare_range(self.conn, self.client, generation, *keys, sizes=self.sizes):
                found.add(page)
            return found

        chunks = self.conn.run(SQL["chunks"], run=self.id).fetchall()
        with ThreadPoolExecutor(min(self.options.readers, 4), "check") as threads:
            for part in threads.map(compare_chunk, [(after, upto) for after, upto in chunks]):
                total.add(part)
                self.steps.move(total.checked, "")
        held = scan.count(self.client, self.generation.name)
        if held != total.checked - len(total.missing) - len(
            total.unreadable
        ):  # rows that came or went meanwhile, or orphans
            for ids in compare.orphans(self.conn, self.client, self.generation):
                total.orphans.extend(ids)
        return total

    def _refuse_drift(self, compared: Compared, drift: list[str]) -> None:
        kinds = f"{len(compared.missing)} missing, {len(compared.stale)} stale, {len(compared.orphans)} without a row"
        fields = sorted({name for names in compared.stale.values() for name in names})
        example = f"for example {drift[0]}" + (f", in {', '.join(fields[:5])}" if drift[0] in compared.stale else "")
        raise IdxctlError(
            f"{len(drift):,} documents of the new generation still differ from their rows ({kinds}), {example}; nothing was swapped",
            hint="does every table the document reads have a watch, and does the document hold something that changes by itself, such as now()?",
        )

    def _judge_failures(self, checked: int) -> None:
        allowed = self.options.max_failed if self.options.max_failed is not None else max(10, checked // 100)
        if self.failed and (self.failed > allowed or self.failed == checked):
            row = self.conn.run(
                SQL["generation_failures"], generation=self.generation.id if self.generation else 0
            ).fetchone()
            example = f"; {row[0]}: {row[2]}" if row else ""
            raise IdxctlError(
                f"{self.failed:,} of {checked:,} documents were refused (at most {allowed:,} may be), nothing was swapped{example}",
                hint="mend the rows or the mapping, or allow it: idxctl reindex --max-failed N",
            )

    def _restore(self) -> None:
        """Give the index the settings it is to live with, and wait until its copies have started."""
        assert self.generation is not None
        self._advance("restore")
        name, lifetime = self.generation.name, self.plan.lifetime
        lifetime_.put(self.client, name, lifetime.living)
        reach("reindex.restored")
        aliases.refresh(self.client, name)
        shown = False

        def tick(found: Copies, why: str) -> None:
            nonlocal shown
            if not shown:
                self.steps.begin("copies", found.wanted or None)
                shown = True
            self.steps.move(found.started, why)

        found = copies.wait(self.client, name, seconds=self.options.wait_for_copies.total_seconds(), tick=tick)
        if shown:
            self.steps.end(
                f"{found.started} of {found.wanted} have started"
                + (f"; no node takes the others: {found.homeless}" if found.homeless else "")
            )
        needed = lifetime.copies_needed(found.of_each)
        if found.fewest < needed:
            raise IdxctlError(
                f"each write to {name} waits for {needed} copies (write.wait_for_active_shards), and of a shard there are {found.fewest}: "
                f"{found.homeless}; nothing was swapped",
                hint="lower write.wait_for_active_shards in the mapping file or the template, or add a data node",
            )
        lifetime_.put(self.client, name, lifetime.last)
        reach("reindex.copied")

    def _swap(self) -> Reindexed:
        assert self.generation is not None
        self.steps.begin("swap", None)
        self.swapping = True
        old = self.plan.live
        done = swap.swap(
            self.conn,
            self.client,
            self.id,
            Swap(
                self.generation,
                old,
                self.plan.foreign,
                self.plan.replaces_index,
                self.options.keep,
                self._moot_letters(),
            ),
        )
        for one in generations.of_index(self.conn, self.plan.index):
            if one.state == "standby" and (old is None or one.id != old.id) and not self._searched(one):
                retire.retire(self.conn, one.id)  # one standby is kept: the last
        until = next(
            (one.standby_until for one in generations.of_index(self.conn, self.plan.index) if old and one.id == old.id),
            None,
        )
        self.steps.end(
            "done"
            + (f", with {', '.join(done.moved)}" if done.moved else "")
            + (f", {old.number:06d} kept as standby and current" if old else "")
        )
        for sentence in done.amiss:
            self.steps.warn(sentence)
        return replace(self._result(swapped=True), previous=old.name if old else None, standby_until=until)

    def _moot_letters(self) -> list[tuple[int, int]]:
        """
        Return letters of the live generation whose documents the new one holds as their rows are: they came meanwhile.

        A letter that is written again after this look has another token, and stays.
        """
        assert self.generation is not None
        since = self.conn.run(
            SQL["letters_since"], index=self.plan.index, run=self.id, generation=self.generation.id
        ).fetchall()
        moot: list[tuple[int, int]] = []
        for at in range(0, len(since), _LETTERS):
            part = since[at : at + _LETTERS]
            names = sorted({name for _, _, name in part})
            try:
                found = compare.compare_ids(self.conn, self.client, self.generation, names, sizes=self.sizes)
            except IdxctlError:  # they stay, and a retry clears them; the swap does not hang on them
                break
            differing = {*found.differing, *found.unreadable, *found.unanswered}
            moot += [(letter, token) for letter, token, name in part if name not in differing]
        return moot

    def _searched(self, generation: Generation) -> bool:
        """Whether an alias stands on a generation of before; where nobody can tell, it is taken to."""
        try:
            return bool(aliases.standing(self.client, generation.name))
        except IdxctlError:
            return True

    def _result(self, *, swapped: bool | None) -> Reindexed:
        name = self.generation.name if self.generation else None
        return Reindexed(
            self.plan.index, name, self.documents, self.failed, round(time.monotonic() - self.started, 3), swapped
        )

    # --- waiting ----------------------------------------------------------------------------------------------------

    def _wait_until_passed(self, before: datetime, total: int) -> bool:
        """
        Return once every task enqueued before *before* is settled, fan-outs and batches in flight included; False where
        they wait for this very reindex, since the live generation can no longer be read.

        While no worker serves the index, one of our own does; others may die, or come, at any time.
        """
        with ExitStack() as ours:
            check: Callable[[], None] | None = None
            looked = time.monotonic()
            while left := self._open_tasks(before):
                if stuck.unreadable(self.conn, self.plan.live):
                    return False
                if check is not None:
                    check()
                elif not registry.alive(self.conn, index=self.plan.index):
                    check = ours.enter_context(beside(self._worker()))
                self.steps.move(max(total - left, 0), self._why_it_waits())
                time.sleep(backoff.before_look(time.monotonic() - looked, shortest=_POLL_SECONDS))
                looked = time.monotonic()
        return True

    def _worker(self) -> Worker:
        """Return a worker for this index."""
        return Worker(self.pool, self.client, WorkerOptions.of(self.settings, workers=2, indexes=[self.plan.index]))

    def _why_it_waits(self) -> str:
        held = [one for one in pause.pauses(self.conn) if one.index == self.plan.index]
        if held:
            return f"{self.plan.index} is paused: {held[0].reason}"
        row = self.conn.run(QUEUE["broken_lookup"], index=self.plan.index).fetchone()
        return f"a lookup cannot be run, mend it or idxctl queue cancel: {row[0]}" if row else ""

    def _open_tasks(self, before: datetime) -> int:
        row = self.conn.run(QUEUE["open_tasks"], index=self.plan.index, before=before).fetchone()
        assert row is not None
        return int(row[0])

    def _refused(self) -> set[str]:
        assert self.generation is not None
        return {row[0] for row in self.conn.run(SQL["generation_failures"], generation=self.generation.id)}

    def _now(self) -> datetime:
        row = self.conn.pinned(b"SELECT clock_timestamp()").fetchone()
        assert row is not None
        now: datetime = row[0]
        return now

    # --- the run's row ----------------------------------------------------------------------------------------------

    def _advance(self, phase: str, *, generation: int | None = None) -> None:
        if (
            self.conn.run(SQL["advance_run"], id=self.id, phase=phase, generation=generation, intent=None).fetchone()
            is None
        ):
            raise IdxctlError(f"the reindex of {self.plan.index} was taken over or cancelled by another run")

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """Keep the run's row fresh, from a thread of its own: a long step must not look like a dead run."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(2.0):
                try:
                    self.pool.mine().run(SQL["beat_run"], id=self.id, documents=self.documents, failed=self.failed)
                except IdxctlError:
                    continue  # Postgres is away; whoever needs it says so

        thread = threading.Thread(target=beat, name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=5)

    def _give_up(self, error: BaseException) -> None:
        """Retire what was being built; if a server is away, the next run finds the row and does it."""
        why = str(error) if isinstance(error, IdxctlError) else type(error).__name__
        phase = "cancelled" if isinstance(error, KeyboardInterrupt) else "failed"
        try:
            row = self.conn.run(SQL["open_run"], index=self.plan.index).fetchone()
            if row is None or row[0] != self.id or (row[4] == "swap" and self._swapped()):
                return
            if self.generation is not None:
                retire.retire(self.conn, self.generation.id)
            elif row[2] is None:
                swap.discard(self.client, self.plan.name)
            self.conn.run(
                SQL["finish_run"],
                id=self.id,
                phase=phase,
                error=None if why is None else self.conn.reason(why),
                documents=self.documents,
                failed=self.failed,
            )
        except IdxctlError:
            return

    def _swapped(self) -> bool:
        """G4: the alias decides whether the swap was made."""
        return self.generation is not None and self.generation.name in aliases.targets(self.client, self.plan.index)

    def _swapped_if_known(self) -> bool | None:
        try:
            return self._swapped()
        except IdxctlError:
            return None
