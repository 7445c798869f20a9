"""
Send one body to one generation; what fails is cut until what fails is alone (P3).

A request that fails as a whole says nothing of its documents: it may be one of them, or the way to OpenSearch (`way`). So
the body is searched, while controls pass, within a time and a number of trials.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from idxctl.core.errors import OpenSearchRefused, OpenSearchUnreachable
from idxctl.core.failpoints import reach
from idxctl.indexes.generations import Generation
from idxctl.opensearch import bulk
from idxctl.opensearch.bulk import Body
from idxctl.opensearch.client import Client
from idxctl.queue.claim import Batch
from idxctl.worker import outcomes, way
from idxctl.worker.load import Load
from idxctl.worker.outcomes import DONE, REFUSALS, Cause, Kind, Verdict
from idxctl.worker.written import Learnt, Limits, Written, too_old

_TOO_OLD = Verdict(Kind.TRANSIENT, outcomes.TOO_OLD, "read too long ago to be sent; it is read again")
_MOST_TRIALS = 8  # documents charged within a claim with what the way did: where it is most of them, it is the index
_SLOW_PARTS = 16  # a body that is waited for in vain costs its time; one that passes costs a request


def send(
    client: Client,
    batch: Batch,
    generation: Generation,
    body: Body,
    limits: Limits,
    learnt: Learnt,
    written: Written,
    part_of: Verdict | None = None,
) -> None:
    """
    Send one body; what is too large, spoiled by one item, or what the way fails on, is cut until the culprit is alone.

    *part_of*: what became of the body that this one is a part of.
    """
    reach("send.before")
    if part_of is not None and generation.id in written.search.down:
        kind = Kind.TRANSIENT if part_of.kind is Kind.SPLIT else part_of.kind
        written.note(body.ids, [generation], replace(part_of, kind=kind))
        return
    if too_old(batch, limits):
        if part_of is not None:
            written.put_apart(body.ids, generation, part_of)
        written.note(body.ids, [generation], _TOO_OLD)
        return
    trip = _Trip(client, batch, generation, body, limits, learnt, written)
    verdict = trip.attempt()
    if verdict is None:
        return
    if verdict.suspect:
        _search(trip, verdict)
    elif len(body.ids) > 1 and verdict.kind is Kind.SPLIT:
        for half in body.halves():
            send(client, batch, generation, half, limits, learnt, written, verdict)
    else:
        _settle_alone(trip, verdict)


@dataclass
class _Trip:
    """One body on its way to one generation."""

    client: Client
    batch: Batch
    generation: Generation
    body: Body
    limits: Limits
    learnt: Learnt
    written: Written
    began: float = 0.0  # the last attempt
    took: float = 0.0  # seconds

    @property
    def ids(self) -> list[str]:
        return self.body.ids

    @property
    def size(self) -> int:
        return len(self.body.text)

    def attempt(self) -> Verdict | None:
        """Send it; returns why the whole of it failed, None when each document was answered for."""
        written, load = self.written, self.learnt.load
        self.began = began = time.monotonic()
        written.sent_bytes += self.size
        try:
            answers = bulk.send(
                self.client, self.generation.name, self.body, pipeline=self.generation.definition.pipeline
            )
        except (OpenSearchRefused, OpenSearchUnreachable) as error:
            self.took = time.monotonic() - began
            verdict = outcomes.of_request(error)
            _learn(verdict, self.size, load, began)
            return verdict
        reach("send.done")
        written.count(self.generation, len(self.ids))
        verdicts = [(one.document_id, outcomes.of_item(one.status, one.error_type, one.reason)) for one in answers]
        refused = sum(verdict.cause is Cause.OVERLOAD for _, verdict in verdicts)
        written.passed = written.passed or refused < len(self.ids)
        if refused < len(self.ids) and not self.body.deleted.issuperset(self.ids):  # a delete passes no pipeline
            self.learnt.witnesses.passed(self.generation.id)
        if refused:
            load.overloaded(self.size, began=began, partly=refused < len(self.ids))
        else:
            load.passed(self.size)
        for one, verdict in verdicts:
            written.verdicts[one, self.generation.id] = verdict
        if self.generation.state == "live":
            written.live = self.generation
        return None

    def note(self, verdict: Verdict) -> None:
        """Give every document of it this verdict."""
        self.written.note(self.ids, [self.generation], verdict)

    def put_apart(self, verdict: Verdict) -> None:
        """Have its parts sent apart the next time."""
        for part in _parts(self.body, verdict):
            self.written.put_apart(part.ids, self.generation, verdict)

    def is_way_open(self, controls: way.Controls) -> bool:
        """Send a control; one that does not pass tells that nothing need be sent there any more."""
        if controls.pass_():
            self.written.passed = True
            return True
        self.written.search.down.add(self.generation.id)
        return False

    def controls(self, verdict: Verdict) -> way.Controls:
        """Return controls for a failure; of a shard that hangs those to others tell nothing."""
        beside = self.body if verdict.cause is Cause.SLOW and len(self.ids) == 1 else None
        return way.Controls(self.client, self.generation, beside)


def _search(trip: _Trip, verdict: Verdict) -> None:
    """The way has failed, or this body: while controls pass, cut it until what fails is alone (P3)."""
    written, load = trip.written, trip.learnt.load
    untried = verdict.cause is Cause.CUT and load.untried(trip.size)
    written.search.failed_at = written.search.failed_at or trip.began
    if not trip.is_way_open(trip.controls(verdict)):
        if verdict.cause is Cause.SLOW and not load.is_large(trip.size):  # it is slow for anything at all
            load.overloaded(trip.size, began=trip.began, partly=False)
        trip.note(_elsewhere(trip, verdict))
        return
    if written.search.is_over(trip.limits):
        trip.put_apart(verdict)
    elif len(trip.ids) == 1:
        _try(trip, verdict)
    else:
        for part in _parts(trip.body, verdict):
            send(trip.client, trip.batch, trip.generation, part, trip.limits, trip.learnt, written, verdict)
        # Some servers and proxies close the connection on what is too large: if all its parts passed, so it was.
        if untried and _all_passed(trip):
            load.too_large(trip.size)


def _parts(body: Body, verdict: Verdict) -> Sequence[Body]:
    """Cut a body for the search: in many where finding out is slow, in two otherwise."""
    parts = [body]
    while len(parts) < (_SLOW_PARTS if verdict.cause is Cause.SLOW else 2) and len(parts[0].ids) > 1:
        parts = [half for part in parts for half in (part.halves() if len(part.ids) > 1 else (part,))]
    return parts


def _try(trip: _Trip, verdict: Verdict) -> None:
    """Find out whether it is one document that the way fails on; then it is the document's failure."""
    search, slow = trip.written.search, verdict.cause is Cause.SLOW
    if verdict.cause is Cause.CUT and trip.learnt.load.over_limit(trip.size):
        trip.note(outcomes.of_the_way(verdict))  # larger than what was seen to be refused: its way to say so
        return
    if search.trials >= _MOST_TRIALS or too_old(trip.batch, trip.limits) or (slow and not trip.limits.waits):
        trip.put_apart(verdict)
        return
    if (
        slow
        and trip.generation.definition.pipeline
        and not trip.learnt.witnesses.speak_against(trip.ids[0], trip.generation.id, since=search.failed_at)
    ):
        trip.put_apart(verdict)
        return
    search.trials += 1
    controls = trip.controls(verdict)
    if slow:
        found = way.meanwhile(trip.attempt, controls, every=way.interval(trip.took))
    else:
        found = way.by_turns(trip.attempt, controls)
    if found.guilty and found.verdict is not None:
        trip.note(outcomes.of_the_way(found.verdict))
        trip.written.apart[trip.ids[0]] = frozenset(trip.ids)  # its next attempt costs its neighbours nothing
    elif found.down:
        search.down.add(trip.generation.id)
        trip.note(_elsewhere(trip, found.verdict or verdict))
    elif found.verdict is not None:
        trip.put_apart(found.verdict)


def _elsewhere(trip: _Trip, verdict: Verdict) -> Verdict:
    """Mark what one generation that is not live meets alone: the live one takes writes by the same way (G1)."""
    live = trip.written.live
    if trip.generation.state == "live" or live is None or not way.Controls(trip.client, live).pass_():
        return verdict
    return replace(verdict, cause=Cause.ELSEWHERE)


def _settle_alone(trip: _Trip, verdict: Verdict) -> None:
    """Note what OpenSearch said of a whole request; a document alone is only charged with it while others may pass."""
    if len(trip.ids) > 1:
        trip.note(verdict)
        return
    load = trip.learnt.load
    alone = outcomes.alone(verdict, trip.size, over_limit=load.over_limit(trip.size))
    if alone.kind in REFUSALS and not trip.is_way_open(way.Controls(trip.client, trip.generation)):
        alone = _elsewhere(trip, replace(verdict, kind=Kind.TRANSIENT))
    trip.note(alone)


def refused_for_overload(written: Written, generation: Generation, ids: Iterable[str]) -> set[str]:
    """Return those of *ids* that were refused one by one because too much came at once."""
    verdicts = ((one, written.verdicts.get((one, generation.id), DONE)) for one in ids)
    return {one for one, verdict in verdicts if verdict.cause is Cause.OVERLOAD and not verdict.whole}


def _learn(verdict: Verdict, size: int, load: Load, began: float) -> None:
    """Tell the load what a request that failed says of it; a small one that is waited for in vain says nothing of the load."""
    if verdict.cause is Cause.OVERLOAD or (verdict.cause is Cause.SLOW and load.is_large(size)):
        load.overloaded(size, began=began, partly=False)
    elif verdict.cause is Cause.TOO_LARGE:
        load.too_large(size)


def _all_passed(trip: _Trip) -> bool:
    verdicts = (trip.written.verdicts.get((one, trip.generation.id), DONE) for one in trip.ids)
    return not any(verdict.suspect or verdict.kind is Kind.TRANSIENT for verdict in verdicts)
