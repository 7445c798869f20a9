"""
The row of a comparison, and verbs over it: begin, take a range, say what was found, advance, finish.

No process owns it: any number of them take ranges under leases, and what one leaves behind another goes on with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from psycopg.types.json import Jsonb

from idxctl.core import texts
from idxctl.core.errors import Locked, UsageError
from idxctl.opensearch.scan import Slice
from idxctl.postgres.connect import Connection
from idxctl.verify import SQL
from idxctl.verify.judge import Judged, Kind

ALIVE_SECONDS = 30.0  # a comparison that was not heard of for longer is carried on by nobody
_PAGE = 1000


@dataclass(frozen=True)
class Run:
    """A comparison that is not finished."""

    id: int
    index: str
    generation: int
    state: str
    options: Mapping[str, Any]
    owner: str
    started_at: datetime
    silent_seconds: float

    @property
    def alive(self) -> bool:
        """Whether a process is at it."""
        return self.silent_seconds < ALIVE_SECONDS


@dataclass(frozen=True)
class Range:
    """Keys to compare (*after* exclusive, *upto* inclusive, None open), or a *part* of the index's ids to look up."""

    number: int
    after: Sequence[str] | None
    upto: Sequence[str] | None
    part: Slice | None = None


@dataclass(frozen=True)
class Found:
    """A document that is no equal of its row, as it is stored; ``routing`` is of a copy that stands under another one."""

    id: int
    document_id: str
    kind: Kind
    routing: str | None = None


@dataclass(frozen=True)
class Count:
    """
    How many of one kind: all, those that somebody else wrote, those enqueued to be written again, those that are dead letters.

    ``left`` are those that are neither.
    """

    all: int = 0
    foreign: int = 0
    enqueued: int = 0
    dead: int = 0
    left: int = 0


def open_run(conn: Connection, index: str, *, scrub: bool = False) -> Run | None:
    """Return the comparison of *index* that is not finished, if there is one: one that somebody runs, or a *scrub*."""
    row = conn.run(SQL["open_run"], index=index, scrub=scrub).fetchone()
    return None if row is None else Run(*row)


def begin(conn: Connection, index: str, generation: int, options: Mapping[str, Any], owner: str) -> Run:
    """Begin a comparison; one that nobody carries on is dropped for it. Raises `Locked` while somebody does."""
    before = open_run(conn, index)
    if before is not None and before.alive:
        raise Locked(
            f"{index} is being verified by {before.owner}, since {before.started_at:%H:%M:%S}",
            hint="take a part in it: idxctl verify --resume",
        )
    if before is not None:
        abandon(conn, before)
    if not insert(conn, index, generation, options, owner):
        raise Locked(f"{index} is being verified by another process", hint="take a part in it: idxctl verify --resume")
    made = open_run(conn, index)
    if made is None:
        raise Locked(f"the comparison of {index} was ended by another process")
    return made


def insert(
    conn: Connection, index: str, generation: int, options: Mapping[str, Any], owner: str, *, scrub: bool = False
) -> bool:
    """Begin a comparison, and drop what earlier ones left; False where there is one of its kind."""
    with conn.transaction():
        conn.run(SQL["tidy"], index=index)
        row = conn.run(
            SQL["begin"], index=index, generation=generation, options=Jsonb(dict(options)), owner=owner, scrub=scrub
        ).fetchone()
    return row is not None


def abandon(conn: Connection, run: Run) -> None:
    """Drop a comparison that nobody carries on."""
    conn.run(SQL["abandon"], run=run.id)


def resume(conn: Connection, index: str) -> Run:
    """Return the comparison of *index* to go on with; raises `UsageError` where there is none."""
    found = open_run(conn, index)
    if found is None:
        raise UsageError(f"no comparison of {index} waits to be resumed", hint="idxctl verify begins one")
    if not found.alive:  # whoever had its ranges is gone
        conn.run(SQL["release"], run=found.id, owner=None)
    return found


def beat(conn: Connection, run: Run) -> None:
    """Say that somebody is at it; raises `Locked` when it was ended by another process."""
    if conn.run(SQL["beat"], run=run.id).fetchone() is None:
        raise Locked(f"the comparison of {run.index} was ended by another process")


def leave(conn: Connection, run: Run, owner: str) -> None:
    """Say that this process is not at it any more, nor at its ranges; another one that is says so again within seconds."""
    conn.run(SQL["release"], run=run.id, owner=owner)
    conn.run(SQL["leave"], run=run.id)


def state(conn: Connection, run: Run) -> str | None:
    """Return how far it is; None when it is over."""
    row = conn.run(SQL["state"], run=run.id).fetchone()
    return None if row is None else str(row[0])


def retake(conn: Connection, run: Run, owner: str, *, gone: Sequence[str] = ()) -> Range | None:
    """Take a range that nobody is at: its process was not heard of for the length of its lease, or is one of *gone*."""
    row = conn.run(SQL["retake"], run=run.id, owner=owner, gone=list(gone)).fetchone()
    if row is None:
        return None
    number, after, upto, part, parts = row
    return Range(number, after, upto, None if part is None else Slice(part, parts))


def renew(conn: Connection, run: Run, number: int, owner: str) -> None:
    """Say that *owner* is still at a range."""
    conn.run(SQL["renew"], run=run.id, number=number, owner=owner)


@dataclass(frozen=True)
class Plan:
    """Up to which key ranges have been made; whether that is *all*."""

    upto: Sequence[str] | None
    all: bool


def plan(conn: Connection, run: Run) -> Plan | None:
    """Return how far ranges have been made; None once the comparison is further."""
    row = conn.run(SQL["plan"], run=run.id).fetchone()
    return None if row is None else Plan(*row)


def planned(conn: Connection, run: Run, before: Plan, upto: Sequence[str] | None) -> bool:
    """Note that ranges have been made up to *upto*, None all of them; False where that is no longer as *before* says."""
    row = conn.run(
        SQL["planned"], run=run.id, all=upto is None,
        upto=None if upto is None else list(upto), before=None if before.upto is None else list(before.upto),
    ).fetchone()  # fmt: skip
    return row is not None


def add_range(
    conn: Connection, run: Run, before: Plan, after: Sequence[str] | None, upto: Sequence[str] | None, owner: str
) -> Range | None:
    """Make a range that *owner* takes; None where another process has made the next one since *before*."""
    with conn.transaction():
        if not planned(conn, run, before, upto):
            return None
        row = conn.run(
            SQL["add_range"], run=run.id, owner=owner,
            after=None if after is None else list(after), upto=None if upto is None else list(upto),
        ).fetchone()  # fmt: skip
    return None if row is None else Range(row[0], after, upto)


def range_done(conn: Connection, run: Run, number: int, checked: int, found: Sequence[tuple[str, Judged]]) -> bool:
    """Note what was found in a range; False where another process was first, and nothing is noted twice."""
    with conn.transaction():
        if conn.run(SQL["range_done"], run=run.id, number=number, checked=checked).fetchone() is None:
            return False
        _note(conn, run, found)
    return True


def _note(conn: Connection, run: Run, found: Sequence[tuple[str, Judged]]) -> None:
    for at in range(0, len(found), _PAGE):
        part = found[at : at + _PAGE]
        unnameable = [
            any(texts.unknown_to(text, conn.encoding) for text in (name, one.routing or "")) for name, one in part
        ]
        conn.run(
            SQL["found"],
            run=run.id,
            ids=[conn.storable(name) if no else name for (name, _), no in zip(part, unnameable, strict=True)],
            kinds=[one.kind.value for _, one in part],
            fields=[_json([conn.storable(each) for each in one.fields]) for _, one in part],
            foreign=[one.foreign for _, one in part],
            unnameable=unnameable,
            routings=[None if one.routing is None else conn.storable(one.routing) for _, one in part],
        )


def judged(conn: Connection, found: Iterable[Found], said: Mapping[int, Judged]) -> None:
    """Note what a second look says, by the number of what was found; documents that are equal now go."""
    rows = []
    for one in found:
        new = said.get(one.id)
        rows.append(
            {
                "id": one.id, "kind": None if new is None else new.kind.value,
                "fields": [] if new is None else [conn.storable(each) for each in new.fields],
                "foreign_version": new is not None and new.foreign,
            }
        )  # fmt: skip
    conn.run(SQL["judged"], judged=_json(rows))


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def advance(conn: Connection, run: Run, of: str, to: str, owner: str) -> bool:
    """Go from one part to the next, once."""
    return conn.run(SQL["advance"], run=run.id, of=of, to=to, owner=owner).fetchone() is not None


def take_over(conn: Connection, run: Run, part: str, owner: str, *, gone: Sequence[str] = ()) -> bool:
    """Whether *owner* carries on a part that one process alone does: it had it, or nobody was heard of."""
    return conn.run(SQL["take_over"], run=run.id, state=part, owner=owner, gone=list(gone)).fetchone() is not None


def begin_ids(conn: Connection, run: Run, slices: int, owner: str) -> None:
    """Go from the rows to the ids, which are looked up in so many *slices*; once."""
    with conn.transaction():
        if advance(conn, run, "rows", "ids", owner):
            conn.run(SQL["add_slices"], run=run.id, slices=slices)


def ranges_open(conn: Connection, run: Run) -> bool:
    """Whether ranges are still to be made or compared."""
    row = conn.run(SQL["open_ranges"], run=run.id).fetchone()
    return row is not None and bool(row[0])


def checked(conn: Connection, run: Run, *, slices: bool = False) -> int:
    """Return how many documents have been compared with their rows; with *slices*, how many ids have been looked up."""
    row = conn.run(SQL["checked"], run=run.id, slices=slices).fetchone()
    return int(row[0]) if row else 0


def lagging(conn: Connection, run: Run) -> Iterator[list[Found]]:
    """Yield pages of those that were lagging."""
    after = 0
    while page := conn.run(SQL["lagging"], run=run.id, after=after, limit=_PAGE).fetchall():
        yield [Found(ident, name, Kind.LAGGING) for ident, name in page]
        after = page[-1][0]


def differing(conn: Connection, run: Run, *, enqueued: bool, but_dead: bool = False) -> Iterator[list[Found]]:
    """Yield pages of those that drifted: that were *enqueued* to be written again, or were not; *but_dead*: are no dead letters."""
    after = 0
    chosen = {"run": run.id, "index": run.index, "limit": _PAGE, "enqueued": enqueued, "but_dead": but_dead}
    while page := conn.run(SQL["differing"], after=after, **chosen).fetchall():
        yield [Found(ident, name, Kind(kind), routing) for ident, name, kind, routing in page]
        after = page[-1][0]


def enqueued(conn: Connection, run: Run, found: Iterable[Found]) -> None:
    """Note what was enqueued to be written again."""
    conn.run(SQL["enqueued"], run=run.id, ids=[one.id for one in found])


def counts(conn: Connection, run: Run) -> dict[Kind, Count]:
    """Return what was found."""
    found = {Kind(kind): Count(*rest) for kind, *rest in conn.run(SQL["counts"], run=run.id, index=run.index)}
    return {kind: found.get(kind, Count()) for kind in Kind}


def examples(conn: Connection, run: Run, limit: int) -> list[tuple[str, Judged]]:
    """Return some of what differs, of each kind."""
    rows = conn.run(SQL["examples"], run=run.id, limit=limit)
    return [(name, Judged(Kind(kind), tuple(fields), routing=routing)) for name, kind, fields, routing in rows]


def finish(conn: Connection, run: Run, result: Mapping[str, Any]) -> None:
    """End it, with its counts."""
    conn.run(SQL["finish"], run=run.id, result=Jsonb(dict(result)))
