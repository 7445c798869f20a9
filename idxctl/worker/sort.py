"""Sort the answers of a batch: what becomes of each task, and what they say of the index and the cluster. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from idxctl.core import backoff
from idxctl.core.reasons import Reason
from idxctl.indexes.generations import Generation
from idxctl.queue.claim import Batch, Task
from idxctl.queue.outcomes import MISSED, Again, Failure, Outcomes
from idxctl.worker import outcomes
from idxctl.worker.outcomes import DONE, REFUSALS, Cause, Kind, Verdict
from idxctl.worker.written import Written

_AT_ONCE = {outcomes.FOREIGN_VERSION, outcomes.TOO_OLD}  # what a new token fixes
_PAUSES = frozenset({Kind.BLOCKED, Kind.GONE})  # the index's trouble
_GREATEST_VERSION = 2**62  # beyond it the sequence could not be moved past a foreign version


@dataclass(frozen=True)
class Sorted:
    """A batch's outcomes, and what they say about the index and the cluster."""

    outcomes: Outcomes
    blocked: Reason | None = None  # why the index must be paused
    unreachable: Reason | None = None  # why a whole request failed for want of a server, for the breaker
    overloaded: Reason | None = None  # what OpenSearch said that refused something for overload
    jumped_past: int | None = (
        None  # the greatest version that this database did not draw: its sequence is to be moved past it (T4)
    )
    superseded: int = 0


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
    batch: Batch,
    generations: Sequence[Generation],
    written: Written,
    states: Mapping[int, str],
    foreign: Collection[int] = (),
) -> Sorted:
    """
    Turn verdicts into the outcome of each task.

    *states* are the generations' states as they are now: one that was retired meanwhile is left out (G3), and one that is
    not live never holds the live one up. *foreign* are those of `versions_met` that this database did not draw (T4).
    """
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
    past = max((one for one in foreign if one < _GREATEST_VERSION), default=None)
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


def _conflict(verdict: Verdict, foreign: Collection[int]) -> Verdict:
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
    dead = [(one, verdict) for one, verdict in living if verdict.kind in REFUSALS]
    lists.failed += [_failure(task, verdict, one) for one, verdict in dead]
    lists.blamed += [_failure(task, verdict, one) for one, verdict in others if verdict.kind in REFUSALS]
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


def versions_met(written: Written) -> set[int]:
    """T4: return the versions that conflicts have named."""
    named = {outcomes.current_version(one.reason) for one in written.verdicts.values() if one.kind is Kind.SUPERSEDED}
    return {one for one in named if one is not None}
