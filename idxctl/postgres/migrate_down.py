"""What a way down would undo and lose, and what stands against it. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from idxctl.core.errors import Refused, UsageError
from idxctl.postgres.bookkeeping import BOOKS, SQL, applied, exists, refuse_newer, rows_lost, scalar
from idxctl.postgres.connect import Connection
from idxctl.postgres.migrations import Migration, known

_CAPTURE = "opensearch_indexing_capture"  # how the names of the functions begin that capture triggers run


@dataclass(frozen=True)
class DownPlan:
    """What a way down would undo and lose, and what stands against it."""

    version: int
    to: int
    undoes: tuple[str, ...]
    loses: tuple[tuple[str, int], ...]  # what, how many; without the empty ones
    triggers: tuple[str, ...] = ()  # capture triggers: nothing overrides them
    in_flight: int = 0
    workers: tuple[str, ...] = ()  # seen lately
    holds: tuple[str, ...] = ()  # "tasks in the queue (41)": overridden by force


def plan(conn: Connection, *, to: int, steps: tuple[Migration, ...] | None = None) -> DownPlan:
    """Say what going down to version *to* would undo and lose, and what stands against it. Changes nothing."""
    steps = known() if steps is None else steps
    steps_taken = applied(conn) if exists(conn, BOOKS) else {}
    refuse_newer(steps_taken, steps)
    version = max(steps_taken, default=0)
    if not 0 <= to <= version:
        raise UsageError(f"cannot go down to version {to}", hint=f"the database is at version {version}")
    undone = [step for step in reversed(steps) if step.version > to and step.version in steps_taken]
    loses = []
    for step in undone:
        for table, word in step.loses:
            if exists(conn, table) and (rows := rows_lost(conn, table)):
                loses.append((word, rows))
    counts = dict(loses)
    holds = tuple(f"{word} ({counts[word]:,})" for word in ("tasks in the queue", "dead letters") if word in counts)
    in_flight = 0
    workers: tuple[str, ...] = ()
    if steps_taken:
        in_flight = int(scalar(conn, "in_flight"))
        workers = tuple(row[0] for row in conn.run(SQL["live_workers"]))
    return DownPlan(
        version=version,
        to=to,
        undoes=tuple(step.title for step in undone),
        loses=tuple(loses),
        triggers=tuple(row[0] for row in conn.run(SQL["capture_triggers"], schema=conn.schema, prefix=_CAPTURE)),
        in_flight=in_flight,
        workers=workers,
        holds=holds,
    )


def refuse(plan: DownPlan, *, force: bool) -> None:
    """Raise `Refused` if something stands against *plan*. Pure."""
    if not plan.undoes:
        return
    if plan.triggers:
        some = ", ".join(plan.triggers[:3]) + (f" and {len(plan.triggers) - 3} more" if len(plan.triggers) > 3 else "")
        raise Refused(
            f"capture triggers are installed ({some}): without idxctl's tables every write of the application would fail",
            hint="idxctl watch remove, then idxctl migrate down",
        )
    if force:
        return
    if plan.in_flight or plan.workers:
        busy = []
        if plan.workers:
            busy.append(f"seen in the last minute: {', '.join(plan.workers[:3])}")
        if plan.in_flight:
            busy.append(f"tasks in flight: {plan.in_flight:,}")
        raise Refused("workers are at work: " + "; ".join(busy), hint="stop them first, or --force")
    if plan.holds:
        raise Refused(
            f"this would lose {' and '.join(plan.holds)}",
            hint="let workers finish and purge the letters first, or --force",
        )


def target(conn: Connection, *, to: int | None, count: int | None) -> int:
    """Return the version that *to* or *count* steps mean here."""
    if to is not None and count is not None:
        raise UsageError("--to and --steps exclude each other")
    if to is not None:
        return to
    version = max(applied(conn), default=0) if exists(conn, BOOKS) else 0
    return max(version - (1 if count is None else count), 0)
