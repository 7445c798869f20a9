"""
Since when an index is proved equal to its rows: what the last whole comparison found, whether a scrub or `idxctl verify` made it.

A comparison takes a while, and a row is compared at some moment of it: nothing was compared before it began.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from idxctl.config.settings import Scrub
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load
from idxctl.worker.registry import WorkerRow

SQL = load("idxctl.status", "proofs.sql")


@dataclass(frozen=True)
class Proof:
    """
    The last whole comparison of a live index. ``at``: when it began, ``seconds`` ago.

    ``differing``: documents that differ and are neither dead letters nor written again. ``unsettled``: of which nobody can tell.
    """

    at: datetime
    seconds: float
    differing: int
    unsettled: int
    scrubbed: bool

    @property
    def equal(self) -> bool:
        """Whether it proved that each document is its row, but for dead letters."""
        return not self.differing and not self.unsettled

    def shown(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "at": self.at, "age_seconds": round(self.seconds, 1), "equal": self.equal, "differing": self.differing,
            "unsettled": self.unsettled, "by": "scrub" if self.scrubbed else "verify",
        }  # fmt: skip


@dataclass(frozen=True)
class Scrubbed:
    """An index that is to be scrubbed: its period, and the age of its oldest unverified range, in seconds."""

    every_seconds: float
    oldest_seconds: float

    @property
    def behind(self) -> bool:
        """Whether not everything was compared within twice the period."""
        return self.oldest_seconds > 2 * self.every_seconds


@dataclass(frozen=True)
class Proofs:
    """What is known of live indexes, by name. ``drifting``: what scrubs under way have found and do not repair."""

    last: Mapping[str, Proof]
    drifting: Mapping[str, int]
    scrubbed: Mapping[str, Scrubbed]

    @property
    def oldest_seconds(self) -> dict[str, float]:
        """The age of the oldest unverified range, of each index of which one is known."""
        found = {name: one.oldest_seconds for name, one in self.scrubbed.items()}
        return {**{name: one.seconds for name, one in self.last.items()}, **found}


_NOTHING = Proofs({}, {}, {})


def read(
    conn: Connection,
    workers: Sequence[WorkerRow],
    *,
    scrub_of: Callable[[str], Scrub | None],
) -> Proofs:
    """
    Return what the tables tell, nothing where this role may not read them; in the caller's transaction.

    An index is to be scrubbed where *scrub_of* says so of it, or a live worker does.
    """
    if conn.run(SQL["may_read_comparisons"]).fetchone() != (True,):
        return _NOTHING
    last = {name: Proof(*rest) for name, *rest in conn.run(SQL["last_whole"])}
    rows = conn.run(SQL["scrubs"]).fetchall()
    return Proofs(
        last,
        {name: drifting for name, _, _, drifting in rows if drifting},
        dict(_scrubbed(rows, last, workers, scrub_of)),
    )


def _scrubbed(
    rows: Sequence[Sequence[Any]],
    last: Mapping[str, Proof],
    workers: Sequence[WorkerRow],
    scrub_of: Callable[[str], Scrub | None],
) -> list[tuple[str, Scrubbed]]:
    found = []
    for name, live_seconds, open_seconds, _ in rows:
        said = scrub_of(name)
        periods = [float(every) for one in workers if (every := (one.counters.get("scrub") or {}).get(name))]
        every = min([*periods, *([said.every_seconds] if said is not None else [])], default=None)
        if every is None:
            continue
        if name in last:
            oldest = last[name].seconds
        elif open_seconds is not None:  # switched on since: it cannot be through before it has begun
            oldest = float(open_seconds)
        else:
            oldest = float(live_seconds)
        found.append((name, Scrubbed(every, oldest)))
    return found
