"""A rig: one database, one alias, idxctl's own engine around them, and a hand that takes its steps one by one."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from idxctl.capture.install import install
from idxctl.capture.plan import plan as capture_plan
from idxctl.config.load import load
from idxctl.config.settings import Settings
from idxctl.config.sums import GC_DELETES
from idxctl.core.secret import Secret
from idxctl.grants import plan
from idxctl.indexes import generations
from idxctl.indexes.generations import Generation
from idxctl.opensearch.client import Client
from idxctl.opensearch.client import connect as connect_opensearch
from idxctl.postgres.connect import Connection, Pool, connect
from idxctl.rebuild import preflight, process
from idxctl.rebuild.steps import Options as Reindexing
from idxctl.rebuild.steps import Reindexed, Steps
from idxctl.worker.pool import Options, Worker
from support import judge

PATIENCE = 30.0

ITEMS_SCHEMA = """
CREATE TABLE categories (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE items (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    price text NOT NULL DEFAULT '1',
    divisor int NOT NULL DEFAULT 1,
    extra jsonb NOT NULL DEFAULT '{}',
    category_id bigint REFERENCES categories,
    seen int NOT NULL DEFAULT 0
);
CREATE TABLE parts (id bigserial PRIMARY KEY, item_id bigint NOT NULL REFERENCES items ON DELETE CASCADE, name text NOT NULL);
CREATE INDEX ON items (category_id);
CREATE INDEX ON parts (item_id);
INSERT INTO categories SELECT i, 'category ' || i FROM generate_series(1, 3) i;
INSERT INTO items (id, name, category_id) SELECT i, 'item ' || i, i % 3 + 1 FROM generate_series(1, 20) i;
INSERT INTO parts (item_id, name) SELECT i, 'part of ' || i FROM generate_series(1, 20) i;
"""
# Ways to be poison: a price that is no number, a divisor of zero, an extra field that a strict mapping refuses.
ITEMS_DOCUMENT = """
SELECT i.id AS document_id,
       jsonb_build_object('name', i.name, 'price', i.price, 'share', 100 / i.divisor, 'category', c.name,
           'parts', (SELECT coalesce(jsonb_agg(p.name ORDER BY p.id), '[]') FROM parts p WHERE p.item_id = i.id)) || i.extra AS document
FROM items i LEFT JOIN categories c ON c.id = i.category_id
"""
ITEMS_MAPPING = {
    "settings": {"number_of_shards": 1, "number_of_replicas": 0},
    "mappings": {
        "dynamic": "strict",
        "properties": {
            "name": {"type": "keyword"},
            "price": {"type": "float"},
            "share": {"type": "integer"},
            "category": {"type": "keyword"},
            "parts": {"type": "keyword"},
        },
    },
}
ITEMS_WATCHES = """
[[indexes.NAME.watch]]
table = "items"
key = "id"
ignore = ["seen"]

[[indexes.NAME.watch]]
table = "parts"
key = "item_id"

[[indexes.NAME.watch]]
table = "categories"
keys = "SELECT i.id FROM items i JOIN changed c ON i.category_id = c.id"
"""


def until(met: Callable[[], Any], what: str, *, seconds: float = PATIENCE) -> Any:
    """Poll a condition until it is met; fail after *seconds*."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (result := met()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        pause.wait(0.02)
    return result


class Hand:
    """A worker without threads: each step of the real code when a test says so."""

    def __init__(self, rig: Rig, **options: Any) -> None:
        self.worker = Worker(rig.pool, rig.client, replace(rig.worker_options(), **options))
        self._rig = rig

    def claim(self):
        """Claim a batch that is due; fail when there is none."""
        return until(self.worker.poll, "nothing to claim")

    def carry(self, taken) -> None:
        """Take a claimed batch to its end."""
        self.worker.carry(*taken)

    def step(self) -> None:
        """Claim a batch and take it to its end."""
        self.carry(self.claim())

    def steps(self) -> None:
        """Step until nothing is due."""
        while self._rig.due():
            self.step()

    def rest(self) -> None:
        """Step until nothing is left, waiting for tasks that back off."""
        until(lambda: self._rig.at_rest() or (self._rig.due() and self.step()), "no rest")

    @contextlib.contextmanager
    def stepping(self) -> Iterator[threading.Thread]:
        """Do one step in a thread of its own; joined at the end, where its error is raised."""
        errors: list[BaseException] = []

        def run() -> None:
            try:
                self.step()
            except BaseException as error:  # noqa: BLE001 - raised below, in the test
                errors.append(error)

        thread = threading.Thread(target=run, name="hand", daemon=True)
        thread.start()
        yield thread
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the hand is stuck"
        if errors:
            raise errors[0]


class Rig:
    """
    A database with idxctl's tables, an index configured in *directory*, and everything a test does to them.

    ``sql`` runs a statement as the application would, in autocommit.
    """

    def __init__(self, database: str, opensearch: str, index: str, directory: Path) -> None:
        self.database = database
        self.opensearch = opensearch
        self.index = index
        self.directory = directory
        self.config = directory / "idxctl.toml"
        self._close = contextlib.ExitStack()
        self._reload()
        self.pool: Pool = self._close.enter_context(contextlib.closing(Pool(self.settings.database)))
        self.client: Client = self._close.enter_context(connect_opensearch(self.settings.opensearch))
        self.application = self._close.enter_context(psycopg.connect(database, autocommit=True))

    def close(self) -> None:
        self._close.close()

    # --- configuration ------------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        environ = {"IDXCTL_DATABASE_URL": self.database, "IDXCTL_OPENSEARCH_URL": self.opensearch}
        self.settings: Settings = load(environ=environ, path=self.config)

    def configure_client(self, **changes: Any) -> None:
        """Make a client with other settings."""
        self.client = self._close.enter_context(connect_opensearch(replace(self.settings.opensearch, **changes)))

    @contextlib.contextmanager
    def as_role(self, role: str) -> Iterator[Rig]:
        """The same, seen by another role of the database."""
        parts = urllib.parse.urlsplit(self.database)
        theirs = parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}").geturl()
        rig = Rig(theirs, self.opensearch, self.index, self.directory)
        try:
            yield rig
        finally:
            rig.close()

    def grant(self, **roles: str) -> None:
        """Give roles what `idxctl grants` gives them: ``grant(worker="w")``."""
        with connect(self.settings.database) as conn:
            plan.apply(conn, plan.plan(conn, self.settings, list(roles.items())))

    def configure(self, *, document: str | None = None, mapping: dict | None = None, toml: str | None = None) -> None:
        """Change the index's files, as a user would."""
        if document is not None:
            (self.directory / "document.sql").write_text(document)
        if mapping is not None:
            (self.directory / "mapping.json").write_text(json.dumps(mapping))
        if toml is not None:
            self.config.write_text(toml)
        self._reload()

    @property
    def query(self) -> str:
        return self.settings.indexes[self.index].document

    def worker_options(self) -> Options:
        return Options(workers=1, lease_seconds=30.0)

    # --- the application ----------------------------------------------------------------------------------------------

    def sql(self, statement: str, *values: Any) -> list[tuple]:
        cursor = self.application.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []

    def one(self, statement: str, *values: Any) -> Any:
        """The single value of a query."""
        ((value,),) = self.sql(statement, *values)
        return value

    def enqueue(self, *ids: object, priority: int = 0) -> None:
        for one in ids:
            self.sql("SELECT opensearch_indexing_enqueue(%s, %s, priority => %s)", self.index, str(one), priority)

    # --- idxctl -------------------------------------------------------------------------------------------------------

    @property
    def conn(self) -> Connection:
        return self.pool.mine()

    def connect(self) -> Connection:
        return self._close.enter_context(connect(self.settings.database))

    def watch(self) -> None:
        install(
            self.conn, capture_plan(self.conn, self.settings.indexes, path=self.config), list(self.settings.indexes)
        )

    def plan(self, **options: bool) -> preflight.Plan:
        return preflight.plan(self.conn, self.client, self.settings.indexes[self.index], **options)

    def reindex(self, *, force: bool = False, **options: Any) -> Reindexed:
        plan = self.plan(take_alias=options.get("take_alias", False), force=force)
        return process.reindex(self.pool, self.client, self.settings, plan, Reindexing(**options), Steps())

    def hand(self, **options: Any) -> Hand:
        return Hand(self, **options)

    @contextlib.contextmanager
    def working(self, *, drain_timeout: float = 30.0, **options: Any) -> Iterator[Worker]:
        """Run a worker in threads of this process; it drains at the end."""
        worker = Worker(self.pool, self.client, replace(self.worker_options(), **{"workers": 2, **options}))
        errors: list[BaseException] = []

        def run_it() -> None:
            try:
                worker.run(drain_timeout=drain_timeout)
            except BaseException as error:  # noqa: BLE001 - raised below, in the test
                errors.append(error)

        thread = threading.Thread(target=run_it, name="pool", daemon=True)
        thread.start()
        try:
            yield worker
        finally:
            worker.stop()
            thread.join(PATIENCE + drain_timeout)
        assert not thread.is_alive()
        if errors:
            raise errors[0]

    def drain(self, **options: Any) -> Worker:
        """Work until nothing is left, as ``worker start --until-empty`` does."""
        given = replace(self.worker_options(), **{"until_empty": True, "workers": 2, **options})
        worker = Worker(self.pool, self.client, given)
        in_vain = threading.Event()

        def give_up() -> None:
            in_vain.set()
            worker.stop()

        patience = threading.Timer(2 * PATIENCE, give_up)
        patience.start()
        try:
            worker.run()
        finally:
            patience.cancel()
        assert not in_vain.is_set(), "the queue does not get empty"
        return worker

    def register(self, **changes: Any) -> Generation:
        """Make an empty generation that is building, as a reindex does, with *changes* to the live one's definition."""
        from idxctl.indexes.definitions import define
        from idxctl.opensearch import aliases

        definition = replace(define(self.conn, self.settings.indexes[self.index]), **changes)
        number = generations.next_number(self.conn, self.index)
        aliases.create(
            self.client,
            generations.physical_name(self.index, number),
            settings={"index": {"gc_deletes": GC_DELETES, **definition.settings}},
            mappings=definition.mappings,
        )
        with self.conn.transaction():
            return generations.register(self.conn, self.index, number, definition)

    def put_in_place(self) -> None:
        """Make generation 1 live with every item in it, without the ceremony of a reindex."""
        made = self.register()
        self.ask("PUT", f"/{made.name}/_alias/{self.index}")
        with self.conn.transaction():
            generations.lock_set(self.conn, exclusive=True)
            assert generations.set_state(self.conn, made.id, "live", expected=("building",))
        self.sql("SELECT opensearch_indexing_enqueue(%s, id::text) FROM items", self.index)
        self.hand().step()

    @contextlib.contextmanager
    def by_way_of(
        self, *, database: str | None = None, opensearch: str | None = None, request_timeout: float | None = None
    ) -> Iterator[None]:
        """Have the engine reach the servers by other addresses; the application and the judge go straight to them."""
        pool, client = self.pool, self.client
        seconds = request_timeout or self.settings.opensearch.request_timeout_seconds
        there = replace(
            self.settings.opensearch, urls=(opensearch or self.opensearch,), request_timeout_seconds=seconds
        )
        with contextlib.ExitStack() as stack:
            given = replace(self.settings.database, url=Secret(database or self.database))
            self.pool = stack.enter_context(contextlib.closing(Pool(given)))
            self.client = stack.enter_context(connect_opensearch(there))
            try:
                yield
            finally:
                self.pool, self.client = pool, client

    # --- what is there ------------------------------------------------------------------------------------------------

    def due(self) -> int:
        return self.one("SELECT count(*) FROM opensearch_indexing_queue WHERE available_at <= clock_timestamp()")

    def queued(self) -> int:
        return self.one("SELECT count(*) FROM opensearch_indexing_queue")

    def in_flight(self) -> int:
        return self.one("SELECT count(*) FROM opensearch_indexing_inflight")

    def at_rest(self) -> bool:
        """Nothing queued for now or a later attempt, nothing in flight; one snapshot."""
        return self.one(
            "SELECT NOT EXISTS (SELECT FROM opensearch_indexing_inflight) AND NOT EXISTS (SELECT FROM opensearch_indexing_queue "
            "WHERE available_at <= clock_timestamp() + interval '1 minute')"
        )

    def wait_for_rest(self, *, seconds: float = PATIENCE) -> None:
        until(self.at_rest, "the queue is not empty", seconds=seconds)

    def letters(self) -> dict[str, tuple[str, str]]:
        """Dead letters by document: type and sentence of the error."""
        return {
            row[0]: (row[1], row[2])
            for row in self.sql("SELECT document_id, error_type, last_error FROM opensearch_indexing_dlq ORDER BY id")
        }

    def generation(self, state: str = "live") -> Generation:
        (found,) = [one for one in generations.of_index(self.conn, self.index) if one.state == state]
        return found

    def differences(self, index: str | None = None, *, but: Sequence[object] = (), **options: Any) -> list[str]:
        return judge.differences(
            self.database, self.query, self.opensearch, index or self.index, but={str(one) for one in but}, **options
        )

    def nothing_was_charged(self) -> None:
        """After an outage, at rest: every document is its row, no letter was made, no attempt spent (P1, P4)."""
        assert self.letters() == {}
        assert self.one("SELECT coalesce(max(attempts), 0) FROM opensearch_indexing_queue") == 0
        assert self.differences() == []

    def document(self, ident: object, index: str | None = None) -> dict | None:
        """A document as the index holds it now; None when it does not."""
        found = judge.call(self.opensearch, "GET", f"/{index or self.index}/_doc/{ident}")
        return found.get("_source")

    def version(self, ident: object, index: str | None = None) -> int:
        return judge.call(self.opensearch, "GET", f"/{index or self.index}/_doc/{ident}")["_version"]

    def ask(self, method: str, path: str, body: object = None) -> Any:
        return judge.call(self.opensearch, method, path, body)


def write_items(directory: Path, index: str, *, extra: str = "") -> None:
    """Write the definition of the small index over `items`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "document.sql").write_text(ITEMS_DOCUMENT)
    (directory / "mapping.json").write_text(json.dumps(ITEMS_MAPPING))
    (directory / "idxctl.toml").write_text(
        f'[indexes.{index}]\ndocument = "document.sql"\nmapping = "mapping.json"\n{extra}'
        + ITEMS_WATCHES.replace("NAME", index)
    )
