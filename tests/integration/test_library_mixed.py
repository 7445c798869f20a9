"""Every way to index at once: synchronous, asynchronous, workers of the command line and a reindex; then all equal their rows."""

import random
import threading

import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import Session

from idxctl import Indexer
from support.rig import until

WRITERS, TURNS = 4, 60


class Writer(threading.Thread):
    """An application's thread: changes, deletes and makes items, and says so to its indexer."""

    def __init__(self, rig, indexer, number, engine=None):
        super().__init__(daemon=True)
        self.rig, self.indexer, self.engine = rig, indexer, engine
        self.random = random.Random(number)
        self.error = None

    def run(self):
        try:
            with psycopg.connect(self.rig.database) as connection:
                for turn in range(TURNS):
                    if self.engine is not None and turn % 3 == 0:
                        self.by_session(turn)
                    else:
                        self.by_connection(connection, turn)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.error = error

    def by_connection(self, connection, turn):
        try:
            with self.indexer.transaction(connection):
                for item in self.random.sample(range(1, 25), self.random.randint(1, 3)):
                    self.change(
                        lambda statement, **given: connection.execute(statement, given).rowcount, item, turn, connection
                    )
                if self.random.random() < 0.15:
                    raise psycopg.Rollback
        except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
            pass

    def by_session(self, turn):
        with Session(self.engine) as session:
            item = self.random.randint(1, 24)
            session.execute(
                sa.text("UPDATE items SET name = :name WHERE id = :id"), {"name": f"session {turn}", "id": item}
            )
            self.indexer.index(self.rig.index, item, connection=session)
            session.rollback() if self.random.random() < 0.15 else session.commit()

    def change(self, run, item, turn, connection):
        kind = self.random.random()
        if kind < 0.15:
            run("DELETE FROM items WHERE id = %(id)s", id=item)
            self.indexer.delete(self.rig.index, item, connection=connection)
        elif kind < 0.35:
            run(
                "INSERT INTO items (id, name) VALUES (%(id)s, %(name)s) ON CONFLICT DO NOTHING",
                id=item,
                name=f"made {turn}",
            )
            self.indexer.index(self.rig.index, item, connection=connection)
        else:
            run("UPDATE items SET name = %(name)s WHERE id = %(id)s", name=f"{self.name} {turn}", id=item)
            self.indexer.index_many(self.rig.index, [item, item], connection=connection)


def test_all_of_them_together(untriggered, idxctl):
    idxctl.use(database=untriggered.database, opensearch=untriggered.opensearch, config=untriggered.config)
    engine = sa.create_engine(sa.make_url(untriggered.database).set(drivername="postgresql+psycopg"))
    worker = idxctl.start("worker", "start", "--workers", 1)
    until(lambda: untriggered.one("SELECT count(*) FROM opensearch_indexing_workers"), "no worker")
    with Indexer(untriggered.settings) as sync, Indexer(untriggered.settings) as background:
        background.enable_async(workers=2)
        writers = [Writer(untriggered, (sync, background)[number % 2], number, engine) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        done = untriggered.reindex()
        for writer in writers:
            writer.join(120)
            assert not writer.is_alive()
            if writer.error:
                raise writer.error
        assert done.swapped
        untriggered.wait_for_rest()
        assert sync.counters["sync"].indexed > 0
    engine.dispose()
    worker.terminate()
    worker.communicate(timeout=60)
    assert worker.returncode == 0
    assert untriggered.letters() == {}
    for generation in (untriggered.generation("live"), untriggered.generation("standby")):
        assert untriggered.differences(generation.name) == []
