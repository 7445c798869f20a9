"""What operators ask of the queue by hand: documents enqueued by id or by a condition."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from idxctl.core.errors import PostgresRefused, UsageError
from idxctl.core.nearest import did_you_mean
from idxctl.core.settings import Settings
from idxctl.indexes import generations, render
from idxctl.indexes.definitions import define, rows_of
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection
from idxctl.postgres.named import load
from idxctl.queue.enqueue import PRIORITIES, enqueue, enqueue_sweep

SQL = load("idxctl.operate", "requests.sql")


def the_index(conn: Connection, settings: Settings, name: str | None) -> str:
    """Return the index meant: the one named, otherwise the only one there is."""
    known = sorted({*settings.indexes, *(one.index for one in generations.all_of_them(conn))})
    if name is None:
        if len(known) == 1:
            return known[0]
        what = "no index is configured" if not known else f"there are several: {', '.join(known)}"
        raise UsageError(f"which index? {what}", hint="--index NAME")
    if name not in known:
        raise UsageError(
            f"there is no index {name}", hint=did_you_mean(name, known) or f"known: {', '.join(known) or 'none'}"
        )
    return name


def check_known(conn: Connection, settings: Settings, name: str | None) -> None:
    """Refuse the name of an index that is neither configured nor built, and of which no task or letter tells."""
    if name is None or name in settings.indexes:
        return
    row = conn.run(SQL["mentioned"], index=name).fetchone()
    if row is None or not row[0]:
        the_index(conn, settings, name)


def add(
    conn: Connection,
    settings: Settings,
    index: str,
    *,
    ids: Sequence[str] | None,
    where: str | None,
    priority: str,
    dry_run: bool,
) -> int:
    """
    Enqueue documents of *index*; returns how many.

    *where* is a condition over the columns of the document query. With neither it nor *ids*: every row, and every document
    that the index holds, which is not counted.
    """
    if priority not in PRIORITIES:
        raise UsageError(f"priority is {priority!r}", hint="high, normal or low")
    if ids is not None:
        distinct = list(dict.fromkeys(ids))
        return (
            len(distinct)
            if dry_run
            else enqueue(conn, index=index, ids=distinct, priority=PRIORITIES[priority], origin="cli")
        )
    live = generations.live(conn, index)
    if live is None and index not in settings.indexes:
        raise UsageError(f"index {index} has no document query here", hint="idxctl reindex first")
    definition = live.definition if live is not None else define(conn, settings.indexes[index])
    chosen = sql.SQL("SELECT {ident} FROM {rows} WHERE ({where})").format(
        ident=render.id_text(definition), rows=rows_of(definition), where=sql.SQL(where or "true")
    )
    try:
        with conn.transaction(local=definition.local):
            if dry_run:
                row = conn.execute(sql.SQL("SELECT count(*) FROM ({}) AS c").format(chosen)).fetchone()
                return int(row[0]) if row else 0
            count = conn.execute(
                sql.SQL(
                    "INSERT INTO {schema}.opensearch_indexing_queue (index_name, document_id, priority, origin) "
                    "SELECT {index}, c.id, {priority}, 'cli' FROM ({chosen}) AS c (id)"
                ).format(
                    schema=sql.Identifier(conn.schema),
                    index=sql.Literal(index),
                    priority=sql.Literal(PRIORITIES[priority]),
                    chosen=chosen,
                )
            ).rowcount
            if where is None:
                enqueue_sweep(conn, index=index, priority=PRIORITIES[priority], origin="cli")
            audit.record(conn, action="queue add", subject=index, detail={"tasks": count, "where": where})
            return count
    except PostgresRefused as error:
        raise UsageError(
            f"the condition does not run: {error.detail}",
            hint="columns are those of the document query: document_id > 1000, or document->>'status' = 'sold'",
        ) from error
