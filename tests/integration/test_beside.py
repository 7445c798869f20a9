"""A worker of one's own, beside a wait for its work: when it ends, whoever waits hears why."""

from datetime import timedelta

import pytest

from idxctl import dlq


class FaultError(Exception):
    """Something that no server says."""


def fail() -> None:
    raise FaultError


def test_a_reindex_does_not_wait_for_its_own_worker_once_that_has_ended(items, stops):
    items.enqueue(1)
    stops.do("claim.locked", fail)
    with pytest.raises(FaultError):
        items.reindex()
    assert items.generation().number == 1
    assert items.queued() == 1


def test_a_retry_does_not_wait_for_its_own_worker_once_that_has_ended(items, stops):
    items.sql("UPDATE items SET price = 'poison' WHERE id = 3")
    items.drain()
    stops.do("claim.locked", fail)
    with pytest.raises(FaultError):
        dlq.retry(
            items.pool, lambda: items.client, items.settings, dlq.Selection(),
            limit=1, wait=False, timeout=timedelta(minutes=1),
        )  # fmt: skip
    assert items.queued() == 1
