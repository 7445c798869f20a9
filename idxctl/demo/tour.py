"""
The tour: idxctl's main job on real servers, told step by step with the commands that someone would type.

Every step is checked by what the servers hold, not by what a command said of itself; a check that fails ends the tour.
How things look is the stage's business.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import orjson

from idxctl import dlq
from idxctl.core.errors import CheckFailed
from idxctl.demo import shop
from idxctl.demo.home import Home
from idxctl.demo.writer import Writer
from idxctl.embedded.child import Child, last_lines
from idxctl.embedded.servers import Servers
from idxctl.indexes import generations
from idxctl.indexes.generations import Generation
from idxctl.indexes.sizes import Sizes
from idxctl.opensearch import aliases, bulk, scan
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection
from idxctl.queue import SQL as QUEUE
from idxctl.verify import compare
from idxctl.verify.compare import Compared
from idxctl.worker import registry

LISTINGS = 3000
LEAST_LISTINGS = 200
SPARED = 30  # the first listings are for the poison; the writer leaves them alone
POISONED = {"coordinates": (3, 6, 9, 12), "language": (15, 18, 21)}  # active ones
ALTERED = "24"  # behind idxctl's back
LEFT_BEHIND = ("4711", "4712")  # letters of an index that is no more
_WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.05


class Stage(Protocol):
    """Where the tour is told. ``idxctl`` runs a command of the command line, shows what it shows, and returns its status."""

    def heading(self, text: str) -> None: ...  # noqa: D102
    def say(self, text: str) -> None: ...  # noqa: D102
    def good(self, text: str) -> None: ...  # noqa: D102
    def typed(self, text: str, prompt: str = "$") -> None: ...  # noqa: D102
    def idxctl(self, *arguments: str) -> int: ...  # noqa: D102
    def breathe(self) -> None: ...  # noqa: D102 - ends the tour if someone asked for that
    def waiting(self, text: str) -> AbstractContextManager[Callable[[str], None]]: ...  # noqa: D102


@dataclass
class Tour:
    """One run of it."""

    stage: Stage
    home: Home
    servers: Servers
    listings: int
    conn: Connection
    client: Client

    def go(self) -> None:
        """Take every step in order; raises `CheckFailed` where the servers do not hold what they should."""
        began = time.monotonic()
        self._marketplace()
        self._set_up()
        writer = Writer(self.home.settings.database, listings=self.listings, spared=SPARED)
        with self._worker() as worker, writer:
            self._live_changes(writer)
            self._poison()
            self._heal()
            self._retry()
            self._purge()
            self._rebuild(writer)
            self._come_to_rest(writer)
            self._behind_its_back()
            self._stop(worker)
        self._compare()
        self.stage.good(f"all checks passed, {time.monotonic() - began:.0f} s")

    def introduce(self, seconds: float) -> None:
        """Say which servers these are, and where they came from."""
        name, version = self.client.info()
        search = "OpenSearch" if name == "opensearch" else name
        row = self.conn.execute(b"SELECT current_setting('server_version')").fetchone()
        assert row is not None
        self.stage.good(
            f"PostgreSQL {row[0].split()[0]} and {search} {'.'.join(map(str, version))}, ready in {seconds:.0f} s"
        )
        if self.home.mark.database:
            self.stage.say(
                f"PostgreSQL was given: the demo has made a database of its own there, {self.home.mark.database}."
            )
        if self.servers.opensearch:
            self.stage.say(
                f"OpenSearch listens on {self.servers.opensearch_url} and has no password: as long as it runs, every user "
                "of this machine can read and change what it holds. PostgreSQL has one, in idxctl.toml."
            )
        if self.home.mark.given_opensearch:
            self.stage.say(f"OpenSearch was given: the demo's indexes there begin with {self.home.index}.")

    # --- steps ------------------------------------------------------------------------------------------------------

    def _marketplace(self) -> None:
        self.stage.heading("a marketplace")
        with self.stage.waiting(f"loading {self.listings:,} listings"):
            shop.load_shop(self.conn.raw, self.listings)
        self.stage.good(
            f"{self.listings:,} listings, with images, attributes, translations, categories and storefronts"
        )
        self.stage.typed(f"cd {shlex.quote(str(self.home.directory))}")
        for name, what in (
            ("idxctl.toml", "the servers, the index and the six tables that it watches"),
            ("listings.sql", "the query that makes a document of a listing"),
            ("listings.json", "the index's settings and its mapping"),
        ):
            self.stage.say(f"  {name:<14} {what}")

    def _set_up(self) -> None:
        self.stage.heading("set up: tables, triggers, a first index")
        self._idxctl("migrate", "up")
        self._idxctl("watch", "install")
        self._idxctl("reindex")
        self._check(self._live().number == 1, "the first generation is not live")

    def _live_changes(self, writer: Writer) -> None:
        self.stage.heading("live changes")
        self.stage.say("An application changes all six tables from two connections, and goes on until the end.")
        self._until(lambda: writer.total >= 100, "the writer does not write")
        self.stage.typed("UPDATE listings SET price = price * 1.1 WHERE id > 30", "shop=>")
        self.conn.execute(b"UPDATE listings SET price = price * 1.1 WHERE id > 30")
        self._idxctl("queue", "stats")
        with self.stage.waiting("until the workers have passed it"):
            self._drained()
        self._idxctl("queue", "stats")
        self._idxctl("worker", "list")

    def _poison(self) -> None:
        self.stage.heading("three kinds of poison")
        self._sql(
            "An import loses the decimal points of some coordinates:",
            "UPDATE listings SET lat = lat * 10000 WHERE id IN (3, 6, 9, 12)",
        )
        self._sql(
            "A new language arrives that the strict mapping does not know:",
            "INSERT INTO listing_translations VALUES (15, 'de', 'Fahrrad'), (18, 'de', 'Lampe'), (21, 'de', 'Sofa')",
        )
        self._sql(
            "An older indexer, which uses the same table, gives up on an index that is no more:",
            "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, attempts, last_error) "
            "SELECT 'marketplace_2019', id, 'index', 3, 'no such index [marketplace_2019]' "
            f"FROM unnest('{{{', '.join(LEFT_BEHIND)}}}'::text[]) AS left_behind(id)",
        )
        total = sum(map(len, POISONED.values())) + len(LEFT_BEHIND)
        with self.stage.waiting("until they are dead letters"):
            self._until(lambda: dlq.stats(self.conn).total >= total, "the poison does not reach the dead letter queue")
        self._idxctl("dlq", "stats")
        found = sorted(group.count for group in dlq.stats(self.conn).by_error)
        self._check(found == [2, 3, 4], f"the dead letters should be in groups of 2, 3 and 4, and are in {found}")
        self.stage.say("Everything else went on: each bad document fails alone.")

    def _heal(self) -> None:
        self.stage.heading("healed by fixing the row")
        fingerprint = self._letter_of(POISONED["coordinates"][0]).fingerprint
        self._idxctl("dlq", "list", "--error", fingerprint)
        self._sql("", "UPDATE listings SET lat = lat / 10000 WHERE lat > 90")
        with self.stage.waiting("until the change is indexed"):
            self._until(lambda: fingerprint not in self._groups(), "fixed rows do not heal their letters")
        self._same("coordinates")
        self.stage.good("the change was captured like any other, the documents are indexed, and their letters are gone")

    def _retry(self) -> None:
        self.stage.heading("retried once the cause outside the row is fixed")
        fingerprint = self._letter_of(POISONED["language"][0]).fingerprint
        self._idxctl("dlq", "show", fingerprint)
        german = {"translations": {"properties": {"de": {"type": "text"}}}}
        self.stage.say("German goes into listings.json for later generations, and into the live index:")
        self._teach(german)
        where = f"{self.home.settings.opensearch.urls[0]}/{self.home.index}/_mapping"
        self.stage.typed(f"curl -X PUT {where} --json '{json.dumps({'properties': german})}'")
        aliases.put_mapping(self.client, self.home.index, {"properties": german})
        self._idxctl("dlq", "retry", "--error", fingerprint, "--wait")
        self._check(fingerprint not in self._groups(), "retried letters are still there")
        self._same("language")

    def _purge(self) -> None:
        self.stage.heading("purged: nobody can fix them")
        groups = self._groups()
        self._check(len(groups) == 1, f"one group of letters should be left, and there are {len(groups)}")
        self._idxctl("dlq", "purge", "--error", groups[0], "--yes")
        self._idxctl("dlq", "stats")
        self._check(not dlq.stats(self.conn).total, "the dead letter queue is not empty")

    def _rebuild(self, writer: Writer) -> None:
        self.stage.heading("a rebuild while writes go on")
        self.conn.execute(b"ANALYZE")  # as autovacuum does within a minute; the plan's estimate rests on it
        before = writer.total
        self._idxctl("reindex")
        during = writer.total - before
        live = self._live()
        held = aliases.targets(self.client, self.home.index)
        self._check(live.number == 2 and held == [live.name], f"the alias stands on {', '.join(held)}")
        self._check(during > 0, "nothing was written meanwhile")
        self.stage.good(f"the alias moved in one step to {live.name}; {during:,} changes were committed meanwhile")

    def _come_to_rest(self, writer: Writer) -> None:
        self.stage.heading("at rest")
        writer.stop()
        with self.stage.waiting("until the queue is empty"):
            self._drained()
        tables = ", ".join(
            f"{count:,} {table}" for table, count in sorted(writer.changes.items()) if table != "conflicts"
        )
        self.stage.say(f"The application stopped after {writer.total:,} changes: {tables}.")

    def _behind_its_back(self) -> None:
        self.stage.heading("a document that something else changed")
        self.stage.say("A script corrects a price where it is searched, and not where it is true:")
        where = f"{self.home.settings.opensearch.urls[0]}/{self.home.index}/_update/{ALTERED}"
        self.stage.typed(f"curl -X POST {where} --json '{json.dumps({'doc': {'price': 0.01}})}'")
        self._alter({"price": 0.01})
        self._idxctl("verify", status=CheckFailed.exit_status)
        self._idxctl("explain", self.home.index, ALTERED, status=CheckFailed.exit_status)
        self._idxctl("verify", "--repair", "--wait")
        self._idxctl("explain", self.home.index, ALTERED)
        found = compare.compare_ids(self.conn, self.client, self._live(), [ALTERED], sizes=Sizes())
        self._check(not found.differing, f"listing {ALTERED} does not equal its document")

    def _alter(self, fields: Mapping[str, Any]) -> None:
        """Write a document of the live index as no idxctl does: with other *fields*, and no token."""
        live = self._live()
        (held,) = scan.sources_text(self.client, live.name, [orjson.dumps(ALTERED)]).read([ALTERED])
        text = b"%b\n%b\n" % (
            orjson.dumps({"index": {"_id": ALTERED}}),
            orjson.dumps({**(held.source or {}), **fields}),
        )
        self._check(not bulk.send(self.client, live.name, bulk.Body([ALTERED], text)), "the document cannot be changed")
        aliases.refresh(self.client, live.name)

    def _stop(self, worker: Child) -> None:
        self.stage.typed("kill %1")
        worker.stop(signal.SIGTERM, seconds=_WAIT_SECONDS)
        self.stage.say(last_lines(self._log, 1))
        self._idxctl("queue", "stats")
        self._check(not dlq.stats(self.conn).total, "there are dead letters")

    def _compare(self) -> None:
        """Compare every document of the live and the standby generation with its row, and look for those without one."""
        self.stage.heading("every document against its row")
        checked = 0
        for generation in generations.of_index(self.conn, self.home.index):
            if not generation.active:
                continue
            with self.stage.waiting(f"comparing {generation.name}"):
                found = self._compared(generation)
            text = (
                f"{generation.name}, {generation.state}: {found.checked:,} compared, {len(found.missing)} missing, "
                f"{len(found.stale)} stale, {len(found.orphans)} orphans"
            )
            self._check(not found.differing, text)
            self.stage.good(text)
            checked += found.checked
        self._check(checked > 0, "there was nothing to compare")

    def _compared(self, generation: Generation) -> Compared:
        aliases.refresh(self.client, generation.name)
        found = Compared()
        for part in compare.compare_range(self.conn, self.client, generation, None, None, sizes=Sizes()):
            found.add(part)
            self.stage.breathe()
        for page in compare.orphans(self.conn, self.client, generation):
            found.orphans.extend(page)
        return found

    # --- what steps are made of -------------------------------------------------------------------------------------

    @property
    def _log(self) -> Path:
        return self.home.directory / "worker.log"

    @contextlib.contextmanager
    def _worker(self) -> Iterator[Child]:
        """Run ``idxctl worker start`` beside the tour; it ends with it, however that ends."""
        self.stage.heading("workers")
        self.stage.typed("idxctl worker start --preset medium > worker.log 2>&1 &")
        command = [sys.executable, "-m", "idxctl", "worker", "start", "--preset", "medium"]
        worker = Child(command, log=self._log, stop=signal.SIGTERM, death=signal.SIGKILL)
        try:
            self._until(lambda: not worker.alive or bool(registry.alive(self.conn)), "the worker does not start")
            self._check(worker.alive, f"the worker has ended:\n{last_lines(self._log)}")
            self._until(lambda: bool(last_lines(self._log, 1)), "the worker says nothing")
            self.stage.say(last_lines(self._log, 1))
            yield worker
        finally:
            worker.close()

    def _idxctl(self, *arguments: str, status: int = 0) -> None:
        """Run a command that is to end with *status*."""
        self.stage.breathe()
        self.stage.typed("idxctl " + shlex.join(arguments))
        ended = self.stage.idxctl(*arguments)
        self.stage.breathe()
        if ended != status:
            raise CheckFailed(f"idxctl {shlex.join(arguments)} ended with status {ended}, and not with {status}")

    def _sql(self, why: str, statement: str) -> None:
        if why:
            self.stage.say(why)
        self.stage.typed(statement, "shop=>")
        self.conn.execute(statement.encode())

    def _live(self) -> Generation:
        live = generations.live(self.conn, self.home.index)
        if live is None:
            raise CheckFailed(f"{self.home.index} has no live generation")
        return live

    def _groups(self) -> list[str]:
        return [group.fingerprint for group in dlq.stats(self.conn).by_error]

    def _letter_of(self, listing: int) -> dlq.Letter:
        found = dlq.letters(self.conn, dlq.Selection(index=self.home.index), limit=1000)
        letter = next((one for one in found if one.document_id == str(listing)), None)
        if letter is None:
            raise CheckFailed(f"listing {listing} has no letter")
        return letter

    def _same(self, kind: str) -> None:
        """Wait until the documents of one kind of poison equal their rows: a category's name may be on its way to them."""
        ids = [str(one) for one in POISONED[kind]]

        def differ() -> bool:
            return bool(compare.compare_ids(self.conn, self.client, self._live(), ids, sizes=Sizes()).differing)

        self._until(lambda: not differ(), f"listings {', '.join(ids)} do not all equal their documents")

    def _teach(self, properties: Mapping[str, Any]) -> None:
        """Add to the mapping file what the live index is taught."""
        mapping = json.loads(self.home.mapping.read_text(encoding="utf-8"))
        for name, more in properties.items():
            mapping["mappings"]["properties"][name]["properties"].update(more["properties"])
        self.home.mapping.write_text(json.dumps(mapping, indent=2) + "\n", encoding="utf-8")

    def _drained(self) -> None:
        """Wait until nothing that is enqueued by now waits or is in flight, fan-outs included."""
        clock = self.conn.execute(b"SELECT clock_timestamp()").fetchone()
        assert clock is not None
        self._until(lambda: not self._open_tasks(clock[0]), "the queue does not empty")

    def _open_tasks(self, before: datetime) -> int:
        return int(self.conn.value(QUEUE["open_tasks"], index=self.home.index, before=before))

    def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not condition():
            self.stage.breathe()
            if time.monotonic() > deadline:
                raise CheckFailed(f"{otherwise} ({_WAIT_SECONDS:.0f} s)")
            time.sleep(_POLL_SECONDS)

    @staticmethod
    def _check(holds: bool, otherwise: str) -> None:
        if not holds:
            raise CheckFailed(otherwise)
