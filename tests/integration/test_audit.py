"""The audit stands if and only if the act does, and who acted is what the database knows."""

from __future__ import annotations

import os
import pwd
import socket
import urllib.parse
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from idxctl.config.settings import DatabaseSettings
from idxctl.core import actor as actors
from idxctl.core.actor import Actor
from idxctl.core.secret import Secret
from idxctl.postgres import audit, migrate, migrations
from idxctl.postgres.connect import connect

KEYS = ["at", "action", "what", "count", "database_user", "operator", "channel", "address", "reason"]


@pytest.fixture
def conn(migrated):
    with connect(DatabaseSettings(url=Secret(migrated)), actor=Actor("cli", "alice@host", "ticket 7")) as made:
        made.execute("DELETE FROM opensearch_indexing_audit")
        yield made


def user_of(url: str) -> str:
    return urllib.parse.urlsplit(url).username or pwd.getpwuid(os.getuid()).pw_name


def test_the_database_fills_in_who_is_connected_and_the_program_says_the_rest(conn, migrated):
    audit.record(conn, action="dlq purge", what="products", count=12, detail={"older_than": timedelta(days=7)})
    (entry,) = audit.entries(conn)
    assert (entry.action, entry.what, entry.count) == ("dlq purge", "products", 12)
    assert (entry.operator, entry.channel, entry.reason) == ("alice@host", "cli", "ticket 7")
    assert entry.database_user == user_of(migrated)
    assert entry.address == conn.execute("SELECT host(inet_client_addr())").fetchone()[0]
    assert entry.detail == {"older_than": "7 days, 0:00:00"}


def test_entries_are_the_newest_first_and_chosen_by_age_and_action(conn):
    for action in ("pause", "resume", "pause"):
        audit.record(conn, action=action, what="products")
    conn.execute("UPDATE opensearch_indexing_audit SET at = at - interval '2 days' WHERE action = 'resume'")
    assert [one.action for one in audit.entries(conn)] == ["pause", "resume", "pause"]
    assert [one.action for one in audit.entries(conn, since=timedelta(days=1))] == ["pause", "pause"]
    assert [one.action for one in audit.entries(conn, action="resume")] == ["resume"]
    assert len(audit.entries(conn, limit=1)) == 1
    assert audit.total(conn) == 3


def test_an_entry_goes_with_the_transaction_of_its_act(conn):
    def purge() -> None:
        with conn.transaction():
            audit.record(conn, action="dlq purge", what="letters")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        purge()
    assert audit.entries(conn) == []


def test_the_operator_is_the_user_of_the_process_whatever_the_environment_says(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "mallory\n2026-01-01 dlq purge by alice")
    actors.system_user.cache_clear()
    assert Actor().name == f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"


def test_a_user_without_a_name_still_acts(monkeypatch):
    def nameless(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", nameless)
    actors.system_user.cache_clear()
    try:
        assert Actor().name == f"uid {os.getuid()}@{socket.gethostname()}"
    finally:
        actors.system_user.cache_clear()


def test_what_a_program_says_is_one_line_and_bounded(conn):
    conn.actor = Actor("cli", "alice\n2026-01-01 dlq purge all by bob\x1b[2K", "because\r\n" + "x" * 5000)
    audit.record(conn, action="pause", what="a\tb", detail={"text": "y" * 30_000})
    (entry,) = audit.entries(conn)
    assert entry.operator == "alice 2026-01-01 dlq purge all by bob [2K"
    assert entry.what == "a b"
    assert entry.reason is not None
    assert len(entry.reason) == 1000
    assert "\n" not in entry.reason
    assert entry.detail == {} or len(str(entry.detail)) < 20_000


@pytest.mark.parametrize("channel", ["cli", "cron", "http", "library", "worker", "postgres", "", None])
def test_a_channel_is_one_of_ours_or_sql(conn, channel):
    conn.execute("SELECT opensearch_indexing_audit_write('x', 'y', NULL, NULL, NULL, %s, NULL)", (channel,))
    assert audit.entries(conn)[0].channel == (channel if channel in actors.CHANNELS else "sql")


def test_a_role_that_may_write_the_audit_can_neither_choose_its_name_nor_change_or_delete_a_row(migrated, unique_name):
    with psycopg.connect(migrated, autocommit=True) as admin:
        role = sql.Identifier(unique_name)
        admin.execute(sql.SQL("CREATE ROLE {0} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA public TO {0}").format(role))
        try:
            function = "opensearch_indexing_audit_write(text, text, bigint, jsonb, text, text, text)"
            admin.execute(sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(sql.SQL(function), role))
            with psycopg.connect(migrated, user=unique_name, password="x", autocommit=True) as theirs:
                theirs.execute("SELECT opensearch_indexing_audit_write('pause', 'x', 1, '{}', 'postgres', 'cli', NULL)")
                for forged in (
                    "INSERT INTO opensearch_indexing_audit (actor, action, subject) VALUES ('a', 'b', 'c')",
                    "UPDATE opensearch_indexing_audit SET database_user = 'postgres'",
                    "DELETE FROM opensearch_indexing_audit",
                    "TRUNCATE opensearch_indexing_audit",
                    "SELECT * FROM opensearch_indexing_audit",
                ):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        theirs.execute(forged)
            found = admin.execute(
                "SELECT database_user FROM opensearch_indexing_audit WHERE action = 'pause'"
            ).fetchall()
            assert found == [(unique_name,)]
        finally:
            admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))


def test_rows_of_before_are_kept_and_shown(migrated):
    with connect(DatabaseSettings(url=Secret(migrated))) as conn:
        migrate.down(conn, to=4)
        conn.execute(
            "INSERT INTO opensearch_indexing_audit (actor, action, subject) VALUES ('bob@old', 'pause', 'items')"
        )
        migrate.up(conn)
        old = next(one for one in audit.entries(conn) if one.action == "pause")
    assert (old.operator, old.what, old.database_user, old.channel, old.address) == (
        "bob@old",
        "items",
        None,
        None,
        None,
    )


def test_a_role_that_wrote_the_audit_before_goes_on_writing_it(migrated, unique_name):
    with connect(DatabaseSettings(url=Secret(migrated))) as conn:
        migrate.down(conn, to=4)
        role = sql.Identifier(unique_name)
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(role))
        try:
            conn.execute(sql.SQL("GRANT SELECT, INSERT ON opensearch_indexing_audit TO {}").format(role))
            migrate.up(conn)
            with psycopg.connect(migrated, user=unique_name, password="x", autocommit=True) as theirs:
                theirs.execute("SELECT opensearch_indexing_audit_write('pause', 'x', 1, '{}', 'bob', 'cli', NULL)")
            assert audit.entries(conn, action="pause")[0].database_user == unique_name
        finally:
            conn.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))


def test_programs_of_before_go_on_writing_their_columns(conn, migrated):
    conn.execute(
        "INSERT INTO opensearch_indexing_audit (actor, action, subject, detail) VALUES ('bob', 'pause', 'x', '{}')"
    )
    (entry,) = audit.entries(conn)
    assert (entry.operator, entry.database_user) == ("bob", user_of(migrated))


def test_migrations_up_and_down_are_noted(database):
    with connect(DatabaseSettings(url=Secret(database)), actor=Actor("cli", "dba")) as conn:
        migrate.up(conn)
        wanted = len(migrations.known())
        migrate.down(conn, to=4)
        assert conn.execute("SELECT actor, action FROM opensearch_indexing_audit ORDER BY id").fetchall() == [
            ("dba", "migrate up"),
            ("dba", "migrate down"),
        ]
        migrate.up(conn)
        assert [(one.action, one.count) for one in audit.entries(conn)] == [
            ("migrate up", wanted - 4), ("migrate down", None), ("migrate up", None)
        ]  # fmt: skip


def test_a_truncate_of_the_dead_letters_is_noted_and_never_stopped(conn):
    conn.execute("INSERT INTO opensearch_indexing_dlq (index_name, document_id, action) VALUES ('i', '1', 'index')")
    conn.execute("TRUNCATE opensearch_indexing_dlq")
    (entry,) = audit.entries(conn)
    assert (entry.action, entry.count, entry.channel) == ("dlq truncate", 1, "sql")
    conn.execute("DROP FUNCTION opensearch_indexing_audit_write(text, text, bigint, jsonb, text, text, text)")
    conn.execute("INSERT INTO opensearch_indexing_dlq (index_name, document_id, action) VALUES ('i', '1', 'index')")
    conn.execute("TRUNCATE opensearch_indexing_dlq")
    assert conn.execute("SELECT count(*) FROM opensearch_indexing_dlq").fetchone() == (0,)


def test_every_act_of_the_command_line_leaves_a_row_with_its_reason(idxctl, items, unique_name):
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    items.sql("DELETE FROM opensearch_indexing_audit")
    items.sql(
        "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action) VALUES (%s, '1', 'index')", unique_name
    )
    acts = {
        "pause": ("pause",),
        "resume": ("resume",),
        "queue add": ("queue", "add", "1", "2"),
        "queue cancel": ("queue", "cancel", "--all", "--yes"),
        "dlq retry": ("dlq", "retry"),
        "dlq purge": ("dlq", "purge", "--all", "--yes"),
        "reindex": ("reindex",),
        "watch remove": ("watch", "remove", "--yes"),
        "watch install": ("watch", "install"),
    }
    for action, arguments in acts.items():
        if action == "dlq purge":
            items.sql(
                "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action) VALUES (%s, '1', 'index')",
                unique_name,
            )
        done = idxctl(*arguments, "--reason", f"drill: {action}", env={"LOGNAME": "mallory\nbob"})
        assert done.status == 0, done.stderr
    shown = idxctl("audit", "list", "-o", "json").json
    assert shown
    assert set(KEYS) <= set(shown[0])
    found = {row["action"]: row for row in shown}
    assert set(acts) <= set(found), found
    for action in acts:
        row = found[action]
        assert (row["reason"], row["channel"]) == (f"drill: {action}", "cli")
        assert row["database_user"] == user_of(items.database)
        assert "mallory" not in row["operator"]
    assert found["queue add"]["count"] == 2
    ndjson = idxctl("audit", "list", "--action", "pause", "-o", "ndjson").stdout.splitlines()
    assert len(ndjson) == 1
    assert idxctl("audit", "list", "--since", "7d", "--limit", "2", "-o", "csv").stdout.splitlines()[0] == ",".join(
        KEYS
    )
    table = idxctl("audit", "list", "--limit", "2")
    assert "2 of " in table.stderr
    assert idxctl("dlq", "retry", env={"IDXCTL_CHANNEL": "cron"}).status == 0
