"""
The decision on a document: is it equal to its row, on its way, or wrong, and why.

A pure function of the facts, which `look` gathers; the words are in `words`.
"""

from __future__ import annotations

import re
from typing import Any

from idxctl.core import conditions
from idxctl.core.conditions import Condition
from idxctl.doctor.facts import DRIFT, Comparison, Dead, Facts, Held, Queued, RowState
from idxctl.doctor.words import Kind, Verdict

_PARTS = re.compile(r"[.\[\]]+")  # between the names in a path of a document
_Conditions = conditions.Kind
_GONE = frozenset({_Conditions.INDEX_GONE, _Conditions.INDEX_FOREIGN})
_NOT_SEARCHED = frozenset({_Conditions.ALIAS_MISSING, _Conditions.ALIAS_FOREIGN, _Conditions.ALIAS_SEVERAL})
_HOLDS = frozenset(
    {
        _Conditions.TABLES_MISSING, _Conditions.CIRCUIT_OPEN, _Conditions.SILENT, _Conditions.UNREACHABLE, _Conditions.BLOCKED,
        _Conditions.PAUSED, _Conditions.HELD, _Conditions.NO_WORKER,
    }
)  # fmt: skip
_LOSES = frozenset(
    {
        _Conditions.NOT_INSTALLED, _Conditions.TABLE_SWAPPED, _Conditions.TABLE_GONE, _Conditions.TRIGGERS_MISSING,
        _Conditions.TRIGGERS_DISABLED, _Conditions.PARTITION_UNCAPTURED, _Conditions.GAP, _Conditions.UNWATCHED,
        _Conditions.SHOWS_IGNORED, _Conditions.TRIGGERS_OUTDATED,
    }
)  # fmt: skip
# What a row shows, and is not captured, makes a document stale; whether there is one at all it rarely decides.
_SHOWN = frozenset({_Conditions.UNWATCHED, _Conditions.SHOWS_IGNORED})


def decide(facts: Facts) -> Verdict:
    """Return the verdict that the facts make: of several reasons the one that must go first."""
    say = _Say(facts)
    if not facts.generations:
        return say(Kind.NO_GENERATION)
    gone = _first(facts, _GONE)
    if gone is not None:
        return say.of(Kind.INDEX_MISSING, gone)
    lead = facts.generations[0]
    if lead.comparison in {Comparison.EQUAL, Comparison.ABSENT}:
        return _agreeing(facts, lead, say)
    waiting = _under_way(facts, lead, say)
    if waiting is not None:
        return waiting
    if facts.letters:
        return say(Kind.DEAD_LETTER, letter=facts.letters[0].id, error=_why(facts.letters[0]))
    if facts.row.state is RowState.UNREADABLE:
        return say(Kind.UNREADABLE, error=facts.row.error, error_type=facts.row.error_type)
    if lead.comparison is Comparison.UNKNOWN or facts.queue_untold:
        return say(Kind.UNKNOWN, error=_unseen(facts, lead))
    if lead.state != "live":
        return say(Kind.BUILDING, generation=lead.generation, comparison=lead.comparison.value)
    return _drifted(facts, lead, say)


class _Say:
    """Makes verdicts on the document of some facts."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def __call__(self, kind: Kind, **said: Any) -> Verdict:
        return Verdict(kind, self._facts.index, self._facts.document_id, said)

    def of(self, kind: Kind, condition: Condition, **said: Any) -> Verdict:
        """Say it with the words and the command of a condition."""
        facts = {**said, "condition": {"kind": condition.kind.value, "reason": condition.reason}}
        return Verdict(kind, self._facts.index, self._facts.document_id, facts, condition.fix)

    def differing(self, kind: Kind, lead: Held, **said: Any) -> Verdict:
        """Say it with how the document differs."""
        return self(kind, **_how(lead), **said)


def _how(lead: Held) -> dict[str, Any]:
    return {"comparison": lead.comparison.value, "fields": [one.path for one in lead.differences]}


def _first(facts: Facts, kinds: frozenset[conditions.Kind]) -> Condition | None:
    return next((one for one in facts.conditions if one.kind in kinds), None)


def _why(letter: Dead) -> str:
    return " ".join((letter.last_error or letter.error_type).split())


def _unseen(facts: Facts, lead: Held) -> str:
    """Return why row and document cannot be compared."""
    row = f"the row cannot be read: {facts.row.error}" if facts.row.state is RowState.UNTOLD else ""
    found = [row, facts.opensearch or lead.error, *facts.untold]
    return "; ".join(one for one in found if one)


def _agreeing(facts: Facts, lead: Held, say: _Say) -> Verdict:
    """Say that row and document agree, and what is wrong all the same."""
    if lead.elsewhere:
        return say.differing(Kind.MISPLACED, lead, elsewhere=list(lead.elsewhere), routing=facts.row.routing)
    if lead.state != "live":
        return say(Kind.BUILDING, generation=lead.generation, comparison=lead.comparison.value)
    if not facts.under_way:
        other = next((one for one in facts.generations[1:] if _lacks(one)), None)
        if other is not None:
            error = other.refused.error if other.refused is not None else ""
            return say(
                Kind.GENERATION_DIFFERS, generation=other.generation, state=other.state,
                comparison=other.comparison.value, error=error,
            )  # fmt: skip
    if lead.comparison is Comparison.EQUAL:
        elsewhere = _first(facts, _NOT_SEARCHED)
        if elsewhere is not None:
            return say.of(Kind.NOT_SEARCHED, elsewhere)
        waiting = len(facts.queued) + len(facts.in_flight)
        return say(Kind.EQUAL, waiting=waiting, letter=facts.letters[0].id if facts.letters else None)
    if not facts.possible:
        return say(Kind.IMPOSSIBLE, key=list(facts.key))
    if facts.row.in_table:
        return say(Kind.FILTERED, table=facts.row.table)
    return say(Kind.NO_ROW, asked=facts.asked)


def _lacks(one: Held) -> bool:
    """Whether a generation that is not live is wrong; one that is being built need not have everything yet."""
    return one.comparison in DRIFT and (one.refused is not None or one.state == "standby")


def _under_way(facts: Facts, lead: Held, say: _Say) -> Verdict | None:
    """Say what is under way, and whether it moves."""
    if facts.in_flight:
        one = facts.in_flight[0]
        if one.trouble is not None:
            stuck = Condition(_Conditions.STUCK, facts.index, {"batches": 1, "trouble": one.trouble})
            return say.of(Kind.HELD_UP, stuck, age_seconds=one.age_seconds)
        return say(Kind.LAGGING, how="in_flight", age_seconds=one.age_seconds, worker=one.worker, alive=one.alive)
    if facts.queued:
        return _queued(facts, min(facts.queued, key=lambda one: one.wait_seconds), say)
    if facts.moving:
        return say(Kind.LAGGING, how="moving", age_seconds=None)
    if facts.fan_outs.waiting and lead.comparison in DRIFT:
        return _fan_out(facts, lead, say)
    return None


def _queued(facts: Facts, task: Queued, say: _Say) -> Verdict:
    if not task.due and not task.tried:
        return say(Kind.SCHEDULED, wait_seconds=task.wait_seconds, task=task.id)
    held = _first(facts, _HOLDS)
    if held is not None:
        return say.of(Kind.HELD_UP, held, age_seconds=task.age_seconds, task=task.id)
    if not task.due:
        return say(
            Kind.RETRIED, age_seconds=task.age_seconds, wait_seconds=task.wait_seconds, attempts=task.attempts,
            error=task.last_error, task=task.id,
        )  # fmt: skip
    return say(Kind.LAGGING, how="queued", age_seconds=task.age_seconds, ahead=task.ahead, task=task.id)


def _fan_out(facts: Facts, lead: Held, say: _Say) -> Verdict:
    held = _first(facts, _HOLDS)
    if held is not None:
        return say.of(Kind.HELD_UP, held, age_seconds=facts.fan_outs.age_seconds or 0.0)
    if facts.fan_outs.error:
        return say.differing(Kind.LOOKUP_FAILS, lead, error=facts.fan_outs.error)
    return say(Kind.LAGGING, how="lookup", age_seconds=facts.fan_outs.age_seconds)


def _drifted(facts: Facts, lead: Held, say: _Say) -> Verdict:
    """Say why a document differs although nothing is under way: the surest cause first."""
    if lead.elsewhere:
        return say.differing(Kind.MISPLACED, lead, elsewhere=list(lead.elsewhere), routing=facts.row.routing)
    if lead.foreign or not facts.possible:
        return say.differing(Kind.ALTERED, lead, version=lead.version, possible=facts.possible)
    witness = next((one for one in facts.generations[1:] if _witnesses(one, lead)), None)
    if witness is not None:
        return say.differing(Kind.ALTERED, lead, version=lead.version, possible=True, witness=witness.generation)
    if facts.unsteady:
        return say(Kind.UNSTEADY, fields=list(facts.unsteady))
    losing = next((one for one in facts.conditions if _lost_it(one, lead)), None)
    if losing is not None:
        return say.of(Kind.NOT_CAPTURED, losing, perhaps=False, **_how(lead))
    last = next((one for one in facts.acts if one.named and one.found is None), None)
    if last is not None and last.action == "queue cancel":
        return say.differing(Kind.CANCELLED, lead, by=last.by, at=last.at)
    may = next((one for one in facts.conditions if _may_have_lost_it(one, lead)), None)
    if may is not None:
        return say.of(Kind.NOT_CAPTURED, may, perhaps=True, **_how(lead))
    return say.differing(Kind.DIFFERS, lead)


def _witnesses(one: Held, lead: Held) -> bool:
    """
    Whether a generation shows that every change was captured and written: the same tasks are written to both.

    One that was built later has seen the rows since, and shows nothing of the kind.
    """
    agrees = one.comparison in {Comparison.EQUAL, Comparison.ABSENT}
    return agrees and one.alike and one.state == "standby" and one.number < lead.number


def _lost_it(condition: Condition, lead: Held) -> bool:
    """Whether a condition surely lost the change that a document lacks."""
    if condition.kind not in _SHOWN:
        return condition.kind in _LOSES
    stale = lead.comparison is Comparison.STALE
    return stale and (condition.kind is _Conditions.UNWATCHED or _of_what_differs(condition, lead))


def _may_have_lost_it(condition: Condition, lead: Held) -> bool:
    """Whether a condition may have lost it; of one on columns the fields that differ tell, by their names."""
    if lead.comparison is not Comparison.STALE:
        return condition.kind is _Conditions.UNWATCHED
    if condition.kind is _Conditions.MAY_BE_UNCAPTURED:
        return condition.facts.get("hole") != "ignored" or _of_what_differs(condition, lead)
    return condition.kind is _Conditions.SHOWS_IGNORED


def _of_what_differs(condition: Condition, lead: Held) -> bool:
    """Whether a column of a condition has the name of a field that differs; without columns it may be any."""
    columns = condition.facts.get("columns") or ()
    names = {part for one in lead.differences for part in _PARTS.split(one.path)}
    return not columns or not names.isdisjoint(columns)
