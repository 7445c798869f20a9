"""An error that nearly all documents share is the index's, and makes no letters."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from idxctl.core.reasons import Kind, Reason
from idxctl.queue.claim import Task
from idxctl.queue.outcomes import Failure, Outcomes
from idxctl.worker.index_health import Refusals
from idxctl.worker.sort import Sorted


def task(name="1", **payload):
    return Task(str(name), "index", 0, 0, datetime.now(timezone.utc), "api", "", payload)


def batch(refused, done=0, fingerprint="abc123", **payload):
    failed = [
        Failure(task(n, **payload), "strict", fingerprint, "no such field", permanent=True) for n in range(refused)
    ]
    return Sorted(Outcomes(done=[task(f"d{n}") for n in range(done)], failed=failed))


@pytest.mark.parametrize(
    ("batches", "letters"),
    [
        ([(3, 17)], [3]),  # a few bad ones among good ones
        ([(49, 0)], [49]),  # too few to tell
        ([(1000, 0)], [0]),
        ([(960, 40)], [0]),
        ([(900, 100)], [900]),
        ([(10, 0)] * 7, [10, 10, 10, 10, 0, 0, 0]),
        ([(0, 40), (10, 0)], [0, 10]),
        ([(960, 40), (1, 0), (0, 30), (1, 0)], [0, 0, 0, 1]),  # mended meanwhile
    ],
)
def test_letters_are_made_of_all_but_what_nearly_all_documents_meet(batches, letters):
    refusals = Refusals()
    judged = [refusals.judge("items", batch(*one)) for one in batches]
    assert [len(one.outcomes.failed) for one in judged] == letters
    for (refused, done), one in zip(batches, judged, strict=True):
        assert len(one.outcomes.failed) + len(one.outcomes.again) == refused
        assert len(one.outcomes.done) == done
        assert (one.blocked is None) == (not one.outcomes.again)


def test_different_errors_are_the_documents_own():
    refusals = Refusals()
    for number in range(60):
        assert refusals.judge("items", batch(1, fingerprint=f"{number:06}")).blocked is None


def test_one_index_says_nothing_of_another():
    refusals = Refusals()
    refusals.judge("items", batch(100))
    assert refusals.judge("others", batch(10)).blocked is None


def test_only_the_shared_error_waits():
    both = Sorted(Outcomes(failed=[*batch(100).outcomes.failed, *batch(2, fingerprint="other1").outcomes.failed]))
    judged = Refusals().judge("items", both)
    assert [one.fingerprint for one in judged.outcomes.failed] == ["other1"] * 2
    assert judged.blocked.fingerprint == "abc123"


def test_letters_tried_again_stay_letters_and_tell_nothing():
    refusals = Refusals()
    assert refusals.judge("items", batch(200, letter={"id": 1})).blocked is None
    assert refusals.judge("items", batch(10)).blocked is None


@pytest.mark.parametrize(
    ("why", "probe", "letters"),
    [
        (Reason(Kind.REFUSED_ALIKE, fingerprint="abc123"), (5, 0), 0),  # as before
        (Reason(Kind.REFUSED_ALIKE, fingerprint="abc123"), (4, 1), 4),  # it takes documents again
        (Reason(Kind.REFUSED_ALIKE, fingerprint="ffffff"), (5, 0), 5),
        (Reason(Kind.REFUSED, "closed", "index_closed_exception"), (5, 0), 5),
        (Reason(Kind.UNTOLD, "a sentence by a worker of before"), (5, 0), 0),  # it may have been this error
    ],
)
def test_a_probe_that_meets_the_same_error_keeps_the_pause(why, probe, letters):
    judged = Refusals().judge("items", batch(*probe), blocked_for=why)  # another process than the one that paused
    assert len(judged.outcomes.failed) == letters
    assert (judged.blocked is not None) == (letters == 0)
