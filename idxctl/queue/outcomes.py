"""What becomes of the tasks of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from idxctl.core.reasons import Reason
from idxctl.queue.claim import Task

MISSED = "missed_write"  # the type of a failure that is no refusal: the document is written again at the swap


@dataclass(frozen=True)
class Failure:
    """Why a document could not be written. ``generation`` is None when it could not even be read."""

    task: Task
    error_type: str
    fingerprint: str
    reason: str
    permanent: bool
    generation: int | None = None
    charged: bool = True  # an attempt of the document is spent


@dataclass(frozen=True)
class Again:
    """A task that goes back to the queue, to be tried after ``wait`` seconds."""

    task: Task
    wait: float
    why: Reason


@dataclass(frozen=True)
class Outcomes:
    """What became of a batch's tasks; every task is in exactly one of the first three."""

    done: Sequence[Task] = ()
    again: Sequence[Again] = ()  # no attempt is spent (P4)
    failed: Sequence[Failure] = ()
    blamed: Sequence[Failure] = ()  # refused by generations that are not live; the task itself is in `done`
    missed: Sequence[
        Failure
    ] = ()  # not written to generations that are not live, for a cause of their own; as `blamed`
    apart: Mapping[str, int] = field(default_factory=dict)  # documents claimed with those of the same number alone


@dataclass(frozen=True)
class Settled:
    """What settling did. ``held`` is False when the lease was lost and nothing was written."""

    held: bool
    done: int = 0
    retried: int = 0
    dead: int = 0
    healed: int = 0


@dataclass(frozen=True)
class Blamed:
    """A document that a generation refused while it was not live."""

    generation: int
    document_id: str
    action: str
    error_type: str
    fingerprint: str
    reason: str
