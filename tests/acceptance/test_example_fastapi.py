"""The FastAPI shop of examples/: under load while OpenSearch goes away and comes back."""

import contextlib
import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from support import judge
from support.rig import until

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi"
CLIENTS = 3


class Door:
    """A way to OpenSearch that can be shut: whoever knocks is refused, whoever is inside is thrown out."""

    def __init__(self, url):
        parts = urlsplit(url)
        self._inside = (parts.hostname, parts.port)
        self._open = {}
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._serve()

    def _serve(self):
        listener = self._listener

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    outside, _ = listener.accept()
                    inside = socket.create_connection(self._inside)
                    with self._lock:
                        self._open[outside] = inside
                    for a, b in ((outside, inside), (inside, outside)):
                        threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    @staticmethod
    def _pass(a, b):
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                b.sendall(data)
        for one in (a, b):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def shut(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for pair in self._open.items():
                for one in pair:
                    with contextlib.suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)
                    one.close()
            self._open.clear()

    def open(self):
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._serve()


@pytest.fixture
def door(opensearch_url):
    made = Door(opensearch_url)
    yield made
    made.shut()


@pytest.fixture
def shop(migrated, opensearch_url, unique_name, idxctl, door):
    """The shop's database and index, made by the commands of its README; yields a function that starts the shop."""
    home = idxctl.cwd / "shop"
    shutil.copytree(EXAMPLE, home)
    config = home / "idxctl.toml"
    config.write_text(config.read_text().replace("shop_listings", unique_name))
    with psycopg.connect(migrated, autocommit=True) as connection:
        connection.execute((home / "schema.sql").read_bytes())
    idxctl.use(database=migrated, opensearch=opensearch_url, config=config)
    for command in ("migrate", "up"), ("reindex",):
        done = idxctl(*command)
        assert done.status == 0, done.stderr
    with contextlib.ExitStack() as stop:
        yield lambda **given: stop.enter_context(
            serving(home, {**idxctl.environ, "IDXCTL_OPENSEARCH_URL": door.url, "SHOP_INDEX": unique_name, **given})
        )


@contextlib.contextmanager
def serving(home, environ):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "shop:app", "--port", str(port), "--log-level", "warning"]
    log = home / f"{port}.log"
    with log.open("w") as file, subprocess.Popen(command, cwd=home, env=environ, stderr=file) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                until(lambda: process.poll() is not None or answers(client), "the shop does not open", seconds=60)
                assert process.poll() is None, log.read_text()
                yield client
        finally:
            process.terminate()
            process.wait(60)
    assert process.returncode in (0, -15), log.read_text()


def answers(client):
    with contextlib.suppress(httpx.TransportError):
        return client.get("/api/v1/admin/indexer/status").status_code == 200


class Customer(threading.Thread):
    """Offers, changes and withdraws until told to stop; keeps how long each request took and what was wrong."""

    def __init__(self, client, seed, over):
        super().__init__(daemon=True)
        self.client, self.random, self.over = client, random.Random(seed), over
        self.mine, self.seconds, self.wrong = [], [], []

    def run(self):
        for turn in itertools.count():
            if self.over.is_set():
                return
            offer = {"title": f"lamp {turn}", "price": turn}
            began = time.monotonic()
            kind = self.random.random()
            if kind < 0.5 or not self.mine:
                answer = self.client.post("/listings", json=offer)
                self.mine.append(answer.json()["id"])
            elif kind < 0.85:
                answer = self.client.put(f"/listings/{self.random.choice(self.mine)}", json=offer)
            else:
                answer = self.client.delete(f"/listings/{self.mine.pop()}")
            self.seconds.append(time.monotonic() - began)
            if answer.status_code >= 400:
                self.wrong.append(answer.text)


def at_rest(url):
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(
            "SELECT NOT EXISTS (SELECT FROM opensearch_indexing_queue) AND NOT EXISTS (SELECT FROM opensearch_indexing_inflight)"
        ).fetchone()[0]


@pytest.mark.parametrize("switch", ["true", "false"])
def test_no_request_fails_or_waits_while_search_is_away(
    shop, door, migrated, opensearch_url, unique_name, idxctl, switch
):
    client = shop(ENABLE_ASYNC_INDEXING=switch)
    mode = {"true": "asynchronous", "false": "synchronous"}[switch]
    assert client.get("/api/v1/admin/indexer/status").json()["mode"] == mode
    over = threading.Event()
    customers = [Customer(client, seed, over) for seed in range(CLIENTS)]

    def served():
        return min(len(customer.seconds) for customer in customers)

    for customer in customers:
        customer.start()
    until(lambda: served() >= 10, "no load")
    door.shut()
    before = served()
    until(lambda: served() >= before + 40, "requests wait for search", seconds=60)
    door.open()
    before = served()
    until(lambda: served() >= before + 10, "no load after")
    over.set()
    for customer in customers:
        customer.join(60)
        assert customer.wrong == []
    if switch == "false":  # what was left queued is a worker's
        assert idxctl("worker", "start", "--until-empty").status == 0
    until(lambda: at_rest(migrated), "the queue is not empty", seconds=60)
    query = (EXAMPLE / "listings.sql").read_text()
    assert judge.differences(migrated, query, opensearch_url, unique_name) == []
    assert client.get("/search", params={"q": "lamp"}).json()
    latency = client.get("/api/v1/admin/indexer/latency").json()
    assert latency[{"true": "async", "false": "sync"}[switch]]["indexed"] > 0
    report(mode, customers)


def report(mode, customers):
    seconds = sorted(one for customer in customers for one in customer.seconds)
    if os.environ.get("IDXCTL_TEST_REPORT"):
        at = [f"p{share} {seconds[int(len(seconds) * share / 100)] * 1000:.1f} ms" for share in (50, 95, 99)]
        print(f"\n{mode}: {len(seconds)} requests, {', '.join(at)}")


def test_both_modes_side_by_side_and_bad_requests(shop, migrated, opensearch_url, unique_name):
    on, off = shop(ENABLE_ASYNC_INDEXING="true"), shop()
    ids = [client.post("/listings", json={"title": "chair", "price": 1}).json()["id"] for client in (on, off, on, off)]
    assert on.put(f"/listings/{ids[1]}", json={"title": "table", "price": 2}).status_code == 200
    assert off.delete(f"/listings/{ids[0]}").status_code == 204
    assert on.put("/listings/999999", json={"title": "x", "price": 2}).status_code == 404
    assert off.post("/listings", json={"title": "", "price": 2}).status_code == 422
    until(lambda: at_rest(migrated), "the queue is not empty")
    assert judge.differences(migrated, (EXAMPLE / "listings.sql").read_text(), opensearch_url, unique_name) == []
