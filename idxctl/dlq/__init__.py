"""Dead letters: look at them, put them back in the queue, throw them away."""

from idxctl.dlq.letters import (
    Group,
    Letter,
    LetterInFull,
    Selection,
    Stats,
    chosen,
    count,
    every_letter,
    letters,
    show,
    stats,
)
from idxctl.dlq.purges import Purged, plan_purge, purge
from idxctl.dlq.retries import NotSettled, Retried, plan_retry, requeue, retry

__all__ = [
    "Group",
    "Letter",
    "LetterInFull",
    "NotSettled",
    "Purged",
    "Retried",
    "Selection",
    "Stats",
    "chosen",
    "count",
    "every_letter",
    "letters",
    "plan_purge",
    "plan_retry",
    "purge",
    "requeue",
    "retry",
    "show",
    "stats",
]
