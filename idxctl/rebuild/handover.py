"""
One generation goes into service in another's place: what the database records of a swap, whichever way it goes.

A letter says what the live generation lacks, a failure what another one does. When the two change places, so do their letters
and failures: nothing that either lacks is forgotten, and nothing is a dead letter that the live one holds.
"""

from __future__ import annotations

from datetime import timedelta

from idxctl.indexes import generations
from idxctl.indexes.generations import Generation
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load
from idxctl.queue.bury import write_letters
from idxctl.rebuild import SQL as REBUILD

SQL = load("idxctl.rebuild", "rollback.sql")


def take_service(conn: Connection, *, new: Generation, old: Generation | None, keep: timedelta) -> int:
    """
    Make *new* live and *old* a standby for *keep*, in the caller's transaction and behind the barrier (G2).

    Letters are noted against the old one; what the new one refused becomes letters. Returns how many those are.
    """
    generations.lock_set(conn, exclusive=True)
    if old is not None:
        generations.set_state(conn, old.id, "standby", expected=("live",), keep=keep)
        conn.run(SQL["letters_to_failures"], index=new.index, generation=old.id)
    generations.set_state(conn, new.id, "live", expected=("building", "standby"))
    return write_letters(conn, REBUILD["failures_to_letters"], index=new.index, generation=new.id)


def write_what_was_missed(conn: Connection, new: Generation) -> int:
    """Make tasks of what the new live generation missed (P1), in the caller's transaction; returns how many."""
    tasks = conn.run(REBUILD["missed_to_tasks"], index=new.index, generation=new.id).rowcount
    conn.run(REBUILD["drop_failures"], generation=new.id)
    return tasks
