"""
Whether the index that a generation names is still the one that was made for it.

Where OpenSearch creates indexes on a write (``action.auto_create_index``, on by default), the next bulk after someone
deleted a live index would make an empty one of that name, with a guessed mapping, and every write would succeed: the index
would silently lie. So each process looks, about once a second while it writes, for the mark that `aliases.create` leaves, or the alias.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from idxctl.core.errors import OpenSearchRefused, OpenSearchUnreachable
from idxctl.indexes.generations import Generation
from idxctl.opensearch import aliases
from idxctl.opensearch.client import Client
from idxctl.worker import outcomes
from idxctl.worker.outcomes import Kind, Verdict

_GOOD_FOR_SECONDS = 1.0
_UNTOLD_FOR_SECONDS = 60.0  # a role that may only write is not asked again at once


class Identity:
    """What one process knows of the indexes that it writes to. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._good_until: dict[int, float] = {}
        self._lock = threading.Lock()

    def strangers(self, client: Client, generations: Sequence[Generation]) -> Mapping[int, Verdict]:
        """Return the verdict on every write to those of *generations* whose index is gone, or another one."""
        now = self._clock()
        with self._lock:
            asked = [one for one in generations if self._good_until.get(one.id, 0.0) <= now]
        if not asked:
            return {}
        verdicts: dict[int, Verdict] = {}
        for one in asked:
            try:
                verdict = _verdict(client, one)
            except OpenSearchUnreachable:
                return verdicts  # the write itself will say so
            except OpenSearchRefused as error:
                if error.status in {401, 403}:
                    self._trust(one, now + _UNTOLD_FOR_SECONDS)
                continue
            if verdict is None:
                self._trust(one, now + _GOOD_FOR_SECONDS)
            else:
                verdicts[one.id] = verdict
        return verdicts

    def _trust(self, generation: Generation, until: float) -> None:
        with self._lock:
            self._good_until[generation.id] = until


def _verdict(client: Client, generation: Generation) -> Verdict | None:
    known = aliases.ours(client, generation.name, generation.index)
    if known:
        return None
    if known is None:
        return Verdict(Kind.GONE, "index_not_found_exception", f"no such index [{generation.name}]")
    return Verdict(
        Kind.BLOCKED,
        outcomes.FOREIGN_INDEX,
        "this is not the index that idxctl made: it was deleted, and created again by someone else; "
        f"idxctl reindex --index {generation.index} builds it again",
    )
