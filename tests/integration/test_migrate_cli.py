"""`idxctl migrate` as it is typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psycopg
import pytest

from idxctl.postgres import migrate_offline, migrations

NEWEST = len(migrations.known())


@pytest.fixture
def idxctl(database, tmp_path):
    """Run a command in an empty directory; return its status, stdout and stderr."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("IDXCTL_", "PG"))}
    environ["IDXCTL_DATABASE_URL"] = database

    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "idxctl", "migrate", *arguments],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_up_names_what_it_applied_and_then_has_nothing_to_do(idxctl):
    status, out, err = idxctl("up")
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == f"ok migrated up to version {NEWEST}"
    assert [line.strip() for line in out.splitlines()[1:]] == [step.title for step in migrations.known()]
    assert idxctl("up") == (0, f"ok Nothing to do: version {NEWEST}\n", "")


def test_status_as_json_has_version_and_pending(idxctl):
    found = json.loads(idxctl("status", "-o", "json")[1])
    assert (found["version"], found["pending"]) == (0, [step.title for step in migrations.known()])
    dry = json.loads(idxctl("up", "--dry-run", "-o", "json")[1])
    assert dry == {**found, "dry_run": True}
    idxctl("up")
    found = json.loads(idxctl("status", "-o", "json")[1])
    assert (found["version"], found["pending"]) == (NEWEST, [])


def test_down_needs_a_yes_and_says_what_would_be_lost(idxctl, database):
    idxctl("up")
    with psycopg.connect(database) as connection:
        connection.execute("SELECT opensearch_indexing_enqueue('products', '1')")
    status, out, err = idxctl("down", "--to", "0", "--yes")
    assert (status, out) == (1, "")
    assert "lose  tasks in the queue: 1" in err
    assert "--force" in err
    status, out, err = idxctl("down", "--to", "0", "--force")
    assert status == 2
    assert "add --yes" in err
    status, out, err = idxctl("down", "--to", "0", "--force", "--yes")
    assert (status, out.splitlines()[0]) == (0, "ok went down to version 0")


def test_a_dry_run_of_down_changes_nothing(idxctl):
    idxctl("up")
    plan = json.loads(idxctl("down", "--to", "0", "--dry-run", "-o", "json")[1])
    assert plan["dry_run"] is True
    assert plan["undoes"] == [step.title for step in reversed(migrations.known())]
    assert json.loads(idxctl("status", "-o", "json")[1])["version"] == NEWEST


OLDER = """
CREATE TABLE opensearch_indexing_dlq (id serial PRIMARY KEY, listing_id integer NOT NULL, action varchar(20) NOT NULL, data jsonb,
    attempts integer DEFAULT 0, last_error text, created_at timestamp DEFAULT now(), last_attempt_at timestamp DEFAULT now(),
    UNIQUE (listing_id, action));
INSERT INTO opensearch_indexing_dlq (listing_id, action) VALUES (1, 'index'), (2, 'index')
"""


def test_an_older_dlq_is_adopted_for_the_index_named(idxctl, database):
    with psycopg.connect(database) as connection:
        connection.execute(OLDER)
    status, _, err = idxctl("up")
    assert status == 4
    assert "2 dead letters of an older program" in err
    assert "hint:  adopt_index" in err
    status, out, _ = idxctl("up", "--adopt-index", "products")
    assert status == 0
    assert "dead letters of the older table kept: 2, for index products" in out


def test_the_script_is_printed_without_a_server(idxctl, database):
    status, script, err = idxctl("sql", "--adopt-index", "products")
    assert (status, err) == (0, "")
    assert script == migrate_offline.offline_sql(default_index="products")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(script.encode())
    assert idxctl("up")[1] == f"ok Nothing to do: version {NEWEST}\n"


def test_the_script_needs_no_configuration_either(tmp_path):
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("IDXCTL_", "PG"))}
    script = subprocess.run(
        [sys.executable, "-m", "idxctl", "migrate", "sql"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert script == migrate_offline.offline_sql()


def test_a_server_that_is_down_is_said_to_be(idxctl, monkeypatch, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "idxctl", "migrate", "up"],
        env={**os.environ, "IDXCTL_DATABASE_URL": "postgresql://me:secret@127.0.0.1:1/x"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert "secret" not in done.stderr
