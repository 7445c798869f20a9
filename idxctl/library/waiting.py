"""Read your own write: wait until what was enqueued for documents before now is settled."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from idxctl.core.errors import WaitTimeout
from idxctl.library.appending import SQL
from idxctl.postgres.connect import Connection

_FIRST_WAIT = 0.01
_LONGEST_WAIT = 0.5
_SHARE = 4  # a look that takes long is followed by a wait that is longer: looking must not be what the server does


def wait(conn: Connection, documents: Mapping[str, Sequence[str]], *, timeout: float) -> None:
    """
    Return once no task for *documents* (ids by index) that is in the queue now waits or is in flight.

    Raises `WaitTimeout`. *conn* is in autocommit: each look sees what has been committed.
    """
    deadline = time.monotonic() + timeout
    row = conn.one(SQL["clock"])
    before: datetime = row[0]
    left = {index: list(ids) for index, ids in documents.items() if ids}
    pause = _FIRST_WAIT
    while left:
        began = time.monotonic()
        left = {index: found for index, ids in left.items() if (found := _unsettled(conn, index, ids, before))}
        now = time.monotonic()
        if left and now >= deadline:
            raise _timed_out(left, timeout)
        if left:
            time.sleep(min(max(pause, _SHARE * (now - began)), max(deadline - now, 0.001)))
            pause = min(pause * 1.5, _LONGEST_WAIT)


def _unsettled(conn: Connection, index: str, ids: Sequence[str], before: datetime) -> list[str]:
    return [row[0] for row in conn.run(SQL["unsettled"], index=index, ids=list(ids), before=before)]


def _timed_out(left: Mapping[str, Sequence[str]], timeout: float) -> WaitTimeout:
    count = sum(map(len, left.values()))
    index = next(iter(left))
    what = "1 document is" if count == 1 else f"{count:,} documents are"
    return WaitTimeout(
        f"{what} not settled after {timeout:g} s, the first of {index}: {left[index][0]!r}; the tasks stay queued",
        hint="are workers running? idxctl queue stats says what holds them",
    )
