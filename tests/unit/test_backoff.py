"""How long is waited, and for what."""

from __future__ import annotations

from datetime import timedelta

import pytest

from idxctl.core import backoff


def test_second_attempt_comes_after_a_second_and_the_third_after_five():
    assert backoff.before_attempt(1) == timedelta(seconds=1)
    assert backoff.before_attempt(2) == timedelta(seconds=5)


def test_later_attempts_double_within_their_jitter_up_to_ten_minutes():
    assert backoff.before_attempt(3, jitter=0.5) == timedelta(seconds=10)
    assert backoff.before_attempt(4, jitter=0.0) == timedelta(seconds=16)
    assert backoff.before_attempt(60, jitter=0.5) == timedelta(minutes=10)


def test_probes_wait_longer_each_time_up_to_a_bound():
    assert [backoff.before_probe(n) for n in (0, 1, 2, 10)] == [0.5, 1.0, 2.0, 10.0]


def test_letter_that_keeps_failing_waits_from_its_second_retry_on():
    waits = [backoff.before_letter_retry(n) for n in (0, 1, 2, 3, 20)]
    assert waits == [None, timedelta(minutes=5), timedelta(minutes=10), timedelta(minutes=20), timedelta(hours=24)]


def test_a_wait_spends_a_fifth_of_its_time_on_looking_at_the_most():
    assert backoff.before_look(0.001, shortest=0.2) == 0.2
    assert backoff.before_look(0.3, shortest=0.2) == pytest.approx(1.2)
