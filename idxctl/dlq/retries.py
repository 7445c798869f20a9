"""
Put dead letters back in the queue, and see them through where nobody else would.

One statement a step: a letter is in the DLQ, or its task is in the queue or in flight, whatever is killed. The task carries
the letter's number, age and history, so that a letter that fails again is the same one.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from idxctl.config.settings import Settings
from idxctl.core import backoff
from idxctl.core.errors import OpenSearchUnreachable, PostgresRefused, WaitTimeout
from idxctl.core.failpoints import reach
from idxctl.core.tally import Tally
from idxctl.dlq.letters import SQL, Selection, chosen, total
from idxctl.opensearch.client import Client
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection, Pool
from idxctl.queue import pause
from idxctl.worker import registry
from idxctl.worker.in_background import beside
from idxctl.worker.pool import Options, Worker

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Retried:
    """What a retry did; ``succeeded`` and ``failed`` are None while live workers have the tasks and nobody waited."""

    retried: int
    succeeded: int | None = None
    failed: int | None = None
    failed_groups: dict[str, int] = field(default_factory=dict)
    left: int = 0
    waiting: int = 0  # neither indexed nor failed when the time was up; their tasks stay queued
    workers: int = 0  # live ones that will take the tasks
    without_index: dict[str, int] = field(default_factory=dict)  # letters of indexes that have no generation
    paused: dict[str, str] = field(
        default_factory=dict
    )  # indexes that nobody claims from until they are resumed, with the reason
    dry_run: bool = False


class NotSettled(WaitTimeout):
    """The time was up before every letter of a retry was indexed or had failed; ``done`` tells how far it came."""

    def __init__(self, done: Retried, *, seconds: float) -> None:
        count = f"{done.waiting} of {done.retried} retried letters"
        if done.paused:
            names = ", ".join(f"{index} ({reason})" for index, reason in done.paused.items())
            said = f"{count} wait in the queue: paused is {names}"
            hint = f"idxctl resume --index {next(iter(done.paused))}"
        else:
            said = f"{count} are not settled after {seconds:g} s; they stay in the queue"
            hint = "idxctl queue stats says what holds them"
        super().__init__(said, hint=hint)
        self.done = done


def plan_retry(conn: Connection, selection: Selection, *, limit: int) -> Retried:
    """Return what `retry` would take, and change nothing."""
    with conn.transaction():
        ids = chosen(conn, selection, limit=limit)
    return Retried(len(ids), left=total(conn) - len(ids), without_index=_without_index(conn, selection), dry_run=True)


def requeue(conn: Connection, selection: Selection, *, limit: int) -> tuple[str, list[int]]:
    """Move up to *limit* letters into the queue, in one transaction; returns a name for this retry, and their numbers."""
    retry = uuid.uuid4().hex[:12]
    with conn.transaction():
        ids = chosen(conn, selection, limit=limit)
        if ids:
            if conn.run(SQL["retry"], ids=ids, retry=retry).rowcount < len(ids):
                raise PostgresRefused(  # rolled back: else these letters would be nowhere
                    "the queue swallows tasks: a trigger or a rule was put on it; no letter was retried",
                    sqlstate="09000",
                    hint="idxctl migrate status says what was put on it",
                )
            audit.record(
                conn,
                action="dlq retry",
                what=selection.index or "all",
                count=len(ids),
                detail=selection.described(),
            )
    reach("dlq.requeued")
    return retry, ids


def retry(
    pool: Pool,
    client: Callable[[], Client],
    settings: Settings,
    selection: Selection,
    *,
    limit: int,
    wait: bool,
    timeout: timedelta,
    told: Callable[[int, int], None] = lambda _settled, _all: None,
    tally: Tally | None = None,
) -> Retried:
    """
    Put up to *limit* letters back into the queue and, where no worker lives or with *wait*, see them through.

    *told* hears now and then how many of how many are settled.

    Raises `NotSettled` when they are not all settled within *timeout*, or all that are left are of indexes that an operator
    has paused: nobody can help those. The tasks stay queued. Where no worker lives and
    OpenSearch does not answer nothing is moved: the letters are as safe where they are, and easier to see.
    """
    conn = pool.mine()
    workers = _serving(conn, selection)
    with contextlib.nullcontext() if workers else client() as ours:
        if ours is not None:
            _make_sure_it_answers(conn, ours, selection)
        name, ids = requeue(conn, selection, limit=limit)
        without = _without_index(conn, selection)
        if not ids or (workers and not wait):
            none = 0 if not ids else None
            held = _paused(conn, _indexes_of(conn, name))
            return Retried(len(ids), none, none, left=total(conn), workers=workers, without_index=without, paused=held)
        if ours is None:
            waiting, failed = _see_through(conn, name, ids, timeout, told)
        else:
            worker = _worker(pool, ours, settings, _indexes_of(conn, name), tally)
            with beside(worker, drain_timeout=settings.worker.drain_timeout_seconds) as check:
                waiting, failed = _see_through(conn, name, ids, timeout, told, check=check)
    groups: dict[str, int] = dict(conn.run(SQL["failed_groups"], ids=ids).fetchall())
    held = _paused(conn, _indexes_of(conn, name)) if waiting else {}
    done = Retried(
        len(ids), len(ids) - failed - waiting, failed, groups, total(conn), waiting, workers, without, paused=held
    )
    if waiting:
        raise NotSettled(done, seconds=timeout.total_seconds())
    return done


def _serving(conn: Connection, selection: Selection) -> int:
    """Return how many live workers serve every index that letters of *selection* may be of."""
    names = [row[0] for row in conn.run(SQL["names"], index=selection.index)]
    if not names:
        return len(registry.alive(conn))
    return min(len(registry.alive(conn, index=name)) for name in names)


def _make_sure_it_answers(conn: Connection, client: Client, selection: Selection) -> None:
    """Raise what OpenSearch says instead of answering, if there is a letter to index."""
    with conn.transaction():
        if not chosen(conn, selection, limit=1):
            return
    try:
        client.info()
    except OpenSearchUnreachable as error:
        raise OpenSearchUnreachable(f"{error.message}; no letter was retried", hint=error.hint) from error


def _worker(pool: Pool, client: Client, settings: Settings, indexes: Sequence[str], tally: Tally | None) -> Worker:
    """Return a worker of our own; what else waits in these indexes may go with the letters."""
    options = Options.of(settings, workers=min(settings.worker.workers, 2), indexes=indexes)
    return Worker(pool, client, options, tally=tally)


def _see_through(
    conn: Connection,
    name: str,
    ids: Sequence[int],
    timeout: timedelta,
    told: Callable[[int, int], None],
    *,
    check: Callable[[], None] = lambda: None,
) -> tuple[int, int]:
    """
    Wait until no task of this retry is queued or in flight; returns how many still are, and how many letters are back.

    *check* raises what keeps them from being worked off.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    while True:
        looked = time.monotonic()
        row = conn.one(SQL["outcome"], retry=name, ids=list(ids))
        waiting, failed = row
        told(len(ids) - waiting, len(ids))
        if not waiting or time.monotonic() > deadline or _all_paused(conn, name):
            return int(waiting), int(failed)
        check()
        time.sleep(backoff.before_look(time.monotonic() - looked, shortest=_POLL_SECONDS))


def _all_paused(conn: Connection, name: str) -> bool:
    """Whether all that a retry still waits for is of indexes that an operator has paused."""
    (held,) = conn.run(SQL["all_paused"], retry=name).fetchone() or (False,)
    return bool(held)


def _paused(conn: Connection, indexes: Sequence[str]) -> dict[str, str]:
    """Return those that an operator has paused, with the reason; one that is blocked is tried again by itself."""
    return {one.index: one.reason for one in pause.pauses(conn) if one.index in indexes and one.probe_at is None}


def _without_index(conn: Connection, selection: Selection) -> dict[str, int]:
    rows: dict[str, int] = dict(conn.run(SQL["orphaned"]).fetchall())
    return {name: count for name, count in rows.items() if selection.index in (None, name)}


def _indexes_of(conn: Connection, name: str) -> list[str]:
    return [row[0] for row in conn.run(SQL["indexes_of"], retry=name)]
