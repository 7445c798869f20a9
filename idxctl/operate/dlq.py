"""
Dead letters: look at them, put them back in the queue, throw them away.

Retry is one statement a step: a letter is in the DLQ, or its task is in the queue or in flight, whatever is killed. The task
carries the letter's number, age and history, so that a letter that fails again is the same one.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from idxctl.config.settings import Settings
from idxctl.core import backoff
from idxctl.core.errors import OpenSearchUnreachable, UsageError, WaitTimeout
from idxctl.core.failpoints import reach
from idxctl.core.tally import Tally
from idxctl.opensearch.client import Client
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection, Pool
from idxctl.postgres.statements import load
from idxctl.queue import pause
from idxctl.worker import registry
from idxctl.worker.in_background import beside
from idxctl.worker.pool import Options, Worker

SQL = load("idxctl.operate", "dlq.sql")
_POLL_SECONDS = 0.1
_BIGINT = 2**63 - 1  # no number and no count is greater


@dataclass(frozen=True)
class Selection:
    """Which letters: all conditions that are given must hold."""

    index: str | None = None
    error: str | None = None  # a fingerprint
    ids: tuple[int, ...] | None = None
    older_than: timedelta | None = None  # by created_at

    @property
    def named(self) -> bool:
        """Whether letters were picked out, and not just the next ones of an index."""
        return self.error is not None or self.ids is not None or self.older_than is not None

    @property
    def empty(self) -> bool:
        """Whether it covers everything."""
        return self.index is None and not self.named

    def parameters(self) -> dict[str, Any]:
        """Return it as the statements take it."""
        ids = None if self.ids is None else [one for one in self.ids if abs(one) <= _BIGINT]
        return {"index": self.index, "error": self.error, "ids": ids, "older_than": self.older_than}

    def described(self) -> dict[str, Any]:
        """Return it as the audit keeps it."""
        given = {**self.parameters(), "older_than": str(self.older_than) if self.older_than is not None else None}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Group:
    """Letters that failed alike."""

    fingerprint: str
    error_type: str
    count: int
    first_seen: datetime
    last_seen: datetime
    example: str | None
    document_id: str  # of the example
    indexes: list[str]
    retryable: bool


@dataclass(frozen=True)
class Stats:
    """All letters at a glance."""

    total: int
    oldest_task: datetime | None
    by_error: list[Group] = field(default_factory=list)


@dataclass(frozen=True)
class Letter:
    """One dead letter."""

    id: int
    index: str
    document_id: str
    action: str
    attempts: int
    error_type: str
    last_error: str | None
    created_at: datetime
    last_attempt_at: datetime
    retryable: bool
    fingerprint: str
    retries: int


@dataclass(frozen=True)
class LetterInFull(Letter):
    """One dead letter with its past."""

    not_before: datetime | None
    origin: str
    token: int
    history: list[dict[str, Any]]
    data: Any


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


@dataclass(frozen=True)
class Purged:
    """What a purge deleted, or would delete."""

    purged: int
    oldest: datetime | None = None
    newest: datetime | None = None
    dry_run: bool = False


def stats(conn: Connection, *, index: str | None = None) -> Stats:
    """Return the letters' number, their oldest and the groups of errors."""
    row = conn.run(SQL["summary"], index=index).fetchone()
    assert row is not None
    return Stats(row[0], row[1], [Group(*group) for group in conn.run(SQL["groups"], index=index)])


def every_letter(conn: Connection, selection: Selection, *, limit: int | None = None) -> Iterator[Letter]:
    """Yield letters, the newest failure first, up to *limit* or all; read while they are taken, in one transaction."""
    rows = conn.stream(
        SQL["list"],
        **selection.parameters(),
        limit=None if limit is None else min(limit, _BIGINT),
        after_at=None,
        after_id=None,
    )
    return (Letter(*row) for row in rows)


def count(conn: Connection, selection: Selection) -> int:
    """Count the letters that *selection* covers."""
    row = conn.run(SQL["count_chosen"], **selection.parameters()).fetchone()
    return 0 if row is None else int(row[0])


def letters(
    conn: Connection, selection: Selection, *, limit: int, after: tuple[datetime, int] | None = None
) -> list[Letter]:
    """Return up to *limit* letters, the newest failure first; *after* is the last attempt and number of the page before's last."""
    at, number = after or (None, None)
    given = selection.parameters()
    rows = conn.run(SQL["list"], **given, limit=min(limit, _BIGINT), after_at=at, after_id=number)
    return [Letter(*row) for row in rows]


def show(conn: Connection, name: str) -> LetterInFull | None:
    """Return the letter of that number, or the newest of the group of that name, with its history; None for neither."""
    number = int(name) if name.isascii() and name.isdigit() and len(name) < 19 else None
    row = conn.run(SQL["show"], id=number, error=name).fetchone()
    return None if row is None else LetterInFull(*row)


def chosen(conn: Connection, selection: Selection, *, limit: int) -> list[int]:
    """Return the numbers of the letters a retry would take, the least recently attempted first; locked for the transaction."""
    rows = conn.run(SQL["choose"], **selection.parameters(), named=selection.named, limit=min(limit, _BIGINT))
    return [row[0] for row in rows]


def plan_retry(conn: Connection, selection: Selection, *, limit: int) -> Retried:
    """Return what `retry` would take, and change nothing."""
    with conn.transaction():
        ids = chosen(conn, selection, limit=limit)
    return Retried(len(ids), left=_total(conn) - len(ids), without_index=_without_index(conn, selection), dry_run=True)


def requeue(conn: Connection, selection: Selection, *, limit: int) -> tuple[str, list[int]]:
    """Move up to *limit* letters into the queue, in one transaction; returns a name for this retry, and their numbers."""
    retry = uuid.uuid4().hex[:12]
    with conn.transaction():
        ids = chosen(conn, selection, limit=limit)
        if ids:
            conn.run(SQL["retry"], ids=ids, retry=retry)
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
            return Retried(len(ids), none, none, left=_total(conn), workers=workers, without_index=without, paused=held)
        if ours is None:
            waiting, failed = _see_through(conn, name, ids, timeout, told)
        else:
            worker = _worker(pool, ours, settings, _indexes_of(conn, name), tally)
            with beside(worker, drain_timeout=settings.worker.drain_timeout_seconds) as check:
                waiting, failed = _see_through(conn, name, ids, timeout, told, check=check)
    groups: dict[str, int] = dict(conn.run(SQL["failed_groups"], ids=ids).fetchall())
    held = _paused(conn, _indexes_of(conn, name)) if waiting else {}
    done = Retried(
        len(ids), len(ids) - failed - waiting, failed, groups, _total(conn), waiting, workers, without, paused=held
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
        row = conn.run(SQL["outcome"], retry=name, ids=list(ids)).fetchone()
        assert row is not None
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


def plan_purge(conn: Connection, selection: Selection, *, everything: bool) -> Purged:
    """Return what `purge` would delete; without a selection *everything* must say so."""
    if selection.empty and not everything:
        raise UsageError(
            "which letters? a purge takes --older-than, --error, --index or numbers",
            hint="idxctl dlq purge --older-than 7d, or --all --yes for all of them",
        )
    row = conn.run(SQL["count_chosen"], **selection.parameters()).fetchone()
    assert row is not None
    count, oldest, newest = row
    return Purged(count, oldest, newest, dry_run=True)


def purge(
    conn: Connection,
    selection: Selection,
    *,
    everything: bool = False,
    planned: Purged | None = None,
) -> Purged:
    """
    Delete letters for good, and leave an audit row, in one transaction.

    With *planned*, what `plan_purge` found and somebody agreed to: a letter that has come since then stays.
    """
    planned = planned or plan_purge(conn, selection, everything=everything)
    with conn.transaction():
        count = conn.run(SQL["purge"], **selection.parameters(), newest=planned.newest).rowcount
        if count:
            audit.record(
                conn,
                action="dlq purge",
                what=selection.index or "all",
                count=count,
                detail=selection.described(),
            )
    return Purged(count, planned.oldest, planned.newest)


def _total(conn: Connection) -> int:
    row = conn.run(SQL["summary"], index=None).fetchone()
    assert row is not None
    return int(row[0])


def _without_index(conn: Connection, selection: Selection) -> dict[str, int]:
    rows: dict[str, int] = dict(conn.run(SQL["orphaned"]).fetchall())
    return {name: count for name, count in rows.items() if selection.index in (None, name)}


def _indexes_of(conn: Connection, name: str) -> list[str]:
    return [row[0] for row in conn.run(SQL["indexes_of"], retry=name)]
