"""The audit stands if and only if the action does."""

from __future__ import annotations

import getpass
import socket
from datetime import timedelta

import pytest

from idxctl.core.settings import DatabaseSettings, Secret
from idxctl.postgres import audit
from idxctl.postgres.connect import connect


@pytest.fixture
def conn(migrated):
    with connect(DatabaseSettings(url=Secret(migrated))) as made:
        yield made


def test_entries_are_returned_newest_first(conn):
    for number in range(3):
        audit.record(conn, action="dlq purge", subject="letters", detail={"purged": number})
    latest = audit.recent(conn, limit=2)
    assert [entry.detail for entry in latest] == [{"purged": 2}, {"purged": 1}]
    assert latest[0].at.tzinfo is not None


def test_the_actor_is_who_runs_the_program_unless_named(conn):
    audit.record(conn, action="pause", subject="products")
    audit.record(conn, action="pause", subject="products", actor="token:alice")
    assert [entry.actor for entry in audit.recent(conn)] == [
        "token:alice",
        f"{getpass.getuser()}@{socket.gethostname()}",
    ]


def test_an_entry_goes_with_the_transaction_of_its_action(conn):
    def purge() -> None:
        with conn.transaction():
            audit.record(conn, action="dlq purge", subject="letters")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        purge()
    assert audit.recent(conn) == []


def test_a_detail_json_does_not_know_is_written_as_text(conn):
    audit.record(conn, action="dlq purge", subject="letters", detail={"older_than": timedelta(days=7)})
    assert audit.recent(conn)[0].detail == {"older_than": "7 days, 0:00:00"}


def test_a_user_without_a_name_still_acts(monkeypatch):
    def nameless():
        raise KeyError("getpwuid(): uid not found: 4242")

    monkeypatch.setattr(getpass, "getuser", nameless)
    audit.actor.cache_clear()
    try:
        assert audit.actor() == f"unknown@{socket.gethostname()}"
    finally:
        audit.actor.cache_clear()
