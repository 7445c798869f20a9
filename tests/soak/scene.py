"""The scene of a soak: servers, a network before them for each worker, and workers that are started again when they end."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psycopg

from idxctl.demo.shop import INDEX, load_shop, write_definition
from idxctl.embedded import jars
from idxctl.embedded.opensearch import OpenSearch
from idxctl.embedded.postgres import Postgres
from support import judge
from support.gateway import Gateway
from support.proxy import Proxy

LEASE_SECONDS = 10
# Short times, so that minutes show what would take hours: a lease lapses, bytes grow too old, requests time out.
TIMES = f"""
[worker]
lease = "{LEASE_SECONDS}s"
age_limit = "30s"
[opensearch]
request_timeout = "10s"
"""
OF_A_ROW = "^[0-9]{1,9}$"  # the ids that listings can have
UNREACHABLE = 5  # exit status of a worker that was started while a server was away: a supervisor starts it again
RESTART_SECONDS = 1.0


class WorkerProcess:
    """One worker, by a network of its own; started again whenever it ends, as by a supervisor."""

    def __init__(self, number: int, scene: Scene) -> None:
        self.name = f"worker {number}"
        self.postgres = Proxy(scene.postgres.url)
        self.opensearch = Proxy(scene.gateway.url)
        self.exits: collections.Counter[int] = collections.Counter()
        self.log = scene.directory / f"worker-{number}.log"
        self._environ = scene.environ(database=self.postgres.url, opensearch=self.opensearch.url)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name=self.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, number: int) -> None:
        """Send the process that runs now a signal."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(number)

    def stop(self) -> None:
        """Drain it by SIGTERM; killed when that takes more than a minute."""
        self._over.set()
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        self._thread.join(60)
        if self._thread.is_alive():
            self.send(signal.SIGKILL)
            self._thread.join(10)

    def close(self) -> None:
        self.stop()
        for proxy in (self.postgres, self.opensearch):
            proxy.close()

    def _supervise(self) -> None:
        with self.log.open("ab") as log:
            while True:
                with self._lock:
                    if self._over.is_set():
                        return
                    command = [
                        sys.executable,
                        "-m",
                        "idxctl",
                        "worker",
                        "start",
                        "--workers",
                        "2",
                        "--log-format",
                        "json",
                    ]
                    self._process = subprocess.Popen(
                        command, env=self._environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
                    )
                self.exits[self._process.wait()] += 1
                self._over.wait(RESTART_SECONDS)


class Scene:
    """Everything that a soak runs on, in *directory*; `close` ends all of it."""

    def __init__(self, directory: Path, *, workers: int, listings: int, times: str) -> None:
        self.directory = directory
        self.crowded = threading.Event()  # more waits than the machine serves soon: who makes work makes less
        self._close = contextlib.ExitStack()
        try:
            self.opensearch = OpenSearch(directory / "opensearch", cache=jars.cache_directory(os.environ), quick=True)
            self._close.callback(self.opensearch.stop)
            self.opensearch.spawn()
            self.postgres = Postgres(directory / "postgres", fsync=False)
            self._close.enter_context(self.postgres)
            self.opensearch.wait_ready()
            self.gateway = Gateway(self.opensearch.url, remembers=False)
            self._close.enter_context(self.gateway)
            self.config = write_definition(directory / "definition")
            self.config.write_text(self.config.read_text() + times)
            with psycopg.connect(self.postgres.url, autocommit=True) as connection:
                load_shop(connection, listings)
            for arguments in (("migrate", "up"), ("watch", "install"), ("reindex",)):
                done = self.idxctl(*arguments)
                assert done.returncode == 0, done.stderr.decode()
            self.workers = [WorkerProcess(number + 1, self) for number in range(workers)]
            for worker in self.workers:
                self._close.callback(worker.close)
                worker.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._close.close()

    def environ(self, *, database: str | None = None, opensearch: str | None = None) -> dict[str, str]:
        """What a command of idxctl runs with."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("IDXCTL_", "PG"))}
        return {
            **kept,
            "IDXCTL_CONFIG": str(self.config),
            "IDXCTL_DATABASE_URL": database or self.postgres.url,
            "IDXCTL_OPENSEARCH_URL": opensearch or self.opensearch.url,
        }

    def idxctl(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[bytes]:
        """Run a command, straight to the servers."""
        command = [sys.executable, "-m", "idxctl", *arguments]
        return subprocess.run(command, env=self.environ(), capture_output=True, check=False, timeout=timeout)

    def ask(self, query: str) -> Any:
        """Return the first row of a query's answer; None while PostgreSQL is away."""
        try:
            with psycopg.connect(self.postgres.url, connect_timeout=5) as connection:
                return connection.execute(query.encode()).fetchone()
        except psycopg.OperationalError:
            return None

    def left(self) -> tuple[int, int, int]:
        """How many tasks are queued, batches in flight and letters of listings; -1 each while nobody can tell."""
        found = self.ask(
            "SELECT (SELECT count(*) FROM opensearch_indexing_queue), (SELECT count(*) FROM opensearch_indexing_inflight), "
            f"(SELECT count(*) FROM opensearch_indexing_dlq WHERE document_id ~ '{OF_A_ROW}')"
        )
        return found or (-1, -1, -1)

    def under_way(self) -> str:
        """What is in flight, for people."""
        found = self.ask(
            "SELECT string_agg(format('%s of %s by %s for %s s', cardinality(document_ids), kind, worker, "
            "round(extract(epoch FROM clock_timestamp() - claimed_at))), '; ' ORDER BY token) FROM opensearch_indexing_inflight"
        )
        return (found and found[0]) or "nothing in flight"

    def differences(self) -> tuple[int, list[str]]:
        """Compare every document with its row; returns how many there are, and what differs."""
        query = (self.config.parent / "listings.sql").read_text()
        documents = self.ask(f"SELECT count(*) FROM ({query}) d")
        return documents[0], judge.differences(self.postgres.url, query, self.opensearch.url, INDEX)

    def facts(self) -> collections.Counter[str]:
        """Count what the workers have logged, by fact."""
        counted: collections.Counter[str] = collections.Counter()
        for worker in self.workers:
            for line in worker.log.read_text().splitlines():
                with contextlib.suppress(ValueError):
                    counted[json.loads(line)["fact"]] += 1
        return counted

    def tracebacks(self) -> list[str]:
        """Bugs as the workers' logs show them."""
        return [
            str(worker.log) for worker in self.workers if "Traceback (most recent call last)" in worker.log.read_text()
        ]
