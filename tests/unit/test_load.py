"""How much is sent at once: it halves on a refusal, grows back by steps, and is bounded by bytes."""

from __future__ import annotations

import threading

import pytest

from idxctl.worker.load import MOST_BYTES_UNDER_WAY, Load

MB = 1024 * 1024


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def load(clock):
    return Load(batches=8, body_bytes=8 * MB, clock=clock)


def refuse(load, clock, size=8 * MB, *, partly=False):
    clock.now += 1
    return load.overloaded(size, began=clock.now, partly=partly)


def test_each_refusal_halves_batches_and_bytes_down_to_a_floor(load, clock):
    seen = []
    for _ in range(6):
        refuse(load, clock)
        seen.append((load.batches, load.body_bytes))
    assert seen[:3] == [(4, 4 * MB), (2, 2 * MB), (1, 1 * MB)]
    assert seen[-1] == (1, MB // 4)


def test_what_was_under_way_together_is_refused_together_and_counts_once(load, clock):
    began = clock.now
    clock.now += 1
    assert load.overloaded(8 * MB, began=began, partly=True)
    assert not load.overloaded(8 * MB, began=began, partly=True)
    assert load.batches == 4


def test_what_passes_lets_it_grow_by_a_batch_a_round_and_never_beyond_what_was_configured(load, clock):
    refuse(load, clock)
    refuse(load, clock)
    batches = []
    for _ in range(60):
        load.passed(load.body_bytes)
        batches.append(load.batches)
    assert batches[0] == 2
    assert batches[1:6] == [2, 3, 3, 3, 4]
    assert (load.batches, load.body_bytes) == (8, 8 * MB)
    assert load.full


def test_small_bodies_that_pass_say_nothing_of_large_ones(load, clock):
    refuse(load, clock)
    load.passed(1000)
    assert load.body_bytes == 4 * MB


def test_a_size_once_refused_stays_refused(load, clock):
    assert load.too_large(6 * MB)
    assert not load.too_large(6 * MB)  # under way at the same time
    for _ in range(50):
        load.passed(3 * MB)
    assert load.body_bytes == 3 * MB
    assert load.too_large(3 * MB)  # not small enough yet
    assert load.state().size_limit == 3 * MB // 2
    assert load.over_limit(6 * MB)
    assert not load.over_limit(3 * MB)


def test_only_refusals_of_everything_in_a_row_are_the_clusters(load, clock):
    for _ in range(2):
        refuse(load, clock)
    refuse(load, clock, partly=True)
    refuse(load, clock)
    load.passed(1000)
    assert not load.refuses_all
    for _ in range(3):
        refuse(load, clock)
    assert load.refuses_all


def test_no_more_bytes_are_under_way_than_may_be_but_for_one_body(load):
    waiting, entered = threading.Event(), threading.Event()

    def second():
        waiting.set()
        with load.room(lambda: 20 * MB):
            entered.set()

    with load.room(lambda: MOST_BYTES_UNDER_WAY + 1) as room:
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        waiting.wait(10)
        assert not entered.wait(0.05)
        room.resize(MOST_BYTES_UNDER_WAY - 20 * MB)  # as it turned out
        assert entered.wait(10)
    thread.join(10)
    with load.room(lambda: 3 * MOST_BYTES_UNDER_WAY):  # alone
        pass


class Waiter:
    """A thread that waits for room, is told so, and stays there until it is let go."""

    def __init__(self, load, size):
        self.entered, self._asked, self._go = threading.Event(), threading.Event(), threading.Event()
        self.size = size
        self._thread = threading.Thread(target=self._enter, args=(load,), daemon=True)
        self._thread.start()
        assert self._asked.wait(10) or self.entered.is_set()

    def _enter(self, load):
        with load.room(self._expected) as self.room:
            self.entered.set()
            self._go.wait(10)

    def _expected(self):
        self._asked.set()
        return self.size

    def leave(self):
        self._go.set()
        self._thread.join(10)


def test_small_bodies_that_go_on_and_on_do_not_keep_a_large_one_waiting(load):
    first = Waiter(load, 8 * MB)
    large = Waiter(load, MOST_BYTES_UNDER_WAY)
    entered = threading.Event()

    def small():
        with load.room(lambda: 8 * MB):
            entered.set()

    later = threading.Thread(target=small, daemon=True)
    later.start()
    assert not entered.wait(0.1)  # there is room, and somebody was here before
    first.leave()
    assert large.entered.wait(10)
    large.leave()
    assert entered.wait(10)
    later.join(10)


def test_who_waits_for_all_the_room_enters_once_documents_are_seen_to_be_small(load):
    first = Waiter(load, MOST_BYTES_UNDER_WAY)
    second = Waiter(load, MOST_BYTES_UNDER_WAY)  # nothing is known of the documents' size yet
    assert not second.entered.wait(0.05)
    second.size = 1000
    first.room.resize(1000)  # it has read, and was small
    assert second.entered.wait(10)
    first.leave()
    second.leave()
