"""
Gaps (C6): changes that left no task at all, since the queue had been dropped or altered under the triggers.

A trigger then moves a sequence, which is all that it can rely on; without that one too, the server's log alone tells. A
change that was rolled back counts as well: a sequence knows of no transaction.
"""

from __future__ import annotations

from idxctl.postgres import audit
from idxctl.postgres.connect import Connection
from idxctl.queue import SQL

_SEQUENCE = "opensearch_indexing_gap"


def unseen(conn: Connection) -> int:
    """Return how many statements left nothing since `repair` last ran; 0 to a role that may not look."""
    row = conn.run(SQL["gaps"], schema=conn.schema, gap=_SEQUENCE).fetchone()
    return max(int(row[0]), 0) if row else 0


def repair(conn: Connection) -> int:
    """
    Enqueue a coarse task for every index that is captured, where there is a gap; returns how many that were.

    The tasks wait for the transactions that may have marked the gap: those have numbers before this one's.
    """
    if not unseen(conn):
        return 0
    with conn.transaction():
        if conn.run(SQL["see_gaps"]).fetchone() is None:
            return 0  # another worker did, or nothing is captured yet
        count = conn.run(SQL["enqueue_gap"]).rowcount
        if not count:  # what swallows the application's tasks swallows these: the gap is to stay one
            conn.rollback()
            return 0
        audit.record(conn, action="capture gap", what="all", count=count)
    return count
