"""What a reindex is asked for, what it shows while it runs, and what it says at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Options:
    """How a reindex runs. What is None is as the run was begun with, or by default."""

    readers: int = 3  # of this process
    keep: timedelta | None = None  # how long the old generation stays standby: a day
    take_alias: bool = False
    wait_for_copies: timedelta | None = None  # replicas that can be allocated must have started by then: 30 minutes
    max_failures: str | None = None  # documents, or a share with %: ten, or one in a hundred
    max_rate: float | None = None  # documents a second, of all processes: as fast as they can
    check: str | None = None  # content, versions, or none
    swap: bool = True  # False: stop when the new generation is ready


@dataclass(frozen=True)
class Reindexed:
    """What a reindex did. The names are those of ``-o json``."""

    index: str
    generation: str | None
    documents: int
    failed: int
    seconds: float
    swapped: bool | None  # None: the swap was under way, and OpenSearch could not be asked what became of it
    previous: str | None = None
    standby_until: datetime | None = None
    dry_run: bool = False
    error: str | None = None  # why it went no further
    run: int | None = None
    state: str | None = None
    resumed: bool = False  # another process had begun it
    checked: str | None = None  # how: content, versions, none
    rows: int | None = None  # of a dry run: about as many as there are
    expected_seconds: float | None = None  # of a dry run: at the speed of the last reindex


@dataclass
class Steps:
    """What a reindex shows. Each is called from the thread that called `reindex`."""

    begin: Callable[[str, int | None], None] = lambda _step, _total: None  # a step and its total, if known
    move: Callable[[int, str], None] = lambda _done, _note: None
    end: Callable[[str], None] = lambda _summary: None
    warn: Callable[[str], None] = lambda _sentence: None
    failed: Callable[[Reindexed], None] = lambda _so_far: None  # what is known of a run whose error is raised next
