"""What operators put into the queue by hand: documents by id, by a condition, or all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from psycopg import sql

from idxctl.config.settings import Settings
from idxctl.core.durations import format_duration
from idxctl.core.errors import PostgresRefused, UsageError, WaitTimeout
from idxctl.indexes import generations
from idxctl.indexes.definitions import Definition, define, rows_of
from idxctl.indexes.key_sql import id_text
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection
from idxctl.postgres.user_sql import carry_over, require_one_query
from idxctl.queue.enqueue import PRIORITIES, enqueue, enqueue_sweep

_NOTED = 20  # ids that the audit keeps, of those that were named
TIME_LIMIT = timedelta(minutes=5)  # of a condition over all documents


def add_documents(
    conn: Connection,
    settings: Settings,
    index: str,
    *,
    ids: Sequence[str] | None,
    where: str | None,
    priority: str,
    dry_run: bool,
    time_limit: timedelta = TIME_LIMIT,
) -> int:
    """
    Enqueue documents of *index*; returns how many.

    *where* is a condition over the columns of the document query: one expression, read READ ONLY, within *time_limit*, and
    never without the rows that a policy hides. With neither it nor *ids*: every row, and every document that the index
    holds, which is not counted. One transaction: all of them are enqueued, or none.
    """
    if priority not in PRIORITIES:
        raise UsageError(f"priority is {priority!r}", hint="high, normal or low")
    level = PRIORITIES[priority]
    if ids is not None:
        return _add_ids(conn, index, list(dict.fromkeys(ids)), level, dry_run=dry_run)
    live = generations.live(conn, index)
    if live is None and index not in settings.indexes:
        raise UsageError(f"index {index} has no document query here", hint="idxctl reindex first")
    definition = live.definition if live is not None else define(conn, settings.indexes[index])
    local = {**definition.in_force, "statement_timeout": f"{int(time_limit.total_seconds() * 1000)}ms"}
    with _explained(where, time_limit):
        if dry_run:
            return _count(conn, definition, where, local)
        with conn.transaction():
            count = _enqueue_chosen(conn, index, definition, where, level, local)
            if where is None:
                enqueue_sweep(conn, index=index, priority=level, origin="cli")
            audit.record(conn, action="queue add", what=index, count=count, detail={"where": where})
    return count


def _add_ids(conn: Connection, index: str, ids: list[str], level: int, *, dry_run: bool) -> int:
    if dry_run:
        return len(ids)
    with conn.transaction():
        count = enqueue(conn, index=index, ids=ids, priority=level, origin="cli")
        audit.record(conn, action="queue add", what=index, count=count, detail={"ids": ids[:_NOTED]})
    return count


def _count(conn: Connection, definition: Definition, where: str | None, local: Mapping[str, str | None]) -> int:
    with conn.transaction(local={**local, "row_security": "off"}, read_only=True):
        chosen = _chosen(conn, definition, where)
        row = conn.execute(sql.SQL("SELECT pg_catalog.count(*) FROM ({}) AS c").format(chosen)).fetchone()
    return int(row[0]) if row else 0


def _enqueue_chosen(
    conn: Connection, index: str, definition: Definition, where: str | None, level: int, local: Mapping[str, str | None]
) -> int:
    with conn.savepoint(local=local, read_only=True):
        chosen = _chosen(conn, definition, where)
    query = sql.SQL("SELECT {index}, c.id, {priority}, 'cli' FROM ({chosen}) AS c (id) WHERE c.id IS NOT NULL").format(
        index=sql.Literal(index), priority=sql.Literal(level), chosen=chosen
    )
    into = sql.SQL("{}.opensearch_indexing_queue (index_name, document_id, priority, origin)")
    return carry_over(conn, query, into.format(sql.Identifier(conn.schema)), local=local)


def _chosen(conn: Connection, definition: Definition, where: str | None) -> sql.Composed:
    """Return the query for the ids that a condition holds for, once it is known to be one expression and no more."""
    head = sql.SQL("SELECT {} FROM {} WHERE ").format(id_text(definition), rows_of(definition))
    condition = where or "true"
    require_one_query(conn, head.as_string(conn.raw) + f"\n{condition}\n")
    return sql.SQL("{}(\n{}\n)").format(head, sql.SQL(condition))


@contextlib.contextmanager
def _explained(where: str | None, time_limit: timedelta) -> Iterator[None]:
    """Say of PostgreSQL's refusals which are the condition's."""
    try:
        yield
    except PostgresRefused as error:
        if error.sqlstate == "57014":
            raise WaitTimeout(
                f"the documents were not found within {format_duration(time_limit.total_seconds())}; none was enqueued",
                hint="give it longer with --timeout, or a condition that an index serves",
            ) from error
        if where is None or error.sqlstate == "42501":  # a right that is missing, or a policy that hides rows
            raise
        raise UsageError(
            f"the condition does not run: {error.detail}",
            hint="one condition over the columns of the document query, which changes nothing: document_id > 1000, "
            "or document->>'status' = 'sold'",
        ) from error
