"""The sequence set back, by a restored backup or by hand, and the server killed under load: T2 and T4."""

import re
import subprocess
import threading

import psycopg
import pytest

from idxctl.core.errors import IdxctlError
from idxctl.embedded.postgres import Postgres, packaged_bin
from idxctl.postgres.connect import connect
from idxctl.queue import claim
from idxctl.worker.outcomes import Kind, Verdict
from idxctl.worker.sort import sort
from idxctl.worker.written import Written
from support.rig import ITEMS_SCHEMA, Rig, until, write_items


@pytest.fixture
def own(tmp_path, migrate, opensearch_url, unique_name):
    """A PostgreSQL of the test's own, that promises no durable commits, and a rig on it."""
    with Postgres(tmp_path / "postgres", settings={"synchronous_commit": "off"}) as server:
        migrate(server.url)
        write_items(tmp_path / "items", unique_name)
        rig = Rig(server.url, opensearch_url, unique_name, tmp_path / "items")
        rig.sql(ITEMS_SCHEMA)
        rig.watch()
        rig.reindex()
        yield server, rig
        rig.close()


def sequence(rig):
    return rig.one("SELECT last_value FROM opensearch_indexing_token")


def jumps(rig):
    return rig.sql("SELECT jumped_from, jumped_to, reason FROM opensearch_indexing_token_jumps ORDER BY id")


def a_thousand_changes(rig):
    """Changes of every kind, indexed in small batches so that many tokens are drawn."""
    rig.sql("INSERT INTO items (id, name, category_id) SELECT i, 'later ' || i, 1 FROM generate_series(101, 400) i")
    for step in range(30):
        rig.sql("UPDATE items SET name = 'lost ' || %s, price = %s WHERE id %% 30 = %s", step, str(step), step)
    rig.sql("UPDATE items SET name = name || '!' WHERE id <= 400")
    rig.sql("DELETE FROM items WHERE id IN (2, 3, 5)")
    rig.sql("UPDATE categories SET name = name || '!'")
    rig.drain(batch_size=25)


def test_a_base_backup_taken_before_a_thousand_changes_is_restored(own, tmp_path, idxctl):
    server, rig = own
    rig.sql("UPDATE items SET name = name || '?' WHERE id = 20")
    rig.drain()
    backup = tmp_path / "backup"
    program = [
        packaged_bin() / "pg_basebackup",
        "--pgdata",
        backup / "data",
        "--dbname",
        server.url,
        "--checkpoint=fast",
    ]
    subprocess.run(program, check=True, capture_output=True)
    a_thousand_changes(rig)
    assert rig.differences() == []
    came_to = sequence(rig)
    server.stop()
    rig.close()

    with Postgres(backup) as restored:
        rig = Rig(restored.url, rig.opensearch, rig.index, rig.directory)
        assert sequence(rig) < came_to
        rig.sql("UPDATE items SET name = 'after the restore' WHERE id IN (1, 2, 7)")
        rig.sql("DELETE FROM items WHERE id = 8")
        rig.sql("INSERT INTO items (id, name, category_id) VALUES (101, 'another 101', 2), (500, 'new', 1)")
        run = idxctl.use(database=restored.url, opensearch=rig.opensearch, config=rig.config)
        worked = run("worker", "start", "--until-empty")
        assert worked.status == 0
        assert "PostgreSQL was restarted" in worked.stderr
        assert sequence(rig) > came_to
        (*_, (jumped_from, jumped_to, _)) = jumps(rig)
        assert jumped_from < came_to < jumped_to
        # What has changed since is as it should be; what was lost is drift, in the index alone.
        drifted = {re.match(r"\S+", one).group() for one in rig.differences()}
        assert drifted
        assert not drifted & {"1", "2", "7", "8", "101", "500"}

        where = run("queue", "add", "--where", "true", "-o", "json").json["enqueued"]
        rig.drain()
        assert where == rig.one("SELECT count(*) FROM items")
        assert {one.split(" ", 1)[1] for one in rig.differences()} == {"has no row"}  # rows that were never there
        run("queue", "add", "--all")
        rig.drain()
        assert rig.differences() == []
        assert rig.letters() == {}
        rig.close()


def test_nothing_is_claimed_from_a_server_started_anew_before_the_sequence_has_been_moved(items):
    """
    A conflict alone would not tell: other workers draw past the version that the lost future has left, and it looks like ours.
    """
    began = sequence(items)
    items.sql("UPDATE items SET name = 'of a future that was lost' WHERE id = 1")
    for number in range(2, 5):
        items.enqueue(number)
        items.hand(batch_size=1).step()
    items.hand().steps()
    lost = items.version(1)
    assert lost > began
    # The backup is restored: its server has never been seen to jump.
    items.sql(f"ALTER SEQUENCE opensearch_indexing_token RESTART WITH {began}")
    items.sql("UPDATE opensearch_indexing_token_jumps SET server = 'the former one'")
    items.sql("UPDATE items SET name = 'after the restore' WHERE id = 1")
    slow = items.hand(batch_size=1)
    taken = slow.claim()
    for number in range(2, 9):
        items.enqueue(number)
        items.hand(batch_size=1).step()
    slow.carry(taken)
    items.drain()
    assert taken[0].token > lost
    assert items.differences() == []


def test_a_sequence_set_back_within_the_hour_is_found_by_the_conflict(items):
    """By hand, with nothing started anew: the version that stands there is above the sequence."""
    began = sequence(items)
    items.sql("UPDATE items SET name = name || '!'")
    items.drain(batch_size=1)
    came_to = sequence(items)
    before = len(jumps(items))
    items.sql(f"ALTER SEQUENCE opensearch_indexing_token RESTART WITH {began}")
    items.sql("UPDATE items SET name = 'after' WHERE id IN (15, 20)")
    items.sql("DELETE FROM items WHERE id = 19")
    items.drain()
    assert items.differences() == []
    assert sequence(items) > came_to - 20
    assert len(jumps(items)) == before + 1
    assert jumps(items)[-1][2] == "OpenSearch holds a version that this sequence did not draw"


def test_a_conflict_that_names_no_version_is_no_success(items):
    items.enqueue(1)
    batch, _ = items.hand().claim()
    live = items.generation()
    written = Written(
        {("1", live.id): Verdict(Kind.SUPERSEDED, "version_conflict_engine_exception", "another wording")}
    )
    written.count(live, 1)
    sorted_ = sort(batch, [live], written, {live.id: "live"})
    assert [one.task.document_id for one in sorted_.outcomes.again] == ["1"]


class Claimers:
    """Threads that claim without end, and keep the tokens of the claims whose commit was answered."""

    def __init__(self, rig: Rig) -> None:
        self.tokens: list[int] = []
        self._rig = rig
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._claim, args=(number,), daemon=True) for number in range(3)]

    def _claim(self, number: int) -> None:
        while not self._end.is_set():
            try:
                with connect(self._rig.settings.database) as conn:
                    while not self._end.is_set():
                        conn.raw.execute("SELECT opensearch_indexing_enqueue(%s, %s)", (self._rig.index, str(number)))
                        taken = claim.claim(
                            conn, index=self._rig.index, priority=0, worker="h:1:x", limit=1, lease_seconds=600
                        )
                        if taken is not None:
                            self.tokens.append(taken.batch.token)
            except (IdxctlError, psycopg.Error):  # the server is away
                self._end.wait(0.05)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join(10)


def test_no_token_is_drawn_twice_when_the_server_is_killed_under_load(own):
    server, rig = own
    with Claimers(rig) as claimers:
        for _ in range(3):
            enough = len(claimers.tokens) + 100
            until(lambda: len(claimers.tokens) > enough, "nothing is claimed")  # noqa: B023 - called at once
            server.stop("immediate")
            server.start()
        enough = len(claimers.tokens) + 100
        until(lambda: len(claimers.tokens) > enough, "nothing is claimed after the last crash")
    assert len(set(claimers.tokens)) == len(claimers.tokens)
