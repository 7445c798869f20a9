"""
The swap, and the other ends of a run.

G4: the intent is recorded, then the one ``_aliases`` call is made, then the outcome is recorded. Where a run died in
between, the alias decides what happened. G5: whatever stands on the old index moves in that same call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from idxctl.core.errors import IdxctlError, OpenSearchRefused
from idxctl.core.failpoints import reach
from idxctl.indexes import generations
from idxctl.indexes.generations import Generation
from idxctl.indexes.retire import retire
from idxctl.opensearch import aliases, scan
from idxctl.opensearch.client import Client
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection
from idxctl.rebuild import SQL, handover, runs
from idxctl.rebuild.runs import Run

_TRIES = 3  # aliases may be changed by others between a look and the call


@dataclass(frozen=True)
class Swap:
    """What is to be put into service, and in whose place."""

    new: Generation
    old: Generation | None
    foreign: str | None  # an index not ours that the alias stands on
    replace_index: bool
    keep: timedelta
    proved: Sequence[
        tuple[int, int]
    ] = ()  # letters, by number and token, whose documents were found equal after they came
    check: str = "content"  # how the documents were compared with their rows

    @property
    def behind(self) -> str | None:
        """The index that the alias stands on, as far as is known."""
        return self.foreign or (self.old.name if self.old is not None else None)


@dataclass(frozen=True)
class Swapped:
    """What a swap did."""

    letters: int  # dead letters that refusals became
    moved: tuple[str, ...]  # aliases that came along
    amiss: tuple[str, ...] = ()  # sentences about aliases that others changed meanwhile


def swap(conn: Connection, client: Client, run: Run, owner: str, wanted: Swap) -> Swapped:
    """
    Point the alias at the new generation, with all that stands on the old index.

    The old generation stays standby, still written, so that going back is instant and current.
    """
    new = wanted.new
    if generations.states(conn, [new.id]).get(new.id) not in ("building", "standby"):
        raise IdxctlError(
            f"{new.name} was taken out of service while it was built, so it may have missed writes; nothing was swapped",
            hint="run idxctl reindex again",
        )
    moved = _move(conn, client, run, owner, wanted)
    reach("swap.made")
    amiss = _amiss(client, wanted, moved)
    letters = record(conn, run.id, new=new, old=wanted.old, keep=wanted.keep, proved=wanted.proved, check=wanted.check)
    return Swapped(letters, tuple(sorted(set(moved) - {new.index})), amiss)


def _move(conn: Connection, client: Client, run: Run, owner: str, wanted: Swap) -> Mapping[str, Mapping[str, Any]]:
    """Make the one call; returns the aliases that it moved, as they were read right before it."""
    new = wanted.new
    for tried in range(1, _TRIES + 1):
        behind, carried = _standing(client, wanted)
        intent = {
            "swap": {
                "new": new.name,
                "old": behind,
                "replace_index": wanted.replace_index,
                "keep_seconds": wanted.keep.total_seconds(),
                "aliases": carried,
            }
        }
        runs.intend(conn, run, owner, intent)
        reach("swap.intended")
        try:
            aliases.swap(
                client, new.index, new=new.name, old=behind, replace_index=wanted.replace_index, carried=carried
            )
        except OpenSearchRefused as error:
            if error.status != 404 or tried == _TRIES:
                raise
        else:
            return carried
    raise AssertionError


def _standing(client: Client, wanted: Swap) -> tuple[str | None, dict[str, dict[str, Any]]]:
    """
    Return the index that aliases are taken from now, and those that come along.

    From an index that is not ours only our alias is taken: the rest of it goes on.
    """
    index = wanted.new.index
    if wanted.replace_index:
        return index, aliases.standing(client, index) or {}
    behind = wanted.behind
    stands_on = aliases.targets(client, index)
    if behind is None or (stands_on and behind not in stands_on):
        if stands_on and stands_on != [wanted.new.name]:
            raise IdxctlError(
                f"alias {index} does not stand on {behind or 'nothing'} any more but on {', '.join(stands_on)}; "
                "it was moved by others, and nothing was changed",
                hint="look at it (GET _alias), then run idxctl reindex again",
            )
        return None, {}
    held = aliases.standing(client, behind) or {}  # without ours where it was taken away
    if wanted.foreign is not None:
        held = {name: more for name, more in held.items() if name == index}
    return (behind if held else None), held


def _amiss(client: Client, wanted: Swap, moved: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Compare what stands on the new index with what was meant to, and say what others changed meanwhile."""
    try:
        now = aliases.standing(client, wanted.new.name) or {}
        left = (
            aliases.standing(client, wanted.old.name) if wanted.old is not None and wanted.foreign is None else None
        ) or {}
    except IdxctlError as error:  # the swap is made; what is recorded must not depend on this look
        return (f"the aliases of {wanted.new.name} could not be read again: {error}",)
    told = [
        f"alias {name} does not stand on {wanted.new.name} as it stood on {wanted.behind or wanted.new.index}: "
        f"wanted {_shown(more)}, found {_shown(now.get(name))}"
        for name, more in sorted(moved.items())
        if now.get(name) != more
    ]
    told += [
        f"alias {name} was put on {wanted.old.name if wanted.old else ''} during the swap and stays there"
        for name in sorted(left)
    ]
    return tuple(told)


def _shown(more: Mapping[str, Any] | None) -> str:
    return "nothing" if more is None else ", ".join(f"{name} {value}" for name, value in more.items()) or "a plain one"


def record(
    conn: Connection,
    run: int,
    *,
    new: Generation,
    old: Generation | None,
    keep: timedelta,
    proved: Sequence[tuple[int, int]] = (),
    check: str = "content",
) -> int:
    """
    Record a swap that has been made, in one transaction behind the barrier (G2).

    What the new live generation refused while it was building becomes dead letters in the same commit, and what it
    missed becomes tasks (P1). Letters older than all that it holds are healed (T5), since each of its documents was compared,
    and so are those *proved* moot one by one.
    """
    with conn.transaction():
        letters = handover.take_service(conn, new=new, old=old, keep=keep)
        conn.run(
            SQL["heal_rebuilt"],
            index=new.index,
            generation=new.id,
            run=run,
            proved=[letter for letter, _ in proved],
            tokens=[token for _, token in proved],
        )
        handover.write_what_was_missed(conn, new)
        runs.end(conn, run, "swapped" if old is not None else "finished")
        detail = {"live": new.name, "before": old.name if old is not None else None, "check": check}
        audit.record(conn, action="reindex swap", what=new.index, detail=detail)
    reach("swap.recorded")
    return letters


def was_made(client: Client, intent: Mapping[str, Any], generation: Generation) -> bool:
    """G4: whether a swap that was intended has been made; the alias decides."""
    return "swap" in intent and generation.name in aliases.targets(client, generation.index)


def record_made(conn: Connection, run: Run, generation: Generation) -> None:
    """Record a swap that was made by a process that could not record it."""
    keep = timedelta(seconds=float(run.intent["swap"].get("keep_seconds", 0)))
    old = generations.live(conn, generation.index)
    old = old if old is not None and old.id != generation.id else None
    check = str(run.options.get("check", "content"))
    record(conn, run.id, new=generation, old=old, keep=keep, check=check)


def resolve(conn: Connection, client: Client, run: Run, generation: Generation | None) -> str:
    """
    End a run that died; returns "done" when its swap had been made after all, otherwise "abandoned".

    The alias decides (G4). A generation that is not taken into service is retired; its index is deleted later (G3).
    """
    if generation is not None and was_made(client, run.intent, generation):
        record_made(conn, run, generation)
        return "done"
    if generation is not None:
        retire(conn, generation.id)
    elif created := run.intent.get("create"):
        discard(client, created)
    runs.end(conn, run.id, "failed", error="the process that ran it is gone")
    return "abandoned"


def discard(client: Client, name: str) -> None:
    """
    Delete an index that was created and not yet registered, so never written to.

    A template may have given it aliases, and none had the time to take them off. One with documents is not ours (G5).
    """
    held = aliases.standing(client, name)
    if held is None:
        return
    if held:
        aliases.refresh(client, name)
        if scan.count(client, name):
            return
        aliases.take_off(client, name, held)
    aliases.delete_unless_searched(client, name)
