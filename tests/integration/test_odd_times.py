"""Times that Python has none for are shown, compared and put back as they are."""

from __future__ import annotations

import pytest

from idxctl.core.reasons import Kind, Reason
from idxctl.queue import rescue, stats
from support.rig import Rig

pytestmark = pytest.mark.sampled

ODD = ["infinity", "-infinity", "0044-03-15 10:00:00+00 BC", "20000-01-01 00:00:00+00", "294276-12-31 23:59:59+00"]


@pytest.fixture
def cli(items: Rig, idxctl):
    return idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)


@pytest.mark.parametrize("when", ODD)
@pytest.mark.parametrize("column", ["available_at", "enqueued_at"])
def test_lists_show_any_time(items: Rig, cli, column: str, when: str):
    items.sql(
        f"INSERT INTO opensearch_indexing_queue (index_name, document_id, {column}) VALUES (%s, '1', %s)",
        items.index,
        when,
    )
    items.conn.execute(b"SET TimeZone = 'UTC'")
    (task,) = stats.tasks(items.conn, limit=10)
    assert getattr(task, column).isoformat() == when
    for arguments in (
        ["queue", "list"],
        ["queue", "list", "-o", "json"],
        ["queue", "stats"],
        ["queue", "stats", "-o", "json"],
    ):
        done = cli(*arguments)
        assert (done.status, done.stderr) == (0, ""), done.stderr
    assert cli("queue", "list", "-o", "json", env={"PGTZ": "UTC"}).json[0][column] == when


@pytest.mark.parametrize("when", ODD)
def test_letters_show_any_time(items: Rig, cli, when: str):
    items.sql(
        "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, created_at, last_attempt_at) VALUES (%s, '1', 'index', %s, %s)",
        items.index, when, when,
    )  # fmt: skip
    for arguments in (["dlq", "list"], ["dlq", "list", "-o", "json"], ["dlq", "stats"], ["dlq", "stats", "-o", "json"]):
        done = cli(*arguments)
        assert done.status == 0, done.stderr
    assert cli("dlq", "list", "-o", "json", env={"PGTZ": "UTC"}).json[0]["created_at"] == when


@pytest.mark.parametrize("when", ["-infinity", "0044-03-15 10:00:00+00 BC"])
def test_a_task_of_an_odd_time_is_worked_off(items: Rig, when: str):
    items.sql(
        "INSERT INTO opensearch_indexing_queue (index_name, document_id, available_at, enqueued_at) VALUES (%s, '1', %s, %s)",
        items.index, when, when,
    )  # fmt: skip
    items.sql("UPDATE items SET name = name || '!', price = CASE id WHEN 2 THEN 'poison' ELSE price END")
    items.drain()
    assert items.differences(but=[2]) == []


def test_a_task_keeps_its_odd_time_through_a_rescue(items: Rig):
    items.sql(
        "INSERT INTO opensearch_indexing_queue (index_name, document_id, enqueued_at) VALUES (%s, '1', '20000-01-01')",
        items.index,
    )
    items.enqueue(2)
    batch, _ = items.hand().claim()
    assert len(batch.tasks) == 2
    rescue.give_back(
        items.conn, items.one("SELECT worker FROM opensearch_indexing_inflight"), held=(), why=Reason(Kind.RELEASED)
    )
    assert items.sql("SELECT enqueued_at > '19999-01-01' FROM opensearch_indexing_queue ORDER BY document_id") == [
        (True,),
        (False,),
    ]
