"""Run a soak: python -m soak, with MINUTES, SEED and LISTINGS from the environment."""

from __future__ import annotations

import collections
import os
import secrets
import sys
import threading
import time

from soak.faults import LONG, SHORT, SWAPPED, Lane
from soak.market import Trader
from soak.program import carried_out
from soak.scene import TIMES, UNREACHABLE, Scene

WORKERS, WRITERS = 3, 4
DRAIN_SECONDS = 600
CROWDED = 5000  # tasks queued, above which writers slow down and faults wait: a machine may serve less than they make
LOOK_EVERY, SAY_EVERY = 2.0, 10.0
SWAPS_SURELY = 8.0  # minutes, in which a rebuild must have come to its swap
# Drained, killed by a fault, started while a server was away, told to stop before it had begun.
EXPECTED_EXITS = {0, -9, UNREACHABLE, 143}


class Soak:
    """One run: load and faults, then rest and judgement."""

    def __init__(self, scene: Scene, seed: str) -> None:
        self.scene = scene
        self.began = time.monotonic()
        self.over, self.closed, self._rest = threading.Event(), threading.Event(), threading.Event()
        still = threading.Lock()
        self.lanes = [
            Lane(scene, SHORT, f"{seed}-short", over=self.over, still=still, pause=3.0),
            Lane(scene, LONG, f"{seed}-long", over=self.over, still=still, pause=4.0),
        ]
        self.writers = [Trader(scene, number + 1, self.closed) for number in range(WRITERS)]
        self.counters: dict[str, dict] = {}
        self._said = 0.0

    def run(self, minutes: float) -> list[str]:
        """Return what is not as promised; nothing, if all is well."""
        for thread in (*self.writers, *self.lanes):
            thread.start()
        self._wait(minutes * 60)
        self.over.set()
        for lane in self.lanes:
            lane.join(DRAIN_SECONDS)
        self.closed.set()
        for writer in self.writers:
            writer.join(60)
        drained = self._drain()
        last, verified = self.scene.idxctl("reindex"), self.scene.idxctl("verify")
        documents, differences = self.scene.differences()
        queued, in_flight, letters = self.scene.left()
        self._look()
        for worker in self.scene.workers:
            worker.stop()
        self._summary(documents, differences, queued, in_flight, letters)
        return [
            *(f"{thread.name}: {thread.error!r}" for thread in (*self.lanes, *self.writers) if thread.error),
            *(f"{thread.name} did not end" for thread in (*self.lanes, *self.writers) if thread.is_alive()),
            *([] if drained else [f"the queue did not get empty within {DRAIN_SECONDS} s"]),
            *([] if last.returncode == 0 else [f"a reindex at rest: {last.stderr.decode()[-600:]}"]),
            *([] if verified.returncode == 0 else [f"verify: {(verified.stdout + verified.stderr).decode()[-600:]}"]),
            *([] if minutes < SWAPS_SURELY or self.lanes[1].outcomes[SWAPPED] else ["no rebuild came to its swap"]),
            *differences[:20],
            *([f"{queued} tasks queued, {in_flight} batches in flight"] if queued or in_flight else []),
            *([f"{letters} dead letters"] if letters else []),
            *(f"{worker.name} ended with {status}" for worker in self.scene.workers for status in worker.exits
              if status not in EXPECTED_EXITS),
        ]  # fmt: skip

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not any(thread.error for thread in (*self.lanes, *self.writers)):
            self.closed.wait(min(LOOK_EVERY, max(until - time.monotonic(), 0)))
            self._look()
            if time.monotonic() - self._said > SAY_EVERY:
                self._say()

    def _drain(self) -> bool:
        until = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < until:
            queued, in_flight, _ = self.scene.left()
            if queued == in_flight == 0:
                return True
            self._rest.wait(0.5)
            if time.monotonic() - self._said > SAY_EVERY:
                self._say(f"draining: {self.scene.under_way()}")
        return False

    def _look(self) -> None:
        """See how much waits, and keep the last figures of every worker that ever ran: a killed one takes its own with it."""
        queued, _, _ = self.scene.left()
        if queued >= 0:  # else nobody can tell
            (self.scene.crowded.set if queued >= CROWDED else self.scene.crowded.clear)()
        found = self.scene.ask("SELECT jsonb_object_agg(id, counters) FROM opensearch_indexing_workers")
        if found and found[0]:
            self.counters.update(found[0])

    def _say(self, text: str = "") -> None:
        queued, in_flight, letters = self.scene.left()
        self._said = time.monotonic()
        now = " and ".join(lane.now for lane in self.lanes if lane.now) or "quiet"
        made = sum(writer.made for writer in self.writers)
        print(
            f"{time.monotonic() - self.began:5.0f} s  {made:,} changes, {queued:,} queued, {in_flight} in flight, {letters} letters; {text or now}",
            flush=True,
        )

    def _summary(self, documents: int, differences: list[str], queued: int, in_flight: int, letters: int) -> None:
        faults = collections.Counter[str]()
        for lane in self.lanes:
            faults.update(lane.injected)
        changes = collections.Counter[str]()
        for writer in self.writers:
            changes.update(writer.kinds)
        (tasks,) = self.scene.ask("SELECT max(id) FROM (SELECT nextval('opensearch_indexing_queue_id_seq') AS id) n")
        facts = self.scene.facts()
        figures = {name: sum(one.get(name) or 0 for one in self.counters.values()) for name in
                   ("indexed", "superseded", "retried", "healed", "lost", "dead")}  # fmt: skip
        exits = collections.Counter[int]()
        for worker in self.scene.workers:
            exits.update(worker.exits)
        rows = {
            "time": f"{time.monotonic() - self.began:.0f} s",
            "faults": f"{sum(faults.values())}: " + _listed(faults),
            "reindexes": _listed(self.lanes[1].outcomes) or "none",
            "changes": f"{sum(changes.values()):,}: " + _listed(changes),
            "tasks": f"{tasks:,}",
            "indexed": f"{figures['indexed']:,}, {figures['superseded']:,} superseded (as far as heartbeats told)",
            "retries": f"{figures['retried']:,}",
            "rescues": f"{facts['rescued']:,} batches; {facts['lost']:,} leases found lost",
            "said": _listed(collections.Counter({k: n for k, n in facts.items() if k in
                    ("postgres", "circuit", "blocked", "resumed", "failed", "failing", "dead", "sequence", "broken")})),
            "exits": _listed(collections.Counter({f"status {status}": n for status, n in exits.items()})),
            "letters": f"{figures['dead']:,} made, {figures['healed']:,} healed",
            "compared": f"{documents:,} documents, difference {len(differences)}",
            "left": f"queue {queued}, in flight {in_flight}, DLQ {letters}",
        }  # fmt: skip
        print()
        for name, text in rows.items():
            print(f"{name:<10} {text}")


def _listed(counted: collections.Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counted.most_common())


def main() -> int:
    minutes = float(os.environ.get("MINUTES") or 10)
    seed = os.environ.get("SEED") or secrets.token_hex(4)
    listings = int(os.environ.get("LISTINGS") or 5000)
    print(
        f"soak: {minutes:g} minutes, {WORKERS} workers, {WRITERS} writers, {listings:,} listings, SEED={seed}",
        flush=True,
    )
    return carried_out(
        "soak",
        lambda scene: Soak(scene, seed).run(minutes),
        workers=WORKERS,
        listings=listings,
        times=TIMES,
        again=f"SEED={seed} repeats the faults",
    )


if __name__ == "__main__":
    sys.exit(main())
