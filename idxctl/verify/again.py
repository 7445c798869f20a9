"""A second look at what was found: once the queue has passed it, or once a repair was written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain

from idxctl.core import backoff
from idxctl.opensearch import scan
from idxctl.postgres.connect import Connection
from idxctl.verify import repair, runs
from idxctl.verify.judge import DRIFT, Judged, Kind
from idxctl.verify.part import Part
from idxctl.verify.runs import Found

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Left:
    """Of the documents that were looked at again: how many still wait, and how many differ for good."""

    waiting: int = 0
    differing: int = 0


def _nothing(_found: Sequence[tuple[str, Judged]]) -> None:
    pass


def look(
    conn: Connection, part: Part, *, repaired: bool, drifted: Callable[[Sequence[tuple[str, Judged]]], None] = _nothing
) -> Left:
    """
    Judge again, and note, what was lagging; with *repaired* what was enqueued to be written again as well.

    *drifted* is given what was lagging and turns out to differ for good.
    """
    waiting = differing = 0
    for page in chain(runs.differing(conn, part.run, enqueued=True) if repaired else (), runs.lagging(conn, part.run)):
        said = _judged(conn, part, page)
        runs.judged(conn, page, said)
        lag = sum(one.kind is Kind.LAGGING for one in said.values())
        waiting += lag
        drifted(
            [
                (one.document_id, now)
                for one in page
                if one.kind is Kind.LAGGING and (now := said.get(one.id)) is not None and now.kind in DRIFT
            ]
        )
        differing += len(said) - lag
    return Left(waiting, differing)


def _judged(conn: Connection, part: Part, page: Sequence[Found]) -> dict[int, Judged]:
    """Return what is still to be said of documents that were found, by their numbers."""
    placed = [one for one in page if one.routing is None]
    said = part.judged(conn, [one.document_id for one in placed])
    judged = {one.id: said[one.document_id] for one in placed if one.document_id in said}
    elsewhere = [(one, one.routing or None) for one in page if one.routing is not None]
    held = scan.copies(part.client, part.generation.name, [(one.document_id, routing) for one, routing in elsewhere])
    for (one, routing), copy in zip(elsewhere, held, strict=True):
        if copy.source is not None and copy.routing == routing:
            judged[one.id] = Judged(Kind.ORPHAN, routing=one.routing)
    # Written under a token drawn since it was looked at, and nothing waits: it is as its row was then.
    return {number: one for number, one in judged.items() if not one.moving}


def until_settled(
    conn: Connection, part: Part, timeout: timedelta, *, repaired: bool, tell: Callable[[Left, str], None]
) -> Left:
    """Look again until nothing waits, waiting is of no use, or the time is over; *tell* is given each look, and why it waits."""
    deadline = time.monotonic() + timeout.total_seconds()
    while True:
        began = time.monotonic()
        left = look(conn, part, repaired=repaired)
        tell(left, repair.why_it_waits(conn, part.run.index) or "")
        if not left.waiting or time.monotonic() >= deadline or repair.never_moves(conn, part.run.index):
            return left
        runs.beat(conn, part.run)
        part.over.wait(backoff.before_look(time.monotonic() - began, shortest=_POLL_SECONDS))
