"""
Generations: the numbered physical indexes behind an alias, and the barrier around their set (G2).

    building → live → standby → retired → (index deleted)
        └──────────────────────────↗

Workers write to every generation that is not retired. A claim reads the set in its own statement while it holds the shared
lock taken by an earlier one; who changes the set holds the exclusive lock, so no open claim is overlooked.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.types.json import Jsonb

from idxctl.core.errors import PostgresRefused
from idxctl.indexes.definitions import SQL, Definition
from idxctl.postgres.connect import Connection, Row

_OLDER_WAIT = "1s"
ACTIVE = ("building", "live", "standby")


@dataclass(frozen=True)
class Generation:
    """One physical index and what it was made from."""

    id: int
    index: str  # the alias
    number: int
    name: str  # the physical index
    state: str
    definition: Definition
    fingerprint: str
    created_at: datetime
    live_at: datetime | None
    standby_until: datetime | None

    @property
    def active(self) -> bool:
        """Whether workers write to it."""
        return self.state in ACTIVE


def _generation(row: Row) -> Generation:
    ident, index, number, name, state, definition, *rest = row
    return Generation(ident, index, number, name, state, Definition.restore(definition), *rest)


def of_index(conn: Connection, index: str) -> list[Generation]:
    """Return all generations of *index*, newest first."""
    return [_generation(row) for row in conn.run(SQL["generations"], index=index)]


def all_of_them(conn: Connection) -> list[Generation]:
    """Return all generations of all indexes."""
    return [_generation(row) for row in conn.run(SQL["generations"], index=None)]


def live(conn: Connection, index: str) -> Generation | None:
    """Return the live generation of *index*, if it has one."""
    return next((one for one in of_index(conn, index) if one.state == "live"), None)


def physical_name(index: str, number: int) -> str:
    """Return the name OpenSearch's rollover would give: the alias and six digits."""
    return f"{index}-{number:06d}"


def next_number(conn: Connection, index: str) -> int:
    """Return the next number never used for *index*."""
    return int(conn.value(SQL["next_number"], index=index))


def register(conn: Connection, index: str, number: int, definition: Definition) -> Generation:
    """
    Add a building generation; from the commit on, every claim writes to it too.

    Call it in a transaction of its own: the exclusive lock is held to its end.
    """
    lock_set(conn, exclusive=True)
    row = conn.one(
        SQL["register"],
        index=index,
        number=number,
        physical=physical_name(index, number),
        definition=Jsonb(definition.stored()),
        fingerprint=definition.fingerprint,
    )
    (made,) = by_ids(conn, [row[0]])
    return made


def by_ids(conn: Connection, ids: list[int]) -> list[Generation]:
    """Return generations by id, whatever their state."""
    return [_generation(row) for row in conn.run(SQL["by_ids"], ids=ids)]


def states(conn: Connection, ids: list[int]) -> dict[int, str]:
    """Return the states of generations as the transaction sees them now."""
    return dict(conn.run(SQL["states"], ids=ids).fetchall())


def lock_set(conn: Connection, *, exclusive: bool = False) -> None:
    """
    Hold the set of generations still until the transaction ends.

    The lock is of a table, and takes a right on it. Programs of the release before know an advisory lock only, which anybody
    may take: it is taken as well, and waited for only where a session that may work on our tables has it.
    """
    if exclusive:
        conn.run(SQL["lock_exclusive"])
        _older_lock_alone(conn)
        return
    conn.run(SQL["lock_shared"])
    row = conn.run(SQL["try_older_shared"], schema=conn.schema).fetchone()
    if row is None or not row[0]:
        share_older_lock(conn)


def share_older_lock(conn: Connection) -> None:
    """Wait for the older lock, which was not to be had at once, if a program of the release before may have it."""
    if _older_programs(conn):
        conn.run(SQL["older_shared"], schema=conn.schema)


def _older_lock_alone(conn: Connection) -> None:
    while True:
        try:
            with conn.savepoint(local={"lock_timeout": _OLDER_WAIT}):
                conn.run(SQL["older_exclusive"], schema=conn.schema)
        except PostgresRefused as error:
            if error.sqlstate != "55P03":
                raise
            if not _older_programs(conn):  # someone who has no business here holds it
                return
        else:
            return


def _older_programs(conn: Connection) -> bool:
    row = conn.run(SQL["older_programs"], schema=conn.schema).fetchone()
    return row is not None and bool(row[0])


def set_state(
    conn: Connection, generation: int, state: str, *, expected: tuple[str, ...], keep: timedelta = timedelta(0)
) -> bool:
    """Move one generation to *state* if it is in an *expected* one; the caller holds the exclusive lock."""
    row = conn.run(SQL["set_state"], id=generation, state=state, expected=list(expected), keep=keep).fetchone()
    return row is not None


def may_redefine(conn: Connection) -> bool:
    """Whether this role has the right to `redefine`."""
    return conn.run(SQL["may_redefine"]).fetchone() == (True,)


def redefine(conn: Connection, generation: Generation, definition: Definition) -> bool:
    """
    Record another definition of a live generation; False where it is live no longer, or has another one by now.

    It must render the same bytes: workers keep what they have read (`Cache`).
    """
    assert definition.render_fingerprint == generation.definition.render_fingerprint
    row = conn.run(
        SQL["redefine"],
        id=generation.id,
        before=generation.fingerprint,
        definition=Jsonb(definition.stored()),
        fingerprint=definition.fingerprint,
    ).fetchone()
    return row is not None


def in_flight_with(conn: Connection, generation: int) -> int:
    """Count the batches under way that will write to *generation*; the removal of one waits for none (G2)."""
    return int(conn.value(SQL["in_flight_with"], id=generation))


def mark_behind(conn: Connection, ids: list[int]) -> None:
    """Note that generations which are not live missed a write."""
    conn.run(SQL["behind"], ids=ids)


def to_delete(conn: Connection, age_limit: timedelta) -> list[Generation]:
    """Return retired generations whose last zombie must be gone (G3)."""
    return [_generation(row) for row in conn.run(SQL["retired_undeleted"], age=age_limit)]


def to_retire(conn: Connection) -> list[Generation]:
    """Return standby generations whose keep period is over."""
    return [_generation(row) for row in conn.run(SQL["standby_expired"])]


def expire(conn: Connection, generation: Generation) -> None:
    """Retire a standby generation whose keep period is over, unless it is just being brought back."""
    with conn.transaction():
        lock_set(conn, exclusive=True)
        conn.run(SQL["expire"], id=generation.id)


def note_caught_up(conn: Connection) -> None:
    """Let generations be behind no longer that have taken what they missed."""
    conn.run(SQL["caught_up"])


def deleted(conn: Connection, generation: int) -> None:
    """Note that the index of a retired generation is gone."""
    conn.run(SQL["deleted"], id=generation)


class Cache:
    """Definitions by generation id. What they render never changes once made; the *set* of generations is never taken from here (G2)."""

    def __init__(self) -> None:
        self._known: dict[int, Generation] = {}
        self._lock = threading.Lock()

    def get(self, conn: Connection, ids: list[int]) -> list[Generation]:
        """Return the generations of a claim, reading those not seen before; `state` may be an old one."""
        with self._lock:
            unknown = [one for one in ids if one not in self._known]
        if unknown:
            found = {one.id: one for one in by_ids(conn, unknown)}
            with self._lock:
                self._known.update(found)
        with self._lock:
            return [self._known[one] for one in ids if one in self._known]
