"""
What can be wrong with an index: every kind there is, once, with its words and the command that fixes it.

Four questions: is what changes captured, are tasks claimed, are documents written, is what was written searched. Which kinds
hold now is found by `idxctl.status`; queue stats, /readyz, the metrics, their alert, the log of a worker and `watch status`
say it in these words. A condition is a kind with facts; its sentence is made from them, and nobody reads one back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from idxctl.core.durations import format_age

Facts = Mapping[str, Any]


class State(str, Enum):
    """How bad it is: look at it some time; act, or documents stay wrong."""

    OK = "ok"
    LOOK = "look"
    ACT = "act"


class Group(str, Enum):
    """The question that a kind belongs to."""

    CAPTURED = "captured"
    CLAIMED = "claimed"
    WRITTEN = "written"
    SEARCHED = "searched"


class Kind(str, Enum):
    """What can be wrong; of several that are as bad, the first here is said first."""

    TABLES_MISSING = "tables_missing"
    CIRCUIT_OPEN = "circuit_open"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    BLOCKED = "blocked"
    PAUSED = "paused"
    HELD = "held"
    STUCK = "stuck"
    SEQUENCE_BEHIND = "sequence_behind"
    INDEX_GONE = "index_gone"
    INDEX_FOREIGN = "index_foreign"
    ALIAS_MISSING = "alias_missing"
    ALIAS_FOREIGN = "alias_foreign"
    ALIAS_SEVERAL = "alias_several"
    NOT_INSTALLED = "not_installed"
    TABLE_SWAPPED = "table_swapped"
    TABLE_GONE = "table_gone"
    TRIGGERS_MISSING = "triggers_missing"
    TRIGGERS_DISABLED = "triggers_disabled"
    TRIGGERS_POWERLESS = "triggers_powerless"
    PARTITION_UNCAPTURED = "partition_uncaptured"
    WRITES_FAIL = "writes_fail"
    GAP = "gap"
    UNWATCHED = "unwatched"
    SHOWS_IGNORED = "shows_ignored"
    REPEATS = "repeats"
    COARSE_WATCH = "coarse_watch"
    COARSE = "coarse"
    TRIGGERS_OUTDATED = "triggers_outdated"
    NO_GENERATION = "no_generation"
    NO_SUCH_INDEX = "no_such_index"
    NO_WORKER = "no_worker"
    QUEUE_FULL = "queue_full"
    DEAD_LETTERS_GROWING = "dead_letters_growing"
    RETIRED_SEARCHED = "retired_searched"
    BEHIND = "behind"
    DRIFT = "drift"
    SCRUB_BEHIND = "scrub_behind"
    DEFINITION_CHANGED = "definition_changed"
    MAY_BE_UNCAPTURED = "may_be_uncaptured"


@dataclass(frozen=True)
class Meaning:
    """A kind in words. ``means`` names no table, role or error: it is for whoever may ask. ``say`` makes the sentence of facts."""

    group: Group
    state: State
    means: str
    say: Callable[[Facts], str]
    fix: str = ""  # a command, with {index}
    alerted: bool = True  # by the alert on conditions; the others have an alert of their own


@dataclass(frozen=True)
class Condition:
    """One thing that is wrong now. ``index`` is "" where it is all of them."""

    kind: Kind
    index: str = ""
    facts: Facts = field(default_factory=dict)
    since: datetime | None = None
    mild: bool = False  # it keeps nothing from anybody now: to look at

    @property
    def group(self) -> Group:
        """The question that it answers."""
        return MEANINGS[self.kind].group

    @property
    def state(self) -> State:
        """How bad it is."""
        return State.LOOK if self.mild else MEANINGS[self.kind].state

    @property
    def reason(self) -> str:
        """The sentence that its facts make."""
        return MEANINGS[self.kind].say({**self.facts, "index": self.index})

    @property
    def fix(self) -> str:
        """The command that ends it, "" where it ends by itself."""
        return MEANINGS[self.kind].fix.format(index=self.index)

    @property
    def means(self) -> str:
        """What it is, without names and values of the installation but the index."""
        means = MEANINGS[self.kind].means
        return f"{self.index}: {means}" if self.index else means

    def shown(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "kind": self.kind.value, "index": self.index or None, "group": self.group.value, "state": self.state.value,
            "reason": self.reason, "since": self.since, "fix": self.fix or None, "facts": dict(self.facts),
        }  # fmt: skip


def worst_first(found: Iterable[Condition]) -> tuple[Condition, ...]:
    """Return conditions in the order in which they are said, each once."""
    once = {(one.kind, one.index, one.reason): one for one in found}
    return tuple(sorted(once.values(), key=lambda one: (one.state is not State.ACT, _PLACE[one.kind], one.index)))


def states(found: Sequence[Condition]) -> dict[str, str]:
    """Return each question with the worst state among its conditions."""
    return {
        group.value: max((one.state for one in found if one.group is group), key=_BADNESS.index, default=State.OK).value
        for group in Group
    }


def _s(count: Any, noun: str, plural: str = "") -> str:
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def _said(template: str) -> Callable[[Facts], str]:
    return template.format_map


def _columns(facts: Facts) -> str:
    columns = facts.get("columns") or ()
    shown = ", ".join(columns[:5]) + (", …" if len(columns) > 5 else "")
    return f" ({shown})" if shown else ""


def _by_way(facts: Facts) -> str:
    return f" by way of view {facts['view']}" if facts.get("view") else ""


def _stuck(facts: Facts) -> str:
    why = (
        f"cannot be taken back: {facts['trouble']}"
        if facts.get("trouble")
        else "long past the lease, taken back by no worker"
    )
    return f"{_s(facts['batches'], 'batch', 'batches')} in flight {why}"


def _may_be(facts: Facts) -> str:
    if facts["hole"] == "opaque":
        return f"{facts['index']}: the document query calls {facts['what']}, whose body may read tables that nobody watches"
    if facts["hole"] == "unrefreshed":
        return f"{facts['index']}: the document query reads {facts['what']}{_by_way(facts)}, whose changes no trigger reports"
    return f"{facts['index']}: the document query reads {facts['what']}{_columns(facts)}{_by_way(facts)}, which its watch ignores"


C, L, W, S = Group.CAPTURED, Group.CLAIMED, Group.WRITTEN, Group.SEARCHED
ACT, LOOK = State.ACT, State.LOOK
_INSTALL = "idxctl watch install"
_REINDEX = "idxctl reindex --index {index}"

MEANINGS: Mapping[Kind, Meaning] = {
    Kind.TABLES_MISSING: Meaning(
        C, ACT, "idxctl's tables are not there, or not as this program needs them", _said("{what}"), "idxctl migrate up"
    ),
    Kind.CIRCUIT_OPEN: Meaning(
        W, ACT, "OpenSearch as a whole fails; workers wait for it and claim nothing",
        _said("{reason}; nothing is lost, no attempt was spent"), alerted=False,
    ),
    Kind.SILENT: Meaning(
        W, ACT, "a request to OpenSearch has been under way for longer than any should take",
        _said("OpenSearch has not answered a request for {seconds:.0f} s; nothing is lost, no attempt was spent"),
    ),
    Kind.UNREACHABLE: Meaning(W, ACT, "OpenSearch does not answer", _said("{reason}")),
    Kind.BLOCKED: Meaning(
        W, ACT, "its writes are refused as a whole; it is tried again, and goes on by itself",
        _said("{index} is paused: {reason}"), alerted=False,
    ),
    Kind.PAUSED: Meaning(
        L, ACT, "an operator paused it", _said("{index} is paused: {reason}"), "idxctl resume --index {index}", alerted=False
    ),
    Kind.HELD: Meaning(
        L, ACT, "a session holds a lock that all claims wait for", _said("claims wait for a lock held by {holders}"),
        "SELECT pg_terminate_backend(pid) ends the session, and its transaction",
    ),
    Kind.STUCK: Meaning(L, ACT, "batches in flight are long past their lease, or cannot be taken back", _stuck, "idxctl worker list"),
    Kind.SEQUENCE_BEHIND: Meaning(
        L, ACT, "the sequence of tokens has gone back behind numbers that were given out: a restore, or a failover",
        _said("the sequence of tokens stands at {last}, behind {given} that was given out; a worker moves it on when it starts"),
        "idxctl worker start",
    ),
    Kind.INDEX_GONE: Meaning(
        S, ACT, "its live index is not in OpenSearch", _said("{index}: the live index {name} is not in OpenSearch"), _REINDEX
    ),
    Kind.INDEX_FOREIGN: Meaning(
        S, ACT, "what bears the name of its live index is not the one that idxctl made",
        _said("{index}: {name} is not the index that idxctl made: it was deleted, and created again by something else"), _REINDEX,
    ),
    Kind.ALIAS_MISSING: Meaning(
        S, ACT, "its alias is gone: nothing can be searched under its name",
        _said("alias {index} is gone; the live index is {name}"),
        'POST _aliases with {{"actions": [{{"add": {{"index": NAME, "alias": "{index}"}}}}]}} puts it back; or ' + _REINDEX,
    ),
    Kind.ALIAS_FOREIGN: Meaning(
        S, ACT, "its alias stands on another index than the live one",
        _said("alias {index} stands on {found}, not on the live index {name}"),
        "move it back to the live index (POST _aliases); or idxctl reindex --index {index} --take-alias",
    ),
    Kind.ALIAS_SEVERAL: Meaning(
        S, ACT, "its alias stands on several indexes: documents are found twice, or of others",
        _said("alias {index} stands on {found}; wanted is {name} alone"), "take the others off it (POST _aliases)",
    ),
    Kind.NOT_INSTALLED: Meaning(
        C, ACT, "its watches are configured and not installed: no change is captured",
        _said("{index}: watches are configured, and none is installed"), _INSTALL,
    ),
    Kind.TABLE_SWAPPED: Meaning(
        C, ACT, "a watched table was swapped by rename: the triggers went away with the old one",
        _said("table {table} is another one since it was swapped by rename: its triggers are on {elsewhere}"), _INSTALL,
    ),
    Kind.TABLE_GONE: Meaning(
        C, ACT, "a watched table was renamed or dropped", _said("watched table {table} is not there: renamed, or dropped"), _INSTALL
    ),
    Kind.TRIGGERS_MISSING: Meaning(
        C, ACT, "triggers of a watched table are gone: its changes are lost", _said("table {table} has lost its triggers"), _INSTALL
    ),
    Kind.TRIGGERS_DISABLED: Meaning(
        C, ACT, "triggers of a watched table are disabled: its changes are lost",
        _said("triggers on table {table} are disabled"), _INSTALL,
    ),
    Kind.TRIGGERS_POWERLESS: Meaning(
        C, ACT, "a trigger function belongs to a role that may not write the queue: changes are lost", _said("{index}: {what}"), _INSTALL
    ),
    Kind.PARTITION_UNCAPTURED: Meaning(
        C, ACT, "a partition of a watched table has no triggers: what is written to it directly is lost",
        _said("partition {partition} of {table} has no triggers yet"), _INSTALL,
    ),
    Kind.WRITES_FAIL: Meaning(
        C, ACT, "a strict watch rests on a column that is not what it was: the application's writes fail", _said("{index}: {what}"), _INSTALL
    ),
    Kind.GAP: Meaning(
        C, ACT, "statements left no task, since the queue was away; a worker looks at every index again",
        lambda facts: f"{_s(facts['statements'], 'statement')} left no task, the queue was away; a worker looks at every index again",
        "idxctl worker start", alerted=False,
    ),
    Kind.UNWATCHED: Meaning(
        C, ACT, "its documents show a table that no watch covers: they stay as they are when it changes",
        lambda facts: f"{facts['index']}: {facts.get('reader', 'the document query')} reads table {facts['what']}{_columns(facts)}"
        f"{_by_way(facts)}, which no watch of this index covers",
        "idxctl watch suggest --index {index}",
    ),
    Kind.SHOWS_IGNORED: Meaning(
        C, ACT, "its documents show a column that its watch ignores: they stay as they are when it changes",
        lambda facts: f"{facts['index']}: the document query shows {facts['what']}{_columns(facts)}, which its watch ignores",
        "take it out of ignore in [indexes.{index}], then idxctl watch install and idxctl queue add --all --index {index}",
    ),
    Kind.REPEATS: Meaning(
        L, ACT, "its batches are claimed and put back, again and again",
        _said("{index}: {batches:,} batches in a row were claimed and put back, none got anywhere"),
        "idxctl queue list --index {index}",
    ),
    Kind.COARSE_WATCH: Meaning(
        C, LOOK, "a column that its capture rests on was renamed or retyped: each change has all of it looked at again",
        _said("{index}: {what}"), _INSTALL,
    ),
    Kind.COARSE: Meaning(
        C, LOOK, "changes could not be distinguished: all of it is looked at again",
        _said("changes of {index} could not be distinguished, all of it is looked at again; idxctl watch status"),
        "idxctl watch status", alerted=False,
    ),
    Kind.TRIGGERS_OUTDATED: Meaning(
        C, LOOK, "its triggers are not those that belong there, or were off for a while", _said("{index}: {what}"), _INSTALL
    ),
    Kind.NO_GENERATION: Meaning(
        W, LOOK, "it has tasks, and no generation to write them to", _said("{index} has no generation yet; idxctl reindex makes one"), _REINDEX
    ),
    Kind.NO_SUCH_INDEX: Meaning(
        L, LOOK, "tasks wait under names that are no index",
        lambda facts: "nothing takes them, there is no index of "
        + ("that name" if facts["names"] == 1 else f"these {facts['names']:,} names"),
        "idxctl watch remove --index NAME",
    ),
    Kind.NO_WORKER: Meaning(
        L, LOOK, "tasks wait, and no worker takes them", _said("no worker is running: idxctl worker start"), "idxctl worker start", alerted=False
    ),
    Kind.QUEUE_FULL: Meaning(
        L, LOOK, "more than nine tenths of the queue's size wait",
        _said("the queue is at {share:.0%} of its size ({size:,} of {capacity:,})"), "idxctl worker start --preset high", alerted=False,
    ),
    Kind.DEAD_LETTERS_GROWING: Meaning(
        W, LOOK, "dead letters keep coming",
        lambda facts: f"{facts['index']}: {_s(facts['letters'], 'dead letter')} in the last ten minutes", "idxctl dlq stats", alerted=False,
    ),
    Kind.RETIRED_SEARCHED: Meaning(
        S, LOOK, "an alias stands on an index that is retired, and no longer written",
        _said("{index}: {aliases} still on {name}, which is retired and no longer written"), "take them off it (POST _aliases)",
    ),
    Kind.BEHIND: Meaning(
        W, LOOK, "a generation that is not live has missed writes",
        _said("{index}: {name}, which is {state}, missed writes or refused them"),
        _REINDEX,
    ),
    Kind.DRIFT: Meaning(
        W, LOOK, "documents differ from their rows, and nothing on its way changes that",
        lambda facts: f"{facts['index']}: {_s(facts['documents'], 'document')} "
        + ("differs from its row" if facts["documents"] == 1 else "differ from their rows"),
        "idxctl verify --index {index} --repair --wait",
    ),
    Kind.SCRUB_BEHIND: Meaning(
        W, LOOK, "its scrub is behind: what differs may not have been seen for longer than was asked for",
        lambda facts: f"{facts['index']}: not all of it was compared with its rows within {format_age(2 * facts['every_seconds'])}, "
        f"twice the scrub's period",
        "idxctl verify --index {index}", alerted=False,
    ),
    Kind.DEFINITION_CHANGED: Meaning(
        W, LOOK, "its configuration is not what the live generation was made from: some of it can be put in place, the rest needs a reindex",
        _said("{index}: {what}; the live generation was made before"), "idxctl index plan --index {index}",
    ),
    Kind.MAY_BE_UNCAPTURED: Meaning(
        C, LOOK, "its documents rest on what capture cannot look into", _may_be,
        "idxctl queue add --where or --all, whenever it changes", alerted=False,
    ),
}  # fmt: skip

_PLACE = {kind: place for place, kind in enumerate(Kind)}
_BADNESS = (State.OK, State.LOOK, State.ACT)
