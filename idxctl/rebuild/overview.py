"""Each index's last reindex as it stands, and its generations."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from idxctl.indexes import generations
from idxctl.indexes.generations import Generation
from idxctl.postgres.connect import Connection
from idxctl.rebuild import SQL, runs


@dataclass(frozen=True)
class GenerationView:
    """A generation that is not deleted. ``keep_until``: how long a standby stays one."""

    generation: str
    state: str
    keep_until: datetime | None


@dataclass(frozen=True)
class RunView:
    """
    The last run of an index. The names are those of ``-o json``.

    ``documents`` are written or proved, of about ``total`` rows; ``per_second`` over the last half minute, or of the whole run
    once it is over. ``alive``: a process carries it on.
    """

    index: str
    run: int
    generation: str | None
    state: str
    documents: int
    total: int | None
    failed: int
    per_second: float | None
    seconds_left: float | None
    started_at: datetime
    seen_at: datetime
    finished_at: datetime | None
    owner: str
    alive: bool
    max_rate: float | None
    error: str | None
    generations: list[GenerationView]


def overview(conn: Connection, indexes: Collection[str]) -> list[RunView]:
    """Return the last run of each of *indexes* that has one."""
    known = [one for one in generations.all_of_them(conn) if one.active]
    return [_view(row, known) for row in conn.run(SQL["runs"], index=None) if row[0] in indexes]


def _view(row: tuple[Any, ...], known: list[Generation]) -> RunView:
    (
        index, run, generation, state, documents, total, failed, started, seen, finished, owner, error, max_rate, busy, silent,
        lately,
    ) = row  # fmt: skip
    over = finished is not None
    speed = documents / busy if over and busy else lately if state == "backfilling" else None
    left = None
    if state == "backfilling" and speed and total is not None:
        left = max(total - documents - failed, 0) / speed
    mine = [one for one in known if one.index == index]
    return RunView(
        index, run, generation, state, documents, total, failed,
        None if not speed else round(speed, 1), None if left is None else round(left, 1),
        started, seen, finished, owner, not over and silent < runs.DEAD_AFTER_SECONDS, max_rate, error,
        [GenerationView(one.name, one.state, one.standby_until) for one in mine],
    )  # fmt: skip


def expected_seconds(conn: Connection, index: str, rows: int) -> float | None:
    """Return how long a reindex of so many rows takes at the speed of the last one; None where there was none."""
    row = conn.run(SQL["last_speed"], index=index).fetchone()
    return None if row is None else round(rows * float(row[1]) / int(row[0]), 1)
