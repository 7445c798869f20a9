"""
The horizon: the time before which no task can appear any more, so that looks below the floor need not go further down.

A task shows at the commit of a transaction that may have made it long before. Which transactions are still open is told by
the snapshot of any session, whatever its rights: once all that had begun to write at some time have ended, nobody is left who
could bring a task from before it. A session that only reads, and keeps dead rows from being removed, is none of them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

from idxctl.postgres.connect import Connection
from idxctl.queue import SQL

_MARKS = 4096  # half an hour of looks; the oldest are thinned out
_CHEAP_SECONDS = 0.02
_EVERYTHING_SECONDS = 15.0
_SHARE = 20  # a look at everything takes one part in so many of the time


class Horizon:
    """
    Tells from where a look below the floor begins; one for each claimer.

    *margin* is for the moment between a task's time being read from the clock and its transaction being known to write. What
    is below the horizon all the same (tasks of a claim that was rolled back, a clock set back) is found by a look at
    everything, now and then; by each, while that is *cheap*: asking for the horizon costs the server a transaction id.
    """

    def __init__(
        self,
        *,
        margin: timedelta = timedelta(seconds=5),
        cheap: float = _CHEAP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.margin = margin
        self.cheap = cheap
        self.everything_at = float("-inf")
        self._clock = clock
        self._marks: deque[tuple[datetime, int]] = deque()  # a time, and a transaction id given just after it
        self._passed: datetime | None = None
        self._next: datetime | None = None
        self._took = 0.0

    def look(self, conn: Connection) -> datetime | None:
        """Return the time from which to look now; None is everything."""
        if self._took < self.cheap:
            return None
        row = conn.one(SQL["horizon"])
        now, oldest_open, given = row
        self._next = self._passed
        while self._marks and self._marks[0][1] <= oldest_open:
            self._next = self._marks.popleft()[0]
        if len(self._marks) >= _MARKS:
            self._marks = deque(list(self._marks)[::2])
        self._marks.append((now, given))
        if self._passed is None or self._clock() >= self.everything_at:
            return None
        return self._passed - self.margin

    def nothing_below(self) -> None:
        """
        Take note that the look found nothing below the floors: only now may the next one begin higher.

        What the transactions that have just ended brought was to be seen by this look for the first time.
        """
        self._passed = self._next

    def saw_everything(self, seconds: float) -> None:
        """Take note of a look at everything, which took so long."""
        self._took = seconds
        self.everything_at = self._clock() + max(_EVERYTHING_SECONDS, _SHARE * seconds)

    def forget(self) -> None:
        """Begin again: it may be another server."""
        self._marks.clear()
        self._passed = self._next = None
