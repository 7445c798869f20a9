"""A trial: is it the document that the way fails on, or the way?"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from idxctl.worker import way
from idxctl.worker.outcomes import Kind, Verdict

FAILED = Verdict(Kind.TRANSIENT, "http_502", whole=True, suspect=True)
ORDERS = 924


def trial(passes: Callable[[int, bool], bool], seed: int) -> way.Found:
    """Make a trial where *passes* decides of each request, by its number and whether it is the document's."""
    number = itertools.count()
    controls = cast("way.Controls", SimpleNamespace(pass_=lambda: passes(next(number), False)))
    return way.by_turns(
        lambda: None if passes(next(number), True) else FAILED, controls, shuffle=random.Random(seed).shuffle
    )


def test_a_document_that_alone_fails_each_time_is_guilty():
    assert trial(lambda _, own: not own, 1) == way.Found(FAILED, guilty=True)


def test_a_document_that_passes_once_is_not():
    assert trial(lambda number, own: not own or number > 7, 1) == way.Found(None)


def test_a_control_that_fails_once_means_the_way():
    found = trial(lambda number, own: not own and number < 7, 1)
    assert (found.down, found.guilty) == (True, False)


@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize("period", [1, 2, 3, 4, 6])
def test_an_outage_that_comes_and_goes_by_itself_finds_nobody_guilty_but_by_a_chance_of_one_in_924(
    period: int, phase: int
):
    """Whatever its rhythm: the order is drawn."""
    seeds = range(5 * ORDERS)
    guilty = sum(trial(lambda number, _: (number // period + phase) % 2 == 0, seed).guilty for seed in seeds)
    assert guilty <= 20  # five are expected; more than twenty come once in ten million


def test_while_a_document_is_waited_for_controls_must_pass():
    asked: list[int] = []

    def controls(*outcomes: bool) -> Any:
        answers = iter(outcomes)

        def pass_() -> bool:
            asked.append(1)
            return next(answers, True)

        return SimpleNamespace(pass_=pass_)

    def slow() -> Verdict:
        seen = len(asked)
        while len(asked) < seen + 6:
            pass
        return FAILED

    assert way.meanwhile(slow, controls(), every=0.001).guilty
    found = way.meanwhile(slow, controls(True, True, False), every=0.001)
    assert (found.down, found.guilty) == (True, False)
    assert way.meanwhile(lambda: FAILED, controls(), every=10.0) == way.Found(FAILED)  # nothing was asked meanwhile
