"""
The main job beside the scripts that teams write: loading an index and working off a queue, on one machine in one run.

    python benchmarks/main_job.py --listings 100000 --rounds 3

Each round goes through every way once, so that a machine which gets slower or faster meets them all alike; medians and
ratios are what to quote. Servers are embedded ones with fsync on, one shard, no replica, no refresh while loading.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

import psycopg
from opensearchpy import OpenSearch, helpers
from tabulate import tabulate

from idxctl.demo.shop import INDEX, load_shop, write_definition
from idxctl.embedded.servers import Servers, start_servers

BODY_BYTES = 5 * 1024 * 1024
FLAT = "SELECT l.id AS document_id, to_jsonb(l) - 'views_count' AS document FROM listings l WHERE l.status <> 'draft'\n"


@dataclass
class Taken:
    """What one way took, a figure a round: documents a second, client CPU in µs a document, peak memory in MB."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """The servers, the definition's directory and how many documents there are."""

    servers: Servers
    home: Path
    documents: int

    @property
    def environ(self) -> dict[str, str]:
        return {
            **os.environ,
            "IDXCTL_CONFIG": str(self.home / "idxctl.toml"),
            "IDXCTL_DATABASE_URL": self.servers.database_url,
            "IDXCTL_OPENSEARCH_URL": self.servers.opensearch_url,
        }

    @property
    def query(self) -> str:
        return (self.home / "listings.sql").read_text(encoding="utf-8")

    def fresh_index(self, client: OpenSearch, name: str) -> str:
        client.indices.delete(index=name, ignore=[404])
        body = json.loads((self.home / "listings.json").read_text(encoding="utf-8"))
        index = {**body.get("settings", {}), "refresh_interval": "-1", "number_of_replicas": 0}
        client.indices.create(index=name, body={"settings": {"index": index}, "mappings": body["mappings"]})
        return name


def child(bench: Bench, *command: str) -> tuple[float, float, float, str]:
    """Run a process; returns its seconds, CPU seconds, peak MB and what it printed."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, env=bench.environ, cwd=bench.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    errors: list[bytes] = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
    reader.start()
    printed = process.stdout.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    reader.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {errors[0].decode()[-2000:]}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, printed


def idxctl(bench: Bench, *arguments: str) -> tuple[float, float, float, str]:
    return child(bench, sys.executable, "-m", "idxctl", *arguments)


def script(bench: Bench, way: str) -> tuple[float, float, float, str]:
    return child(bench, sys.executable, __file__, "--way", way)


# The ways -------------------------------------------------------------------------------------------------------------


def reindex(bench: Bench) -> tuple[float, float, float]:
    """The backfill of `idxctl reindex`; CPU and memory are those of the whole command, the check of every document included."""
    _, cpu, memory, _ = idxctl(bench, "reindex", "-o", "json")
    with psycopg.connect(bench.servers.database_url) as connection:
        seconds = connection.execute(
            "SELECT extract(epoch FROM max(c.done_at) - min(r.started_at))::float8 FROM opensearch_indexing_reindex_chunks c "
            "JOIN opensearch_indexing_reindex_runs r ON r.id = c.run WHERE r.id = (SELECT max(id) FROM opensearch_indexing_reindex_runs)"
        ).fetchone()[0]
    return seconds, cpu, memory


def whole_reindex(bench: Bench) -> tuple[float, float, float]:
    """`idxctl reindex` from start to swap, every document compared."""
    return idxctl(bench, "reindex", "-o", "json")[:3]


def drain(bench: Bench) -> tuple[float, float, float]:
    """`idxctl worker start --until-empty` over a task for every document; process start included."""
    with psycopg.connect(bench.servers.database_url, autocommit=True) as connection:
        connection.execute(  # one generation is written, as in the other ways
            "UPDATE opensearch_indexing_generations SET state = 'retired', retired_at = clock_timestamp() WHERE state = 'standby'"
        )
    idxctl(bench, "queue", "add", "--where", "true")
    return idxctl(bench, "worker", "start", "--until-empty")[:3]


def ceiling(bench: Bench) -> tuple[float, float, float]:
    """Ready-made bodies over bare HTTP on two connections, PostgreSQL idle."""
    return script(bench, "ceiling")[:3]


def bulk_script(bench: Bench) -> tuple[float, float, float]:
    """`helpers.bulk` over a server-side cursor."""
    return script(bench, "bulk")[:3]


def parallel_script(bench: Bench) -> tuple[float, float, float]:
    """`helpers.parallel_bulk`, four threads."""
    return script(bench, "parallel_bulk")[:3]


WAYS: dict[str, Callable[[Bench], tuple[float, float, float]]] = {
    "ceiling": ceiling,
    "idxctl reindex, backfill": reindex,
    "idxctl reindex, whole": whole_reindex,
    "idxctl worker, drain": drain,
    "helpers.parallel_bulk": parallel_script,
    "helpers.bulk": bulk_script,
}


# The scripts, each in a process of its own ----------------------------------------------------------------------------


def actions(bench: Bench) -> Iterator[dict[str, object]]:
    with psycopg.connect(bench.servers.database_url) as connection, connection.cursor(name="all") as cursor:
        cursor.itersize = 2000
        for key, document in cursor.execute(bench.query.encode()):
            yield {"_id": str(key), "_source": document}


def run_script(way: str, bench: Bench) -> None:
    client = OpenSearch(bench.servers.opensearch_url, timeout=60)
    name = bench.fresh_index(client, f"bench-{way.replace('_', '-')}")
    if way == "bulk":
        helpers.bulk(client, actions(bench), index=name, chunk_size=1000)
    elif way == "parallel_bulk":
        for _ in helpers.parallel_bulk(client, actions(bench), index=name, chunk_size=1000, thread_count=4):
            pass
    else:
        send_bodies(bench, name)


def bodies(bench: Bench) -> Path:
    """Make the bodies of the ceiling once: one file, lengths in front."""
    path = bench.home / "bodies"
    if path.exists():
        return path
    parts: list[bytes] = []
    size = 0
    with path.open("wb") as file, psycopg.connect(bench.servers.database_url) as connection:
        cursor = connection.cursor(name="bodies")
        for key, text in cursor.execute(f"SELECT document_id, document::text FROM ({bench.query}) d".encode()):
            parts.append(b'{"index":{"_id":"%d"}}\n%b\n' % (key, text.encode()))
            size += len(parts[-1])
            if size > BODY_BYTES:
                file.write(size.to_bytes(8, "big") + b"".join(parts))
                parts, size = [], 0
        file.write(size.to_bytes(8, "big") + b"".join(parts))
    return path


def send_bodies(bench: Bench, name: str) -> None:
    lock = threading.Lock()
    where = urllib.parse.urlsplit(bench.servers.opensearch_url)
    with (bench.home / "bodies").open("rb") as file:

        def send() -> None:
            connection = HTTPConnection(where.hostname, where.port)
            while True:
                with lock:
                    head = file.read(8)
                    body = file.read(int.from_bytes(head, "big"))
                if not body:
                    return
                headers = {"Content-Type": "application/x-ndjson"}
                connection.request("POST", f"/{name}/_bulk?filter_path=errors", body, headers)
                assert connection.getresponse().read() == b'{"errors":false}'

        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


# The run --------------------------------------------------------------------------------------------------------------


def measure(bench: Bench, rounds: int, ways: list[str]) -> dict[str, Taken]:
    taken = {name: Taken() for name in ways}
    for number in range(rounds):
        for name in ways:
            print(f"round {number + 1}, {name}", file=sys.stderr, flush=True)
            seconds, cpu, memory = WAYS[name](bench)
            taken[name].rates.append(bench.documents / seconds)
            taken[name].cpu.append(cpu / bench.documents * 1e6)
            taken[name].memory.append(memory)
    return taken


def report(taken: dict[str, Taken]) -> None:
    base = statistics.median(taken["ceiling"].rates) if "ceiling" in taken else None
    rows = []
    for name, one in taken.items():
        rate = statistics.median(one.rates)
        rows.append([name, f"{rate:,.0f}", f"{min(one.rates):,.0f} - {max(one.rates):,.0f}", f"{rate / base:.2f}" if base else "",
                     f"{statistics.median(one.cpu):.1f}", f"{max(one.memory):.0f}"])  # fmt: skip
    heads = ["way", "documents/s", "range", "÷ ceiling", "CPU µs/document", "peak MB"]
    print(tabulate(rows, heads, disable_numparse=True, colalign=("left", *["right"] * 5)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flat", action="store_true", help="listings alone, without what belongs to them")
    parser.add_argument("--only", action="append", choices=list(WAYS))
    parser.add_argument("--way", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        home = Path(os.environ["IDXCTL_CONFIG"]).parent
        servers = Servers(home, os.environ["IDXCTL_DATABASE_URL"], os.environ["IDXCTL_OPENSEARCH_URL"], None, None)
        run_script(given.way, Bench(servers, home, 0))
        return
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        servers_of_our_own = {name: value for name, value in os.environ.items() if not name.startswith("IDXCTL_")}
        with start_servers(home, environ={**os.environ, **servers_of_our_own}) as servers:
            with psycopg.connect(servers.database_url, autocommit=True) as connection:
                load_shop(connection, given.listings)
                documents = connection.execute("SELECT count(*) FROM listings WHERE status <> 'draft'").fetchone()[0]
            write_definition(home)
            if given.flat:
                (home / "listings.sql").write_text(FLAT, encoding="utf-8")
            bench = Bench(servers, home, documents)
            bodies(bench)
            idxctl(bench, "migrate", "up")
            idxctl(bench, "watch", "install")
            idxctl(bench, "reindex", "--index", INDEX)
            report(measure(bench, given.rounds, given.only or list(WAYS)))


if __name__ == "__main__":
    main()
