"""
What a whole reindex costs, its check included, in CPU of client, PostgreSQL and OpenSearch, beside `helpers.parallel_bulk`.

    python benchmarks/whole_reindex.py --listings 90000 --rounds 3

Rates on a shared machine are noise, CPU per document is not. Each round goes through every way once, and before each the
servers come to rest, so that a merge of one way is not charged to the next. The servers' own accounting (/proc) is read
before and after, with all processes that they started and that have ended since. Medians and ratios are what to quote.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from main_job import FLAT, Bench, bodies, idxctl, script
from tabulate import tabulate

from idxctl.demo.shop import INDEX, load_shop, write_definition
from idxctl.embedded.servers import Servers, start_servers

TICKS = os.sysconf("SC_CLK_TCK")
ANCHOR = "helpers.parallel_bulk"
AT_REST = 0.05  # seconds of CPU in a second
PATIENCE = 60

WAYS: dict[str, Callable[[Bench], tuple[float, float, float, str]]] = {
    "ready bodies": lambda bench: script(bench, "ceiling"),
    ANCHOR: lambda bench: script(bench, "parallel_bulk"),
    "idxctl reindex": lambda bench: idxctl(bench, "reindex", "-o", "json"),
    "idxctl reindex --check versions": lambda bench: idxctl(bench, "reindex", "--check", "versions", "-o", "json"),
    "idxctl reindex --check none": lambda bench: idxctl(bench, "reindex", "--check", "none", "-o", "json"),
}


@dataclass
class Cost:
    """µs of CPU a document, a figure a round; and peak memory of the client in MB."""

    client: list[float] = field(default_factory=list)
    postgres: list[float] = field(default_factory=list)
    opensearch: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    @property
    def sums(self) -> list[float]:
        return [sum(one) for one in zip(self.client, self.postgres, self.opensearch, strict=True)]


def processes() -> dict[int, tuple[int, float]]:
    """Every process of the machine: its parent, and the CPU seconds of itself and of its children that have ended."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                fields = (place / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(place.name)] = (int(fields[1]), sum(map(int, fields[11:15])) / TICKS)
    return found


def cpu_of(root: int) -> float:
    """Return the CPU seconds of a process and of all that descends from it, ended or not."""
    known, wanted, total = processes(), [root], 0.0
    while wanted:
        one = wanted.pop()
        total += known.get(one, (0, 0.0))[1]
        wanted += [child for child, (parent, _) in known.items() if parent == one]
    return total


@dataclass(frozen=True)
class Meter:
    """Reads what the two servers have used."""

    postgres: int
    opensearch: int

    def read(self) -> tuple[float, float]:
        return cpu_of(self.postgres), cpu_of(self.opensearch)

    def wait_for_rest(self) -> None:
        for _ in range(PATIENCE):
            before = sum(self.read())
            time.sleep(1)
            if sum(self.read()) - before < AT_REST:
                return


def measure(bench: Bench, meter: Meter, ways: list[str], rounds: int) -> dict[str, Cost]:
    costs = {name: Cost() for name in ways}
    for number in range(rounds):
        for name in ways:
            print(f"round {number + 1}, {name}", file=sys.stderr, flush=True)
            meter.wait_for_rest()
            before = meter.read()
            _, client, memory, _ = WAYS[name](bench)
            postgres, opensearch = (after - at for after, at in zip(meter.read(), before, strict=True))
            cost = costs[name]
            for kept, seconds in ((cost.client, client), (cost.postgres, postgres), (cost.opensearch, opensearch)):
                kept.append(seconds / bench.documents * 1e6)
            cost.memory.append(memory)
    return costs


def rows(shape: str, costs: dict[str, Cost]) -> Iterator[list[str]]:
    """The ratio is the median of the rounds' own: each round met the same machine."""
    anchor = costs[ANCHOR].sums if ANCHOR in costs else None
    for name, cost in costs.items():
        medians = [statistics.median(one) for one in (cost.client, cost.postgres, cost.opensearch)]
        ratios = [own / other for own, other in zip(cost.sums, anchor, strict=True)] if anchor else []
        yield [
            shape, name, *(f"{one:.0f}" for one in medians), f"{statistics.median(cost.sums):.0f}",
            f"{statistics.median(ratios):.2f}" if ratios else "",
            f"{min(ratios):.2f} - {max(ratios):.2f}" if ratios else "", f"{max(cost.memory):.0f}",
        ]  # fmt: skip


HEADS = ["documents", "way", "client", "PostgreSQL", "OpenSearch", "sum", "÷ parallel_bulk", "range", "peak MB"]


def prepare(home: Path, servers: Servers, shape: str) -> Bench:
    """Fill PostgreSQL and make the definition; returns the bench with as many documents as there are."""
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        documents = connection.execute("SELECT count(*) FROM listings WHERE status <> 'draft'").fetchone()[0]
    write_definition(home)
    if shape == "flat":
        (home / "listings.sql").write_text(FLAT, encoding="utf-8")
    (home / "bodies").unlink(missing_ok=True)
    bench = Bench(servers, home, documents)
    bodies(bench)
    idxctl(bench, "watch", "install")
    idxctl(bench, "reindex", "--index", INDEX)  # both servers are warm, and there is a live generation
    return bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--listings", type=int, default=90_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", action="append", choices=["flat", "nested"])
    parser.add_argument("--only", action="append", choices=list(WAYS))
    parser.add_argument("--json", type=Path, help="where the figures of every round go")
    given = parser.parse_args()
    table: list[list[str]] = []
    kept: dict[str, dict[str, dict[str, list[float]]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("IDXCTL_")}
        with start_servers(home, environ=environ) as servers:
            assert servers.postgres is not None
            assert servers.opensearch is not None
            meter = Meter(servers.postgres.child.guard_pid, servers.opensearch.child.guard_pid)
            with psycopg.connect(servers.database_url, autocommit=True) as connection:
                load_shop(connection, given.listings)
            write_definition(home)
            idxctl(Bench(servers, home, 0), "migrate", "up")
            for shape in given.shape or ["flat", "nested"]:
                bench = prepare(home, servers, shape)
                costs = measure(bench, meter, given.only or list(WAYS), given.rounds)
                table += rows(shape, costs)
                kept[shape] = {name: vars(cost) for name, cost in costs.items()}
    print(f"CPU in µs a document, medians of {given.rounds} rounds\n")
    print(tabulate(table, HEADS, disable_numparse=True, colalign=("left", "left", *["right"] * 7)))
    if given.json:
        given.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
