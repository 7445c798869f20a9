"""Dead letters from real failures, by the commands that people type."""

from __future__ import annotations

import csv
from datetime import timedelta

import psycopg
import pytest

from idxctl import dlq
from idxctl.opensearch.client import connect as connect_opensearch
from idxctl.postgres.connect import Pool
from idxctl.queue import pause
from support.rig import Rig, until

pytestmark = pytest.mark.sampled

LEGACY = [
    "SELECT listing_id, action, attempts, last_error, created_at, last_attempt_at FROM opensearch_indexing_dlq ORDER BY last_attempt_at DESC LIMIT 20;",
    "SELECT last_error, COUNT(*) AS count, MIN(created_at) AS first_seen, MAX(last_attempt_at) AS last_seen FROM opensearch_indexing_dlq GROUP BY last_error ORDER BY count DESC;",
    "SELECT COUNT(*) AS total, MIN(created_at) AS oldest_task FROM opensearch_indexing_dlq;",
    "DELETE FROM opensearch_indexing_dlq WHERE created_at < NOW() - INTERVAL '7 days';",
    "DELETE FROM opensearch_indexing_dlq WHERE listing_id = 12345;",
    "TRUNCATE opensearch_indexing_dlq;",
]


@pytest.fixture
def cli(items: Rig, idxctl):
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    return idxctl


def poison(items: Rig, *ids: int) -> None:
    items.sql("UPDATE items SET price = 'poison' WHERE id = ANY(%s)", list(ids))


def mend_quietly(items: Rig, *ids: int) -> None:
    """Mend rows without their change being captured."""
    items.sql("ALTER TABLE items DISABLE TRIGGER ALL")
    items.sql("UPDATE items SET price = '1' WHERE id = ANY(%s)", list(ids))
    items.sql("ALTER TABLE items ENABLE TRIGGER ALL")


def test_bad_documents_die_alone_each_with_its_cause(items: Rig):
    items.sql("UPDATE items SET price = 'poison' WHERE id = 3")
    items.sql("UPDATE items SET divisor = 0 WHERE id = 4")
    items.sql("""UPDATE items SET extra = '{"unknown": 1}' WHERE id = 5""")
    items.sql("UPDATE items SET name = name || '!'")
    items.enqueue("no-number")  # cannot be a document's
    items.drain()
    letters = items.letters()
    assert {name: kind for name, (kind, _) in letters.items()} == {
        "3": "mapper_parsing_exception",
        "4": "sql_22012",
        "5": "strict_dynamic_mapping_exception",
    }
    items.sql("UPDATE items SET divisor = 1 WHERE id = 4")  # the judge cannot divide by zero either
    items.drain()
    assert "4" not in items.letters()
    assert items.differences(but=[3, 5]) == []


def test_id_longer_than_512_bytes_fails_alone(text_items):
    rig = text_items
    rig.sql("INSERT INTO items (code) VALUES (%s), ('fine')", "x" * 513)
    rig.drain()
    assert rig.sql("SELECT whole_id FROM opensearch_indexing_dlq") == [("x" * 513,)]
    assert rig.document("fine") == {"code": "fine"}


@pytest.fixture
def text_items(database, migrate, opensearch_url, unique_name, tmp_path):
    migrate(database)
    (tmp_path / "document.sql").write_text(
        "SELECT code AS document_id, jsonb_build_object('code', left(code, 20)) AS document FROM items"
    )
    (tmp_path / "idxctl.toml").write_text(
        f'[indexes.{unique_name}]\ndocument = "document.sql"\nmapping = {{}}\n[[indexes.{unique_name}.watch]]\ntable = "items"\nkey = "code"\n'
    )
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE items (code text PRIMARY KEY)")
    rig = Rig(database, opensearch_url, unique_name, tmp_path)
    rig.watch()
    rig.reindex()
    yield rig
    rig.close()


def test_document_that_succeeds_later_heals_its_letter(items: Rig):
    poison(items, 3)
    items.drain()
    assert list(items.letters()) == ["3"]
    items.sql("UPDATE items SET price = '2' WHERE id = 3")
    items.drain()
    assert items.letters() == {}
    assert items.differences() == []


def test_stats_name_total_oldest_and_groups(items: Rig, cli):
    poison(items, 3, 4)
    items.sql("UPDATE items SET divisor = 0 WHERE id = 5")
    items.drain()
    found = cli("dlq", "stats", "-o", "json").json
    assert found["total"] == 3
    assert found["oldest_task"]
    assert [group["count"] for group in found["by_error"]] == [2, 1]
    wanted = {"fingerprint", "error_type", "count", "first_seen", "last_seen", "example"}
    assert all(wanted <= group.keys() for group in found["by_error"])


def test_list_has_the_promised_fields(items: Rig, cli):
    poison(items, 3)
    items.drain()
    (letter,) = cli("dlq", "list", "-o", "json").json
    assert {
        "id", "index", "document_id", "action", "attempts", "error_type", "last_error", "created_at", "last_attempt_at", "retryable",
    } <= letter.keys()  # fmt: skip
    assert (letter["document_id"], letter["action"], letter["retryable"]) == ("3", "index", False)


def test_retry_without_workers_indexes_and_tells(items: Rig, cli):
    poison(items, 3, 4, 5)
    items.drain()
    mend_quietly(items, 3, 4)
    done = cli("dlq", "retry", "--limit", "100", "-o", "json")
    assert done.status == 3  # done in part
    assert (done.json["retried"], done.json["succeeded"], done.json["failed"]) == (3, 2, 1)
    assert list(items.letters()) == ["5"]
    assert items.differences(but=[5]) == []


def test_retry_that_mends_all_ends_with_0_and_says_so(items: Rig, cli):
    poison(items, 3, 4)
    items.drain()
    mend_quietly(items, 3, 4)
    done = cli("dlq", "retry", "--limit", "100")
    assert (done.status, done.stdout) == (0, "2 retried: 2 indexed, 0 failed again\n")


def test_retry_with_a_worker_requeues_and_with_wait_tells(items: Rig, cli):
    poison(items, 3, 4)
    items.drain()
    mend_quietly(items, 3)
    with items.working() as worker:
        until(lambda: items.one("SELECT count(*) FROM opensearch_indexing_workers"), "no worker")
        done = cli("dlq", "retry", "--limit", "1", "-o", "json")
        assert (done.status, done.json["retried"]) == (0, 1)
        items.wait_for_rest()
        done = cli("dlq", "retry", "--wait", "-o", "json")
        assert (done.json["retried"], done.json["succeeded"], done.json["failed"]) == (1, 0, 1)
        assert worker.counters.dead >= 1


def test_retry_indexes_letters_of_an_index_that_no_live_worker_serves(items: Rig, cli):
    poison(items, 3)
    items.drain()
    mend_quietly(items, 3)
    with items.working(indexes=("another",)):
        until(lambda: items.one("SELECT count(*) FROM opensearch_indexing_workers"), "no worker")
        done = cli("dlq", "retry", "--limit", "100", "-o", "json")
    assert (done.json["retried"], done.json["succeeded"], done.json["failed"]) == (1, 1, 0)


def test_retry_names_a_pause_and_does_not_wait_where_nobody_can_help(items: Rig, cli):
    poison(items, 3)
    items.drain()
    mend_quietly(items, 3)
    pause.pause(items.conn, items.index, reason="a move", by="ops")
    done = cli("dlq", "retry", "-o", "json")  # by default it waits longer than the command line of tests
    assert (done.status, done.json["retried"], done.json["waiting"]) == (8, 1, 1)
    assert done.json["paused"] == {items.index: "a move"}
    assert f"idxctl resume --index {items.index}" in done.stderr
    pause.resume(items.conn, items.index)
    items.drain()
    assert items.differences() == []


def test_retry_with_a_worker_names_a_pause(items: Rig, cli):
    poison(items, 3)
    items.drain()
    pause.pause(items.conn, items.index, reason="a move", by="ops")
    with items.working():
        until(lambda: items.one("SELECT count(*) FROM opensearch_indexing_workers"), "no worker")
        assert cli("dlq", "retry", "-o", "json").json["paused"] == {items.index: "a move"}


def test_retry_takes_the_least_recently_attempted_first(items: Rig, cli):
    poison(items, 3, 4, 5)
    items.drain()
    for minutes, one in enumerate((5, 3, 4), 1):
        items.sql(
            "UPDATE opensearch_indexing_dlq SET last_attempt_at = now() - %s * interval '1 hour' WHERE document_id = %s",
            10 - minutes, str(one),
        )  # fmt: skip
    mend_quietly(items, 3, 4, 5)
    cli("dlq", "retry", "--limit", "2")
    assert list(items.letters()) == ["4"]


def test_letter_keeps_its_number_and_its_age_through_a_failed_retry(items: Rig, cli):
    poison(items, 3)
    items.drain()
    ((number, created),) = items.sql("SELECT id, created_at FROM opensearch_indexing_dlq")
    cli("dlq", "retry")
    assert items.sql("SELECT id, created_at, retries FROM opensearch_indexing_dlq") == [(number, created, 1)]
    shown = cli("dlq", "show", str(number), "-o", "json").json
    assert len(shown["history"]) == 2


def test_letter_whose_document_fails_again_keeps_its_past(items: Rig, cli):
    poison(items, 3)
    items.drain()
    items.sql("UPDATE items SET price = '1', divisor = 0 WHERE id = 3")
    items.drain()
    ((number,),) = items.sql("SELECT id FROM opensearch_indexing_dlq")
    history = cli("dlq", "show", str(number), "-o", "json").json["history"]
    assert [one["error_type"] for one in history] == ["mapper_parsing_exception", "sql_22012"]
    shown = cli("dlq", "show", str(number)).stdout
    assert "mapper_parsing_exception" in shown
    assert history[0]["at"][:10] in shown


def test_hopeless_letter_is_left_alone_from_its_second_retry_on_unless_named(items: Rig, cli):
    poison(items, 3)
    items.drain()
    ((number,),) = items.sql("SELECT id FROM opensearch_indexing_dlq")
    assert cli("dlq", "retry", "-o", "json").json["retried"] == 1
    assert cli("dlq", "retry", "-o", "json").json["retried"] == 1
    assert cli("dlq", "retry", "-o", "json").json["retried"] == 0
    assert cli("dlq", "retry", str(number), "-o", "json").json["retried"] == 1


def test_letters_stay_where_the_queue_swallows_their_tasks(items: Rig, cli):
    poison(items, 3)
    items.drain()
    items.sql("CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    items.sql(
        "CREATE TRIGGER swallow BEFORE INSERT ON opensearch_indexing_queue FOR EACH ROW EXECUTE FUNCTION swallow()"
    )
    done = cli("dlq", "retry")
    assert (done.status, list(items.letters())) == (1, ["3"])
    assert "the queue swallows tasks" in done.stderr


def test_purge_by_age_goes_on_in_a_script_and_leaves_an_audit_row(items: Rig, cli):
    poison(items, 3, 4)
    items.drain()
    items.sql("UPDATE opensearch_indexing_dlq SET created_at = now() - interval '8 days' WHERE document_id = '3'")
    preview = cli("dlq", "purge", "--older-than", "7d", "--dry-run", "-o", "json").json
    assert (preview["purged"], preview["dry_run"]) == (1, True)
    assert len(items.letters()) == 2
    assert cli("dlq", "purge", "--older-than", "7d", "-o", "json").json["purged"] == 1
    assert list(items.letters()) == ["4"]
    assert items.sql("SELECT count FROM opensearch_indexing_audit WHERE action = 'dlq purge'") == [(1,)]


def test_purge_without_a_selector_is_refused(items: Rig, cli):
    poison(items, 3)
    items.drain()
    assert cli("dlq", "purge").status == 2
    assert cli("dlq", "purge", "--all").status == 2  # nobody to ask
    assert cli("dlq", "purge", "--older-than", "7").status == 2  # seven what?
    assert len(items.letters()) == 1
    assert cli("dlq", "purge", "--all", "--yes").status == 0
    assert items.letters() == {}


@pytest.mark.parametrize("statement", LEGACY)
def test_statements_of_old_run_on_letters_of_ours(items: Rig, statement):
    poison(items, 3, 4)
    items.drain()
    items.sql(statement)
    if "listing_id, action" in statement:
        assert sorted(row[0] for row in items.sql(statement)) == [3, 4]


def test_letter_deleted_by_hand_and_enqueued_again_is_indexed(items: Rig):
    poison(items, 3)
    items.drain()
    mend_quietly(items, 3)
    items.sql("DELETE FROM opensearch_indexing_dlq WHERE listing_id = 3")
    items.enqueue(3)
    items.drain()
    assert items.letters() == {}
    assert items.differences() == []


def test_queue_stats_have_the_promised_fields(items: Rig, cli):
    items.sql("UPDATE items SET name = name || '!'")
    found = cli("queue", "stats", "-o", "json").json
    assert (found["queued"], found["in_flight"]) == (20, 0)
    assert found["oldest_age_seconds"] > 0
    assert [one["index"] for one in found["by_index"]] == [items.index]


def test_until_empty_ends_with_3_when_a_pause_keeps_some(items: Rig, cli):
    items.sql("UPDATE items SET name = name || '!'")
    assert cli("pause", "--index", items.index).status == 0
    assert cli("worker", "start", "--until-empty").status == 3
    assert items.queued() == 20
    cli("resume", "--index", items.index)
    assert cli("worker", "start", "--until-empty").status == 0
    assert items.differences() == []


def test_until_empty_waits_for_a_later_attempt_and_not_for_a_later_moment(items: Rig, cli):
    items.sql("UPDATE items SET name = name || '!' WHERE id = 3")
    items.sql("UPDATE opensearch_indexing_queue SET attempts = 1, available_at = now() + interval '2 seconds'")
    items.sql("SELECT opensearch_indexing_enqueue(%s, '4', available_at => now() + interval '1 hour')", items.index)
    assert cli("worker", "start", "--until-empty").status == 0
    assert items.queued() == 1
    assert items.differences() == []


NOBODY = "http://127.0.0.1:9"  # the discard port: connections are refused


def test_retry_without_a_worker_moves_nothing_while_opensearch_is_away(items: Rig, cli):
    poison(items, 3)
    items.drain()
    away = cli("dlq", "retry", "--limit", "100", env={"IDXCTL_OPENSEARCH_URL": NOBODY})
    assert away.status == 5
    assert "no letter was retried" in away.stderr
    assert list(items.letters()) == ["3"]
    assert items.queued() == 0
    assert items.one("SELECT retries FROM opensearch_indexing_dlq") == 0


def test_retry_of_nothing_needs_no_opensearch(items: Rig, cli):
    assert cli("dlq", "retry", env={"IDXCTL_OPENSEARCH_URL": NOBODY}).status == 0


def test_retry_that_runs_out_of_time_tells_how_far_it_came(items: Rig, cli):
    poison(items, 3, 4)
    items.drain()
    cli("pause", "--index", items.index)
    late = cli("dlq", "retry", "--timeout", "500ms", "-o", "json")
    assert late.status == 8
    assert (late.json["retried"], late.json["succeeded"], late.json["failed"], late.json["waiting"]) == (2, 0, 0, 2)
    assert items.queued() == 2


@pytest.mark.parametrize(
    "command",
    [
        ("dlq", "stats"),
        ("dlq", "list"),
        ("dlq", "retry"),
        ("dlq", "purge", "--yes"),
        ("queue", "stats"),
        ("queue", "list"),
        ("queue", "cancel", "--yes"),
        ("worker", "start", "--until-empty"),
    ],
    ids=" ".join,
)
def test_an_index_that_nobody_knows_is_a_mistake_and_not_an_empty_one(items: Rig, cli, command):
    done = cli(*command, "--index", items.index + "x")
    assert done.status == 2
    assert f"did you mean {items.index!r}?" in done.stderr


def test_letters_of_an_index_taken_out_of_the_configuration_can_still_be_named(items: Rig, cli):
    items.sql("INSERT INTO opensearch_indexing_dlq (index_name, document_id, action) VALUES ('gone', '1', 'index')")
    assert [one["index"] for one in cli("dlq", "list", "--index", "gone", "-o", "json").json] == ["gone"]
    assert cli("dlq", "purge", "--index", "gone", "-o", "json").json["purged"] == 1


def test_numbers_too_great_for_any_letter_are_no_trouble(items: Rig, cli):
    poison(items, 3)
    items.drain()
    huge = "9" * 30
    assert len(cli("dlq", "list", "--limit", huge, "-o", "json").json) == 1
    assert cli("dlq", "purge", huge, "-o", "json").json["purged"] == 0
    assert cli("dlq", "retry", huge, "-o", "json").json["retried"] == 0
    assert cli("dlq", "retry", "--limit", huge, "--dry-run", "-o", "json").json["retried"] == 1
    assert cli("queue", "list", "--limit", huge).status == 0


def test_csv_has_the_names_that_json_has(items: Rig, cli):
    poison(items, 3, 4)
    items.drain()
    for command in ("list", "stats"):
        rows = cli("dlq", command, "-o", "json").json
        rows = rows["by_error"] if command == "stats" else rows
        read = list(csv.DictReader(cli("dlq", command, "-o", "csv").stdout.splitlines()))
        assert [row.keys() for row in read] == [row.keys() for row in rows]
        assert [row.get("id", row["fingerprint"]) for row in read] == [str(r.get("id", r["fingerprint"])) for r in rows]


def test_where_there_is_no_configuration_file_watch_install_says_so(items: Rig, cli):
    cli.environ.pop("IDXCTL_CONFIG")
    for command in (("watch", "install"), ("reindex",)):
        done = cli(*command)
        assert done.status == 4
        assert "there is no idxctl.toml in this directory" in done.stderr
    assert "no index is configured" in cli("config", "validate").stdout


def test_purge_spares_a_letter_that_came_after_the_question(items: Rig):
    poison(items, 3, 4)
    items.drain()
    everything = dlq.Selection(index=items.index)
    asked = dlq.plan_purge(items.conn, everything, everything=False)
    poison(items, 5)
    items.drain()
    done = dlq.purge(items.conn, everything, planned=asked)
    assert (asked.purged, done.purged) == (2, 2)
    assert list(items.letters()) == ["5"]


def test_retry_tells_how_far_it_is(items: Rig):
    poison(items, 3, 4)
    items.drain()
    heard: list[tuple[int, int]] = []
    pool = Pool(items.settings.database)
    try:
        done = dlq.retry(
            pool,
            lambda: connect_opensearch(items.settings.opensearch),
            items.settings,
            dlq.Selection(),
            limit=100,
            wait=False,
            timeout=timedelta(minutes=1),
            told=lambda settled, total: heard.append((settled, total)),
        )
    finally:
        pool.close()
    assert (done.retried, done.failed) == (2, 2)
    assert heard == sorted(heard)
    assert heard[-1] == (2, 2)
