"""The circuit breaker: closed, open, probing."""

from __future__ import annotations

import pytest

from idxctl.core.reasons import Kind, Reason
from idxctl.worker.load import Breaker

WHY = Reason(Kind.UNREACHABLE, "refuses connections")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(clock=clock)


def test_closed_breaker_holds_nothing_back(breaker):
    assert breaker.seconds_to_wait() == 0
    assert not breaker.take_probe()
    assert breaker.state().state == "closed"


def test_failure_opens_it_and_names_the_reason(breaker):
    assert breaker.failed(WHY)
    assert not breaker.failed(WHY)  # it was open already
    assert breaker.state().why == WHY
    assert breaker.seconds_to_wait() == pytest.approx(0.5)


def test_one_thread_gets_the_probe_once_it_is_due(breaker, clock):
    breaker.failed(WHY)
    assert not breaker.take_probe()
    clock.now += 0.5
    assert breaker.take_probe()
    assert not breaker.take_probe()
    assert breaker.state().state == "probing"


def test_failed_probe_doubles_the_wait(breaker, clock):
    breaker.failed(WHY)
    waits = []
    for _ in range(7):
        clock.now += breaker.seconds_to_wait()
        assert breaker.take_probe()
        breaker.failed(WHY)
        waits.append(round(breaker.seconds_to_wait(), 3))
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


def test_failures_of_requests_under_way_do_not_put_the_probe_off(breaker, clock):
    breaker.failed(WHY)
    clock.now += 0.4
    breaker.failed(WHY)
    assert breaker.seconds_to_wait() == pytest.approx(0.1)


def test_probe_that_works_closes_it(breaker, clock):
    breaker.failed(WHY)
    clock.now += 0.5
    breaker.take_probe()
    assert breaker.worked()
    assert not breaker.worked()
    assert not breaker.open
