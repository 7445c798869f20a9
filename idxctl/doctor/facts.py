"""What is known of one document and of what leads to it, as it was found; `verdict` makes a sentence of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from idxctl.capture.status import WatchStatus
from idxctl.core.conditions import Condition
from idxctl.dlq import Letter

_MOST = 50  # differences of one document


class RowState(str, Enum):
    """What the document query says of an id."""

    FOUND = "found"
    NONE = "none"
    UNREADABLE = "unreadable"  # it fails for this row, or as a whole
    UNTOLD = "untold"  # this role may not read it


class Comparison(str, Enum):
    """How the document of a generation's index stands to the row that the generation's own query makes."""

    EQUAL = "equal"
    ABSENT = "absent"  # no row, and no document
    MISSING = "missing"  # a row, and no document
    STALE = "stale"  # they differ
    ORPHAN = "orphan"  # a document, and no row
    UNKNOWN = "unknown"


DRIFT = frozenset({Comparison.MISSING, Comparison.STALE, Comparison.ORPHAN})


@dataclass(frozen=True)
class Row:
    """The document as the generation that is asked about would make it now."""

    state: RowState
    document: Any = None
    bytes: int | None = None
    routing: str | None = None
    error_type: str = ""  # sql_SQLSTATE
    error: str = ""
    table: str | None = None  # which table's primary key the id is, where a watch tells
    in_table: bool | None = None  # whether that has a row of this key, whatever the document query says


@dataclass(frozen=True)
class Difference:
    """A place where row and document differ: ``images[1].url``. A value that is not there is None, and its side is told so."""

    path: str
    row: Any
    index: Any
    in_row: bool = True
    in_index: bool = True


@dataclass(frozen=True)
class Refused:
    """What a generation refused while it was not live."""

    error_type: str
    error: str
    at: datetime


@dataclass(frozen=True)
class Held:
    """What one generation's index holds; ``token_after`` and ``token_before`` are the times between which its version was drawn."""

    generation: str
    number: int
    state: str
    comparison: Comparison
    version: int | None = None
    foreign: bool = False  # no token of this database's
    token_after: datetime | None = None
    token_before: datetime | None = None
    differences: Sequence[Difference] = ()
    elsewhere: Sequence[str | None] = ()  # routings of copies that do not stand where the document belongs
    refused: Refused | None = None
    error: str = ""  # why nothing is known of it
    alike: bool = True  # its query is that of the first of them


@dataclass(frozen=True)
class Queued:
    """A task of the document that waits. ``wait_seconds`` is how long until it is due; ``ahead`` is how many are claimed before it."""

    id: int
    action: str
    priority: int
    attempts: int
    origin: str
    enqueued_at: datetime
    available_at: datetime
    age_seconds: float
    wait_seconds: float
    last_error: str | None
    ahead: int | None = None

    @property
    def due(self) -> bool:
        """Whether it may be claimed now."""
        return self.wait_seconds <= 0

    @property
    def tried(self) -> bool:
        """Whether it has been claimed before."""
        return bool(self.attempts or self.last_error)


@dataclass(frozen=True)
class InFlight:
    """A task of the document that a worker holds."""

    token: int
    worker: str
    alive: bool  # its heartbeats are seen
    action: str
    attempts: int
    origin: str
    enqueued_at: datetime
    claimed_at: datetime
    age_seconds: float
    lease_seconds: float  # until the lease lapses; negative once it has
    trouble: str | None  # why it could not be taken back


@dataclass(frozen=True)
class FanOuts:
    """Tasks of the index, due or in flight, that stand for many documents: this one may be among them."""

    waiting: int = 0
    age_seconds: float | None = None
    error: str | None = None  # why one of them is tried again


@dataclass(frozen=True)
class Dead(Letter):
    """A letter of the document, with its past where this role may read that."""

    history: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Act:
    """
    Something that was done or found: by an operator, from the audit, or by a comparison.

    ``named``: it was about this document in so many words; otherwise about the index.
    """

    at: datetime
    action: str
    by: str | None
    channel: str | None
    reason: str | None
    count: int | None
    named: bool
    found: str | None = None  # by a comparison: missing, stale, ...


@dataclass(frozen=True)
class Facts:
    """All of it. ``document_id`` is as the index has it, ``asked`` as it was given."""

    index: str
    document_id: str
    asked: str
    key: Sequence[str] = ()  # the key's columns, each with its type
    possible: bool = True  # whether any row can have that id
    row: Row = field(default_factory=lambda: Row(RowState.UNTOLD))
    generations: Sequence[Held] = ()  # active ones: the live one first, then the newest
    queued: Sequence[Queued] = ()
    in_flight: Sequence[InFlight] = ()
    fan_outs: FanOuts = field(default_factory=FanOuts)
    moving: bool = False  # it was written while it was looked at
    unsteady: Sequence[str] = ()  # fields that the document query makes anew each time
    letters: Sequence[Dead] = ()
    acts: Sequence[Act] = ()
    watches: Sequence[WatchStatus] = ()
    conditions: Sequence[Condition] = ()
    workers: int = 0  # that serve this index
    opensearch: str = ""  # why it told nothing
    untold: Sequence[str] = ()  # what could not be looked at, and why
    queue_untold: bool = False  # ... the queue, or what is in flight, among it

    @property
    def under_way(self) -> bool:
        """Whether something that waits, or is in flight, may still change the document."""
        return bool(self.queued or self.in_flight or self.fan_outs.waiting or self.moving)


def differences(row: Any, index: Any, ignore: Sequence[str] = ()) -> list[Difference]:
    """Return the places in which a document differs from its row, the first fifty, apart from the fields *ignore*."""
    return list(_between("", row, index, frozenset(ignore)))[:_MOST]


def _between(path: str, row: Any, index: Any, ignore: frozenset[str] = frozenset()) -> Sequence[Difference]:
    if row == index:
        return ()
    if isinstance(row, Mapping) and isinstance(index, Mapping):
        found: list[Difference] = []
        for name in sorted((row.keys() | index.keys()) - ignore):
            place = f"{path}.{name}" if path else name
            if name in row and name in index:
                found += _between(place, row[name], index[name])
            else:
                found.append(Difference(place, row.get(name), index.get(name), name in row, name in index))
        return found
    if isinstance(row, list) and isinstance(index, list) and len(row) == len(index):
        pairs = enumerate(zip(row, index, strict=True))
        return [one for at, (mine, theirs) in pairs for one in _between(f"{path}[{at}]", mine, theirs)]
    return (Difference(path, row, index),)
