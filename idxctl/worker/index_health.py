"""
Whose fault is it: the document's, or the index's?

One document that OpenSearch refuses for good is a dead letter. When nearly all of the last fifty are refused with one and the
same error, it is the mapping, the query or the pipeline, and a hundred thousand letters would say nothing more: the index is
paused instead, its tasks wait with no attempt spent, and a few of them at a time try whether it was fixed.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from idxctl.core import backoff, reasons
from idxctl.core.reasons import Reason
from idxctl.queue.outcomes import Again, Failure
from idxctl.worker.batch import NO_TEXT, TOO_LONG
from idxctl.worker.sort import Sorted

SEEN = 50  # documents, before anything is said of an index
SHARE = 0.95


class Refusals:
    """What became of each index's last documents, in this process. Thread-safe."""

    def __init__(self) -> None:
        self._last: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def judge(
        self, index: str, sorted_: Sorted, *, blocked_for: Reason | None = None, rebuilding: bool = False
    ) -> Sorted:
        """
        Return the outcomes of a batch, with letters turned into waiting tasks where the index is to blame.

        *blocked_for* is the reason of the pause that this batch probes, if it does: then the same error on every document
        is enough. A letter that is tried again has failed before and tells nothing of the index, nor does an id that is too
        long for any. While it is *rebuilding*,
        which may be the cure, the new generation must not be kept waiting: then letters are made.
        """
        own = [one for one in sorted_.outcomes.failed if _tells(one)]
        fingerprint = self._note(index, [one.fingerprint for one in own], len(sorted_.outcomes.done))
        if blocked_for is not None:
            fingerprint = _still(own, blocked_for) if not sorted_.outcomes.done else None
        if fingerprint is None or rebuilding:
            return sorted_
        waiting = [one for one in own if one.fingerprint == fingerprint]
        if not waiting:
            return sorted_
        left = [one for one in sorted_.outcomes.failed if not _tells(one) or one.fingerprint != fingerprint]
        again = [*sorted_.outcomes.again, *(Again(one.task, backoff.BEFORE_NEXT_CLAIM, _held(one)) for one in waiting)]
        outcomes = replace(sorted_.outcomes, again=again, failed=left)
        return replace(sorted_, outcomes=outcomes, blocked=sorted_.blocked or _alike(waiting[0]))

    def _note(self, index: str, refused: Sequence[str], done: int) -> str | None:
        """Add a batch's outcomes; return the error that nearly all of the last documents share, this batch's all of them."""
        batch = [*refused, *[""] * done]
        with self._lock:
            last = [*self._last.get(index, ()), *batch][-max(SEEN, len(batch)) :]
            # Of a batch with more than fifty, fifty evenly: it is sorted by outcome.
            self._last[index] = last if len(last) <= SEEN else [last[at * len(last) // SEEN] for at in range(SEEN)]
        fingerprint, times = Counter(last).most_common(1)[0] if last else ("", 0)
        return fingerprint if fingerprint and len(last) >= SEEN and times >= SHARE * len(last) else None


def _tells(one: Failure) -> bool:
    """Whether a failure tells of its index: not a letter that is tried again, nor an id that no index takes."""
    return one.task.letter is None and one.error_type not in {TOO_LONG, NO_TEXT}


def _still(refused: Sequence[Failure], why: Reason) -> str | None:
    """
    Return the error that an index is paused for, if it is what every document of a probe met.

    A program of before has not stored which error it was: any will do that they all meet, or letters would be made of it.
    """
    met = {one.fingerprint for one in refused}
    if len(met) != 1:
        return None
    (fingerprint,) = met
    return fingerprint if why.kind is reasons.Kind.UNTOLD or why.fingerprint == fingerprint else None


def _alike(one: Failure) -> Reason:
    return Reason(reasons.Kind.REFUSED_ALIKE, one.reason, one.error_type, fingerprint=one.fingerprint)


def _held(one: Failure) -> Reason:
    return Reason(reasons.Kind.REFUSED, one.reason, one.error_type)
