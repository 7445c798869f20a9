"""
The circuit breaker: while the cluster as a whole fails, nothing is claimed and it is probed.

closed → open (a request failed for want of a server, or was turned away for overload) → probing (one probe after a wait that
doubles up to ten seconds) → closed, or open again. No attempt of a document is spent meanwhile (P4).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from idxctl.core import backoff


@dataclass(frozen=True)
class BreakerState:
    """What the breaker shows: ``state`` closed, open or probing; seconds to the next probe while open."""

    state: str
    reason: str | None = None
    since: float | None = None  # wall clock
    next_probe_seconds: float | None = None


class Breaker:
    """One for a process, shared by its threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._since: float | None = None
        self._probe_at = 0.0
        self._probes = 0
        self._probing = False

    def failed(self, reason: str) -> bool:
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
        """Whether claims are held back."""
        return self._reason is not None

    def state(self) -> BreakerState:
        """Return what is shown to people."""
        with self._lock:
            if self._reason is None:
                return BreakerState("closed")
            wait = None if self._probing else max(self._probe_at - self._clock(), 0.0)
            return BreakerState("probing" if self._probing else "open", self._reason, self._since, wait)
