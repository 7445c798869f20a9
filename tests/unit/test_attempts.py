"""Failures are divided into the dead and those tried again, which remember the attempt."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from idxctl.queue.claim import Task
from idxctl.queue.history import remember
from idxctl.queue.outcomes import Failure
from idxctl.queue.requeue import divide

NOW = datetime(2026, 11, 2, 14, 20, tzinfo=timezone.utc)


def task(attempts: int = 0) -> Task:
    return Task("7", "index", 0, attempts, NOW, "trigger", "", {})


def failure(attempts: int = 0, *, permanent: bool = False, charged: bool = True) -> Failure:
    return Failure(task(attempts), "internal", "abc", "it broke", permanent, charged=charged)


@pytest.mark.parametrize(
    ("given", "dead"),
    [
        (failure(0), False),
        (failure(1), False),
        (failure(2), True),
        (failure(0, permanent=True), True),
        (failure(2, charged=False), False),
    ],
)
def test_attempts_are_spent_one_by_one(given, dead):
    buried, again = divide([given], max_attempts=3, at=NOW)
    assert (len(buried), len(again)) == ((1, 0) if dead else (0, 1))


def test_a_document_tried_again_remembers_the_attempt():
    _, [again] = divide([failure(1)], max_attempts=3, at=NOW, worker="h:1:x")
    assert again.why.sentence == "it broke"
    assert again.task.payload["history"] == [
        {"at": NOW.isoformat(), "error_type": "internal", "reason": "it broke", "attempts": 2, "origin": "trigger", "worker": "h:1:x"}
    ]  # fmt: skip


def test_what_is_remembered_is_bounded():
    one = task()
    for number in range(100):
        one = remember(one, "internal", f"{number} " + "x" * 1000, at=NOW)
    assert len(one.payload["history"]) == 30
    assert one.payload["history"][-1]["reason"].startswith("99 ")
    assert len(one.payload["history"][-1]["reason"]) == 500
