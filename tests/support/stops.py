"""Stops: hold a thread of the real code at a named point for as long as a test needs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from idxctl.core import failpoints

PATIENCE = 30.0


class Stop:
    """One stop: the *nth* arrival at a point is held until released; all others pass."""

    def __init__(self, name: str, nth: int) -> None:
        self.name = name
        self._left = nth
        self._lock = threading.Lock()
        self._reached = threading.Event()
        self._released = threading.Event()

    def arrive(self, name: str) -> None:
        with self._lock:
            if name != self.name or self._left <= 0:
                return
            self._left -= 1
            if self._left:
                return
        self._reached.set()
        assert self._released.wait(PATIENCE), f"nobody released {self.name}"

    def wait(self) -> None:
        """Return once a thread stands here."""
        assert self._reached.wait(PATIENCE), f"nobody came to {self.name}"

    @property
    def reached(self) -> bool:
        return self._reached.is_set()

    def release(self) -> None:
        self._released.set()


class Stops:
    """All stops of a test, and every name reached so far."""

    def __init__(self) -> None:
        self._acts: list[Callable[[str], None]] = []
        self._stops: list[Stop] = []
        self.seen: list[str] = []

    def at(self, name: str, *, nth: int = 1) -> Stop:
        stop = Stop(name, nth)
        self._stops.append(stop)
        self._acts.append(stop.arrive)
        return stop

    def do(self, name: str, act: Callable[[], None], *, nth: int = 1) -> None:
        """Run *act* in the thread that is the *nth* to reach a point, once."""
        left = [nth]

        def arrive(reached: str) -> None:
            if reached == name:
                left[0] -= 1
                if left[0] == 0:
                    act()

        self._acts.append(arrive)

    def arrive(self, name: str) -> None:
        self.seen.append(name)
        for act in list(self._acts):
            act(name)

    def release_all(self) -> None:
        for stop in self._stops:
            stop.release()


@contextlib.contextmanager
def installed() -> Iterator[Stops]:
    stops = Stops()
    failpoints.install(stops.arrive)
    try:
        yield stops
    finally:
        stops.release_all()
        failpoints.install(None)
