"""
Fan-outs: one task becomes many, after the commit of the change that made it.

`keys` runs a watch's lookup query over the changed rows (C1), `sweep` enqueues every id that an index holds (C3). A `keys` task that is *coarse* names no rows: capture could not
tell them, so every row and every document is looked at (C6). Each of them ends in tasks for documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg import sql

from idxctl.capture import lookups
from idxctl.core.errors import OpenSearchRefused, PostgresRefused
from idxctl.core.failpoints import reach
from idxctl.core.reasons import Kind, Reason
from idxctl.indexes import generations as generations_
from idxctl.indexes.definitions import rows_of
from idxctl.indexes.generations import Generation
from idxctl.indexes.key_sql import id_text
from idxctl.indexes.reading import is_of_values
from idxctl.opensearch import aliases, scan
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection
from idxctl.postgres.user_sql import carry_over
from idxctl.queue import SQL
from idxctl.queue.claim import Batch, Task
from idxctl.queue.enqueue import PRIORITIES
from idxctl.queue.requeue import requeue_fan_outs
from idxctl.queue.settle import end_lease

_SWEEP_WAIT_SECONDS = 0.25
_RETRY_WAIT_SECONDS = 5.0
_ROUND_WAIT_SECONDS = 2.0  # until the documents of the last coarse task are through
_MOST_FAILED_ROWS = 64  # of one task; a query that fails for more is not looked at row by row
_PATIENCE_SECONDS = 600.0  # a query may find millions of keys before it says a word
_BATCHES, _DOCUMENTS, _TRANSACTIONS, _NO_LOOKUP = (
    Reason(Kind.WAITS_FOR_BATCHES),
    Reason(Kind.WAITS_FOR_DOCUMENTS),
    Reason(Kind.WAITS_FOR_TRANSACTIONS),
    Reason(Kind.NO_LOOKUP),
)


@dataclass(frozen=True)
class Expanded:
    """What became of a batch of fan-outs. ``broken`` says why a lookup query cannot run."""

    held: bool
    enqueued: int = 0
    waiting: int = 0
    broken: Reason | None = None


def expand(
    conn: Connection,
    client: Client,
    batch: Batch,
    generations: Sequence[Generation],
    *,
    bytes_gone_after_seconds: float,
) -> Expanded:
    """
    Turn the fan-outs of *batch* into document tasks and end its lease.

    Lookups are expanded in the settling transaction, so a crash leaves the fan-out or its tasks, never neither. A sweep
    enqueues page by page; killed in between it starts again, and its duplicates are merged when claimed.
    """
    swept, waiting = 0, []
    reach("expand.before")
    for task in _one_sweep(batch):
        if _others(conn, batch, _before(batch, task), bytes_gone_after_seconds):
            waiting.append(task)
        else:
            swept += _sweep(conn, client, batch, task, generations)
    coarse = _coarse(conn, client, batch, generations, bytes_gone_after_seconds)
    found, broken, failed = coarse.enqueued, coarse.broken, list(coarse.failed)
    rendered = _rendered(conn, generations)
    with conn.transaction():
        # First of all: a lease that was lost means that others have the tasks, and nothing is to be written.
        if not end_lease(conn, batch):
            return Expanded(held=False)
        for task in batch.tasks:
            if task.document_id == "keys" and not _is_coarse(task):
                count, rows, problem = _keys(conn, batch, task, rendered)
                found += count
                if rows:
                    broken = problem
                    left = {**task.payload, ("values" if "values" in task.payload else "rows"): rows}
                    failed.append(replace(task, attempts=task.attempts + 1, payload=left))
        requeue_fan_outs(conn, batch.index, waiting, wait=_SWEEP_WAIT_SECONDS, why=_BATCHES)
        requeue_fan_outs(conn, batch.index, coarse.waiting, wait=_ROUND_WAIT_SECONDS, why=coarse.why)
        requeue_fan_outs(conn, batch.index, failed, wait=_RETRY_WAIT_SECONDS, why=broken or _NO_LOOKUP)
        reach("expand.moved")
    return Expanded(True, swept + found, len(waiting) + len(coarse.waiting), broken)


@dataclass(frozen=True)
class _Coarse:
    """What became of a batch's coarse tasks; those that are put back are one."""

    enqueued: int = 0
    waiting: tuple[Task, ...] = ()
    why: Reason = _BATCHES
    failed: tuple[Task, ...] = ()
    broken: Reason | None = None


def broken(what: str, error: PostgresRefused) -> Reason:
    """Return the reason of a query that PostgreSQL refuses; *what* says which, and that it does."""
    return Reason(Kind.NO_LOOKUP, error.detail, f"sql_{error.sqlstate}", about=what)


def _is_coarse(task: Task) -> bool:
    return "coarse" in task.payload


def _coarse(
    conn: Connection, client: Client, batch: Batch, generations: Sequence[Generation], gone_after: float
) -> _Coarse:
    """
    C6: enqueue every row's document, and every document that the index holds, once for all coarse tasks there are.

    Each statement that capture could not follow leaves one, by the thousand while a column is gone: whatever is committed
    by now is taken along, and the next round waits until the documents of this one are through.
    """
    tasks = [task for task in batch.tasks if _is_coarse(task)]
    if not tasks:
        return _Coarse()
    before = max(_before(batch, task) for task in tasks)
    after = max((int(task.payload["after"]) for task in tasks if "after" in task.payload), default=None)
    payload = {**tasks[0].payload, "before": before} | ({} if after is None else {"after": after})
    one = replace(min(tasks, key=lambda task: task.enqueued_at), payload=payload)
    if _others(conn, batch, before, gone_after):
        return _Coarse(waiting=(one,), why=_BATCHES)
    open_, over = conn.run(SQL["coarse_round"], index=batch.index, after=after or 0, schema=conn.schema).fetchone() or (
        False,
        True,
    )
    if open_ or not over:
        return _Coarse(waiting=(one,), why=_DOCUMENTS if open_ else _TRANSACTIONS)
    # Under the lease: a worker that has lost it must not take away what whoever has it now did not see.
    conn.run(SQL["absorb_coarse"], index=batch.index, token=batch.token)
    try:
        count = _every_row(conn, batch, one, generations)
    except PostgresRefused as error:
        why = broken(f"the document query of {batch.index} does not run", error)
        return _Coarse(failed=(replace(one, attempts=one.attempts + 1),), broken=why)
    return _Coarse(count + _sweep(conn, client, batch, one, generations))


def _every_row(conn: Connection, batch: Batch, task: Task, generations: Sequence[Generation]) -> int:
    """
    Enqueue every row by the live generation's query; by that of one being built where the live one's does not run.

    That is how it is after a column was renamed: the reindex that brings the new query waits for this task.
    """
    refused: PostgresRefused | None = None
    for generation in _live_first(conn, generations):
        try:
            return _rows_of(conn, batch, task, generation)
        except PostgresRefused as error:
            refused = refused or error
    if refused is not None:
        raise refused
    return 0


def _rows_of(conn: Connection, batch: Batch, task: Task, generation: Generation) -> int:
    definition = generation.definition
    tasks = sql.SQL("SELECT {index}, {ident}, {priority}, {enqueued_at}, 'coarse' FROM {rows}").format(
        index=sql.Literal(batch.index),
        ident=id_text(definition),
        priority=sql.Literal(PRIORITIES["low"]),
        enqueued_at=_as_written(task.enqueued_at),
        rows=rows_of(definition),
    )
    into = queue_columns(conn, "index_name, document_id, priority, enqueued_at, origin")
    with conn.patient(_PATIENCE_SECONDS), conn.transaction():
        return carry_over(conn, tasks, into, local=definition.in_force)


def _rendered(conn: Connection, generations: Sequence[Generation]) -> Mapping[str, str]:
    """Return the settings under which documents get their ids: the live generation's, else the newest one's."""
    newest = _live_first(conn, generations)
    return newest[0].definition.local if newest else {}


def _live_first(conn: Connection, generations: Sequence[Generation]) -> list[Generation]:
    states = generations_.states(conn, [one.id for one in generations])
    return sorted(generations, key=lambda one: (states.get(one.id) == "live", one.id), reverse=True)


def _keys(
    conn: Connection, batch: Batch, task: Task, rendered: Mapping[str, str]
) -> tuple[int, list[Any], Reason | None]:
    """
    C1: run the lookup now, with a snapshot taken after the claim, and enqueue what it finds.

    Returns how many that were, the rows it cannot be run over and why. P3: one row whose values make the query fail is
    found by halving and holds up no other.
    """
    stored = conn.run(SQL["watch"], id=task.payload["watch"]).fetchone()
    rows = lookups.stored_rows(task.payload)
    if stored is None:
        return 0, rows, Reason(Kind.NO_LOOKUP, f"watch {task.payload['watch']} is not known any more")
    definition, schema, table = stored
    count = 0
    why: Reason | None = None
    failed: list[Any] = []
    waiting = [rows]
    while waiting:
        part = waiting.pop()
        found, error = _look_up(conn, batch, task, definition, part, rendered)
        count += found
        if error is None:
            continue
        if not lookups.readable(conn, definition, part):
            return _all_instead(conn, batch, task), [], None
        if is_of_values(error) and len(part) > 1 and len(failed) < _MOST_FAILED_ROWS:
            middle = len(part) // 2
            waiting += [part[middle:], part[:middle]]
            continue
        fixed = _look_up_by_successors(conn, batch, task, definition, part, rendered)
        if fixed is not None:
            count += fixed
            continue
        failed += part
        why = broken(f"the keys query over {schema}.{table} does not run", error)
    return count, failed, why


def _all_instead(conn: Connection, batch: Batch, task: Task) -> int:
    """
    Leave a coarse task for rows whose stored texts their columns' types do not take any more (C6).

    An enum's label that was renamed since, a column that was retyped: the lookup over them would never run.
    """
    return conn.run(
        SQL["enqueue_coarse"], index=batch.index, watch=task.payload["watch"], enqueued_at=task.enqueued_at
    ).rowcount


def _look_up_by_successors(
    conn: Connection,
    batch: Batch,
    task: Task,
    definition: dict[str, Any],
    rows: list[Any],
    rendered: Mapping[str, str],
) -> int | None:
    """
    Run what has replaced a broken lookup since, where the stored columns are enough for it; None where it does not help.

    Else a task whose query was fixed in the configuration would wait for ever: a stored definition never changes.
    """
    place = {name: number for number, name in enumerate(definition["columns"])}
    fixed = [
        one for (one,) in conn.run(SQL["successors"], id=task.payload["watch"]) if place.keys() >= set(one["columns"])
    ]
    count = 0
    for one in fixed:
        taken = [[row[place[name]] for name in one["columns"]] for row in rows]
        found, error = _look_up(conn, batch, task, one, taken, rendered)
        if error is not None:
            return None
        count += found
    return count if fixed else None


def _look_up(
    conn: Connection,
    batch: Batch,
    task: Task,
    definition: dict[str, Any],
    rows: list[Any],
    rendered: Mapping[str, str],
) -> tuple[int, PostgresRefused | None]:
    """Enqueue the documents that *rows* lead to, in a savepoint."""
    refused: PostgresRefused | None = None
    for by_stored_types in (False, True):  # the watched table may be gone or renamed since
        types = lookups.casts(conn, definition, by_stored_types=by_stored_types) if definition.get("read_as") else ()
        tasks = sql.SQL(
            "SELECT {index}, found.id, {priority}, {enqueued_at}, 'lookup' FROM ({query}) AS found (id) WHERE found.id IS NOT NULL"
        ).format(
            index=sql.Literal(batch.index),
            priority=sql.Literal(-1 if definition.get("deferred") else task.priority),
            enqueued_at=_as_written(task.enqueued_at),
            query=lookups.expansion(definition, rows, types, by_stored_types=by_stored_types),
        )
        try:
            into = queue_columns(conn, "index_name, document_id, priority, enqueued_at, origin")
            with conn.patient(_PATIENCE_SECONDS):
                return carry_over(conn, tasks, into, local=lookups.local_settings(definition, rendered)), None
        except PostgresRefused as error:
            refused = error
            if error.sqlstate not in {"42P01", "42704", "3F000"} and not definition.get("read_as"):
                break
    return 0, refused


def _as_written(at: datetime) -> sql.Literal:
    """Return a time as text that is copied on as it is: read under the application's DateStyle, it would be written in that."""
    return sql.Literal(at.isoformat())


def queue_columns(conn: Connection, columns: str) -> sql.Composed:
    """Return the queue as rows are copied into it."""
    return sql.SQL("{}.opensearch_indexing_queue ({})").format(sql.Identifier(conn.schema), sql.SQL(columns))


def _one_sweep(batch: Batch) -> list[Task]:
    """
    Return all sweeps of a batch as one, if it has any: each would enqueue the same ids, for every TRUNCATE while claims rest.

    It waits for what the last of them has to wait for.
    """
    tasks = [task for task in batch.tasks if task.document_id == "sweep"]
    if not tasks:
        return []
    first = min(tasks, key=lambda task: task.enqueued_at)
    before = max(_before(batch, task) for task in tasks)
    return [replace(first, payload={**first.payload, "before": before})]


def _before(batch: Batch, task: Task) -> int:
    """Return the token below which batches may hold what the TRUNCATE removed: that of the sweep's first claim."""
    return int(task.payload.get("before", batch.token))


def _others(conn: Connection, batch: Batch, before: int, gone_after: float) -> bool:
    """C3: whether a batch claimed earlier may still be writing: neither settled nor past the age of its bytes."""
    rows = conn.run(SQL["other_batches"], index=batch.index, token=before).fetchall()
    return any(float(age) < gone_after for _, age in rows)


def _sweep(conn: Connection, client: Client, batch: Batch, task: Task, generations: Sequence[Generation]) -> int:
    """C3: enqueue every id that the active generations hold, once they have been refreshed."""
    count = 0
    for generation in generations:
        try:
            count += _sweep_one(conn, client, batch.index, task, generation)
        except OpenSearchRefused as error:
            if error.status != 404 or generations_.states(conn, [generation.id]).get(generation.id) != "retired":
                raise  # G3: that a generation retired meanwhile is gone means nothing
    return count


def _sweep_one(conn: Connection, client: Client, index: str, task: Task, generation: Generation) -> int:
    count = 0
    aliases.refresh(client, generation.name)
    for page in scan.ids(client, generation.name):
        count += conn.run(
            SQL["enqueue_expanded"],
            index=index,
            ids=page,
            priority=PRIORITIES["low"],
            enqueued_at=task.enqueued_at,
            origin="sweep",
        ).rowcount
        reach("expand.swept_page")
    return count
