"""No id and no text stops anything but itself: databases of other encodings, long keys, what an answer quotes."""

from __future__ import annotations

import secrets

import psycopg
import pytest

from idxctl import dlq
from idxctl.core.reasons import Kind, Reason
from idxctl.queue import document_names, rescue, settle, stats
from idxctl.queue.claim import Task
from idxctl.queue.outcomes import Again, Failure, Outcomes
from support.pages import pages, take
from support.rig import Rig, until

pytestmark = pytest.mark.sampled

LONG = "https://example.org/" + "".join(secrets.token_hex(16) for _ in range(150))  # 4,820 bytes that do not compress


@pytest.fixture(params=["UTF8", "LATIN1", "SQL_ASCII", "EUC_JP"])
def encoded(request, postgres_url, opensearch_url, unique_name, tmp_path, migrate):
    with pages(postgres_url, opensearch_url, unique_name, tmp_path, migrate, request.param) as rig:
        yield rig


@pytest.fixture
def utf8(postgres_url, opensearch_url, unique_name, tmp_path, migrate):
    with pages(postgres_url, opensearch_url, unique_name, tmp_path, migrate, "UTF8") as rig:
        yield rig


# Long keys ------------------------------------------------------------------------------------------------------------


def test_a_key_of_thousands_of_bytes_is_a_letter_alone(utf8: Rig):
    utf8.sql("INSERT INTO pages VALUES (%s, '{}'), ('before', '{}')", LONG)
    utf8.sql("INSERT INTO pages VALUES ('after', '{}')")
    utf8.drain()
    assert [kind for kind, _ in utf8.letters().values()] == ["id_too_long"]
    assert utf8.differences(but=[LONG]) == []
    (letter,) = dlq.letters(utf8.conn, dlq.Selection(), limit=10)
    assert letter.document_id == LONG
    assert dlq.show(utf8.conn, str(letter.id)).document_id == LONG
    assert dlq.stats(utf8.conn).by_error[0].document_id == LONG
    name = utf8.one("SELECT document_id FROM opensearch_indexing_dlq")
    assert len(name) < len(LONG)
    for given in (LONG, name):
        assert dlq.letters(utf8.conn, dlq.Selection(documents=(given,)), limit=10) == [letter]
    assert dlq.letters(utf8.conn, dlq.Selection(documents=(LONG[:-1],)), limit=10) == []


def test_a_letter_of_a_long_key_is_retried_as_itself(utf8: Rig):
    utf8.sql("INSERT INTO pages VALUES (%s, '{}')", LONG)
    utf8.drain()
    (before,) = dlq.letters(utf8.conn, dlq.Selection(), limit=10)
    _, ids = dlq.requeue(utf8.conn, dlq.Selection(), limit=10)
    assert utf8.one("SELECT document_id FROM opensearch_indexing_queue") == LONG
    utf8.drain()
    (after,) = dlq.letters(utf8.conn, dlq.Selection(), limit=10)
    assert (after.id, after.document_id, ids) == (before.id, LONG, [before.id])


def test_programs_of_before_write_letters_of_long_keys_too(encoded: Rig):
    """As workers of the release before do, by the columns and the index that they know."""
    long = "\xe9" * 3000 if encoded.conn.encoding != "EUC_JP" else LONG
    for attempts in (1, 2):
        encoded.sql(
            "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, attempts) VALUES (%s, %s, 'index', %s) "
            "ON CONFLICT (index_name, document_id, action) WHERE NOT duplicate DO UPDATE SET attempts = excluded.attempts",
            encoded.index, long, attempts,
        )  # fmt: skip
    assert encoded.sql("SELECT whole_id = %s, document_id, attempts FROM opensearch_indexing_dlq", long) == [
        (True, document_names.short_name(long), 2)
    ]


def test_a_long_key_whose_row_is_gone_leaves_nothing(utf8: Rig):
    utf8.sql("INSERT INTO pages VALUES (%s, '{}')", LONG)
    utf8.drain()
    utf8.sql("DELETE FROM pages WHERE url = %s", LONG)
    utf8.drain()
    assert utf8.letters() == {}
    assert utf8.at_rest()


def test_a_bulk_of_long_keys_makes_letters_and_pauses_nothing(utf8: Rig):
    utf8.sql("INSERT INTO pages SELECT repeat('x', 600) || i, '{}' FROM generate_series(1, 100) i")
    utf8.sql("INSERT INTO pages VALUES ('innocent', '{}')")
    utf8.drain()
    assert len(utf8.letters()) == 100
    assert utf8.document("innocent") == {}
    assert utf8.sql("SELECT * FROM opensearch_indexing_pauses") == []


def test_a_rebuild_passes_over_a_long_key(utf8: Rig):
    utf8.sql("INSERT INTO pages VALUES (%s, '{}')", LONG)
    utf8.drain()
    done = utf8.reindex()
    assert done.swapped
    assert len(utf8.letters()) == 1
    assert utf8.differences(but=[LONG]) == []


# Texts ----------------------------------------------------------------------------------------------------------------

# As an integer each is refused, and the refusal quotes it.
QUOTED = {
    "euro": r'{"n": "costs \u20ac 5"}', "nul": r'{"n": "a\u0000b"}', "kanji": r'{"n": "\u6f22\u5b57"}',
    "pair": r'{"n": "\ud83d\ude00"}', "accent": r'{"n": "caf\u00e9"}', "control": r'{"n": "\u0001\u007f\u0085"}',
}  # fmt: skip


@pytest.mark.parametrize("quoted", QUOTED.values(), ids=QUOTED)
def test_an_error_that_quotes_any_character_makes_one_letter(encoded: Rig, quoted: str):
    encoded.sql("INSERT INTO pages VALUES ('bad', %s), ('good', '{}')", quoted)
    encoded.drain()
    assert [(name, kind) for name, (kind, _) in encoded.letters().items()] == [("bad", "mapper_parsing_exception")]
    assert encoded.document("good") == {}
    assert encoded.one("SELECT max(attempts) FROM opensearch_indexing_dlq") == 1


def test_a_rebuild_notes_an_error_that_quotes_any_character(encoded: Rig):
    encoded.sql("INSERT INTO pages VALUES ('bad', %s), ('good', '{}')", QUOTED["euro"])
    encoded.drain()
    assert encoded.reindex().swapped
    assert list(encoded.letters()) == ["bad"]


ANYTHING = "caf\xe9 \u20ac \u6f22 \U0001f600 \0 \ud800 \x85 " + "x" * 10_000


def test_settle_takes_any_text(encoded: Rig):
    encoded.sql("INSERT INTO pages SELECT 't' || i, '{}' FROM generate_series(1, 4) i")
    batch = take(encoded)
    tasks = {task.document_id: task for task in batch.tasks}
    dead, doubtful = (failure(tasks[name], permanent=name == "t1") for name in ("t1", "t2"))
    settled = settle.settle(
        encoded.conn, batch,
        Outcomes(done=[tasks["t4"]], again=[Again(tasks["t3"], 0.0, Reason(Kind.REFUSED, ANYTHING))], failed=[dead, doubtful]), max_attempts=3,
    )  # fmt: skip
    assert (settled.done, settled.retried, settled.dead) == (1, 2, 1)
    assert encoded.one("SELECT last_error FROM opensearch_indexing_dlq").startswith("caf")
    assert encoded.one("SELECT max(length(last_error)) FROM opensearch_indexing_queue") < 5000
    encoded.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")
    again = take(encoded)  # with its history
    settle.settle(encoded.conn, again, Outcomes(failed=[failure(one) for one in again.tasks]), max_attempts=1)
    assert encoded.in_flight() == 0
    assert encoded.letters().keys() == {"t1", "t2", "t3"}


def failure(task: Task, *, permanent: bool = True) -> Failure:
    return Failure(task, "odd\0 \u20ac \ud800", "abcdef", ANYTHING, permanent)


# Bytes that are no characters ------------------------------------------------------------------------------------------


@pytest.fixture
def bytewise(postgres_url, opensearch_url, unique_name, tmp_path, migrate):
    """Pages in a database that takes any bytes; SQL of the test's own writes them by number."""
    with pages(postgres_url, opensearch_url, unique_name, tmp_path, migrate, "SQL_ASCII") as rig:
        yield rig


BYTES = "caf\udce9"  # as Python has names that are no UTF-8


def test_an_id_that_is_no_text_is_a_letter_alone(bytewise: Rig):
    bytewise.sql(r"INSERT INTO pages VALUES (E'caf\351', '{}'), ('good', '{}')")
    bytewise.drain()
    assert bytewise.document("good") == {}
    (letter,) = dlq.letters(bytewise.conn, dlq.Selection(), limit=10)
    assert (letter.document_id, letter.error_type) == (BYTES, "id_not_utf8")
    assert "no valid UTF-8" in letter.last_error
    dlq.requeue(bytewise.conn, dlq.Selection(), limit=10)
    assert bytewise.one(r"SELECT document_id = E'caf\351' FROM opensearch_indexing_queue")
    bytewise.drain()
    assert dlq.show(bytewise.conn, str(letter.id)).document_id == BYTES
    bytewise.sql(r"DELETE FROM pages WHERE url = E'caf\351'")
    bytewise.drain()
    assert dlq.stats(bytewise.conn).total == 0


def test_ids_of_bytes_without_a_row_leave_nothing(bytewise: Rig):
    bytewise.sql(r"SELECT opensearch_indexing_enqueue(%s, E'\377' || i) FROM generate_series(1, 200) i", bytewise.index)
    bytewise.sql("INSERT INTO pages VALUES ('good', '{}')")
    bytewise.drain()
    assert bytewise.document("good") == {}
    assert bytewise.letters() == {}
    assert bytewise.at_rest()


def test_a_document_that_is_no_text_is_a_letter_alone(bytewise: Rig):
    bytewise.sql(r"INSERT INTO pages VALUES ('bad', E'{\"s\": \"caf\351\"}'), ('good', '{}')")
    bytewise.drain()
    assert list(bytewise.letters()) == ["bad"]
    assert bytewise.document("good") == {}


def test_a_long_id_of_bytes_has_the_name_that_the_database_gives_it(bytewise: Rig):
    bytewise.sql(r"INSERT INTO pages VALUES (repeat(E'\351', 3000), '{}')")
    bytewise.drain()
    assert bytewise.sql(
        "SELECT document_id = rpad('sha256 ' || encode(sha256(convert_to(whole_id, 'SQL_ASCII')), 'hex') || ' ', 600, '.') "
        "FROM opensearch_indexing_dlq"
    ) == [(True,)]


def test_a_rebuild_and_a_check_pass_over_what_is_no_text(bytewise: Rig):
    bytewise.sql(r"INSERT INTO pages VALUES (E'caf\351', '{}'), ('bad', E'{\"s\": \"\351\"}'), ('good', '{}')")
    bytewise.drain()
    assert bytewise.reindex().swapped
    assert {letter.document_id for letter in dlq.letters(bytewise.conn, dlq.Selection(), limit=10)} == {BYTES, "bad"}
    assert bytewise.document("good") == {}


def test_what_is_remembered_of_a_task_may_be_bytes(bytewise: Rig):
    """Who may write the queue may leave anything there."""
    bytewise.sql(
        "INSERT INTO opensearch_indexing_queue (index_name, document_id, action, last_error, origin, payload) "
        r"VALUES (%s, 'p1', 'index', E'\351', E'\351', E'{\"a\": \"\351\", \"history\": [{\"reason\": \"\351\"}]}')",
        bytewise.index,
    )
    bytewise.sql("UPDATE pages SET doc = '{\"n\": \"no number\"}' WHERE url = 'p1'")
    bytewise.drain()
    assert list(bytewise.letters()) == ["p1"]


def test_every_command_shows_what_is_no_text(bytewise: Rig, idxctl):
    bytewise.sql(r"INSERT INTO pages VALUES (E'caf\351', '{}')")
    bytewise.drain()
    bytewise.sql(
        r"SELECT opensearch_indexing_enqueue(E'\351', E'\351'), opensearch_indexing_enqueue(%s, E'\351')",
        bytewise.index,
    )
    idxctl.use(database=bytewise.database, opensearch=bytewise.opensearch, config=bytewise.config)
    (number,) = bytewise.sql("SELECT id FROM opensearch_indexing_dlq")[0]
    for output in ("table", "plain", "json", "ndjson", "csv", "markdown"):
        for command in (
            ("queue", "list"),
            ("queue", "stats"),
            ("dlq", "list"),
            ("dlq", "stats"),
            ("dlq", "show", str(number)),
        ):
            assert idxctl(*command, "-o", output).status == 0
    assert idxctl("queue", "cancel", "--all", "--yes").status == 0
    assert idxctl("dlq", "retry", "--limit", "100").status == 3  # it fails again
    assert idxctl("dlq", "purge", "--all", "--yes").status == 0


# What PostgreSQL refuses of one task ----------------------------------------------------------------------------------

REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = 'check_violation'; END $$;
CREATE TRIGGER a_refusal BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse();
"""


def refuse(rig: Rig, table: str, condition: str, event: str = "INSERT") -> None:
    """Have the database refuse rows, as a check or a trigger of the team's own might."""
    rig.sql(REFUSE.format(table=table, condition=condition, event=event))


def test_a_letter_that_is_refused_keeps_no_other_task_of_its_batch(items: Rig):
    refuse(items, "opensearch_indexing_dlq", "NEW.document_id = '3' AND NEW.history <> '[]' AND NEW.attempts < 9")
    items.sql("UPDATE items SET price = 'poison' WHERE id IN (3, 4)")
    items.sql("UPDATE items SET name = name || '!'")
    items.drain()
    assert "4" in items.letters()
    assert [name for name in items.letters() if name.startswith("sha256 ")] != []  # under a name of its own
    assert items.differences(but=[3, 4]) == []


def test_a_task_that_cannot_be_a_letter_at_all_is_put_off_and_seen(items: Rig):
    refuse(items, "opensearch_indexing_dlq", "NEW.document_id LIKE '3%' OR NEW.document_id LIKE 'sha256%'")
    items.sql("UPDATE items SET price = 'poison' WHERE id IN (3, 4)")
    items.sql("UPDATE items SET name = name || '!'")
    with items.working():
        items.wait_for_rest()
    assert list(items.letters()) == ["4"]
    ((name, why, hour),) = items.sql(
        "SELECT document_id, last_error, available_at > clock_timestamp() + interval '50 minutes' FROM opensearch_indexing_queue"
    )
    assert (name, hour) == ("3", True)
    assert "not this one" in why


def test_a_letter_that_cannot_be_cleared_keeps_no_document_from_being_done(items: Rig):
    items.sql("UPDATE items SET price = 'poison' WHERE id = 3")
    items.drain()
    refuse(items, "opensearch_indexing_dlq", "OLD.document_id = '3'", "DELETE")
    items.sql("UPDATE items SET price = '1', name = name || '!'")
    items.drain()
    assert items.differences() == []
    assert list(items.letters()) == ["3"]


def lose(rig: Rig, *batches: list[int]) -> None:
    """Leave a lapsed batch of each list of items."""
    for batch in batches:
        rig.enqueue(*batch)
        assert len(take(rig).tasks) == len(batch)
    rig.sql("UPDATE opensearch_indexing_inflight SET lease_until = '-infinity'")


def rescue_all(rig: Rig) -> list[rescue.Rescued]:
    return until(lambda: rescue.rescue(rig.conn, max_attempts=3), "nothing to rescue")


def test_a_batch_that_cannot_be_put_back_keeps_nobody_from_the_others(items: Rig):
    lose(items, [1, 2], [3], [4, 5])
    items.sql("ALTER TABLE opensearch_indexing_queue ADD CHECK (document_id <> '3' OR origin = 'api' AND attempts = 0)")
    items.sql("ALTER TABLE opensearch_indexing_dlq ADD CHECK (document_id NOT LIKE '3%')")
    found = rescue_all(items)
    assert [one.stuck is not None for one in found] == [False, True, False]
    assert items.queued() == 4
    found = stats.stats(items.conn)
    assert found.stuck == 1
    assert "violates check constraint" in found.by_index[0].trouble
    assert items.sql("SELECT document_ids, lease_until > clock_timestamp() FROM opensearch_indexing_inflight") == [
        (["3"], True)
    ]


def test_a_task_that_cannot_be_put_back_as_it_was_goes_back_stripped_or_as_a_letter(items: Rig):
    lose(items, [1, 2, 3, 4])
    items.sql("ALTER TABLE opensearch_indexing_queue ADD CHECK (document_id <> '3' OR payload IS NULL)")
    items.sql("ALTER TABLE opensearch_indexing_queue ADD CHECK (document_id <> '4' OR last_error IS NULL)")
    assert [one.stuck for one in rescue_all(items)] == [None]
    assert items.sql("SELECT document_id FROM opensearch_indexing_queue ORDER BY 1") == [("1",), ("2",), ("3",)]
    assert list(items.letters()) == ["4"]


def test_workers_begin_although_a_batch_cannot_be_taken_back(items: Rig):
    lose(items, [3])
    items.sql("ALTER TABLE opensearch_indexing_queue ADD CHECK (document_id <> '3' OR origin = 'api' AND attempts = 0)")
    items.sql("ALTER TABLE opensearch_indexing_dlq ADD CHECK (document_id NOT LIKE '3%')")
    with items.working():
        items.sql("UPDATE items SET name = 'changed' WHERE id = 7")
        until(lambda: (items.document(7) or {}).get("name") == "changed", "the worker does not work")


def test_a_drain_puts_back_what_it_can(items: Rig):
    items.enqueue(1, 2, 3)
    take(items)
    items.sql("ALTER TABLE opensearch_indexing_queue ADD CHECK (document_id <> '3' OR last_error IS NULL)")
    assert rescue.give_back(items.conn, "test:1:a", held=(), why=Reason(Kind.RELEASED)) == 3
    assert items.queued() == 2
    assert list(items.letters()) == ["3"]


def test_queue_stats_says_that_a_batch_is_stuck(items: Rig, idxctl):
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    lose(items, [3])
    items.sql("ALTER TABLE opensearch_indexing_queue ADD CHECK (document_id <> '3' OR origin = 'api' AND attempts = 0)")
    items.sql("ALTER TABLE opensearch_indexing_dlq ADD CHECK (document_id NOT LIKE '3%')")
    with items.working():
        until(lambda: stats.stats(items.conn).by_index[0].trouble, "nobody tried to take it back")
        told = idxctl("queue", "stats").stdout
        data = idxctl("queue", "stats", "-o", "json").json
    assert "1 batch in flight cannot be taken back" in told.splitlines()[0]
    assert "flowing" not in told
    assert (data["stuck"], data["by_index"][0]["stuck"]) == (1, 1)


# What enqueue refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sqlstate"),
    [
        ("%(index)s, repeat('x', 513)", "22001"),
        ("%(index)s, repeat('x', 1000000)", "22001"),
        ("repeat('i', 256), '1'", "22001"),
        ("%(index)s, '1', available_at => 'infinity'", "22023"),
        ("%(index)s, '1', available_at => '20000-01-01'", "22023"),
        ("%(index)s, '1', available_at => now() + interval '400 days'", "22023"),
    ],
)
def test_enqueue_refuses_what_would_never_be_indexed(items: Rig, arguments: str, sqlstate: str):
    with pytest.raises(psycopg.Error) as refused:
        items.application.execute(f"SELECT opensearch_indexing_enqueue({arguments})", {"index": items.index})
    assert refused.value.sqlstate == sqlstate
    assert "opensearch_indexing_enqueue: " in str(refused.value)
    assert items.queued() == 0


@pytest.mark.parametrize("when", ["'-infinity'", "'0044-03-15 BC'", "NULL", "now() - interval '1 year'"])
def test_enqueue_takes_a_moment_that_has_passed_as_now(items: Rig, when: str):
    items.sql(f"SELECT opensearch_indexing_enqueue(%s, '1', available_at => {when})", items.index)
    assert items.one("SELECT available_at BETWEEN now() - interval '1 minute' AND now() FROM opensearch_indexing_queue")


def test_enqueue_takes_an_id_of_512_bytes_and_any_priority(items: Rig):
    items.sql("SELECT opensearch_indexing_enqueue(%s, repeat('x', 512), priority => 2147483647)", items.index)
    items.sql("SELECT opensearch_indexing_enqueue(%s, '1', 'delete', -7, now() + interval '1 day')", items.index)
    assert items.sql("SELECT priority, available_at > now() FROM opensearch_indexing_queue ORDER BY id") == [
        (1, False),
        (-1, True),
    ]
