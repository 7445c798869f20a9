"""
How hard OpenSearch is pushed: batches at once, bytes of a body, bytes under way, and the circuit breaker. One for a process.

What is refused for overload halves batches and bytes, what passes lets them grow back by a step (AIMD). The breaker stops
claims while the cluster as a whole fails: closed → open (a request failed for want of a server, or nothing but refusals for
overload) → probing (a ping after a wait that doubles up to ten seconds, then one small batch) → closed, or open again. No
attempt of a document is spent meanwhile (P4).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from idxctl.core import backoff
from idxctl.core.reasons import Reason

MOST_BYTES_UNDER_WAY = 32 * 1024 * 1024  # read and not yet answered for, in a process
_SMALLEST_BODY = 256 * 1024
_STEPS = 16  # bodies that pass between half their size and all of it
_REFUSALS_TO_OPEN = 3  # bodies in a row of which nothing passed


@dataclass(frozen=True)
class LoadState:
    """What is shown of the load: batches at once, bytes of a body, and the size that OpenSearch was seen to refuse."""

    concurrency: int
    body_bytes: int
    size_limit: int | None = None

    def shown(self) -> dict[str, int | None]:
        """Return it as a heartbeat carries it."""
        return {"concurrency": self.concurrency, "batch_bytes": self.body_bytes, "size_limit": self.size_limit}


class Load:
    """Batches at once and bytes of a body, between one and what was configured. Thread-safe."""

    def __init__(
        self, *, batches: int = 1, body_bytes: int = 8 * 1024 * 1024, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._most_batches = batches
        self._most_bytes = body_bytes
        self._batches = float(batches)
        self._bytes = float(body_bytes)
        self._limit: int | None = None
        self._largest_passed = 0
        self._cut_at = float("-inf")
        self._refused_in_a_row = 0
        self._under_way = 0
        self._turns: list[object] = []  # of those who wait for room, the first to come first
        self._lock = threading.Condition()

    # --- what OpenSearch says ----------------------------------------------------------------------------------------

    def passed(self, size: int) -> None:
        """Take note of a body that OpenSearch took, all of it or all but what documents themselves are to blame for."""
        with self._lock:
            self._refused_in_a_row = 0
            self._largest_passed = max(self._largest_passed, size)
            self._batches = min(self._batches + 1 / self._batches, self._most_batches)
            if 2 * size >= self._bytes:  # a small one says nothing of large ones
                self._bytes = min(self._bytes + self._most_bytes / _STEPS, self._most_bytes)

    def overloaded(self, size: int, *, began: float, partly: bool) -> bool:
        """
        Take note of a body refused for overload, wholly or *partly*; True when that made us send less.

        Bodies under way at the time of a refusal are refused together: one of them counts.
        """
        with self._lock:
            self._refused_in_a_row = 0 if partly else self._refused_in_a_row + 1
            if began < self._cut_at:
                return False
            before = (int(self._batches), int(self._bytes))
            self._cut_at = self._clock()
            self._batches = max(self._batches / 2, 1.0)
            self._bytes = max(min(self._bytes, size) / 2, min(_SMALLEST_BODY, self._most_bytes))
            return before != (int(self._batches), int(self._bytes))

    def too_large(self, size: int) -> bool:
        """
        Take note of a body that is too large for OpenSearch ever to take; True when that is news.

        It stays for as long as the process: the limit is a setting of the nodes, which changes with a restart of theirs,
        and trying a larger body uploads it in vain.
        """
        with self._lock:
            if self._limit is not None and size > self._limit:
                return False
            self._limit = max(size // 2, 1)
            return True

    # --- what follows from it ----------------------------------------------------------------------------------------

    @property
    def batches(self) -> int:
        """Batches that may be under way at once."""
        return int(self._batches)

    @property
    def body_bytes(self) -> int:
        """Bytes that a body should have, about."""
        return min(int(self._bytes), self._limit or self._most_bytes)

    @property
    def full(self) -> bool:
        """Whether as much is sent as was configured, or as OpenSearch takes."""
        return self._batches >= self._most_batches and self._bytes >= self._most_bytes

    def refused_within(self, seconds: float) -> bool:
        """Whether OpenSearch refused something for overload in the last *seconds*."""
        return self._clock() - self._cut_at < seconds

    @property
    def refuses_all(self) -> bool:
        """Whether nothing has passed for some bodies in a row."""
        return self._refused_in_a_row >= _REFUSALS_TO_OPEN

    def over_limit(self, size: int) -> bool:
        """Whether a body is larger than what was once too large."""
        return self._limit is not None and size > 2 * self._limit

    def untried(self, size: int) -> bool:
        """Whether no body as large as this one has passed yet, and it is not a small one."""
        return size > max(self._largest_passed, _SMALLEST_BODY)

    def is_large(self, size: int) -> bool:
        """Whether a body is more than the least that is ever sent at once."""
        return size > min(_SMALLEST_BODY, self._most_bytes)

    def state(self) -> LoadState:
        """Return what is shown to people."""
        return LoadState(self.batches, self.body_bytes, self._limit)

    @contextmanager
    def room(self, expected: Callable[[], int]) -> Iterator[Room]:
        """
        Wait until as many more bytes may be under way as are *expected*; whoever is alone may have any number.

        First come, first served: small bodies that go on and on must not keep a large one waiting. What is expected is asked
        while waiting: others learn how large documents are.
        """
        room = Room(self, self._enter(expected))
        try:
            yield room
        finally:
            room.resize(0)

    def _enter(self, expected: Callable[[], int]) -> int:
        turn = object()
        with self._lock:
            self._turns.append(turn)
            try:
                self._lock.wait_for(lambda: self._turns[0] is turn and self._fits(expected()))
                size = expected()
                self._under_way += size
            finally:
                self._turns.remove(turn)
                self._lock.notify_all()
        return size

    def _fits(self, size: int) -> bool:
        return not self._under_way or self._under_way + size <= MOST_BYTES_UNDER_WAY

    def _resize(self, by: int) -> None:
        with self._lock:
            self._under_way += by
            self._lock.notify_all()


class Room:
    """Bytes that a thread has under way."""

    def __init__(self, load: Load, size: int) -> None:
        self._load = load
        self._size = size

    def resize(self, size: int) -> None:
        """Say how many they really are."""
        self._load._resize(size - self._size)  # noqa: SLF001 - its other half
        self._size = size


@dataclass(frozen=True)
class BreakerState:
    """What the breaker shows: ``state`` closed, open or probing; seconds to the next probe while open."""

    state: str
    why: Reason | None = None
    since: float | None = None  # wall clock
    next_probe_seconds: float | None = None

    @property
    def reason(self) -> str | None:
        """The sentence for people."""
        return None if self.why is None else self.why.sentence


class Breaker:
    """One for a process, shared by its threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._reason: Reason | None = None
        self._since: float | None = None
        self._probe_at = 0.0
        self._probes = 0
        self._probing = False

    def failed(self, reason: Reason) -> bool:
        """Open it, or keep it open for longer; True when it was closed until now."""
        with self._lock:
            opened = self._reason is None
            if opened:
                self._since = self._wall()
                self._probes = 0
            self._reason = reason
            if opened or self._probing:
                self._probe_at = self._clock() + backoff.before_probe(self._probes)
                self._probes += 1
            self._probing = False
            return opened

    def worked(self) -> bool:
        """Close it; True when it was open until now."""
        with self._lock:
            closed = self._reason is not None
            self._reason = self._since = None
            self._probing = False
            return closed

    def seconds_to_wait(self) -> float:
        """Return 0 when closed, otherwise the seconds until a probe is due (0.05 while another thread probes)."""
        with self._lock:
            if self._reason is None:
                return 0.0
            return 0.05 if self._probing else max(self._probe_at - self._clock(), 0.001)

    def take_probe(self) -> bool:
        """Tell one thread, and only one, that the probe is its to make."""
        with self._lock:
            if self._reason is None or self._probing or self._clock() < self._probe_at:
                return False
            self._probing = True
            return True

    @property
    def open(self) -> bool:
        """Whether claims are held back, but for a probe."""
        return self._reason is not None

    @property
    def probing(self) -> bool:
        """Whether a probe is under way."""
        return self._probing

    def state(self) -> BreakerState:
        """Return what is shown to people."""
        with self._lock:
            if self._reason is None:
                return BreakerState("closed")
            wait = None if self._probing else max(self._probe_at - self._clock(), 0.0)
            return BreakerState("probing" if self._probing else "open", self._reason, self._since, wait)
