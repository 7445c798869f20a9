"""How large documents are, and how many of them are read at once."""

from __future__ import annotations

import threading

from idxctl.indexes.definitions import Definition

_GROUP = 64  # documents a message, where they are small ...
_SMALL_BYTES = 32 * 1024  # ... on average
_FEWER = 8  # times, after a read that took too long: it has taken that time from the batch
_MANY = 4096
_UNKNOWN = 100  # documents in a first read, when nothing is known of their size


class Sizes:
    """How large documents are on average, by shape; what is read at once, and how, depends on it. Thread-safe."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}
        self._in_time: dict[str, int] = {}  # documents at once, of those that were too slow for more
        self._lock = threading.Lock()

    def note(self, definition: Definition, documents: int, size: int) -> None:
        """Take *documents* of *size* bytes in all into account; old ones count less and less."""
        if not documents:
            return
        with self._lock:
            before, bytes_before = self._seen.get(definition.render_fingerprint, (0, 0))
            if before > 100_000:
                before, bytes_before = before // 2, bytes_before // 2
            self._seen[definition.render_fingerprint] = (before + documents, bytes_before + size)

    def average(self, definition: Definition) -> float | None:
        """Return the average size of a document in bytes, if any was seen."""
        documents, size = self._seen.get(definition.render_fingerprint, (0, 0))
        return size / documents if documents else None

    def group(self, definition: Definition) -> int:
        """Return how many documents a message may carry: one while they may be large."""
        average = self.average(definition)
        return _GROUP if average is not None and average <= _SMALL_BYTES else 1

    def at_once(self, definition: Definition, max_bytes: int) -> int:
        """Return how many documents to read so that they come to about *max_bytes*, and are read in time."""
        average = self.average(definition)
        most = _UNKNOWN if average is None else max(int(max_bytes / max(average, 1.0)), 1)
        return min(most, self.most_in_time(definition) or most)

    def most_in_time(self, definition: Definition) -> int | None:
        """Return how many at once are read in time, where more were not."""
        return self._in_time.get(definition.render_fingerprint)

    def too_slow(self, definition: Definition, documents: int) -> None:
        """*documents* at once took too long."""
        with self._lock:
            self._in_time[definition.render_fingerprint] = max(documents // _FEWER, 1)

    def in_time(self, definition: Definition, documents: int, *, seconds: float, limit: float) -> None:
        """*documents* at once took *seconds* of *limit* seconds: where that is a small part, more are read the next time."""
        if seconds >= limit / _FEWER:
            return
        shape = definition.render_fingerprint
        with self._lock:
            if documents >= self._in_time.get(shape, documents + 1):
                self._in_time[shape] = 2 * documents
                if self._in_time[shape] > _MANY:
                    del self._in_time[shape]
