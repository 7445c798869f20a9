"""HTTP over real servers: what is told is what the command line tells, and what is changed leaves a name in the audit."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from idxctl.config.settings import Bearer
from idxctl.core.secret import Secret
from support.calls import GETS, OPERATOR, POSTS, Caller, served
from support.rig import until


@pytest.fixture
def api(items):
    with served(items.settings) as caller:
        yield caller


@pytest.fixture
def poisoned(items):
    """Three letters: prices that are no number."""
    items.sql("UPDATE items SET price = 'dear' WHERE id <= 3")
    items.hand().rest()
    assert set(items.letters()) == {"1", "2", "3"}
    return items


@pytest.fixture
def command_line(items, idxctl):
    return idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)


def audited(items):
    return items.sql(
        "SELECT actor, action, count::text FROM opensearch_indexing_audit WHERE action LIKE 'dlq%%' ORDER BY id"
    )


# --- what is told ----------------------------------------------------------------------------------------------------


def test_status_has_the_shape_of_the_contract(items, api):
    assert (
        api.get("/indexer/status").json.items()
        >= {"status": "disabled", "mode": "synchronous", "healthy": False}.items()
    )
    with items.working():
        until(lambda: api.get("/indexer/status").json["workers"], "no worker was seen")
        wanted = {"status": "enabled", "mode": "asynchronous", "healthy": True, "queue_size": 0}
        assert api.get("/indexer/status").json.items() >= wanted.items()


def test_a_queue_at_nine_tenths_of_its_size_is_not_healthy(items):
    with items.working(queue_size=20, indexes=("another",)) as worker, served(items.settings, worker=worker) as api:
        until(lambda: api.get("/indexer/status").json["workers"], "no worker was seen")
        items.enqueue(*range(1, 18))
        assert api.get("/indexer/status").json["healthy"] is True
        items.enqueue(18)
        found = api.get("/indexer/status").json
        assert (found["healthy"], found["queue_size"], found["queue_capacity"]) == (False, 18, 20)


def test_a_worker_that_is_stopping_is_neither_healthy_nor_ready(items, stops):
    held = stops.at("send.before")
    with items.working() as worker, served(items.settings, worker=worker) as api:
        until(lambda: api.get("/indexer/status").json["healthy"], "not healthy")
        assert api.get("/readyz").status == 200
        items.enqueue(1)
        held.wait()
        worker.stop()
        assert api.get("/indexer/status").json.items() >= {"status": "enabled", "healthy": False}.items()
        assert "shutting down" in api.get("/readyz").json["detail"]
        held.release()


@pytest.mark.parametrize(
    ("path", "command", "key"),
    [
        ("/dlq/stats", ("dlq", "stats"), None),
        ("/dlq", ("dlq", "list"), "letters"),
        ("/dlq?older_than=1h", ("dlq", "list", "--older-than", "1h"), "letters"),
        ("/dlq?document=2", ("dlq", "list", "--document", "2"), "letters"),
        ("/dlq/{id}", ("dlq", "show", "{id}"), None),
        ("/workers", ("worker", "list"), "workers"),
    ],
)
def test_the_command_line_tells_the_same(poisoned, api, command_line, path, command, key):
    number = str(poisoned.one("SELECT min(id) FROM opensearch_indexing_dlq"))
    told = command_line(*(word.replace("{id}", number) for word in command), "-o", "json").json
    asked = api.get(path.replace("{id}", number)).json
    assert (asked if key is None else asked[key]) == told


def test_a_number_beyond_64_bits_in_a_teams_own_data_is_told_as_it_is(items, api, command_line):
    number = items.one(
        "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, attempts, last_error, data) "
        "VALUES (%s, '1', 'index', 3, 'boom', '{\"n\": 123456789012345678901234567890}') RETURNING id",
        items.index,
    )
    asked = api.get(f"/dlq/{number}")
    assert (asked.status, asked.json["data"]) == (200, {"n": 123456789012345678901234567890})
    assert command_line("dlq", "show", number, "-o", "json").json == asked.json
    assert command_line("dlq", "show", number, "-o", "csv").status == 0


def test_a_retry_that_a_shutdown_cuts_short_is_told_so(poisoned):
    poisoned.sql(
        "INSERT INTO opensearch_indexing_pauses (index_name, cause, reason, paused_by, probe_at) VALUES (%s, 'blocked', 'x', 'x', now() + interval '1 hour')",
        poisoned.index,
    )
    answers = []
    with poisoned.working():
        with served(poisoned.settings) as api:
            until(lambda: api.get("/workers").json["workers"], "no worker was seen")
            asking = threading.Thread(target=lambda: answers.append(api.post("/dlq/retry?wait=true&timeout=5m")))
            asking.start()
            until(lambda: poisoned.queued() == 3, "nothing was retried")
        asking.join(30)
    (answer,) = answers
    assert (answer.status, answer.is_problem) == (503, True)
    assert "shutting down" in answer.json["detail"]
    assert poisoned.queued() == 3


def test_queue_stats_are_those_of_the_command_line(items, api, command_line):
    items.enqueue(1, 2, 3)
    told, asked = command_line("queue", "stats", "-o", "json").json, api.get("/queue/stats").json
    for one in (told, asked):
        one.pop("oldest_age_seconds")
        one["by_index"][0].pop("oldest_age_seconds")
    assert asked == told
    assert asked["queued"] == 3


def test_pages_hold_every_letter_once(items, api):
    items.sql(
        "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, attempts, last_error, last_attempt_at) "
        "SELECT %s, n::text, 'index', 1, 'boom', now() - (n / 3) * interval '1 second' FROM generate_series(1, 25) n",
        items.index,
    )
    seen, cursor = [], ""
    pages = []
    for _ in range(10):
        found = api.get(f"/dlq?limit=10{cursor}").json
        pages.append(len(found["letters"]))
        seen += [one["document_id"] for one in found["letters"]]
        if found["next_cursor"] is None:
            break
        cursor = f"&cursor={found['next_cursor']}"
    assert pages == [10, 10, 5]
    assert sorted(map(int, seen)) == list(range(1, 26))


def test_selectors_choose_letters(poisoned, api):
    first = api.get("/dlq").json["letters"][0]
    assert len(api.get(f"/dlq?error={first['fingerprint']}").json["letters"]) == 3
    assert api.get("/dlq?error=none").json["letters"] == []
    assert len(api.get(f"/dlq?index={poisoned.index}").json["letters"]) == 3
    assert [one["id"] for one in api.get(f"/dlq?id={first['id']}").json["letters"]] == [first["id"]]


# --- what is changed -------------------------------------------------------------------------------------------------


def test_without_a_worker_a_retry_indexes_here_and_tells_what_became_of_it(poisoned, api):
    poisoned.sql("ALTER TABLE items DISABLE TRIGGER ALL")
    poisoned.sql("UPDATE items SET price = '7' WHERE id <= 2")
    found = api.post("/dlq/retry?limit=100")
    assert (found.status, found.json["retried"], found.json["succeeded"], found.json["failed"]) == (200, 3, 2, 1)
    assert poisoned.document(1)["price"] == "7"
    assert audited(poisoned) == [("alice", "dlq retry", "3")]


def test_with_a_worker_a_retry_says_how_many_it_did_retry(poisoned, api):
    with poisoned.working():
        until(lambda: api.get("/workers").json["workers"], "no worker was seen")
        found = api.post("/dlq/retry?limit=2").json
        assert (found["retried"], found["succeeded"]) == (2, None)
        poisoned.wait_for_rest()
        waited = api.post("/dlq/retry", {"limit": 2, "wait": True}).json
        assert (waited["retried"], waited["succeeded"], waited["failed"]) == (2, 0, 2)


def test_a_retry_that_takes_longer_than_the_client_waits_is_accepted(poisoned, api):
    poisoned.sql(
        "INSERT INTO opensearch_indexing_pauses (index_name, cause, reason, paused_by, probe_at) VALUES (%s, 'blocked', 'x', 'x', now() + interval '1 hour')",
        poisoned.index,
    )
    found = api.post("/dlq/retry?timeout=200ms")
    told = {name: found.json[name] for name in ("retried", "succeeded", "failed", "waiting")}
    assert (found.status, told) == (202, {"retried": 3, "succeeded": 0, "failed": 0, "waiting": 3})
    assert poisoned.queued() == 3


def test_a_dry_run_changes_nothing(poisoned, api):
    assert api.post("/dlq/retry?dry_run=true").json.items() >= {"retried": 3, "dry_run": True}.items()
    assert api.post("/dlq/purge?all=true&dry_run=true").json.items() >= {"purged": 3, "dry_run": True}.items()
    assert len(poisoned.letters()) == 3
    assert audited(poisoned) == []


def test_a_purge_needs_a_selector_and_leaves_a_name(poisoned, api):
    refused = api.post("/dlq/purge")
    assert (refused.status, refused.is_problem, refused.json["field"]) == (400, True, "older_than")
    assert api.post("/dlq/purge?older_than=7d").json["purged"] == 0
    number = poisoned.one("SELECT min(id) FROM opensearch_indexing_dlq")
    assert api.post("/dlq/purge", {"id": [number]}).json["purged"] == 1
    assert api.post(f"/dlq/purge?index={poisoned.index}").json["purged"] == 2
    assert audited(poisoned) == [("alice", "dlq purge", "1"), ("alice", "dlq purge", "2")]


# --- the server ------------------------------------------------------------------------------------------------------


def test_no_secret_is_told(poisoned, caplog):
    secret = replace(
        poisoned.settings,
        opensearch=replace(poisoned.settings.opensearch, username="u", password=Secret("hunter2")),
        http=replace(poisoned.settings.http, bearers=(Bearer("eve", "viewer", Secret("hunter2")),)),
    )
    assert "hunter2" not in repr(secret)
    with caplog.at_level("DEBUG"), served(poisoned.settings) as api:
        for path in (*GETS, "/metrics", "/readyz"):
            api.get(path)
        for path in (*POSTS, "/dlq/retry?x=1"):
            api.post(path)
            api.post(path, token="wrong-token")
        told = b"".join(one.body + json.dumps(dict(one.headers)).encode() for one in api.answers).decode() + caplog.text
    assert OPERATOR not in told
    assert "wrong-token" not in told


def test_the_worker_answers_beside_its_work_and_until_it_is_drained(items, command_line, stops):
    process = command_line.start("worker", "start", "--http", "127.0.0.1:0", "--log-format", "json")
    address = next(
        fact["address"] for fact in map(json.loads, process.stderr) if fact["fact"] == "http" and "address" in fact
    )
    api = Caller(address)
    assert api.get("/livez").status == 200
    items.sql("UPDATE items SET name = 'new'")
    name = f'opensearch_indexing_success_total{{action="index",index="{items.index}",mode="async"}}'
    until(lambda: api.metrics()[name] >= 20, "nothing was counted")
    process.terminate()
    assert process.wait(30) == 0
    assert items.differences() == []
