"""
The main path through PgBouncer in transaction mode, whose few server connections everybody shares.

After each step every server connection is looked at: nothing prepared, no lock held, no setting left behind, or the next
client would inherit it. Needs Debian's package pgbouncer.
"""

import contextlib
import signal
from pathlib import Path

import psycopg
import pytest

from support.pgbouncer import PROGRAM, PgBouncer
from support.rig import ITEMS_SCHEMA, Rig, until, write_items
from support.writers import Writers

pytestmark = pytest.mark.system

POOL_SIZE = 3


@pytest.fixture
def bouncer(database):
    if not Path(PROGRAM).exists():
        pytest.fail("no PgBouncer on this machine: apt-get install pgbouncer")
    with PgBouncer(database, pool_size=POOL_SIZE) as bouncer:
        yield bouncer


@pytest.fixture
def night(bouncer, database, opensearch_url, unique_name, idxctl, tmp_path):
    """Items and their definition; commands go through PgBouncer."""
    write_items(tmp_path / "items", unique_name)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(ITEMS_SCHEMA)
    idxctl.use(database=bouncer.url, opensearch=opensearch_url, config=tmp_path / "items" / "idxctl.toml")
    return Night(bouncer, database, idxctl)


class Night:
    """Runs commands, and looks at the server's side of the pool after each."""

    def __init__(self, bouncer, database, idxctl):
        self._bouncer, self._database, self.idxctl = bouncer, database, idxctl
        self._before = self._settings()

    def run(self, *arguments, status=0):
        done = self.idxctl(*arguments)
        assert done.status == status, f"{arguments}: {done.stderr}\n{self._bouncer.log()}"
        self.nothing_is_left_behind()
        return done

    def nothing_is_left_behind(self):
        for own in self._servers(
            "SELECT pg_backend_pid(), (SELECT count(*) FROM pg_prepared_statements), "
            "(SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'), "
            "(SELECT count(*) FROM pg_listening_channels()), "
            "(SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relnamespace = pg_my_temp_schema()), "
            "(SELECT count(*) FROM pg_cursors WHERE name <> '')"
        ):
            assert own[1:] == (0, 0, 0, 0, 0), own
        before = set(self._before[0])
        changed = [sorted(before.symmetric_difference(now)) for now in self._settings()]
        assert changed == [[]] * POOL_SIZE

    def _settings(self):
        rows = self._servers(
            "SELECT array_agg(name || '=' || setting ORDER BY name) FROM pg_settings "
            "WHERE name <> 'application_name' AND name NOT LIKE 'plpgsql.%'"  # which appear once it is loaded
        )
        return [row[0] for row in rows]

    def _servers(self, query):
        """Ask every server connection of the pool, by holding them all at once."""
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(psycopg.connect(self._bouncer.url)) for _ in range(POOL_SIZE)]
            for connection in held:
                connection.prepare_threshold = None
            until(self._others_are_done, "somebody keeps a transaction open")
            pids = {connection.execute("SELECT pg_backend_pid()").fetchone()[0] for connection in held}
            assert len(pids) == POOL_SIZE
            return [connection.execute(query).fetchone() for connection in held]

    def _others_are_done(self):
        with psycopg.connect(self._database) as direct:
            (open_,) = direct.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND state LIKE 'idle in transaction%'"
            ).fetchone()
        return open_ == 0


def test_the_main_path(night, database, opensearch_url, unique_name, tmp_path):
    night.run("migrate", "up")
    night.run("migrate", "status")
    night.run("config", "validate")
    night.run("watch", "install")
    night.run("watch", "status")
    night.run("reindex")
    with contextlib.closing(Rig(database, opensearch_url, unique_name, tmp_path / "items")) as rig:
        assert rig.differences() == []
        rig.sql("UPDATE items SET price = 'poison' WHERE id IN (3, 4)")
        rig.sql("UPDATE categories SET name = 'another'")
        night.run("queue", "add", "--index", unique_name, "7", "8")
        night.run("queue", "stats", "-o", "json")
        night.run("worker", "start", "--until-empty")
        assert rig.differences(but=[3, 4]) == []
        night.run("dlq", "show", str(rig.one("SELECT min(id) FROM opensearch_indexing_dlq")))
        assert night.run("dlq", "stats", "-o", "json").json["total"] == 2
        rig.sql("ALTER TABLE items DISABLE TRIGGER USER")
        rig.sql("UPDATE items SET price = '3' WHERE id = 3")
        rig.sql("ALTER TABLE items ENABLE TRIGGER USER")
        night.run("dlq", "retry", "--limit", "10", status=3)  # no worker runs: done here, and one fails again
        assert list(rig.letters()) == ["4"]
        night.run("dlq", "purge", "--all", "--yes")
        rig.sql("UPDATE items SET price = '4' WHERE id = 4")
        night.run("reindex", "-o", "json")  # with a live generation, and its swap
        night.run("worker", "start", "--until-empty")
        assert rig.letters() == {}
        assert rig.differences() == []


def test_two_workers_under_load_share_few_server_connections(night, database, opensearch_url, unique_name, tmp_path):
    """Ten threads and two janitors on three connections; nobody takes a living worker for gone."""
    for arguments in (("migrate", "up"), ("watch", "install"), ("reindex",)):
        night.run(*arguments)
    with contextlib.closing(Rig(database, opensearch_url, unique_name, tmp_path / "items")) as rig:
        workers = [night.idxctl.start("worker", "start", "--workers", 5) for _ in range(2)]
        until(lambda: rig.one("SELECT count(*) FROM opensearch_indexing_workers") == 2, "they do not start")
        with Writers(database) as writers:
            until(lambda: writers.made > 300, "nothing is written")
        with Writers(database, pause=0.2):  # a document that changes all the time cannot be compared
            rig.sql("UPDATE categories SET name = 'renamed under load'")
            rig.sql("TRUNCATE parts")
            night.run("reindex", "-o", "json")
        rig.wait_for_rest()
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            _, log = worker.communicate(timeout=60)
            assert worker.returncode == 0, log
            assert " rescued " not in log, log
            assert " lost " not in log, log
        night.nothing_is_left_behind()
        rig.nothing_was_charged()
