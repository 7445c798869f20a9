"""Documents that change with time alone: a watch's `at` column names when."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from idxctl.capture import lookups
from idxctl.core.errors import PostgresRefused
from idxctl.core.reasons import Reason
from idxctl.postgres.connect import Connection
from idxctl.postgres.user_sql import carry_over
from idxctl.queue import SQL
from idxctl.queue.enqueue import PRIORITIES
from idxctl.queue.expand import broken, queue_columns

_PATIENCE_SECONDS = 600.0  # a search may take long before it says a word


@dataclass(frozen=True)
class Due:
    """What time has made due. ``broken`` says why a watch could not be looked at."""

    enqueued: int = 0
    broken: tuple[tuple[str, Reason], ...] = ()  # index, reason


def due(conn: Connection) -> Due:
    """
    Enqueue the documents whose `at` column has been passed since the watermark.

    One transaction; watches that another worker looks at are skipped, and one that cannot be read holds up no other: its
    watermark stays. A row that is committed with a time already past is captured by its own trigger, so the watermark need
    not wait for open transactions.
    """
    count = 0
    failed: list[tuple[str, Reason]] = []
    with conn.transaction():
        for watch_id, index, definition, schema, table, watermark in conn.run(SQL["at_watches"]).fetchall():
            now = conn.execute(b"SELECT clock_timestamp()").fetchone()
            assert now is not None
            tasks = sql.SQL(
                "SELECT {index}, found.id, {priority}, 'at' FROM ({query}) AS found (id) WHERE found.id IS NOT NULL"
            ).format(
                index=sql.Literal(index),
                priority=sql.Literal(PRIORITIES[definition.get("priority", "normal")]),
                query=lookups.passed(conn, definition, schema, table, after=watermark, upto=now[0]),
            )
            try:
                into = queue_columns(conn, "index_name, document_id, priority, origin")
                with conn.patient(_PATIENCE_SECONDS):
                    count += carry_over(conn, tasks, into, local=lookups.local_settings(definition))
            except PostgresRefused as error:
                failed.append((index, broken(f"table {schema}.{table} cannot be searched for what is due", error)))
                continue
            conn.run(SQL["move_watermark"], id=watch_id, upto=now[0])
    return Due(count, tuple(failed))
