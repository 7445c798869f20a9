"""
One batch, step by step: read each document now, write it to every generation, sort the answers.

The claim comes before and the settle after; each step is a function of its own, so that a test can hold the protocol
between any two of them. Nothing here remembers the set of generations: it is the one the claim read (G2).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from idxctl.core import backoff, keys
from idxctl.core.errors import OpenSearchRefused, OpenSearchUnreachable, PostgresRefused
from idxctl.core.failpoints import reach
from idxctl.core.reasons import Reason
from idxctl.indexes import render
from idxctl.indexes.definitions import Definition
from idxctl.indexes.generations import Generation
from idxctl.opensearch import bulk
from idxctl.opensearch.bulk import Body
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection
from idxctl.queue import tokens
from idxctl.queue.claim import Batch, Task
from idxctl.queue.settle import MISSED, Again, Failure, Outcomes
from idxctl.worker import outcomes, way
from idxctl.worker.index_identity import Identity
from idxctl.worker.load import MOST_BYTES_UNDER_WAY, Load, Room
from idxctl.worker.outcomes import DONE, Cause, Kind, Verdict

_DOUBLED = Verdict(Kind.PERMANENT, "duplicate_document", "the document query returns this id more than once")
_TOO_OLD = Verdict(Kind.TRANSIENT, outcomes.TOO_OLD, "read too long ago to be sent; it is read again")
TOO_LONG, NO_TEXT = "id_too_long", "id_not_utf8"  # of a row whose id no index takes
_AT_ONCE = {outcomes.FOREIGN_VERSION, outcomes.TOO_OLD}  # what a new token fixes
_TOO_SLOW = Verdict(Kind.TRANSIENT, outcomes.TOO_SLOW, "there was no time to read it; it is read with fewer others")
_MOST_TRIALS = 8  # documents charged within a claim with what the way did: where it is most of them, it is the index
_SLOW_PARTS = 16  # a body that is waited for in vain costs its time; one that passes costs a request
_PAUSES = frozenset({Kind.BLOCKED, Kind.GONE})  # the index's trouble
_REFUSALS = frozenset({Kind.PERMANENT, Kind.DOUBTFUL})  # the document's
_GREATEST_VERSION = 2**62  # beyond it the sequence could not be moved past a foreign version


@dataclass(frozen=True)
class Limits:
    """What bounds a batch while it is under way: as configured, and learnt of the documents and of OpenSearch."""

    batch_bytes: int = 8 * 1024 * 1024
    age_limit_seconds: float = 60.0
    sizes: render.Sizes = field(default_factory=render.Sizes)
    load: Load = field(default_factory=Load)
    identity: Identity = field(default_factory=Identity)
    witnesses: way.Witnesses = field(default_factory=way.Witnesses)
    search_seconds: float = 20.0  # within a claim, for what the way fails on; the rest is then put back apart
    waits: bool = True  # for a document that is slow to be answered, once more

    @property
    def body_bytes(self) -> int:
        """Bytes of a bulk body now, about."""
        return min(self.batch_bytes, self.load.body_bytes)


@dataclass
class Search:
    """How far the search for what the way fails on has come, within one claim."""

    began: float | None = None
    failed_at: float = 0.0  # when the first body that failed so was sent
    trials: int = 0
    down: set[int] = field(default_factory=set)  # generations to which no control passed any more

    def is_over(self, limits: Limits) -> bool:
        """Tell whether it has taken its time; the first look begins it."""
        now = time.monotonic()
        self.began = self.began or now
        return now - self.began > limits.search_seconds


@dataclass
class Written:
    """
    What has become of each document in each generation, filled while a batch is under way.

    ``verdicts`` has the failures; ``answered`` counts all documents that were answered for, by generation.
    """

    verdicts: dict[tuple[str, int], Verdict] = field(default_factory=dict)
    answered: dict[int, int] = field(default_factory=dict)
    passed: bool = False  # OpenSearch has taken a body, or part of one
    largest: int = 0  # bytes of one document at the most, where that is more than a few
    sent_bytes: int = 0
    slow: int = 0  # documents that were asked for at once, and too many for the time that there is
    search: Search = field(default_factory=Search)
    apart: dict[str, frozenset[str]] = field(default_factory=dict)  # documents, and those they are sent with next time
    live: Generation | None = None  # has answered for a body

    def note(self, ids: Collection[str], generations: Iterable[Generation], verdict: Verdict) -> None:
        """Give all of *ids* the same verdict in all of *generations*."""
        for generation in generations:
            self.count(generation, len(ids))
            for one in ids:
                self.verdicts[one, generation.id] = verdict

    def put_apart(self, ids: Sequence[str], generation: Generation, verdict: Verdict) -> None:
        """Have documents sent again, without the others of their batch and without being charged."""
        verdict = Verdict(Kind.TRANSIENT, outcomes.APART, verdict.answered or verdict.reason)
        self.note(ids, [generation], verdict)
        group = frozenset(ids)
        for one in ids:
            if one not in self.apart or len(group) < len(self.apart[one]):
                self.apart[one] = group

    def forget(self, ids: Iterable[str], generation: Generation) -> None:
        """Take back what was noted of documents that are sent again."""
        for one in ids:
            self.verdicts.pop((one, generation.id), None)

    def count(self, generation: Generation, documents: int) -> None:
        """Count documents answered for by *generation*."""
        self.answered[generation.id] = self.answered.get(generation.id, 0) + documents


@dataclass(frozen=True)
class Sorted:
    """A batch's outcomes, and what they say about the index and the cluster."""

    outcomes: Outcomes
    blocked: Reason | None = None  # why the index must be paused
    unreachable: Reason | None = None  # why a whole request failed for want of a server, for the breaker
    overloaded: Reason | None = None  # what OpenSearch said that refused something for overload
    jumped_past: int | None = None  # a version this database did not draw (T4)
    superseded: int = 0


def too_old(batch: Batch, limits: Limits) -> bool:
    """Tell whether bytes read under this token may no longer be sent; counted from the token, not the lease (T3)."""
    return time.monotonic() - batch.born > limits.age_limit_seconds


def read_and_write(
    conn: Connection, client: Client, batch: Batch, generations: Sequence[Generation], limits: Limits
) -> Written:
    """
    Read the batch's documents, once for each shape among *generations*, and send each shape to its generations.

    The read is a statement of its own, after the claim's commit (T1). Whole-request and read failures become verdicts;
    only Postgres being unreachable raises.
    """
    written = Written()
    ids = [task.document_id for task in batch.tasks]
    strangers = limits.identity.strangers(client, generations)
    for one in generations:
        if one.id in strangers:
            written.note(ids, [one], strangers[one.id])
    for sharing in _shapes([one for one in generations if one.id not in strangers]):
        rest: Sequence[str] = ids
        while rest:
            if written.slow and too_old(batch, limits):
                written.note(rest, sharing, _TOO_SLOW)
                break
            expected = partial(_expected, limits, sharing[0].definition, len(rest))
            with limits.load.room(expected) as room:
                rest = _some(conn, client, batch, sharing, rest, limits, written, room)
    return written


def _some(
    conn: Connection,
    client: Client,
    batch: Batch,
    sharing: Sequence[Generation],
    ids: Sequence[str],
    limits: Limits,
    written: Written,
    room: Room,
) -> Sequence[str]:
    """Read as many of *ids* as make about one body, and send them; returns the ids that were left."""
    definition = sharing[0].definition
    reach("read.before")
    try:
        read = render.by_ids(conn, definition, ids, token=batch.token, max_bytes=limits.body_bytes, sizes=limits.sizes)
        room.resize(read.size)
        pieces = _body(conn, batch, definition, ids, read)
    except PostgresRefused as error:
        written.note(ids, sharing, Verdict(_read_kind(error), f"sql_{error.sqlstate}", error.detail))
        return ()
    reach("read.done")
    written.slow += read.slow
    for one, cause in read.failures.items():
        written.note([one], sharing, unreadable(conn, cause))
    written.note(read.doubled, sharing, _DOUBLED)
    written.note(read.impossible, sharing, DONE)
    for one, reason in read.unfit.items():
        written.note([one], sharing, Verdict(Kind.PERMANENT, _type_of_unfit(one), reason))
    written.largest = max([written.largest, *(len(lines.text) for lines in read.found if len(lines.ids) == 1)])
    bodies = list(bulk.gather(pieces, max_bytes=limits.body_bytes))
    read.found.clear()  # joined by now: held twice for as long as OpenSearch takes, they would count twice
    pieces.clear()
    for generation in sharing:
        for body in bodies:
            send(client, batch, generation, body, limits, written)
    return read.rest


def _type_of_unfit(document_id: str) -> str:
    return TOO_LONG if keys.too_long(document_id) else NO_TEXT


def unreadable(conn: Connection, cause: PostgresRefused) -> Verdict:
    """Return what becomes of a document that cannot be read: one that takes too long may do better another time."""
    if render.is_too_slow(cause):
        reason = (
            f"reading this one document takes longer than {conn.read_limit_ms / 1000:g} s ([database] read_timeout)"
        )
        return Verdict(Kind.DOUBTFUL, f"sql_{cause.sqlstate}", reason)
    return Verdict(Kind.PERMANENT, f"sql_{cause.sqlstate}", cause.detail)


def _expected(limits: Limits, definition: Definition, documents: int) -> int:
    """Return the bytes that a read will come to; all there may be while nothing is known of the documents' size."""
    average = limits.sizes.average(definition)
    if average is None:
        return MOST_BYTES_UNDER_WAY
    return int(max(min(documents * average, limits.body_bytes), average))


def _body(
    conn: Connection, batch: Batch, definition: Definition, asked: Sequence[str], read: render.Read
) -> list[Body]:
    """Return the lines of what was read; an id that was asked for and has no row is a delete."""
    known = read.ids | read.failures.keys() | set(read.rest) | read.unfit.keys() | read.impossible
    gone = [one for one in asked if one not in known]
    body = [Body(lines.ids, lines.text) for lines in read.found]
    if read.doubled:
        body = [one.without(read.doubled) for one in body]
    if gone:
        body.append(bulk.deletes(gone, batch.token, render.routings(conn, definition, gone)))
    return body


def _shapes(generations: Sequence[Generation]) -> list[list[Generation]]:
    """Group generations that render the same bytes; the live one comes first, so that no other holds it up."""
    groups: dict[str, list[Generation]] = {}
    for generation in sorted(generations, key=lambda one: one.state != "live"):
        groups.setdefault(generation.definition.render_fingerprint, []).append(generation)
    return list(groups.values())


def _read_kind(error: PostgresRefused) -> Kind:
    """Sort a read that failed for all: what does not pass by itself is the query's fault, or a policy's."""
    return Kind.TRANSIENT if error.passing else Kind.BLOCKED


def send(
    client: Client,
    batch: Batch,
    generation: Generation,
    body: Body,
    limits: Limits,
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
    trip = _Trip(client, batch, generation, body, limits, written)
    verdict = trip.attempt()
    if verdict is None:
        return
    if verdict.suspect:
        _search(trip, verdict)
    elif len(body.ids) > 1 and verdict.kind is Kind.SPLIT:
        for half in body.halves():
            send(client, batch, generation, half, limits, written, verdict)
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
        written, limits = self.written, self.limits
        self.began = began = time.monotonic()
        written.sent_bytes += self.size
        try:
            answers = bulk.send(
                self.client, self.generation.name, self.body, pipeline=self.generation.definition.pipeline
            )
        except (OpenSearchRefused, OpenSearchUnreachable) as error:
            self.took = time.monotonic() - began
            verdict = outcomes.of_request(error)
            _learn(verdict, self.size, limits.load, began)
            return verdict
        reach("send.done")
        written.count(self.generation, len(self.ids))
        verdicts = [(one.document_id, outcomes.of_item(one.status, one.error_type, one.reason)) for one in answers]
        refused = sum(verdict.cause is Cause.OVERLOAD for _, verdict in verdicts)
        written.passed = written.passed or refused < len(self.ids)
        if refused < len(self.ids) and not self.body.deleted.issuperset(self.ids):  # a delete passes no pipeline
            limits.witnesses.passed(self.generation.id)
        if refused:
            limits.load.overloaded(self.size, began=began, partly=refused < len(self.ids))
        else:
            limits.load.passed(self.size)
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
    written, limits = trip.written, trip.limits
    untried = verdict.cause is Cause.CUT and limits.load.untried(trip.size)
    written.search.failed_at = written.search.failed_at or trip.began
    if not trip.is_way_open(trip.controls(verdict)):
        if verdict.cause is Cause.SLOW and not limits.load.is_large(trip.size):  # it is slow for anything at all
            limits.load.overloaded(trip.size, began=trip.began, partly=False)
        trip.note(_elsewhere(trip, verdict))
        return
    if written.search.is_over(limits):
        trip.put_apart(verdict)
    elif len(trip.ids) == 1:
        _try(trip, verdict)
    else:
        for part in _parts(trip.body, verdict):
            send(trip.client, trip.batch, trip.generation, part, limits, written, verdict)
        # Some servers and proxies close the connection on what is too large: if all its parts passed, so it was.
        if untried and _all_passed(trip):
            limits.load.too_large(trip.size)


def _parts(body: Body, verdict: Verdict) -> Sequence[Body]:
    """Cut a body for the search: in many where finding out is slow, in two otherwise."""
    parts = [body]
    while len(parts) < (_SLOW_PARTS if verdict.cause is Cause.SLOW else 2) and len(parts[0].ids) > 1:
        parts = [half for part in parts for half in (part.halves() if len(part.ids) > 1 else (part,))]
    return parts


def _try(trip: _Trip, verdict: Verdict) -> None:
    """Find out whether it is one document that the way fails on; then it is the document's failure."""
    search, slow = trip.written.search, verdict.cause is Cause.SLOW
    if verdict.cause is Cause.CUT and trip.limits.load.over_limit(trip.size):
        trip.note(outcomes.of_the_way(verdict))  # larger than what was seen to be refused: its way to say so
        return
    if search.trials >= _MOST_TRIALS or too_old(trip.batch, trip.limits) or (slow and not trip.limits.waits):
        trip.put_apart(verdict)
        return
    if (
        slow
        and trip.generation.definition.pipeline
        and not trip.limits.witnesses.speak_against(trip.ids[0], trip.generation.id, since=search.failed_at)
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
    load = trip.limits.load
    alone = outcomes.alone(verdict, trip.size, over_limit=load.over_limit(trip.size))
    if alone.kind in _REFUSALS and not trip.is_way_open(way.Controls(trip.client, trip.generation)):
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


@dataclass
class _Sorting:
    """The lists that sorting fills."""

    done: list[Task] = field(default_factory=list)
    again: list[Again] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    blamed: list[Failure] = field(default_factory=list)
    missed: list[Failure] = field(default_factory=list)
    blocked: Reason | None = None
    unreachable: Reason | None = None
    overloaded: Reason | None = None
    superseded: int = 0


def sort(
    conn: Connection, batch: Batch, generations: Sequence[Generation], written: Written, states: Mapping[int, str]
) -> Sorted:
    """
    Turn verdicts into the outcome of each task.

    *states* are the generations' states as they are now: one that was retired meanwhile is left out (G3), and one that is
    not live never holds the live one up.
    """
    foreign = _foreign_versions(conn, written)
    lists = _Sorting()
    writable = [one for one in generations if states.get(one.id, "retired") != "retired"]
    for one in writable:  # done is what nobody complained of: so everybody must have been heard
        if written.answered.get(one.id, 0) < len(batch.tasks):  # more: an id such as 007 also finds document 7
            raise AssertionError(
                f"{written.answered.get(one.id, 0)} of {len(batch.tasks)} documents answered by {one.name}"
            )
    for task in batch.tasks:
        troubles = []
        for generation in writable:
            verdict = written.verdicts.get((task.document_id, generation.id), DONE)
            if verdict.kind is Kind.SUPERSEDED:
                lists.superseded += 1
                verdict = _conflict(verdict, foreign)
            if verdict.kind is not Kind.DONE:
                troubles.append((generation, verdict))
        if troubles:
            _place(lists, task, troubles, states)
        else:
            lists.done.append(task)
    lists.blocked = lists.blocked or _shards_away(batch, written, [one for one in writable if states[one.id] == "live"])
    result = Outcomes(lists.done, lists.again, lists.failed, lists.blamed, lists.missed, _groups(written))
    within = [one for one in foreign if one < _GREATEST_VERSION]
    past = max(within, default=None)
    return Sorted(result, lists.blocked, lists.unreachable, lists.overloaded, past, lists.superseded)


def _groups(written: Written) -> dict[str, int]:
    """Number the groups of documents that are to be sent apart."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(written.apart.values()))}
    return {one: numbers[group] for one, group in written.apart.items()}


def _shards_away(batch: Batch, written: Written, living: Sequence[Generation]) -> Reason | None:
    """Return why nothing of a batch could be written where it belongs: not one document's bad luck, but the index's state."""
    for generation in living:
        verdicts = [written.verdicts.get((task.document_id, generation.id), DONE) for task in batch.tasks]
        if len(verdicts) > 1 and all(one.cause is Cause.SHARDS for one in verdicts):
            return outcomes.why(verdicts[0], generation=generation.name)
    return None


def _conflict(verdict: Verdict, foreign: set[int]) -> Verdict:
    """T4: a conflict is success only if this database drew the version that stands there, as far as it is named."""
    version = outcomes.current_version(verdict.reason)
    if version is not None and version not in foreign:
        return DONE
    if version is not None and version >= _GREATEST_VERSION:
        return Verdict(Kind.PERMANENT, verdict.error_type, verdict.reason)
    return Verdict(Kind.TRANSIENT, outcomes.FOREIGN_VERSION, verdict.reason)


def _place(lists: _Sorting, task: Task, troubles: list[tuple[Generation, Verdict]], states: Mapping[int, str]) -> None:
    """Put a task where its troubles send it: a letter, the queue again, or done with a note against a generation."""
    living = [(one, verdict) for one, verdict in troubles if states[one.id] == "live"]
    others = [(one, verdict) for one, verdict in troubles if states[one.id] != "live"]
    again = [
        verdict for one, verdict in troubles if verdict.kind is Kind.TRANSIENT and not _is_its_own(one, verdict, states)
    ]
    for verdict in again:
        if verdict.cause is Cause.OVERLOAD:
            lists.overloaded = lists.overloaded or outcomes.why(verdict)
        elif verdict.whole:
            lists.unreachable = lists.unreachable or replace(
                outcomes.why(verdict), error_type="", about=verdict.error_type
            )
    for generation, verdict in living:
        if verdict.kind in _PAUSES:
            again.append(verdict)
            lists.blocked = lists.blocked or outcomes.why(verdict, generation=generation.name)
    dead = [(one, verdict) for one, verdict in living if verdict.kind in _REFUSALS]
    lists.failed += [_failure(task, verdict, one) for one, verdict in dead]
    lists.blamed += [_failure(task, verdict, one) for one, verdict in others if verdict.kind in _REFUSALS]
    # A letter's retry writes to all; until then the others have missed what passes by itself as well.
    lists.missed += [
        _missed(task, verdict, one)
        for one, verdict in others
        if _is_its_own(one, verdict, states) or (dead and verdict.kind is Kind.TRANSIENT)
    ]
    if dead:
        return
    if again:
        wait = 0.0 if again[0].error_type in _AT_ONCE else backoff.BEFORE_NEXT_CLAIM
        lists.again.append(Again(task, wait, outcomes.why(again[0])))
    else:
        lists.done.append(task)


def _is_its_own(generation: Generation, verdict: Verdict, states: Mapping[int, str]) -> bool:
    """Tell whether a failure is the trouble of a generation that is not live: it goes on without."""
    return states[generation.id] != "live" and (
        verdict.kind in _PAUSES or verdict.cause in {Cause.SHARDS, Cause.ELSEWHERE}
    )


def _missed(task: Task, verdict: Verdict, generation: Generation) -> Failure:
    """Return the note that a generation which is not live holds an older document, or none, for a cause of its own."""
    said = f"{verdict.error_type}: {verdict.reason}"
    return Failure(task, MISSED, "", said, permanent=False, generation=generation.id)


def _failure(task: Task, verdict: Verdict, generation: Generation) -> Failure:
    group = outcomes.fingerprint(verdict)
    return Failure(task, verdict.error_type, group, verdict.reason, verdict.kind is Kind.PERMANENT, generation.id)


def _foreign_versions(conn: Connection, written: Written) -> set[int]:
    """T4: return the versions named by conflicts that this database did not draw, and move the sequence past them."""
    named = {outcomes.current_version(one.reason) for one in written.verdicts.values() if one.kind is Kind.SUPERSEDED}
    foreign = {one for one in named if one is not None and tokens.origin_of(conn, one) is not tokens.Origin.OURS}
    within = [one for one in foreign if one < _GREATEST_VERSION]
    if within:
        tokens.advance(conn, max(within), "OpenSearch holds a version that this sequence did not draw")
    return foreign
