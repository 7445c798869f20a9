"""The line on a document, from facts alone: of several reasons the one that must go first."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from idxctl.core.conditions import Condition, State
from idxctl.core.conditions import Kind as Wrong
from idxctl.core.errors import UsageError
from idxctl.doctor import ids
from idxctl.doctor.facts import (
    Comparison,
    Dead,
    Difference,
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
from idxctl.doctor.verdict import decide
from idxctl.doctor.words import MEANINGS, Kind
from idxctl.indexes.definitions import Definition

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
LIVE = Held("shop-000002", 2, "live", Comparison.EQUAL, 41)
STALE = replace(
    LIVE, comparison=Comparison.STALE, differences=(Difference("price", 1, 2), Difference("tags[1]", "a", "b"))
)
MISSING = replace(LIVE, comparison=Comparison.MISSING, version=None)
TASK = Queued(5, "index", 0, 0, "trigger", NOW, NOW, 3.4, -1.0, None)
LETTER = Dead(
    4711, "shop", "7", "index", 3, "mapper_parsing_exception", "price: not\na number", NOW, NOW, True, "7c1f09", 0
)
FLIGHT = InFlight(42, "host:1:a", True, "index", 0, "trigger", NOW, NOW, 0.2, 29.0, None)
FOUND = Row(RowState.FOUND, {"price": 1}, 11)
NO_WORKER = Condition(Wrong.NO_WORKER)
PAUSED = Condition(Wrong.PAUSED, "shop", {"reason": "migration"})
UNWATCHED = Condition(Wrong.UNWATCHED, "shop", {"what": "extras"})
IGNORED = Condition(Wrong.SHOWS_IGNORED, "shop", {"what": "listings", "columns": ["seen"]})
MAY_BE = Condition(Wrong.MAY_BE_UNCAPTURED, "shop", {"hole": "ignored", "what": "listings", "columns": ["seen"]})
SEEN = replace(STALE, differences=(Difference("stats.seen", 1, 2),))
TRIGGERS_OFF = Condition(Wrong.TRIGGERS_DISABLED, "shop", {"table": "listing_images"})


def line(lead: Held = LIVE, *others: Held, **more) -> tuple[Kind, str]:
    facts = Facts("shop", "7", "7", ("id (bigint)",), **{"row": FOUND, "generations": (lead, *others), **more})
    found = decide(facts)
    assert found.state is MEANINGS[found.kind].state
    return found.kind, found.reason


@pytest.mark.parametrize(
    ("facts", "kind", "reason"),
    [
        ({}, Kind.EQUAL, "equal"),
        ({"queued": (TASK,)}, Kind.EQUAL, "equal; 1 task of it waiting"),
        ({"letters": (LETTER,)}, Kind.EQUAL, "equal; dead letter 4711 is left of an earlier failure"),
        ({"conditions": (TRIGGERS_OFF, PAUSED)}, Kind.EQUAL, "equal"),
        ({"lead": STALE, "queued": (TASK,)}, Kind.LAGGING, "lagging 3 s: queued"),
        ({"lead": STALE, "queued": (replace(TASK, ahead=1200),)}, Kind.LAGGING, "lagging 3 s: queued, behind 1,200"),
        ({"lead": STALE, "queued": (TASK,), "in_flight": (FLIGHT,), "letters": (LETTER,)}, Kind.LAGGING, "lagging 200 ms: in flight with worker host:1:a"),
        ({"lead": STALE, "in_flight": (replace(FLIGHT, trouble="no"),)}, Kind.HELD_UP, "lagging 200 ms: 1 batch in flight cannot be taken back: no"),
        ({"lead": STALE, "queued": (TASK,), "conditions": (PAUSED, NO_WORKER)}, Kind.HELD_UP, "lagging 3 s: shop is paused: migration"),
        ({"lead": STALE, "queued": (TASK,), "conditions": (TRIGGERS_OFF, NO_WORKER)}, Kind.HELD_UP, "lagging 3 s: no worker is running: idxctl worker start"),
        ({"lead": STALE, "queued": (replace(TASK, wait_seconds=4.2, attempts=1, last_error="full"),)}, Kind.RETRIED, "lagging 3 s: attempt 1 failed, tried again in 4 s: full"),
        ({"lead": STALE, "queued": (replace(TASK, wait_seconds=4.2, last_error="apart"),)}, Kind.RETRIED, "lagging 3 s: tried again in 4 s: apart"),
        ({"lead": STALE, "queued": (replace(TASK, wait_seconds=4000),), "conditions": (PAUSED,)}, Kind.SCHEDULED, "queued for later, due in 1 h"),
        ({"lead": STALE, "moving": True}, Kind.LAGGING, "lagging: it was written while this looked"),
        ({"lead": MISSING, "fan_outs": FanOuts(2, 60.0)}, Kind.LAGGING, "lagging 1 min: a lookup, or a look at the whole index, is under way that may be about it"),
        ({"lead": MISSING, "fan_outs": FanOuts(2, 60.0, "no table")}, Kind.LOOKUP_FAILS, "missing from the index: a lookup fails: no table"),
        ({"lead": STALE, "letters": (LETTER,), "conditions": (TRIGGERS_OFF,)}, Kind.DEAD_LETTER, "dead letter 4711: price: not a number"),
        ({"lead": STALE, "conditions": (TRIGGERS_OFF,)}, Kind.NOT_CAPTURED, "not captured: triggers on table listing_images are disabled"),
        ({"lead": replace(STALE, foreign=True), "conditions": (TRIGGERS_OFF,)}, Kind.ALTERED, "stale: differs in price, tags[1]: version 41 is none of this database's: something else wrote it, or a restore forgot it"),
        ({"lead": STALE, "conditions": (Condition(Wrong.MAY_BE_UNCAPTURED, "shop", {"hole": "opaque", "what": "f()"}),)}, Kind.NOT_CAPTURED, "perhaps not captured: shop: the document query calls f(), whose body may read tables that nobody watches"),
        ({"lead": MISSING, "conditions": (UNWATCHED,)}, Kind.NOT_CAPTURED, "perhaps not captured: shop: the document query reads table extras, which no watch of this index covers"),
        ({"lead": STALE, "conditions": (UNWATCHED,)}, Kind.NOT_CAPTURED, "not captured: shop: the document query reads table extras, which no watch of this index covers"),
        ({"lead": MISSING, "conditions": (IGNORED,)}, Kind.DIFFERS, "missing from the index; nothing is under way and capture is in place: the index was changed behind idxctl's back, or a change was not captured"),
        ({"lead": replace(LIVE, elsewhere=("a", None))}, Kind.MISPLACED, "a second copy stands under routing a, no routing, and belongs under no routing"),
        ({"lead": replace(LIVE, state="building")}, Kind.BUILDING, "shop-000002 is being built, and nothing is searched yet: equal so far"),
        ({"lead": replace(MISSING, state="building")}, Kind.BUILDING, "shop-000002 is being built, and nothing is searched yet: missing so far"),
        ({"generations": ()}, Kind.NO_GENERATION, "shop has no generation yet: nothing is indexed"),
        ({"lead": STALE, "queue_untold": True, "untold": ("the queue: it takes too long",)}, Kind.UNKNOWN, "unknown: the queue: it takes too long"),
    ],
)  # fmt: skip
def test_the_line_says_what_must_go_first(facts, kind, reason):
    lead = facts.pop("lead", LIVE)
    assert line(lead, **facts) == (kind, reason)


def test_a_generation_that_is_not_live_is_wrong_only_if_it_should_have_it():
    behind = Held("shop-000001", 1, "standby", Comparison.STALE)
    built = Held("shop-000003", 3, "building", Comparison.MISSING)
    refused = replace(built, refused=Refused("mapper_parsing_exception", "too dear", NOW))
    assert line(LIVE, built) == (Kind.EQUAL, "equal")
    assert line(LIVE, behind)[1] == "right in the live index; shop-000001, which is standby, has it stale"
    assert line(LIVE, refused)[1] == "right in the live index; shop-000003, which is building, has it missing: too dear"
    assert line(LIVE, refused, queued=(TASK,))[0] is Kind.EQUAL


@pytest.mark.parametrize(
    ("condition", "lead", "begins"),
    [
        (IGNORED, SEEN, "not captured: "),
        (IGNORED, STALE, "perhaps not captured: "),
        (MAY_BE, SEEN, "perhaps not captured: "),
        (MAY_BE, STALE, "stale: differs in price, tags[1]; nothing is under way"),
    ],
)
def test_an_ignored_column_is_the_cause_where_its_field_differs(condition, lead, begins):
    assert line(lead, conditions=(condition,))[1].startswith(begins)


def test_an_older_generation_that_is_right_shows_that_this_one_was_changed():
    older = Held("shop-000001", 1, "standby", Comparison.EQUAL)
    kind, reason = line(STALE, older, conditions=(TRIGGERS_OFF,))
    assert (kind, "shop-000001, which the same tasks are written to, is right" in reason) == (Kind.ALTERED, True)
    for other in (
        replace(older, number=3), replace(older, state="building"), replace(older, alike=False), replace(older, comparison=Comparison.STALE),
    ):  # fmt: skip
        assert line(STALE, other, conditions=(TRIGGERS_OFF,))[0] is Kind.NOT_CAPTURED


def test_a_command_of_any_id_can_be_pasted():
    facts = Facts("shop", "-7 'a'", "-7 'a'", row=FOUND, generations=(STALE,))
    assert decide(facts).fix == "idxctl queue add --index shop -- '-7 '\"'\"'a'\"'\"''"


def test_every_kind_says_whether_someone_must_act():
    assert {kind for kind, one in MEANINGS.items() if one.state is State.OK} == {Kind.EQUAL, Kind.NO_ROW, Kind.FILTERED}
    assert set(MEANINGS) == set(Kind)


def test_differences_are_places_in_both():
    row = {"a": 1, "b": {"c": [1, {"d": 2}], "e": None}, "same": [1, 2], "more": [1], "seen": 1}
    index = {"a": 1.0, "b": {"c": [1, {"d": 3}]}, "same": [1, 2], "more": [1, 2], "seen": 9, "extra": None}
    found = {one.path: one for one in differences(row, index, ignore=("seen",))}
    assert found == {
        "b.c[1].d": Difference("b.c[1].d", 2, 3),
        "b.e": Difference("b.e", None, None, in_row=True, in_index=False),
        "extra": Difference("extra", None, None, in_row=False, in_index=True),
        "more": Difference("more", [1], [1, 2]),
    }
    assert len(differences({str(n): n for n in range(99)}, {})) == 50


def test_words_are_an_id_or_the_parts_of_one():
    composite = Definition("SELECT", ("a", "b"), ("bigint", "text"), "jsonb")
    assert ids.joined("shop", composite, ["7:x"]) == "7:x"
    assert ids.joined("shop", composite, ["7", "x:y"]) == "7:x%3Ay"
    assert ids.joined("shop", None, ["7"]) == "7"
    for definition, words in ((composite, ["1", "2", "3"]), (None, ["1", "2"])):
        with pytest.raises(UsageError):
            ids.joined("shop", definition, words)
