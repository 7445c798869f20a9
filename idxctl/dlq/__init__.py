"""Dead letters: look at them, keep them in a file, put them back in the queue, throw them away."""

from idxctl.dlq.exports import export, lines
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
from idxctl.dlq.new_file import refuse_existing
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
    "export",
    "letters",
    "lines",
    "plan_purge",
    "plan_retry",
    "purge",
    "refuse_existing",
    "requeue",
    "retry",
    "show",
    "stats",
]
