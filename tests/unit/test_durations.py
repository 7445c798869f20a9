"""Spans, sizes and counts as people write and read them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idxctl.core import durations
from idxctl.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("30s", timedelta(seconds=30)),
        ("90m", timedelta(minutes=90)),
        ("90min", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
        ("1h30m", timedelta(minutes=90)),
        ("1.5 h", timedelta(minutes=90)),
        (" 7 d ", timedelta(days=7)),
        ("0s", timedelta(0)),
    ],
)
def test_a_duration_is_numbers_with_units(text, wanted):
    assert durations.parse_duration(text) == wanted


@pytest.mark.parametrize("text", ["7", "30.5", " 7 "])
def test_a_bare_number_is_refused_with_the_units_to_choose_from(text):
    with pytest.raises(UsageError) as caught:
        durations.parse_duration(text)
    assert "no unit" in str(caught.value)
    assert f"{text.strip()}d" in caught.value.hint
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("text", ["", "d", "7x", "7 days ago", "-7d", "7d!", "1e3s", "7D", "soon", "9999w9999w"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError):
        durations.parse_duration(text)


@given(st.integers(min_value=0, max_value=10_000), st.sampled_from(["ms", "s", "m", "h"]))
def test_parts_add_up(number, unit):
    one = durations.parse_duration(f"{number}{unit}")
    assert durations.parse_duration(f"{number}{unit}{number}{unit}") == 2 * one


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0 ms"),
        (0, "0 ms"),
        (0.18, "180 ms"),
        (0.9999, "999 ms"),
        (1, "1 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (200, "3 min"),
        (3599, "59 min"),
        (7300, "2 h"),
        (86_400 * 3.9, "3 d"),
        (86_400 * 1500, "1,500 d"),
    ],
)
def test_an_age_is_in_its_largest_unit_and_never_rounded_up(seconds, shown):
    assert durations.format_age(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.84, "840 ms"),
        (0.9999, "1 s"),
        (20.6, "21 s"),
        (59.7, "1 min"),
        (127, "2 min 7 s"),
        (120, "2 min"),
        (3900, "1 h 5 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_duration_is_in_its_two_largest_units(seconds, shown):
    assert durations.format_duration(seconds) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (999.6, "1.0 kB"),
        (3_200_000, "3.2 MB"),
        (330e6, "330 MB"),
        (999_999, "1.0 MB"),
        (5e15, "5,000 TB"),
    ],
)
def test_a_size_has_two_or_three_figures(size, shown):
    assert durations.format_bytes(size) == shown


@pytest.mark.parametrize(
    ("rate", "shown"), [(0, "0/s"), (3.21, "3.2/s"), (9.96, "10/s"), (212.4, "212/s"), (10_913, "10,900/s")]
)
def test_a_rate_is_rounded_to_what_can_be_believed(rate, shown):
    assert durations.format_rate(rate) == shown


def test_counts_are_grouped_and_agree_with_their_noun():
    assert durations.format_count(12_408) == "12,408"
    assert durations.format_counted(1, "index", "indexes") == "1 index"
    assert durations.format_counted(0, "task") == "0 tasks"
    assert durations.format_counted(1200, "index", "indexes") == "1,200 indexes"
