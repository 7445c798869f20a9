"""How long to wait: before a document's next attempt, and before a server is asked again."""

from __future__ import annotations

import random
from datetime import timedelta

BEFORE_NEXT_CLAIM = 1.0  # seconds that a task waits which is put back for no fault of its own (P4)
_FIRST_WAITS = (1.0, 5.0)  # before the second and the third attempt; the first is made at once
_LONGEST_WAIT = 600.0


def before_attempt(failed: int, *, jitter: float | None = None) -> timedelta:
    """
    Return the wait after the *failed*-th failed attempt of a document.

    1 s after the first, 5 s after the second, then doubling up to ten minutes, spread by up to a fifth so that tasks which
    failed together do not come back together. *jitter* lies in [0, 1).
    """
    if failed <= len(_FIRST_WAITS):
        return timedelta(seconds=_FIRST_WAITS[max(failed, 1) - 1])
    wait = min(_FIRST_WAITS[-1] * 2.0 ** (failed - len(_FIRST_WAITS)), _LONGEST_WAIT)
    share = random.random() if jitter is None else jitter  # noqa: S311 - spreads load, guards nothing
    return timedelta(seconds=wait * (0.8 + 0.4 * share))


def before_probe(probes: int, *, shortest: float = 0.5, longest: float = 10.0) -> float:
    """Return the seconds to wait before the next probe of a server that has failed *probes* of them."""
    return float(min(shortest * 2.0 ** min(probes, 16), longest))


def before_look(took: float, *, shortest: float) -> float:
    """Return the seconds until a wait looks again, when a look *took* so long: a fifth of the time at the most goes to looking."""
    return max(shortest, 4.0 * took)


def before_letter_retry(retries: int) -> timedelta | None:
    """
    Return how long a dead letter that failed again stays out of bulk retries: None before its second retry.

    Five minutes, doubling to a day: a cron line every five minutes must not try a hopeless document 288 times a day.
    """
    if retries < 1:
        return None
    minutes: int = 5 * 2 ** min(retries - 1, 16)
    return timedelta(minutes=min(minutes, 24 * 60))
