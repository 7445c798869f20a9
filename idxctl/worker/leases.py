"""The leases that a process holds: which batches are under way in it, and when each was last renewed."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection


class Leases:
    """What the poller takes, the threads that carry let go, and the keeper renews. Thread-safe."""

    def __init__(self) -> None:
        # Guards the dictionary alone: nothing is asked of a server while it is held, and no other lock is taken.
        self._guard = threading.Lock()
        self._since: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._since)

    def take(self, token: int) -> None:
        """Take note of a batch that was claimed."""
        with self._guard:
            self._since[token] = time.monotonic()

    def let_go(self, token: int) -> None:
        """Forget a batch that was carried to its end."""
        with self._guard:
            self._since.pop(token, None)

    def tokens(self) -> list[int]:
        """Return the tokens of all that is under way."""
        with self._guard:
            return list(self._since)

    def older_than(self, seconds: float) -> list[int]:
        """Return the tokens that were taken or renewed longer ago than that."""
        now = time.monotonic()
        with self._guard:
            return [token for token, since in self._since.items() if now - since > seconds]

    def renewed(self, tokens: Collection[int]) -> None:
        """Take note of a renewal; what was let go meanwhile stays so."""
        now = time.monotonic()
        with self._guard:
            for token in self._since.keys() & set(tokens):
                self._since[token] = now
