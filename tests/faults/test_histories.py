"""
P1 and P2 over random histories: writers, workers, crashes, rescues, retries and rebuilds in any order, on real servers.

Every actor is held between the steps of the real code and goes on only when it is told to, so a history is the same whenever
its choices are. IDXCTL_TEST_HISTORIES is how many of them are tried; --hypothesis-seed repeats a run.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
from datetime import timedelta

import psycopg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from idxctl import dlq
from idxctl.core import failpoints
from idxctl.core.errors import IdxctlError
from idxctl.dlq import Selection
from idxctl.indexes import generations, retire
from idxctl.indexes.generations import Generation
from idxctl.queue import rescue
from idxctl.rebuild import begin, preflight, process, runs, swap
from idxctl.rebuild.backfill import Backfill
from idxctl.rebuild.steps import Options as Reindexing
from idxctl.rebuild.steps import Steps
from idxctl.worker import registry
from idxctl.worker.written import Learnt, Limits
from support import actors, judge
from support.actors import Actor
from support.rig import ITEMS_DOCUMENT, ITEMS_MAPPING, Rig, write_items

HISTORIES = int(os.environ.get("IDXCTL_TEST_HISTORIES", "60"))
SHRINK = os.environ.get("IDXCTL_TEST_SHRINK", "yes") == "yes"  # a history that fails, to its shortest form
STEPS = 60
ITEMS = st.sampled_from([1, 1, 1, 2, 2, 3])  # few, so that actors meet
CATEGORIES = st.integers(1, 2)
BATCH_SIZES = (1, 2, 1000)  # one worker each
NEVER = 10**6  # attempts: losing its worker makes no letter of a document

WORKER_POINTS = ("claim.locked", "claim.taken", "claim.committed", "read.done", "send.before", "send.done", "settle.before",
                 "settle.moved", "expand.before", "expand.moved", "expand.swept_page")  # fmt: skip
REBUILD_POINTS = ("reindex.started", "reindex.created", "reindex.registered", "chunk.before", "chunk.committed", "send.before",
                  "chunk.done", "swap.intended", "swap.made", "swap.recorded")  # fmt: skip
CLERK_POINTS = ("rescue.moved", "dlq.requeued")

# The second shape takes a field that the first one's mapping refuses (G1).
LABELLED_DOCUMENT = ITEMS_DOCUMENT.replace("'price', i.price", "'price', i.price, 'label', upper(i.name)")
LABELLED_MAPPING = copy.deepcopy(ITEMS_MAPPING)
LABELLED_MAPPING["mappings"]["properties"]["label"] = {"type": "keyword"}

ACTS = {
    "insert": ["INSERT INTO items (id, name, category_id) VALUES (%(item)s, %(name)s, %(category)s)"],
    "upsert": ["INSERT INTO items (id, name) VALUES (%(item)s, %(name)s) ON CONFLICT (id) DO UPDATE SET name = excluded.name"],
    "rename": ["UPDATE items SET name = %(name)s WHERE id = %(item)s"],
    "move": ["UPDATE items SET category_id = %(category)s WHERE id = %(item)s"],
    "see": ["UPDATE items SET seen = seen + 1 WHERE id = %(item)s"],
    "delete": ["DELETE FROM items WHERE id = %(item)s"],
    "renumber": ["DELETE FROM parts WHERE item_id = %(item)s", "UPDATE items SET id = %(other)s WHERE id = %(item)s"],
    "add part": ["INSERT INTO parts (item_id, name) VALUES (%(item)s, %(name)s)"],
    "give parts away": ["UPDATE parts SET item_id = %(other)s WHERE item_id = %(item)s"],
    "drop parts": ["DELETE FROM parts WHERE item_id = %(item)s"],
    "rename category": ["UPDATE categories SET name = %(name)s WHERE id = %(category)s"],
    "rename all of a category": ["UPDATE items SET name = %(name)s WHERE category_id = %(category)s"],
    "truncate parts": ["TRUNCATE parts"],
    "truncate items": ["TRUNCATE items CASCADE"],
    "spoil for OpenSearch": ["UPDATE items SET price = 'dear' WHERE id = %(item)s"],
    "spoil for PostgreSQL": ["UPDATE items SET divisor = 0 WHERE id = %(item)s"],
    "spoil for the first shape": ["UPDATE items SET extra = '{\"label\": \"mine\"}' WHERE id = %(item)s"],
    "mend": ["UPDATE items SET price = '2', divisor = 2, extra = '{}' WHERE id = %(item)s"],
    "enqueue": ["SELECT opensearch_indexing_enqueue(%(index)s, %(item)s::text, 'delete')"],
}  # fmt: skip
# Refused: a lock that another writer holds, a key that is there or missing, a row that a later snapshot has changed.
REFUSED = (psycopg.errors.LockNotAvailable, psycopg.errors.IntegrityError, psycopg.errors.OperationalError)


class Writer:
    """A connection of the application with, at times, a transaction open."""

    def __init__(self, database: str) -> None:
        self._connection = psycopg.connect(database, autocommit=True)
        self._connection.execute("SET lock_timeout = '10ms'")
        self.open = False

    def begin(self, isolation: str) -> None:
        if not self.open:
            self._connection.execute(f"BEGIN ISOLATION LEVEL {isolation}")
            self.open = True

    def act(self, name: str, values: dict, *, back: bool) -> None:
        """Do it in a savepoint, which is rolled back when it is refused, or when *back* says so."""
        with contextlib.suppress(*REFUSED), self._connection.transaction(force_rollback=back):
            for statement in ACTS[name]:
                self._connection.execute(statement, values)

    def end(self, how: str) -> None:
        if self.open:
            self._connection.execute(how)
            self.open = False

    def close(self) -> None:
        self._connection.close()


class World:
    """The servers' side of histories: made once, and again after a history that went wrong."""

    def __init__(self, open_rig) -> None:
        self._open_rig = open_rig
        self._close = contextlib.ExitStack()
        self.clean = False

    def begin(self) -> None:
        if not self.clean:
            self.close()
            self._open()
        self.clean = False
        self.use_shape(labelled=False)
        self.rig.sql("DELETE FROM items")
        self.rig.sql("UPDATE categories SET name = 'category ' || id")
        self.rig.sql("INSERT INTO items (id, name, category_id) VALUES (1, 'one', 1), (2, 'two', 2)")
        self.rig.sql("INSERT INTO parts (item_id, name) VALUES (1, 'first'), (1, 'second'), (2, 'third')")
        self.drain()

    def close(self) -> None:
        self._close.close()

    def _open(self) -> None:
        self.rig: Rig = self._close.enter_context(self._open_rig())
        control = self._close.enter_context(psycopg.connect(self.rig.database, autocommit=True))
        pid = lambda: self.rig.conn.raw.info.backend_pid  # noqa: E731
        self.workers = [Actor(f"worker {number}", pid, control) for number in range(len(BATCH_SIZES))]
        self.rebuilder, self.clerk = Actor("rebuilder", pid, control), Actor("clerk", pid, control)
        self.actors = [*self.workers, self.rebuilder, self.clerk]
        self.writers = [self._close.enter_context(contextlib.closing(Writer(self.rig.database))) for _ in range(3)]
        for actor in self.actors:
            self._close.callback(actor.abandon)

    def use_shape(self, *, labelled: bool) -> None:
        if labelled:
            self.rig.configure(document=LABELLED_DOCUMENT, mapping=LABELLED_MAPPING)
        else:
            self.rig.configure(document=ITEMS_DOCUMENT, mapping=ITEMS_MAPPING)

    def hand(self, batch_size: int):
        hand = self.rig.hand(batch_size=batch_size, max_attempts=NEVER)
        hand.worker.stop()  # one that is stopping does not pause between its steps
        return hand

    # --- time, which passes only when it is told to -------------------------------------------------------------------

    def pass_time(self) -> None:
        """Let a minute and a half go by, for the database: leases lapse, waits end."""
        minute = "interval '90 seconds'"
        for statement in (
            (
                f"UPDATE opensearch_indexing_inflight SET lease_until = lease_until - {minute}, "
                f"claimed_at = claimed_at - {minute} "
                "WHERE token IN (SELECT token FROM opensearch_indexing_inflight FOR UPDATE SKIP LOCKED)"
            ),
            (
                f"UPDATE opensearch_indexing_queue SET available_at = available_at - {minute} WHERE id IN "
                "(SELECT id FROM opensearch_indexing_queue WHERE available_at > clock_timestamp() FOR UPDATE SKIP LOCKED)"
            ),
            f"UPDATE opensearch_indexing_generations SET retired_at = retired_at - {minute} WHERE retired_at IS NOT NULL",
            f"UPDATE opensearch_indexing_reindex_runs SET seen_at = seen_at - {minute} WHERE finished_at IS NULL",
            f"UPDATE opensearch_indexing_reindex_chunks SET lease_until = lease_until - {minute} WHERE done_at IS NULL",
        ):
            self.rig.sql(statement)

    def rescue(self) -> None:
        rescue.rescue(self.rig.conn, max_attempts=NEVER)

    def retry(self) -> None:
        dlq.requeue(self.rig.conn, Selection(index=self.rig.index, older_than=timedelta(0)), limit=100)

    def sweep_up(self) -> None:
        retire.sweep_up(self.rig.conn, self.rig.client, age_limit=timedelta(seconds=60))

    # --- a rebuild, without the waiting and comparing that would tidy up behind a mistake -----------------------------

    def rebuild(self) -> None:
        rig = self.rig
        index = rig.settings.indexes[rig.index]
        plan = preflight.plan(rig.conn, rig.client, index)
        owner = registry.new_id()
        try:
            begun = begin.begin(rig.conn, rig.client, plan, Reindexing(), owner, Steps())
        except IdxctlError:  # the last one died after its swap, which is recorded now
            return
        run = begun.run
        state, intent = runs.state(rig.conn, run, owner)
        if state == "created":
            runs.advance(rig.conn, run, "created", "backfilling", owner)
            state = "backfilling"
        if state == "backfilling":
            fill = Backfill(
                rig.pool, rig.client, begun.generation, run.id, owner, limits=Limits(), learnt=Learnt(), readers=1
            )
            fill._plan()
            while chunk := fill._take():
                fill._carry(chunk)
            runs.advance(rig.conn, run, "backfilling", "catching_up", owner)
            state = "catching_up"
        if state == "catching_up":
            runs.advance(rig.conn, run, "catching_up", "ready", owner)
        live = generations.live(rig.conn, index.name)
        job = process.Job(rig.pool, rig.client, rig.settings, Reindexing(), Steps(), owner, begun, live)
        process.put_into_service(job, intent)

    # --- at rest ------------------------------------------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """Let everybody come to an end, and the queue get empty."""
        for writer in self.writers:
            writer.end("COMMIT")
        while [actor.go_on(()) for actor in self.actors if actor.busy]:
            pass
        self.drain()

    def finish(self) -> None:
        """Come to rest, and put in order what a killed rebuild left."""
        self.come_to_rest()
        self.pass_time()
        self.resolve()
        self.drain()

    def resolve(self) -> None:
        conn, client, index = self.rig.conn, self.rig.client, self.rig.index
        found = runs.open_run(conn, index)
        if found is not None:
            known = generations.by_ids(conn, [found.generation]) if found.generation else []
            swap.resolve(conn, client, found, known[0] if known else None)

    def drain(self) -> None:
        hand = self.hand(1000)
        for _ in range(300):
            self.pass_time()
            self.rescue()
            if self.rig.queued() + self.rig.in_flight() == 0:
                return
            if taken := hand.worker.poll():
                hand.carry(taken)
        raise AssertionError("the queue does not get empty")

    def poison(self, generation: Generation) -> set[str]:
        """Ids of the rows that this generation cannot take."""
        label = "" if "label" in generation.definition.mappings["properties"] else " OR extra ? 'label'"
        return {
            row[0] for row in self.rig.sql(f"SELECT id::text FROM items WHERE price = 'dear' OR divisor = 0{label}")
        }

    def compare(self) -> list[Generation]:
        """At rest every document of what is or was in service equals its row, unless that cannot be indexed."""
        active = [one for one in generations.of_index(self.rig.conn, self.rig.index) if one.active]
        for one in active:
            if one.state == "building":
                continue
            readable = one.definition.document + " WHERE i.divisor <> 0"
            found = judge.differences(self.rig.database, readable, self.rig.opensearch, one.name, but=self.poison(one))
            assert not found, f"{one.state} {one.name}: {found}"
        return active

    def judge(self) -> None:
        """Every document equals its row, or has a letter because its row cannot be indexed; nothing else is left."""
        active = self.compare()
        (live,) = [one for one in active if one.state == "live"]
        assert not self.rig.sql("SELECT * FROM opensearch_indexing_pauses")
        assert self.rig.ask("GET", f"/_alias/{self.rig.index}").keys() == {live.name}
        assert self.poison(live) <= self.rig.letters().keys(), "a row that cannot be indexed has no letter"
        self.retry()
        self.drain()
        assert self.rig.letters().keys() == self.poison(live), "a letter that a retry does not clear"
        self._tidy_up(live)

    def _tidy_up(self, live: Generation) -> None:
        """Leave the live generation alone in its first shape, and see that no deleted index has come back (G3)."""
        if "label" in live.definition.mappings["properties"]:
            self.use_shape(labelled=False)
            self.rig.sql("TRUNCATE items CASCADE")
            self.drain()
            self.rebuild()
        for one in generations.of_index(self.rig.conn, self.rig.index):
            if one.state in ("building", "standby"):
                retire.retire(self.rig.conn, one.id)
        self.pass_time()
        self.sweep_up()
        there = set(self.rig.ask("GET", f"/{self.rig.index}-*"))
        assert there == {generations.live(self.rig.conn, self.rig.index).name}, "an index that was deleted is back"


class Histories(RuleBasedStateMachine):
    """One history: rules are what may happen next."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.world.begin()
        self._names = 0
        self._rebuilds = 0
        self._hands = [self.world.hand(size) for size in BATCH_SIZES]
        self._taken: list = [None] * len(BATCH_SIZES)

    def teardown(self) -> None:
        if sys.exc_info()[1] is None:
            self.world.finish()
            self.world.judge()
            self.world.clean = True

    def _look(self) -> None:
        """See how far those have come who waited for a lock that may be free now."""
        for actor in self.world.actors:
            if actor.busy and actor.at is None:
                actor.look()

    @initialize(
        acts=st.one_of(st.just(tuple(ACTS)), st.lists(st.sampled_from(sorted(ACTS)), min_size=1, max_size=4)),
        points_=st.one_of(st.just(WORKER_POINTS), st.lists(st.sampled_from(WORKER_POINTS), min_size=1, max_size=2)),
        all_rebuild_points=st.booleans(),
    )
    def choose_a_kind(self, acts, points_, all_rebuild_points):
        """Many histories are about little: a few acts, one or two steps to stand at; that makes actors meet."""
        self._acts, self._points = tuple(acts), tuple(points_)
        self._all_rebuild_points = all_rebuild_points

    # --- the application ----------------------------------------------------------------------------------------------

    @rule(writer=st.sampled_from([None, None, 0, 1]), which=st.integers(0, 10**6), item=ITEMS, other=ITEMS, category=CATEGORIES,
          back=st.sampled_from([False] * 7 + [True]), isolation=st.sampled_from(["READ COMMITTED", "REPEATABLE READ"]))  # fmt: skip
    def write(self, writer, which, item, other, category, back, isolation):
        self._write(writer, self._acts[which % len(self._acts)], item, other, category, back=back, isolation=isolation)

    def _write(self, writer, name, item, other, category, *, back=False, isolation="READ COMMITTED"):
        self._names += 1
        values = {
            "item": item,
            "other": other,
            "category": category,
            "name": f"name {self._names}",
            "index": self.world.rig.index,
        }
        one = self.world.writers[2 if writer is None else writer]
        if writer is not None:
            one.begin(isolation)
        one.act(name, values, back=back)
        self._look()

    @rule(
        item=ITEMS, category=CATEGORIES, name=st.sampled_from(["rename", "move", "rename category", "delete", "upsert"])
    )
    def write_at_once(self, name, item, category):
        self._write(None, name, item, item, category)

    @precondition(lambda self: any(writer.open for writer in self.world.writers))
    @rule(writer=st.integers(0, 1), how=st.sampled_from(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]))
    def end_a_transaction(self, writer, how):
        self.world.writers[writer].end(how)
        self._look()

    # --- workers ------------------------------------------------------------------------------------------------------

    @rule(worker=st.integers(0, 2), which=st.integers(0, 10**6), below=st.booleans())
    def work(self, worker, which, below):
        self._work(worker, (self._points[which % len(self._points)],), below=below)

    @rule(worker=st.integers(0, 2), below=st.booleans())
    def work_to_the_end(self, worker, below):
        self._work(worker, (), below=below)

    def _work(self, worker, until, *, below):
        actor, hand = self.world.workers[worker], self._hands[worker]

        def job() -> None:
            self._taken[worker] = hand.worker.poll()
            if self._taken[worker]:
                hand.carry(self._taken[worker])

        if actor.busy:
            actor.go_on(until)
        else:
            hand.worker.poller.swept_at = float(
                "-inf" if below else "inf"
            )  # whether it is time to look below the floor
            self._taken[worker] = None
            actor.begin(job, until)
        self._look()

    @rule(worker=st.integers(0, 2))
    def kill_a_worker(self, worker):
        self.world.workers[worker].kill()
        if not self.world.workers[worker].busy:
            self._hands[worker] = self.world.hand(BATCH_SIZES[worker])
        self._look()

    @rule()
    def a_minute_and_a_half_passes(self):
        """For bytes on their way as well: they grow too old, wherever their worker stands."""
        self.world.pass_time()
        for taken in self._taken:
            if taken is not None:
                object.__setattr__(taken[0], "born", taken[0].born - 90)

    @rule()
    def leases_lapse(self):
        self.world.rig.sql(
            "UPDATE opensearch_indexing_inflight SET lease_until = now() - interval '1 second' "
            "WHERE token IN (SELECT token FROM opensearch_indexing_inflight FOR UPDATE SKIP LOCKED)"
        )
        self._ask_the_clerk(self.world.rescue, ())

    @rule(job=st.sampled_from(["rescue", "retry", "sweep_up"]), until=st.sampled_from([(), CLERK_POINTS]))
    def keep_house(self, job, until):
        self._ask_the_clerk(getattr(self.world, job), until)

    def _ask_the_clerk(self, job, until):
        if self.world.clerk.busy:
            self.world.clerk.go_on(until)
        else:
            self.world.clerk.begin(job, until)
        self._look()

    @precondition(lambda self: not self.world.rebuilder.busy)
    @rule()
    def rest(self):
        """Everybody comes to an end, and what is in service is compared: later writes would hide what went wrong."""
        self.world.come_to_rest()
        self.world.compare()

    # --- generations --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self._rebuilds < 2 or self.world.rebuilder.busy)
    @rule(until=st.sampled_from([(one,) for one in REBUILD_POINTS] + [()]), labelled=st.booleans())
    def rebuild(self, until, labelled):
        if until and self._all_rebuild_points:
            until = REBUILD_POINTS
        if self.world.rebuilder.busy:
            self.world.rebuilder.go_on(until)
        else:
            self._rebuilds += 1
            self.world.use_shape(labelled=labelled)
            self.world.rig.sql("UPDATE opensearch_indexing_reindex_runs SET seen_at = seen_at - interval '1 minute'")
            self.world.rebuilder.begin(self.world.rebuild, until)
        self._look()

    @precondition(lambda self: self.world.rebuilder.at is not None)
    @rule()
    def kill_the_rebuild(self):
        self.world.rebuilder.kill()
        self._look()

    @precondition(lambda self: not self.world.clerk.busy)
    @rule()
    def retire_what_stands_by(self):
        for one in generations.of_index(self.world.rig.conn, self.world.rig.index):
            if one.state == "standby":
                self._ask_the_clerk(lambda one=one: retire.retire(self.world.rig.conn, one.id), ())
                return


def test_every_history_ends_with_documents_that_equal_their_rows(
    clone, items_template, opensearch_url, unique_name, tmp_path
):
    """P1, P2."""
    made = iter(range(10**6))

    @contextlib.contextmanager
    def open_rig():
        name = f"{unique_name}n{next(made)}"
        write_items(tmp_path / name, name)
        with clone(items_template) as url:
            rig = Rig(url, opensearch_url, name, tmp_path / name)
            with contextlib.closing(rig):
                rig.watch()
                rig.reindex()
                yield rig

    class Here(Histories):
        world = World(open_rig)

    actors.listen()
    try:
        run_state_machine_as_test(
            Here,
            settings=settings(
                max_examples=HISTORIES,
                stateful_step_count=STEPS,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[one for one in Phase if SHRINK or one is not Phase.shrink],
            ),
        )
    finally:
        failpoints.install(None)
        Here.world.close()
