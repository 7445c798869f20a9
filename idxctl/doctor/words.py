"""
What can be said of a document, in one line: every kind there is, once, with its words and the command that helps.

A verdict is a kind with facts, as a condition is: its sentence is made from them, and nobody reads one back.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from idxctl.core.conditions import State
from idxctl.core.durations import format_age, format_counted
from idxctl.core.to_json import plain_value
from idxctl.doctor.facts import Comparison

Said = Mapping[str, Any]
_FIELDS = 3  # that a line names


class Kind(str, Enum):
    """What can be said of a document."""

    EQUAL = "equal"
    NO_ROW = "no_row"
    FILTERED = "filtered"
    IMPOSSIBLE = "impossible"
    BUILDING = "building"
    LAGGING = "lagging"
    RETRIED = "retried"
    SCHEDULED = "scheduled"
    HELD_UP = "held_up"
    LOOKUP_FAILS = "lookup_fails"
    DEAD_LETTER = "dead_letter"
    UNREADABLE = "unreadable"
    NO_GENERATION = "no_generation"
    INDEX_MISSING = "index_missing"
    NOT_SEARCHED = "not_searched"
    GENERATION_DIFFERS = "generation_differs"
    MISPLACED = "misplaced"
    ALTERED = "altered"
    UNSTEADY = "unsteady"
    NOT_CAPTURED = "not_captured"
    CANCELLED = "cancelled"
    DIFFERS = "differs"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Meaning:
    """A kind in words: what it means, the sentence that its facts make, and the command that helps, with {index} and {add}."""

    state: State
    means: str
    say: Callable[[Said], str]
    fix: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is said of a document. ``fix`` overrides its kind's, where another list has the words."""

    kind: Kind
    index: str
    document_id: str
    facts: Said = field(default_factory=dict)
    helps: str = ""

    @property
    def state(self) -> State:
        """OK, look: it is on its way, or act: it stays as it is until someone does."""
        return MEANINGS[self.kind].state

    @property
    def reason(self) -> str:
        """The line."""
        return MEANINGS[self.kind].say({**self.facts, "index": self.index, "document_id": self.document_id})

    @property
    def fix(self) -> str:
        """The command that helps, "" where none is needed."""
        given = {"index": self.index, "add": _add(self.index, self.document_id), "letter": self.facts.get("letter")}
        return self.helps or MEANINGS[self.kind].fix.format_map(given)

    def shown(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "kind": self.kind.value, "state": self.state.value, "reason": self.reason, "fix": self.fix or None,
            "facts": plain_value(dict(self.facts)),
        }  # fmt: skip


def _add(index: str, document_id: str) -> str:
    """Return the command that writes a document again."""
    dashes = "-- " if document_id.startswith("-") else ""
    return f"idxctl queue add --index {shlex.quote(index)} {dashes}{shlex.quote(document_id)}"


# Words ---------------------------------------------------------------------------------------------------------------
def _said(template: str) -> Callable[[Said], str]:
    return template.format_map


def _named(fields: Sequence[str]) -> str:
    more = f" and {len(fields) - _FIELDS} more" if len(fields) > _FIELDS else ""
    return ", ".join(fields[:_FIELDS]) + more


def _how_it_differs(facts: Said) -> str:
    """Return the first words of a line on what differs."""
    if facts["comparison"] == Comparison.MISSING.value:
        return "missing from the index"
    if facts["comparison"] == Comparison.ORPHAN.value:
        return "no row, and the index holds it"
    return f"stale: differs in {_named(facts['fields'])}"


def _lagging(facts: Said) -> str:
    age = f"lagging {format_age(facts['age_seconds'])}" if facts.get("age_seconds") is not None else "lagging"
    how = facts["how"]
    if how == "in_flight":
        gone = "" if facts["alive"] else ", which is not heard of: it is taken back when its lease lapses"
        return f"{age}: in flight with worker {facts['worker']}{gone}"
    if how == "lookup":
        return f"{age}: a lookup, or a look at the whole index, is under way that may be about it"
    if how == "moving":
        return "lagging: it was written while this looked"
    ahead = f", behind {facts['ahead']:,}" if facts.get("ahead") else ""
    return f"{age}: queued{ahead}"


def _retried(facts: Said) -> str:
    attempts = f"attempt {facts['attempts']} failed, " if facts["attempts"] else ""
    why = f": {facts['error']}" if facts["error"] else ""
    return (
        f"lagging {format_age(facts['age_seconds'])}: {attempts}tried again in {format_age(facts['wait_seconds'])}{why}"
    )


def _equal(facts: Said) -> str:
    waits = f"; {format_counted(facts['waiting'], 'task')} of it waiting" if facts["waiting"] else ""
    letter = f"; dead letter {facts['letter']} is left of an earlier failure" if facts["letter"] else ""
    return f"equal{waits}{letter}"


def _no_row(facts: Said) -> str:
    if facts.get("asked", facts["document_id"]) != facts["document_id"]:
        return f"no row: {facts['document_id']} was deleted, or was never there"
    return "no row: deleted, or never there"


def _misplaced(facts: Said) -> str:
    def named(routing: str | None) -> str:
        return "no routing" if routing is None else f"routing {routing}"

    copies = ", ".join(named(one) for one in facts["elsewhere"])
    what = (
        "a second copy stands"
        if facts["comparison"] == Comparison.EQUAL.value
        else f"{_how_it_differs(facts)}: it stands"
    )
    return f"{what} under {copies}, and belongs under {named(facts['routing'])}"


def _altered(facts: Said) -> str:
    if not facts["possible"]:
        return "no row, and no row can have this id: something other than idxctl wrote it"
    if facts.get("witness"):
        return f"{_how_it_differs(facts)}: something else changed it here; {facts['witness']}, which the same tasks are written to, is right"
    return f"{_how_it_differs(facts)}: version {facts['version']} is none of this database's: something else wrote it, or a restore forgot it"


def _sqlstate(error_type: str) -> str:
    return f" [{error_type.removeprefix('sql_')}]" if error_type.startswith("sql_") else ""


def _generation(facts: Said) -> str:
    why = f": {facts['error']}" if facts["error"] else ""
    return (
        f"right in the live index; {facts['generation']}, which is {facts['state']}, has it {facts['comparison']}{why}"
    )


def _cancelled(facts: Said) -> str:
    by = f" by {facts['by']}" if facts["by"] else ""
    return f"{_how_it_differs(facts)}: its task was cancelled{by} at {facts['at']:%Y-%m-%d %H:%M:%S}"


def _differs(facts: Said) -> str:
    return (
        f"{_how_it_differs(facts)}; nothing is under way and capture is in place: the index was changed behind idxctl's "
        "back, or a change was not captured"
    )


OK, LOOK, ACT = State.OK, State.LOOK, State.ACT
_REINDEX = "idxctl reindex --index {index}"

MEANINGS: Mapping[Kind, Meaning] = {
    Kind.EQUAL: Meaning(OK, "the index holds the document that its row makes", _equal),
    Kind.NO_ROW: Meaning(OK, "neither a row nor a document", _no_row),
    Kind.FILTERED: Meaning(
        OK, "its table has the row, the document query leaves it out, and the index does not hold it",
        _said("no row: {table} has it, and the document query leaves it out"),
    ),
    Kind.IMPOSSIBLE: Meaning(
        LOOK, "no row can have such an id, and the index does not hold it",
        lambda facts: f"no row can have the id {facts['document_id']}: the key of {facts['index']} is {', '.join(facts['key'])}",
    ),
    Kind.BUILDING: Meaning(
        LOOK, "the first generation is being built", _said("{generation} is being built, and nothing is searched yet: {comparison} so far"),
        "idxctl queue stats --index {index}",
    ),
    Kind.LAGGING: Meaning(LOOK, "a task waits for it, or a worker has it", _lagging),
    Kind.RETRIED: Meaning(LOOK, "an attempt failed, and it is tried again by itself", _retried),
    Kind.SCHEDULED: Meaning(
        LOOK, "it was enqueued for a later moment", lambda facts: f"queued for later, due in {format_age(facts['wait_seconds'])}"
    ),
    Kind.HELD_UP: Meaning(
        ACT, "a task waits for it, and nothing takes it",
        lambda facts: f"lagging {format_age(facts['age_seconds'])}: {facts['condition']['reason']}",
        "idxctl queue stats --index {index}",
    ),
    Kind.LOOKUP_FAILS: Meaning(
        ACT, "it differs, and a lookup that may be about it fails", lambda facts: f"{_how_it_differs(facts)}: a lookup fails: {facts['error']}",
        "idxctl queue list --index {index}",
    ),
    Kind.DEAD_LETTER: Meaning(
        ACT, "its last change could not be indexed", _said("dead letter {letter}: {error}"), "idxctl dlq retry {letter}"
    ),
    Kind.UNREADABLE: Meaning(
        ACT, "the document query fails for it", lambda facts: f"its document cannot be made: {facts['error']}{_sqlstate(facts['error_type'])}",
    ),
    Kind.NO_GENERATION: Meaning(ACT, "the index has not been built", _said("{index} has no generation yet: nothing is indexed"), _REINDEX),
    Kind.INDEX_MISSING: Meaning(
        ACT, "its live index is gone, or another one of that name", lambda facts: facts["condition"]["reason"], _REINDEX
    ),
    Kind.NOT_SEARCHED: Meaning(
        ACT, "the live index holds it, and its alias does not stand there",
        lambda facts: f"equal in the live index, which is not what is searched: {facts['condition']['reason']}",
    ),
    Kind.GENERATION_DIFFERS: Meaning(ACT, "a generation that is not live lacks a write of it", _generation, _REINDEX),
    Kind.MISPLACED: Meaning(
        ACT, "a copy stands under another routing than its own", _misplaced, "idxctl verify --index {index} --repair --wait"
    ),
    Kind.ALTERED: Meaning(
        ACT, "its version is no token of this database's, or another generation shows that its changes were written", _altered, "{add}"
    ),
    Kind.UNSTEADY: Meaning(
        ACT, "the document query makes another document of the same row each time",
        lambda facts: f"the document query makes {_named(facts['fields'])} anew each time: it reads the clock, or what is random",
        "name these fields in verify_ignore of [indexes.{index}], or take them out of the document query",
    ),
    Kind.NOT_CAPTURED: Meaning(
        ACT, "it differs, nothing is under way, and what changes it is not captured",
        lambda facts: f"{'perhaps ' if facts['perhaps'] else ''}not captured: {facts['condition']['reason']}",
    ),
    Kind.CANCELLED: Meaning(ACT, "an operator took its task out of the queue", _cancelled, "{add}"),
    Kind.DIFFERS: Meaning(ACT, "it differs, nothing is under way, and nothing says why", _differs, "{add}"),
    Kind.UNKNOWN: Meaning(ACT, "row or document could not be looked at", _said("unknown: {error}")),
}  # fmt: skip
