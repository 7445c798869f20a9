"""
The first two steps of a batch: read each document now, and write it to every generation. `sort` is the third.

The claim comes before and the settle after; each step is a function of its own, so that a test can hold the protocol
between any two of them. Nothing here remembers the set of generations: it is the one the claim read (G2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from idxctl.core import keys
from idxctl.core.errors import PostgresRefused
from idxctl.core.failpoints import reach
from idxctl.indexes import reading, render
from idxctl.indexes.definitions import Definition
from idxctl.indexes.generations import Generation
from idxctl.indexes.ids import routings
from idxctl.opensearch import bulk
from idxctl.opensearch.bulk import Body
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection
from idxctl.queue.claim import Batch
from idxctl.worker import outcomes
from idxctl.worker.load import MOST_BYTES_UNDER_WAY, Room
from idxctl.worker.outcomes import DONE, Kind, Verdict
from idxctl.worker.send import send
from idxctl.worker.written import Learnt, Limits, Written, too_old

_DOUBLED = Verdict(Kind.PERMANENT, "duplicate_document", "the document query returns this id more than once")
TOO_LONG, NO_TEXT = "id_too_long", "id_not_utf8"  # of a row whose id no index takes
_TOO_SLOW = Verdict(Kind.TRANSIENT, outcomes.TOO_SLOW, "there was no time to read it; it is read with fewer others")


def read_and_write(
    conn: Connection,
    client: Client,
    batch: Batch,
    generations: Sequence[Generation],
    *,
    limits: Limits,
    learnt: Learnt,
    strangers: Mapping[int, Verdict],
) -> Written:
    """
    Read the batch's documents, once for each shape among *generations*, and send each shape to its generations.

    The read is a statement of its own, after the claim's commit (T1). Whole-request and read failures become verdicts;
    only Postgres being unreachable raises. *strangers* are verdicts on generations whose index is not ours to write to.
    """
    written = Written()
    ids = [task.document_id for task in batch.tasks]
    for one in generations:
        if one.id in strangers:
            written.note(ids, [one], strangers[one.id])
    for sharing in _shapes([one for one in generations if one.id not in strangers]):
        rest: Sequence[str] = ids
        while rest:
            if written.slow and too_old(batch, limits):
                written.note(rest, sharing, _TOO_SLOW)
                break
            expected = partial(_expected, limits, learnt, sharing[0].definition, len(rest))
            with learnt.load.room(expected) as room:
                rest = _some(conn, client, batch, sharing, rest, limits, learnt, written, room)
    return written


def _some(
    conn: Connection,
    client: Client,
    batch: Batch,
    sharing: Sequence[Generation],
    ids: Sequence[str],
    limits: Limits,
    learnt: Learnt,
    written: Written,
    room: Room,
) -> Sequence[str]:
    """Read as many of *ids* as make about one body, and send them; returns the ids that were left."""
    definition, most = sharing[0].definition, learnt.body_bytes(limits)
    reach("read.before")
    try:
        read = render.by_ids(conn, definition, ids, token=batch.token, max_bytes=most, sizes=learnt.sizes)
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
    bodies = list(bulk.gather(pieces, max_bytes=most))
    read.found.clear()  # joined by now: held twice for as long as OpenSearch takes, they would count twice
    pieces.clear()
    for generation in sharing:
        for body in bodies:
            send(client, batch, generation, body, limits, learnt, written)
    return read.rest


def _type_of_unfit(document_id: str) -> str:
    return TOO_LONG if keys.too_long(document_id) else NO_TEXT


def unreadable(conn: Connection, cause: PostgresRefused) -> Verdict:
    """Return what becomes of a document that cannot be read: one that takes too long may do better another time."""
    if reading.is_too_slow(cause):
        reason = (
            f"reading this one document takes longer than {conn.read_limit_ms / 1000:g} s ([database] read_timeout)"
        )
        return Verdict(Kind.DOUBTFUL, f"sql_{cause.sqlstate}", reason)
    return Verdict(Kind.PERMANENT, f"sql_{cause.sqlstate}", cause.detail)


def _expected(limits: Limits, learnt: Learnt, definition: Definition, documents: int) -> int:
    """Return the bytes that a read will come to; all there may be while nothing is known of the documents' size."""
    average = learnt.sizes.average(definition)
    if average is None:
        return MOST_BYTES_UNDER_WAY
    return int(max(min(documents * average, learnt.body_bytes(limits)), average))


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
        body.append(bulk.deletes(gone, batch.token, routings(conn, definition, gone)))
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
