"""What a reindex is asked for, what it shows while it runs, and what it says at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Options:
    """How a reindex runs."""

    readers: int = 3
    keep: timedelta = timedelta(days=1)
    take_alias: bool = False
    wait_for_copies: timedelta = timedelta(minutes=30)  # replicas that can be allocated must have started by then
    max_failed: int | None = None  # documents; None: ten, or one in a hundred


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


@dataclass
class Steps:
    """What a reindex shows. Each is called from the thread that called `reindex`."""

    begin: Callable[[str, int | None], None] = lambda _step, _total: None  # a step and its total, if known
    move: Callable[[int, str], None] = lambda _done, _note: None
    end: Callable[[str], None] = lambda _summary: None
    warn: Callable[[str], None] = lambda _sentence: None
    failed: Callable[[Reindexed], None] = lambda _so_far: None  # what is known of a run whose error is raised next
