"""
Going back to the generation that was live before, and forward again: its index is there, and was written all the while.

G4: the intent is recorded with the generation that comes into service, then the one ``_aliases`` call is made, then the
outcome is recorded. Where that was cut short, the alias decides what happened. G5: every alias moves in that one call.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from psycopg.types.json import Jsonb

from idxctl.core.errors import IdxctlError, Locked, OpenSearchRefused, OpenSearchUnreachable
from idxctl.core.failpoints import reach
from idxctl.indexes import generations
from idxctl.indexes.generations import Generation
from idxctl.indexes.sizes import Sizes
from idxctl.opensearch import aliases, copies, index_settings
from idxctl.opensearch.client import Client
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection
from idxctl.rebuild import handover, moot, runs
from idxctl.rebuild.handover import SQL

BACK, FORWARD = "rollback", "forward"
_TRIES = 3  # aliases may be changed by others between a look and the call
_NAMED = 5  # documents that a refusal names
_BLOCKS = ("blocks.read_only", "blocks.read_only_allow_delete", "blocks.write", "blocks.metadata")


@dataclass(frozen=True)
class Lacking:
    """Documents that the live generation has and a standby has not: writes that it missed, and refused."""

    missed: int
    refused: int
    examples: tuple[tuple[str, str, str], ...]  # document, type and sentence of the error; the latest first

    @property
    def documents(self) -> int:
        """How many there are."""
        return self.missed + self.refused


@dataclass(frozen=True)
class Turn:
    """What is about to be done: *to* goes live, and *live* is kept as standby."""

    verb: str
    live: Generation
    to: Generation
    aliases: tuple[str, ...]  # that come along, beside the index's own
    lacking: Lacking

    @property
    def index(self) -> str:
        """The alias."""
        return self.live.index


@dataclass(frozen=True)
class Turned:
    """What was done. The names are those of ``-o json``."""

    index: str
    verb: str  # rollback or forward
    generation: str  # that is live now
    previous: str  # that was, and is kept as standby
    standby_until: datetime | None
    aliases: tuple[str, ...]  # that came along
    letters: int  # what the new live generation had refused
    tasks: int  # what it had missed, and is written again
    healed: int  # letters of documents that it holds
    seconds: float
    dry_run: bool = False


# What is to be done ---------------------------------------------------------------------------------------------------


def plan(conn: Connection, client: Client, index: str, verb: str, *, force: bool = False) -> Turn:
    """
    Return what *verb* would do; raises why it cannot be done, and changes nothing.

    With *force* a standby that lacks documents goes live all the same: they are written again, or become letters.
    """
    live, to = _pair(conn, index, verb)
    _require_no_run(conn, index)
    _require_alias(client, live, to)
    _require_index(client, to)
    held = aliases.standing(client, live.name) or {}
    for name, more in held.items():
        if (query := more.get("filter")) is not None and not aliases.fits(client, to.name, query):
            raise IdxctlError(
                f"the filter of alias {name} cannot be one on the mapping of {to.name}, so it could not come along; nothing was changed",
                hint=f"change the filter, or take the alias off {live.name} (POST _aliases)",
            )
    lacking = lacks(conn, to)
    if lacking.documents and not force:
        raise _lacking(to, lacking, verb)
    return Turn(verb, live, to, tuple(sorted(set(held) - {index})), lacking)


def _pair(conn: Connection, index: str, verb: str) -> tuple[Generation, Generation]:
    """Return the live generation, and the one that takes its place: of those older, or newer, the last that was live."""
    known = generations.of_index(conn, index)
    live = next((one for one in known if one.state == "live"), None)
    if live is None:
        raise IdxctlError(f"{index} has no live generation", hint=f"idxctl reindex --index {index} builds one")
    standby = [one for one in known if one.state == "standby"]
    wanted = [one for one in standby if (one.number < live.number) == (verb == BACK)]
    if wanted:
        return live, max(wanted, key=lambda one: (one.live_at or one.created_at, one.number))
    if standby:
        other, way = (FORWARD, "rolled back already") if verb == BACK else (BACK, "the newest already")
        raise IdxctlError(
            f"{index} is {way}: {live.name} is live, {standby[0].name} is kept as standby",
            hint=f"idxctl reindex {other} --index {index} puts {standby[0].name} into service",
        )
    raise IdxctlError(
        f"{index} has no standby generation: {live.name} is live, and no other is kept current",
        hint=f"idxctl reindex --index {index} builds a new one; --keep says how long the one before stays",
    )


def _require_no_run(conn: Connection, index: str) -> None:
    found = runs.open_run(conn, index)
    if found is not None:
        raise Locked(
            f"a reindex of {index} is under way since {found.started_at:%H:%M:%S} ({found.owner}); it could not be swapped afterwards",
            hint="end it first: idxctl reindex cancel, or let it finish",
        )


def _require_alias(client: Client, live: Generation, to: Generation) -> None:
    """Our alias must stand where we left it; moved by hand to where it is to stand, it is as good as made."""
    stands_on = aliases.targets(client, live.index)
    if stands_on not in ([live.name], [to.name]):
        raise IdxctlError(
            f"alias {live.index} stands on {', '.join(stands_on) or 'nothing'}, and not on the live index {live.name}; nothing was changed",
            hint=f"put it back on {live.name} alone (POST _aliases), then run it again",
        )


def _require_index(client: Client, to: Generation) -> None:
    """A standby that is gone, half away or blocked serves nobody."""
    again = f"idxctl reindex --index {to.index} builds a new one from the rows"
    if not aliases.ours(client, to.name, to.index):
        raise IdxctlError(f"the index of standby {to.name} is gone, or is not the one that idxctl made", hint=again)
    if missing := copies.primaries_missing(client, to.name):
        raise IdxctlError(
            f"{missing} primary shard{'s' if missing > 1 else ''} of standby {to.name} {'are' if missing > 1 else 'is'} not there; nothing was changed",
            hint="GET _cluster/allocation/explain says why; once they are there, run it again",
        )
    held = index_settings.held(client, to.name)
    blocks = [name for name in _BLOCKS if held.get(name) == "true"]
    if blocks:
        body = ", ".join(f'"{name}": null' for name in blocks)
        raise IdxctlError(
            f"standby {to.name} is blocked: index.{', index.'.join(blocks)}; nothing was changed",
            hint=f"PUT /{to.name}/_settings {{{body}}} takes it away; a full disk sets it again",
        )


def lacks(conn: Connection, standby: Generation) -> Lacking:
    """Return what a standby lacks that the live generation has."""
    row = conn.run(SQL["lacks"], generation=standby.id, index=standby.index).fetchone()
    missed, refused = row if row is not None else (0, 0)
    if not missed + refused:
        return Lacking(0, 0, ())
    which = conn.run(SQL["lacks_which"], generation=standby.id, index=standby.index, most=_NAMED).fetchall()
    return Lacking(int(missed), int(refused), tuple((str(one), str(kind), str(why)) for one, kind, why in which))


def _lacking(to: Generation, lacking: Lacking, verb: str) -> IdxctlError:
    """Return the refusal of a standby that is not current, with what heals it."""
    ids = [one for one, _, _ in lacking.examples]
    more = ", …" if lacking.documents > len(ids) else ""
    kinds = (
        f"{lacking.missed:,} missed" if lacking.missed else "",
        f"{lacking.refused:,} refused" if lacking.refused else "",
    )
    _, kind, why = lacking.examples[0]
    named = f" --index {to.index}"
    heal = (
        f"idxctl queue add{named} {' '.join(ids)}" if lacking.documents <= _NAMED
        else f"idxctl verify{named} --generation {to.number} --repair --wait"
    )  # fmt: skip
    return IdxctlError(
        f"standby {to.name} is not current: of {lacking.documents:,} documents that the live index has it lacks the last write "
        f"({', '.join(one for one in kinds if one)}): {', '.join(ids)}{more}; {ids[0]}: {kind}: {why}; nothing was changed",
        hint=f"{heal} writes them again, once what refused them is corrected; or idxctl reindex {verb}{named} --force: "
        "what it missed is written again right after, what it refused become dead letters",
    )


# What was cut short ---------------------------------------------------------------------------------------------------


def resolve(conn: Connection, client: Client, index: str) -> Turned | None:
    """
    Record a rollback that was made and not recorded, and return it; one that was not made is forgotten.

    The alias decides (G4). A process that is still at it comes to the same end: the alias moves once, and is recorded.
    """
    for ident, intent in conn.run(SQL["intended"], index=index).fetchall():
        (to,) = generations.by_ids(conn, [ident])
        live = generations.live(conn, index)
        if live is None or aliases.targets(client, index) != [to.name]:
            conn.run(SQL["forget_intent"], id=ident)
            continue
        began = time.monotonic()
        keep = timedelta(seconds=float(intent.get("keep_seconds", 0)))
        turn = Turn(str(intent.get("verb", BACK)), live, to, tuple(intent.get("aliases", ())), lacks(conn, to))
        return _record(conn, turn, keep, turn.aliases, began)
    return None


# Doing it -------------------------------------------------------------------------------------------------------------


def preview(wanted: Turn) -> Turned:
    """Return what `turn` would do."""
    lacking = wanted.lacking
    return Turned(
        wanted.index, wanted.verb, wanted.to.name, wanted.live.name, None, wanted.aliases, lacking.refused, lacking.missed,
        healed=0, seconds=0.0, dry_run=True,
    )  # fmt: skip


def turn(conn: Connection, client: Client, wanted: Turn, *, keep: timedelta) -> Turned:
    """Do what was planned: one call to OpenSearch, and one transaction. `heal` may follow."""
    began = time.monotonic()
    aliases.refresh(client, wanted.to.name)  # an index that nobody searched may show what it held a while ago
    moved = _move(conn, client, wanted, keep)
    reach("rollback.made")
    return _record(conn, wanted, keep, moved, began)


def _move(conn: Connection, client: Client, wanted: Turn, keep: timedelta) -> tuple[str, ...]:
    """Make the one call; returns the aliases that it moved, beside the index's own."""
    live, to = wanted.live, wanted.to
    for tried in range(1, _TRIES + 1):
        _require_alias(client, live, to)
        there = aliases.standing(client, to.name) or {}
        carried = aliases.standing(client, live.name) or {}
        _intend(conn, wanted, keep, carried)
        reach("rollback.intended")
        old = live.name if carried else None
        there = {name: more for name, more in there.items() if name == live.index}
        try:
            aliases.swap(client, live.index, new=to.name, old=old, carried=carried, there=there)
        except OpenSearchUnreachable as error:
            raise OpenSearchUnreachable(
                f"{error.message}; whether the alias was moved is not known",
                hint=f"run idxctl reindex {wanted.verb} --index {live.index} again: the alias tells",
            ) from error
        except OpenSearchRefused as error:
            if error.status != 404 or tried == _TRIES:
                conn.run(SQL["forget_intent"], id=to.id)
                raise
        else:
            return tuple(sorted(set(carried) - {live.index}))
    raise AssertionError


def _intend(conn: Connection, wanted: Turn, keep: timedelta, carried: Mapping[str, Any]) -> None:
    intent = {
        "verb": wanted.verb,
        "from": wanted.live.name,
        "keep_seconds": keep.total_seconds(),
        "aliases": sorted(set(carried) - {wanted.index}),
        "at": datetime.now(timezone.utc).isoformat(),
    }
    if conn.run(SQL["intend"], id=wanted.to.id, intent=Jsonb(intent)).fetchone() is None:
        raise Locked(
            f"{wanted.to.name} is standby no longer: it was retired, or put into service, by another process; nothing was changed",
            hint="idxctl reindex status shows the generations",
        )


def _record(conn: Connection, made: Turn, keep: timedelta, moved: tuple[str, ...], began: float) -> Turned:
    """Record it behind the barrier (G2), with its row of the audit; once, whichever process comes to it first."""
    letters = tasks = 0
    with conn.transaction():
        generations.lock_set(conn, exclusive=True)
        if generations.states(conn, [made.to.id]).get(made.to.id) == "standby":
            letters = handover.take_service(conn, new=made.to, old=made.live, keep=keep)
            tasks = handover.write_what_was_missed(conn, made.to)
            detail = {
                "live": made.to.name,
                "before": made.live.name,
                "aliases": list(moved),
                "letters": letters,
                "tasks": tasks,
            }
            audit.record(conn, action=f"reindex {made.verb}", what=made.index, detail=detail)
        conn.run(SQL["forget_intent"], id=made.to.id)
    reach("rollback.recorded")
    (before,) = generations.by_ids(conn, [made.live.id])
    seconds = round(time.monotonic() - began, 3)
    return Turned(
        made.index,
        made.verb,
        made.to.name,
        made.live.name,
        before.standby_until,
        moved,
        letters,
        tasks,
        healed=0,
        seconds=seconds,
    )


def heal(conn: Connection, client: Client, index: str) -> int:
    """
    Clear letters whose documents the live generation holds as their rows are; returns how many.

    They are of the generation that was live before. Each document is compared (T5), so nothing rests on what was counted; one
    that is not proved stays, and may be retried.
    """
    live = generations.live(conn, index)
    if live is None:
        return 0
    standing = conn.run(SQL["standing_letters"], index=index, generation=live.id).fetchall()
    sizes, healed = Sizes(), 0
    for at in range(0, len(standing), moot.AT_ONCE):
        proved = moot.proved(conn, client, live, standing[at : at + moot.AT_ONCE], sizes)
        letters, tokens = [one for one, _ in proved], [one for _, one in proved]
        healed += conn.run(SQL["heal_proved"], letters=letters, tokens=tokens).rowcount if proved else 0
    return healed
