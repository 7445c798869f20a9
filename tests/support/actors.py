"""
Actors: threads that run the real code from one named point to another, one at a time, as a test says.

A thread that is not held at a point waits for a lock, or has nothing to do; so a history depends on nothing but the order in
which its actors were told to go on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

import psycopg

from idxctl.core import failpoints

PATIENCE = 30.0
_LOOK_AGAIN = 0.02

_mine = threading.local()


class Killed(BaseException):
    """What ends an actor where it stands; its connection rolls back, as the server would for a process that is gone."""


def listen() -> None:
    """Hold actors at named points; other threads pass."""
    failpoints.install(_arrive)


def _arrive(name: str) -> None:
    actor: Actor | None = getattr(_mine, "actor", None)
    if actor is not None:
        actor.arrive(name)


class Actor:
    """
    One thread. ``at`` is the point where it is held, None while it is idle or waits for a lock.

    *pid* tells the server process that it works with, *control* is a connection that can see whether that one waits.
    """

    def __init__(self, name: str, pid: Callable[[], int], control: psycopg.Connection) -> None:
        self.name = name
        self.at: str | None = None
        self.busy = False
        self._pid, self._control, self._backend = pid, control, 0
        self._error: BaseException | None = None
        self._killed = False
        self._until: Collection[str] = ()
        self._job: Callable[[], None] | None = None
        self._go, self._still = threading.Event(), threading.Event()
        threading.Thread(target=self._live, name=name, daemon=True).start()

    def begin(self, job: Callable[[], None], until: Collection[str]) -> None:
        """Start *job* and return once it is held at one of *until*, waits for a lock, or is done."""
        assert not self.busy
        self._job, self.busy = job, True
        self._release(until)

    def go_on(self, until: Collection[str]) -> None:
        """Let it go on, in the same way; one that waits for a lock can only be waited for."""
        if self.at is not None:
            self._release(until)
        elif self.busy:
            self.look()

    def kill(self) -> None:
        """End what it is doing, where it is held."""
        if self.at is not None:
            self._killed = True
            self._release(())

    def abandon(self) -> None:
        """End what it is doing at its next point at the latest, without waiting for that."""
        self._killed = self.busy
        self._go.set()

    def look(self) -> None:
        """Return once it is held, idle, or waits for a lock that somebody else holds."""
        for _ in range(int(PATIENCE / _LOOK_AGAIN)):
            if self._still.wait(_LOOK_AGAIN):
                break
            if self._waits():
                return
        else:
            raise AssertionError(f"{self.name} is stuck")
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def arrive(self, point: str) -> None:
        """Called by the code it runs."""
        if self._killed:
            raise Killed
        if point not in self._until:
            return
        self.at = point
        self._still.set()
        self._go.wait()
        self._go.clear()
        if self._killed:
            raise Killed

    def _release(self, until: Collection[str]) -> None:
        self._until, self.at = until, None
        self._still.clear()
        self._go.set()
        self.look()

    def _waits(self) -> bool:
        return self._control.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", (self._backend,)).fetchone()[0]

    def _live(self) -> None:
        _mine.actor = self
        while True:
            self._go.wait()
            self._go.clear()
            try:
                self._backend = self._pid()
                self._job()
            except Killed:
                pass
            except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
                self._error = error
            self.busy = self._killed = False
            self._still.set()
