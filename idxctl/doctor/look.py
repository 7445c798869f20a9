"""
Look at one document: row, indexes, queue, letters, watches; nothing is changed, and nothing is waited for longer than a few seconds.

The looks are in the order of `verify.judge`: where the sequence of tokens stands; the row; what waits for it; the document
with its version. So a change that the row shows is found waiting, or the document is seen with it. What seems to differ
without a cause is looked at once more.

A role that may not read something, a document query that fails and an OpenSearch that is away are facts like others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson

from idxctl import dlq
from idxctl.capture import status as capture
from idxctl.config.settings import Settings
from idxctl.core import keys, texts
from idxctl.core.errors import IdxctlError, OpenSearchUnintelligible, PostgresRefused, Unreachable
from idxctl.doctor import SQL, ids
from idxctl.doctor.facts import (
    DRIFT,
    Act,
    Comparison,
    Dead,
    Facts,
    FanOuts,
    Held,
    InFlight,
    Queued,
    Refused,
    Row,
    RowState,
    differences,
)
from idxctl.doctor.rows import Rendered, in_its_table, rendered
from idxctl.doctor.verdict import decide
from idxctl.doctor.words import Verdict
from idxctl.indexes import generations
from idxctl.indexes.generations import Generation
from idxctl.opensearch import scan
from idxctl.opensearch.answers import Source
from idxctl.opensearch.client import Client
from idxctl.postgres.connect import Connection
from idxctl.postgres.connect import Row as Record
from idxctl.postgres.statements import Statement
from idxctl.status.overview import Looks, Overview, overview
from idxctl.verify import judge
from idxctl.verify.compare import parsed_row

_LOOKS = 3
_STATEMENT_TIMEOUT = "5s"
_OPENSEARCH_SECONDS = 8.0  # for one answer; after one that does not come, none is asked for
_MOST_TASKS = 20
_MOST_AHEAD = 10_000
_MOST_ACTS, _ACTS_LOOKED_AT = 5, 5_000
_DENIED, _ENDED = "42501", "57014"


@dataclass(frozen=True)
class Explained:
    """A document's facts, and what they come to."""

    facts: Facts
    verdict: Verdict

    def shown(self) -> dict[str, Any]:
        """Return it as JSON has it: the verdict, then the facts by their names."""
        facts = {name: getattr(self.facts, name) for name in self.facts.__dataclass_fields__}
        return {
            "index": self.facts.index, "document_id": self.facts.document_id, "verdict": self.verdict.shown(),
            **facts, "conditions": [one.shown() for one in self.facts.conditions],
        }  # fmt: skip


def explain(
    conn: Connection, client: Client, settings: Settings, looks: Looks, index: str, document_id: str
) -> Explained:
    """
    Return what is known of a document of *index*, a name that is known, and the verdict on it; outside of a transaction.

    Raises `PostgresUnreachable`; whatever else fails is told.
    """
    seen = overview(conn, settings, looks, index=index)
    active = sorted(
        (one for one in generations.of_index(conn, index) if one.active),
        key=lambda one: (one.state != "live", -one.number),
    )
    asked = _Asked(conn, client, active, index, document_id)
    facts = Facts(index, document_id, document_id, conditions=seen.conditions)
    before: Rendered | None = None
    for _ in range(_LOOKS):
        facts, before = _looked(asked, seen, before)
        if not active or not (facts.moving or _drifts(facts)):
            break
    return Explained(facts, decide(facts))


def _drifts(facts: Facts) -> bool:
    return facts.generations[0].comparison in DRIFT and not facts.under_way and not facts.letters


class _Asked:
    """What is asked about, the ways to ask, and what could not be told on them."""

    def __init__(
        self, conn: Connection, client: Client, active: Sequence[Generation], index: str, document_id: str
    ) -> None:
        self.conn = conn
        self.client = client
        self.active = active
        self.index = index
        self.asked = document_id
        self.untold: dict[str, str] = {}
        self.opensearch = ""  # why it told nothing
        self.key = ids.described(active[0].definition) if active else []
        self.possible, self.document_id = self._named(document_id)

    def _named(self, given: str) -> tuple[bool, str]:
        """Return whether a row can have the id, and what the index calls it: as given, where it holds a document of that name."""
        if not self.active:
            return True, given
        name = ids.canonical(self.conn, self.active[0].definition, given)
        if name is None:
            return False, given
        if name != given:
            with suppress(IdxctlError):  # an index that is gone holds none
                held = self.held(self.active[0], given, None)
                if held is not None and held.source is not None:
                    return False, given
        return True, name

    @property
    def nameable(self) -> bool:
        """Whether the database's encoding has the id: otherwise none of its tables can hold it."""
        return not texts.unknown_to(self.document_id, self.conn.encoding)

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Note why *what* could not be looked at: a right that is missing, or the time that it takes."""
        try:
            yield
        except PostgresRefused as error:
            if error.sqlstate not in {_DENIED, _ENDED}:
                raise
            self.untold[what] = "this role may not read it" if error.sqlstate == _DENIED else "it takes too long"

    def rows(self, what: str, statement: Statement, **given: Any) -> list[Record]:
        """Return the rows of a statement of ours, within seconds; none where they cannot be told, which is noted."""
        with (
            self.told(what),
            self.conn.transaction(read_only=True, local={"statement_timeout": _STATEMENT_TIMEOUT}),
        ):
            return self.conn.run(statement, **given).fetchall()
        return []

    def of_document(self, what: str, statement: Statement, **given: Any) -> list[Record]:
        """Return the rows about the document."""
        if not self.nameable:
            return []
        return self.rows(what, statement, index=self.index, document=self.document_id, **given)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Note why OpenSearch told nothing; one that does not answer is not asked again. What it says of one index raises."""
        try:
            yield
        except OpenSearchUnintelligible:
            raise
        except Unreachable as error:
            self.opensearch = error.message

    def held(self, generation: Generation, document_id: str, routing: bytes | None) -> Source | None:
        """Return what the index holds of an id; None where OpenSearch does not answer. Raises its refusals."""
        if self.opensearch:
            return None
        if not keys.is_unicode(document_id):
            return Source(document_id, None, None)
        wanted = orjson.dumps(document_id)
        with self.asking():
            answer = scan.sources_text(
                self.client, generation.name, [wanted], timeout_seconds=_OPENSEARCH_SECONDS,
                routings=None if routing is None else {wanted: routing},
            )  # fmt: skip
            return answer.read([document_id])[0]
        return None


# One look ------------------------------------------------------------------------------------------------------------
@dataclass
class _Looks:
    """Rows by the fingerprint of what renders them."""

    made: dict[str, Rendered] = field(default_factory=dict)

    def at(self, asked: _Asked, generation: Generation) -> Rendered:
        definition = generation.definition
        if definition.render_fingerprint not in self.made:
            self.made[definition.render_fingerprint] = rendered(
                asked.conn, definition, asked.document_id, possible=asked.possible
            )
        return self.made[definition.render_fingerprint]


def _looked(asked: _Asked, seen: Overview, before: Rendered | None) -> tuple[Facts, Rendered | None]:
    """Look at everything once; *before* is the row as the last look read it."""
    since = _last_token(asked)
    looks = _Looks()
    rows = [looks.at(asked, one) for one in asked.active]
    queued, in_flight, fan_outs = _queued(asked), _in_flight(asked, seen), _fan_outs(asked)
    held = _generations(asked, rows)
    lead = held[0] if held else None
    moving = (
        lead is not None
        and lead.version is not None
        and not lead.foreign
        and since is not None
        and lead.version > since
    )
    row = _row(asked, rows[0]) if rows else Row(RowState.UNTOLD)
    facts = Facts(
        asked.index, asked.document_id, asked.asked, key=asked.key, possible=asked.possible, row=row, generations=held,
        queued=queued, in_flight=in_flight, fan_outs=fan_outs, moving=moving,
        unsteady=_unsteady(before, rows[0]) if rows else (),
        letters=_letters(asked), acts=_acts(asked), watches=_watches(asked), conditions=seen.conditions,
        workers=sum(one.indexes is None or asked.index in one.indexes for one in seen.workers),
        opensearch=asked.opensearch,
    )  # fmt: skip
    untold = [f"{what}: {why}" for what, why in asked.untold.items()]
    blind = bool(asked.untold.keys() & {_QUEUE, _IN_FLIGHT})
    return replace(facts, untold=untold, queue_untold=blind), rows[0] if rows else None


_QUEUE, _IN_FLIGHT = "the queue", "what is in flight"


def _row(asked: _Asked, found: Rendered) -> Row:
    row = found.row
    if row.state is not RowState.NONE or not asked.possible:
        return row
    table, there = in_its_table(asked.conn, asked.index, asked.active[0].definition, asked.document_id)
    return replace(row, table=table, in_table=there)


def _unsteady(before: Rendered | None, now: Rendered) -> Sequence[str]:
    """Return what of a row that was read twice was not the same; only where it has not changed meanwhile does that say something."""
    if before is None or not before.text or not now.text or before.text == now.text:
        return ()
    return [one.path for one in differences(parsed_row(before.text), parsed_row(now.text))]


def _last_token(asked: _Asked) -> int | None:
    """Return where the sequence of tokens stands; None for a role that may not read it."""
    may = asked.conn.run(SQL["may_read_sequence"]).fetchone() == (True,)
    return judge.last_token(asked.conn) if may else None


def _queued(asked: _Asked) -> list[Queued]:
    rows = asked.of_document(_QUEUE, SQL["queued"], limit=_MOST_TASKS)
    tasks = [Queued(*row) for row in rows]
    return [
        replace(one, ahead=_ahead(asked, one)) if place == 0 and one.due else one for place, one in enumerate(tasks)
    ]


def _ahead(asked: _Asked, task: Queued) -> int | None:
    rows = asked.rows(
        "how many are before it", SQL["ahead"], index=asked.index, priority=task.priority, available_at=task.available_at,
        id=task.id, limit=_MOST_AHEAD,
    )  # fmt: skip
    return int(rows[0][0]) if rows else None


def _in_flight(asked: _Asked, seen: Overview) -> list[InFlight]:
    alive = {one.id for one in seen.workers}
    rows = asked.of_document(_IN_FLIGHT, SQL["in_flight"])
    return [InFlight(token, worker, worker in alive, *rest) for token, worker, *rest in rows]


def _fan_outs(asked: _Asked) -> FanOuts:
    rows = asked.rows(_QUEUE, SQL["fan_outs"], index=asked.index)
    return FanOuts(*rows[0]) if rows else FanOuts()


# What the indexes hold -----------------------------------------------------------------------------------------------
def _generations(asked: _Asked, rows: Sequence[Rendered]) -> list[Held]:
    refused = {
        generation: Refused(error_type, error, at)
        for generation, error_type, error, at in asked.of_document(
            "what generations refused", SQL["refused"], generations=[one.id for one in asked.active]
        )
    }
    return [
        replace(_held(asked, one, found), refused=refused.get(one.id))
        for one, found in zip(asked.active, rows, strict=True)
    ]


def _held(asked: _Asked, generation: Generation, found: Rendered) -> Held:
    alike = generation.definition.render_fingerprint == asked.active[0].definition.render_fingerprint
    told = Held(generation.name, generation.number, generation.state, Comparison.UNKNOWN, alike=alike)
    try:
        source = asked.held(generation, asked.document_id, found.routing)
        if source is None:
            return replace(told, error=asked.opensearch)
        compared = _compared(generation, found, source)
        told = replace(
            told, comparison=compared, version=source.version, **_drawn(asked, generation, source.version),
            differences=_differences(generation, found, source) if compared is Comparison.STALE else (),
        )  # fmt: skip
        return replace(told, elsewhere=_elsewhere(asked, generation, found))
    except IdxctlError as error:  # an index that is gone, or closed, or not for this role
        return replace(told, error=error.message)


def _compared(generation: Generation, found: Rendered, source: Source) -> Comparison:
    if found.row.state in {RowState.UNREADABLE, RowState.UNTOLD}:
        return Comparison.UNKNOWN
    if found.row.state is RowState.NONE:
        return Comparison.ABSENT if source.source is None else Comparison.ORPHAN
    if source.source is None:
        return Comparison.MISSING
    return Comparison.STALE if _differences(generation, found, source) else Comparison.EQUAL


def _differences(generation: Generation, found: Rendered, source: Source) -> Sequence[Any]:
    return differences(parsed_row(found.text), source.source, generation.definition.verify_ignore)


def _drawn(asked: _Asked, generation: Generation, version: int | None) -> Mapping[str, Any]:
    """Say whose number a version is, and when it was drawn, as far as that is known."""
    if version is None:
        return {}
    if _is_foreign(asked, generation, version):
        return {"foreign": True}
    rows = asked.rows("when tokens were drawn", SQL["drawn"], token=version, index=asked.index)
    after, upto = rows[0] if rows else (None, None)
    return {"token_after": max(filter(None, (after, generation.created_at))), "token_before": upto}


def _is_foreign(asked: _Asked, generation: Generation, version: int) -> bool:
    """Whether a version is surely no token of this database's (T4); a role that may not read the sequence cannot tell."""
    last = _last_token(asked)
    if last is None:
        return False
    with asked.told("ranges of reindexes"):
        if judge.Versions.of(asked.conn, generation).foreign(version, last):
            return True
    return asked.rows("jumps of the sequence", SQL["jumped_over"], version=version) == [(True,)]


def _elsewhere(asked: _Asked, generation: Generation, found: Rendered) -> Sequence[str | None]:
    """Return the routings of copies that stand where a read by the id does not look; as of the last refresh."""
    if not keys.is_unicode(asked.document_id):
        return ()
    with asked.asking():
        copies = scan.everywhere(asked.client, generation.name, asked.document_id, timeout_seconds=_OPENSEARCH_SECONDS)
        return [one.routing for one in copies if one.routing != found.row.routing]
    return ()


# What is known beside ------------------------------------------------------------------------------------------------
def _letters(asked: _Asked) -> list[Dead]:
    if not asked.nameable:
        return []
    chosen = dlq.Selection(index=asked.index, documents=(asked.document_id,))
    letters: list[dlq.Letter] = []
    with asked.told("dead letters"):
        letters = dlq.letters(asked.conn, chosen, limit=_MOST_TASKS)
    past: dict[int, Any] = (
        dict(asked.rows("the past of dead letters", SQL["history"], ids=[one.id for one in letters])) if letters else {}
    )
    return [Dead(**asdict(one), history=past.get(one.id) or ()) for one in letters]


def _acts(asked: _Asked) -> list[Act]:
    acts = [
        Act(*row) for row in asked.of_document("the audit", SQL["acts"], limit=_MOST_ACTS, looked_at=_ACTS_LOOKED_AT)
    ]
    for at, kind, enqueued in asked.of_document("what comparisons found", SQL["verified"]):
        acts.append(Act(at, "verify repair" if enqueued else "verify", None, None, None, None, named=True, found=kind))
    return sorted(acts, key=lambda one: one.at, reverse=True)


def _watches(asked: _Asked) -> list[capture.WatchStatus]:
    with asked.told("watches and their triggers"):
        return capture.installed(asked.conn, asked.index)
    return []
