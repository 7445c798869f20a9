"""The library over psycopg: the caller's transaction, synchronous and asynchronous, and what it does when search is away."""

import contextlib
import logging
import os
import threading
import uuid
from dataclasses import replace

import psycopg
import pytest
from psycopg.rows import dict_row

from idxctl import Indexer, SchemaError, UsageError, WaitTimeout, WrongType
from idxctl.config.settings import DatabaseSettings
from idxctl.core.secret import Secret
from idxctl.embedded.ports import free_port
from idxctl.library import waiting
from idxctl.queue import pause
from support.rig import until


@pytest.fixture
def indexer(untriggered):
    with Indexer(untriggered.settings) as made:
        yield made


@pytest.fixture
def connection(untriggered):
    """The application's own, as `psycopg.connect` makes it: not in autocommit."""
    with contextlib.closing(psycopg.connect(untriggered.database)) as made:
        yield made


def rename(connection, item, name):
    connection.execute("UPDATE items SET name = %s WHERE id = %s", (name, item))


def name_of(rig, item):
    document = rig.document(item)
    return document and document["name"]


def without_search(rig):
    """The rig's settings, with an OpenSearch that is not there."""
    return replace(rig.settings, opensearch=replace(rig.settings.opensearch, urls=(f"http://127.0.0.1:{free_port()}",)))


# The caller's transaction --------------------------------------------------------------------------------------------


def test_a_task_commits_with_its_row(untriggered, indexer, connection):
    rename(connection, 1, "new")
    indexer.index(untriggered.index, 1, connection=connection)
    assert untriggered.queued() == 0
    connection.commit()
    assert untriggered.queued() == 1


def test_a_transaction_that_is_rolled_back_leaves_no_task_and_indexes_nothing(untriggered, indexer, connection):
    with contextlib.suppress(ZeroDivisionError), indexer.transaction(connection):
        rename(connection, 1, "never")
        indexer.index(untriggered.index, 1, connection=connection)
        raise ZeroDivisionError
    assert untriggered.queued() == 0
    assert name_of(untriggered, 1) == "item 1"
    assert indexer.counters["sync"].batches == 0


def test_psycopgs_own_rollback_indexes_nothing(untriggered, indexer, connection):
    with indexer.transaction(connection):
        rename(connection, 1, "never")
        indexer.index(untriggered.index, 1, connection=connection)
        raise psycopg.Rollback
    assert untriggered.queued() == 0
    assert name_of(untriggered, 1) == "item 1"


def test_a_savepoint_rolled_back_takes_its_tasks_along(untriggered, indexer, connection):
    with indexer.transaction(connection):
        rename(connection, 1, "kept")
        indexer.index(untriggered.index, 1, connection=connection)
        with contextlib.suppress(ZeroDivisionError), indexer.transaction(connection):
            rename(connection, 2, "never")
            indexer.index(untriggered.index, 2, connection=connection)
            raise ZeroDivisionError
    assert name_of(untriggered, 1) == "kept"
    assert name_of(untriggered, 2) == "item 2"
    assert untriggered.at_rest()


def test_a_failure_of_ours_leaves_the_callers_transaction_alive(untriggered, indexer, connection):
    untriggered.sql("ALTER FUNCTION opensearch_indexing_enqueue RENAME TO away")
    rename(connection, 1, "kept")
    with pytest.raises(SchemaError, match="not migrated"):
        indexer.index(untriggered.index, 1, connection=connection)
    connection.commit()
    assert untriggered.one("SELECT name FROM items WHERE id = 1") == "kept"


def test_a_conflict_stays_the_drivers_error_so_that_the_caller_tries_again(untriggered, indexer, connection):
    untriggered.sql(
        "CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'serialization_failure'; END $$"
    )
    untriggered.sql("CREATE TRIGGER c BEFORE INSERT ON opensearch_indexing_queue EXECUTE FUNCTION conflict()")
    with pytest.raises(psycopg.errors.SerializationFailure):
        indexer.index(untriggered.index, 1, connection=connection)


CONNECTIONS = (
    {"row_factory": dict_row},
    {"cursor_factory": psycopg.ClientCursor},
    {"prepare_threshold": 0},
    {"prepare_threshold": None},
    {"options": "-c default_transaction_isolation=serializable"},
    {"options": "-c search_path=pg_catalog -c DateStyle=SQL,DMY -c TimeZone=Asia/Kolkata"},
    {"options": "-c standard_conforming_strings=off"},
    {"client_encoding": "LATIN1"},
)


def test_whatever_the_callers_connection_is_set_to(untriggered, indexer):
    for item, given in enumerate(CONNECTIONS, 1):
        with psycopg.connect(untriggered.database, **given) as connection:
            for turn in range(7):  # more often than psycopg waits before it prepares a statement
                with indexer.transaction(connection):
                    connection.execute(f"UPDATE public.items SET name = 'turn {turn}' WHERE id = {item}")
                    indexer.index(untriggered.index, item, connection=connection)
        assert untriggered.at_rest(), given
        assert name_of(untriggered, item) == "turn 6", given


def test_dumpers_of_the_callers_own_do_not_reach_our_statement(untriggered, indexer, connection):
    class Loud(psycopg.types.string.StrDumper):
        def dump(self, obj):
            return obj.upper().encode()

        def quote(self, obj):
            return f"'{obj.upper()}'".encode()

    connection.adapters.register_dumper(str, Loud)
    indexer.index(untriggered.index, "it's \\ % %(s)s :x {} ", connection=connection)
    connection.commit()
    assert untriggered.sql("SELECT document_id FROM opensearch_indexing_queue") == [("it's \\ % %(s)s :x {} ",)]


def test_ids_beyond_the_connections_encoding(untriggered, indexer):
    with psycopg.connect(untriggered.database, client_encoding="LATIN1") as connection:
        with pytest.raises(UsageError, match="cannot be written in the connection's client_encoding"):
            indexer.index(untriggered.index, "šal", connection=connection)
        indexer.index(untriggered.index, "é", connection=connection)
    with psycopg.connect(untriggered.database, client_encoding="SQL_ASCII") as connection:
        indexer.index(untriggered.index, "šal", connection=connection)
    assert untriggered.sql("SELECT document_id FROM opensearch_indexing_queue ORDER BY id") == [("é",), ("šal",)]


def test_a_pipeline_of_the_callers_takes_the_task_along(untriggered, indexer, connection):
    with connection.pipeline(), connection.transaction():
        rename(connection, 1, "new")
        indexer.index(untriggered.index, 1, connection=connection)
    assert untriggered.queued() == 1


def test_a_role_with_the_one_right_to_enqueue_does_so(untriggered, indexer, connection, unique_name):
    untriggered.sql(f"CREATE ROLE {unique_name}")
    untriggered.grant(application=unique_name)
    try:
        connection.execute(f"SET ROLE {unique_name}")
        indexer.index(untriggered.index, 1, connection=connection)
        connection.commit()
        assert untriggered.queued() == 1
    finally:
        connection.close()
        untriggered.sql(f"DROP OWNED BY {unique_name}; DROP ROLE {unique_name}")


def test_a_schema_of_our_own(untriggered, connection):
    untriggered.sql('CREATE SCHEMA "our %s own"')
    database = replace(untriggered.settings.database, schema="our %s own")
    from idxctl.postgres import migrate
    from idxctl.postgres.connect import connect

    with connect(database) as conn:
        migrate.up(conn)
    with Indexer(replace(untriggered.settings, database=database)) as indexer:
        indexer.index_many(untriggered.index, [1, 2], connection=connection)
        indexer.index(untriggered.index, 3)
    connection.commit()
    assert untriggered.one('SELECT count(*) FROM "our %s own".opensearch_indexing_queue') == 3
    assert untriggered.queued() == 0


def test_many_documents_are_one_statement_and_each_is_queued_once(untriggered, indexer, connection):
    indexer.index_many(untriggered.index, [1, 2, "2", 3], connection=connection)
    indexer.delete_many(untriggered.index, iter([4]), connection=connection)
    indexer.index_many(untriggered.index, [], connection=connection)
    connection.commit()
    queued = untriggered.sql("SELECT document_id, action FROM opensearch_indexing_queue ORDER BY id")
    assert queued == [("1", "index"), ("2", "index"), ("3", "index"), ("4", "delete")]


# Synchronous ----------------------------------------------------------------------------------------------------------


def test_in_autocommit_the_document_is_indexed_when_the_call_returns(untriggered, indexer):
    with psycopg.connect(untriggered.database, autocommit=True) as connection:
        rename(connection, 1, "at once")
        indexer.index(untriggered.index, 1, connection=connection)
    assert name_of(untriggered, 1) == "at once"
    assert untriggered.at_rest()
    assert indexer.counters["sync"].indexed == 1
    assert len(indexer.counters["sync"].latencies) == 1


def test_without_a_connection_it_makes_its_own(untriggered, indexer):
    untriggered.sql("UPDATE items SET name = 'new' WHERE id = 1")
    untriggered.sql("DELETE FROM items WHERE id = 2")
    indexer.index(untriggered.index, 1)
    indexer.delete(untriggered.index, 2)
    assert untriggered.differences() == []
    assert untriggered.at_rest()


def test_a_transaction_of_ours_is_indexed_in_one_batch_after_its_commit(untriggered, indexer, connection, stops):
    stops.do("read.before", lambda: seen.append(untriggered.one("SELECT name FROM items WHERE id = 1")))
    seen = []
    with indexer.transaction(connection):
        rename(connection, 1, "one")
        indexer.index(untriggered.index, 1, connection=connection)
        rename(connection, 2, "two")
        indexer.index(untriggered.index, 2, connection=connection)
    assert seen == ["one"]  # committed before it was read
    assert untriggered.differences() == []
    assert indexer.counters["sync"].batches == 1


def test_the_schema_is_looked_up_before_a_connection_is_held(untriggered, indexer, connection):
    """Or requests that hold all connections of a small pool wait for one more each."""
    with indexer.transaction(connection):
        assert indexer._own._schema == "public"


def test_in_a_transaction_of_psycopgs_own_the_task_is_the_workers(untriggered, indexer, connection):
    rename(connection, 1, "new")
    indexer.index(untriggered.index, 1, connection=connection)
    connection.commit()
    assert untriggered.queued() == 1
    untriggered.drain()
    assert name_of(untriggered, 1) == "new"


def test_it_takes_its_own_tasks_and_no_others(untriggered, indexer, connection):
    untriggered.enqueue(7)
    with indexer.transaction(connection):
        indexer.index(untriggered.index, 1, connection=connection)
        untriggered.enqueue(8)
        indexer.index(untriggered.index, 2, connection=connection)
    untriggered.enqueue(9)
    assert untriggered.sql("SELECT document_id FROM opensearch_indexing_queue ORDER BY id") == [("7",), ("8",), ("9",)]


def test_more_documents_than_a_claim_takes(untriggered):
    settings = replace(untriggered.settings, worker=replace(untriggered.settings.worker, batch_size=3))
    untriggered.sql("UPDATE items SET name = name || '!'")
    with Indexer(settings) as indexer:
        indexer.index_many(untriggered.index, range(1, 21))
    assert untriggered.differences() == []
    assert untriggered.at_rest()


def test_a_token_of_its_own_for_every_write(untriggered, indexer):
    """A worker that has read the older row cannot write it over the newer one."""
    untriggered.sql("UPDATE items SET name = 'older' WHERE id = 1")
    untriggered.enqueue(1)
    hand = untriggered.hand()
    taken = hand.claim()
    untriggered.sql("UPDATE items SET name = 'newer' WHERE id = 1")
    indexer.index(untriggered.index, 1)
    newer = untriggered.version(1)
    hand.carry(taken)
    assert name_of(untriggered, 1) == "newer"
    assert untriggered.version(1) == newer > taken[0].token


def test_all_generations_are_written(untriggered, indexer):
    """G2: the set of generations is the one the inline claim reads."""
    building = untriggered.register()
    untriggered.sql("UPDATE items SET name = 'new' WHERE id = 1")
    indexer.index(untriggered.index, 1)
    assert untriggered.document(1, building.name)["name"] == "new"


def test_a_bad_document_is_a_dead_letter_and_no_error(untriggered, indexer):
    untriggered.sql("UPDATE items SET price = 'dear' WHERE id = 1")
    indexer.index(untriggered.index, 1)
    assert list(untriggered.letters()) == ["1"]
    assert indexer.counters["sync"].dead == 1


def test_a_paused_index_keeps_its_task(untriggered, indexer):
    pause.pause(untriggered.conn, untriggered.index, reason="maintenance", by="test")
    indexer.index(untriggered.index, 1)
    assert untriggered.queued() == 1


def test_an_idle_connection_that_was_cut_is_made_anew(untriggered, indexer):
    indexer.index(untriggered.index, 1)
    untriggered.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'idxctl-library'")
    untriggered.sql("UPDATE items SET name = 'new' WHERE id = 1")
    indexer.index(untriggered.index, 1)
    assert name_of(untriggered, 1) == "new"


def test_a_connection_cut_after_the_commit_fails_no_request(untriggered, indexer, stops, caplog):
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'idxctl-library'"
    stops.do("send.done", lambda: untriggered.sql(cut))
    indexer.index(untriggered.index, 1)
    assert "left to the workers" in caplog.text
    assert untriggered.in_flight() == 1  # until its lease lapses


# OpenSearch away ------------------------------------------------------------------------------------------------------


def test_with_search_away_the_task_stays_queued_and_nobody_is_told_by_an_error(untriggered, caplog):
    with Indexer(without_search(untriggered)) as indexer:
        for item in (1, 2, 3):
            indexer.index(untriggered.index, item)
    assert untriggered.sql("SELECT document_id, attempts FROM opensearch_indexing_queue ORDER BY document_id") == [
        ("1", 0),
        ("2", 0),
        ("3", 0),
    ]
    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) == 1, caplog.text
    assert "does not answer" in warnings[0].message


def test_with_the_breaker_open_no_request_asks_search(untriggered, stops):
    with Indexer(without_search(untriggered)) as indexer:
        indexer.index(untriggered.index, 1)
        sent = stops.seen.count("send.before")
        for item in range(2, 12):
            indexer.index(untriggered.index, item)
        assert stops.seen.count("send.before") == sent == 1


def test_a_search_that_does_not_answer_holds_a_request_up_for_seconds_at_most(untriggered, caplog):
    with Silent() as silent:
        away = replace(untriggered.settings.opensearch, urls=(silent.url,))
        with Indexer(replace(untriggered.settings, opensearch=away)) as indexer:
            indexer.index(untriggered.index, 1)
    assert untriggered.queued() == 1
    assert "within 2 s" in caplog.text


class Silent:
    """A server that takes connections and never answers."""

    def __enter__(self):
        import socket

        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        return self

    def __exit__(self, *_):
        self._socket.close()


def test_asynchronous_with_search_away_returns_and_is_indexed_later(untriggered, connection):
    with Indexer(without_search(untriggered)) as indexer:
        indexer.enable_async(workers=1)
        rename(connection, 1, "later")
        indexer.index(untriggered.index, 1, connection=connection)
        connection.commit()
        with pytest.raises(WaitTimeout, match=r"1 document is not settled after 0\.3 s"):
            indexer.wait_for([1], 0.3, index=untriggered.index)
    untriggered.drain()
    assert name_of(untriggered, 1) == "later"
    assert untriggered.letters() == {}


# Asynchronous ---------------------------------------------------------------------------------------------------------


def test_asynchronous_workers_of_this_process_index_it(untriggered, indexer, connection):
    indexer.enable_async(workers=2)
    rename(connection, 1, "new")
    indexer.index(untriggered.index, 1, connection=connection)
    connection.commit()
    indexer.wait_for([(untriggered.index, 1)], 30)
    assert name_of(untriggered, 1) == "new"
    assert indexer.counters["async"].indexed == 1
    assert indexer.counters["sync"].indexed == 0


def test_a_search_finds_it_after_a_wait_with_refresh(untriggered, indexer, connection):
    indexer.enable_async(workers=1)
    rename(connection, 1, "findable")
    indexer.index(untriggered.index, 1, connection=connection)
    connection.commit()
    indexer.wait_for([1], 30, index=untriggered.index, refresh=True)
    found = untriggered.ask("POST", f"/{untriggered.index}/_search", {"query": {"term": {"name": "findable"}}})
    assert found["hits"]["total"]["value"] == 1


def test_waiting_is_for_what_was_there_before(untriggered, indexer, stops):
    untriggered.enqueue(2)  # another document
    untriggered.sql(
        "SELECT opensearch_indexing_enqueue(%s, '1', available_at => now() + interval '1 hour')", untriggered.index
    )
    indexer.wait_for([1], 0, index=untriggered.index)
    with pytest.raises(WaitTimeout):
        indexer.wait_for([2], 0, index=untriggered.index)
    stop = stops.at("claim.committed")
    with untriggered.hand().stepping():
        stop.wait()
        with pytest.raises(WaitTimeout):  # in flight
            indexer.wait_for([(untriggered.index, 2)], 0)
        stop.release()
    indexer.wait_for([2], 0, index=untriggered.index)
    before = untriggered.one("SELECT clock_timestamp()")
    untriggered.enqueue(3)
    assert waiting._unsettled(untriggered.conn, untriggered.index, ["3"], before) == []


def test_the_status_has_exactly_these_shapes(untriggered, indexer):
    assert indexer.status() == {"status": "disabled", "mode": "synchronous"}
    pause.pause(untriggered.conn, untriggered.index, reason="to see it wait", by="test")
    indexer.enable_async(workers=1, queue_size=10)
    assert indexer.status() == {"status": "enabled", "mode": "asynchronous", "healthy": True, "queue_size": 0}
    untriggered.enqueue(1, 2, 3, priority=-1)  # not counted
    untriggered.enqueue(*range(1, 6))
    untriggered.enqueue(6, 7, 8, priority=1)
    until(lambda: indexer.status()["queue_size"] == 8, "the gauge does not move")
    assert indexer.status()["healthy"]
    untriggered.enqueue(9)
    until(lambda: not indexer.status()["healthy"], "not at nine tenths")
    assert indexer.status()["queue_size"] == 9
    indexer.disable_async()
    assert indexer.status() == {"status": "disabled", "mode": "synchronous"}


def test_a_full_queue_makes_it_synchronous_with_one_warning(untriggered, indexer, caplog):
    untriggered.enqueue(*range(1, 11))
    pause.pause(untriggered.conn, untriggered.index, reason="full for a while", by="test")
    indexer.enable_async(workers=1, queue_size=10)
    pause.resume(untriggered.conn, untriggered.index)
    background = indexer._background
    background._worker and background._worker.stop()
    background.size = 10
    for item in (11, 12):
        untriggered.sql("UPDATE items SET name = 'at once' WHERE id = %s", item)
        indexer.index(untriggered.index, item)
        assert name_of(untriggered, item) == "at once"
    assert [one.message for one in caplog.records if "full" in one.message] == [
        "the queue is full (10 tasks, queue size 10): indexing in requests meanwhile"
    ]
    assert indexer.counters["sync"].indexed == 2


def test_enabling_twice_changes_nothing_and_new_numbers_take_over(untriggered, indexer):
    indexer.enable_async(workers=1)
    first = indexer._background
    indexer.enable_async(workers=1)
    assert indexer._background is first
    indexer.enable_async(workers=2, queue_size=50)
    assert first.join(30)
    assert indexer.status()["healthy"]


def test_disabling_is_immediate_while_a_batch_is_held(untriggered, indexer, stops):
    stop = stops.at("send.before")
    indexer.enable_async(workers=1)
    untriggered.sql("UPDATE items SET name = 'slow' WHERE id = 1")
    indexer.index(untriggered.index, 1)
    stop.wait()
    indexer.disable_async()
    assert indexer.status()["status"] == "disabled"
    untriggered.sql("UPDATE items SET name = 'at once' WHERE id = 2")
    indexer.index(untriggered.index, 2)
    assert name_of(untriggered, 2) == "at once"
    assert name_of(untriggered, 1) == "item 1"
    stop.release()
    untriggered.wait_for_rest()
    assert name_of(untriggered, 1) == "slow"


def test_shutdown_settles_what_is_in_flight_and_says_whether_it_could(untriggered, stops):
    stop = stops.at("send.before")
    indexer = Indexer(untriggered.settings)
    indexer.enable_async(workers=1)
    indexer.index(untriggered.index, 1)
    stop.wait()
    assert not indexer.shutdown(timeout=0)
    stop.release()
    untriggered.wait_for_rest()
    assert indexer.status() == {"status": "disabled", "mode": "synchronous"}


def test_while_shutting_down_it_is_not_healthy_and_still_enqueues(untriggered, stops):
    stop = stops.at("send.before")
    indexer = Indexer(untriggered.settings)
    indexer.enable_async(workers=1)
    indexer.index(untriggered.index, 1)
    stop.wait()
    leaving = threading.Thread(target=indexer.shutdown, daemon=True)
    leaving.start()
    until(lambda: indexer._background.stopping, "it does not stop")
    assert indexer.status() == {"status": "enabled", "mode": "asynchronous", "healthy": False, "queue_size": 0}
    indexer.index(untriggered.index, 2)
    stop.release()
    leaving.join(30)
    indexer.index(untriggered.index, 3)
    assert untriggered.queued() == 2
    untriggered.sql("UPDATE items SET name = 'again' WHERE id IN (2, 3, 4)")
    indexer.enable_async(workers=1)  # begins anew
    indexer.wait_for([2, 3], 30, index=untriggered.index)
    indexer.disable_async()
    indexer.index(untriggered.index, 4)
    assert [name_of(untriggered, item) for item in (2, 3, 4)] == ["again"] * 3
    assert indexer.shutdown()
    assert indexer.shutdown()


def test_workers_that_broke_start_again(untriggered, indexer, stops, caplog):
    def break_it():
        raise RuntimeError("a fault of ours")

    stops.do("claim.locked", break_it)
    indexer.enable_async(workers=1)
    untriggered.sql("UPDATE items SET name = 'new' WHERE id = 1")
    indexer.index(untriggered.index, 1)
    indexer.wait_for([1], 30, index=untriggered.index)
    assert "a fault of ours" in caplog.text


# Looking after it -----------------------------------------------------------------------------------------------------


def test_dead_letters_are_retried_by_the_workers_here(untriggered, indexer):
    untriggered.sql("UPDATE items SET price = 'dear' WHERE id IN (1, 2)")
    indexer.index_many(untriggered.index, [1, 2])
    untriggered.sql("UPDATE items SET price = '2' WHERE id = 1")
    done = indexer.retry_dlq(limit=100)  # nobody works: it does so itself
    assert (done.retried, done.succeeded, done.failed) == (2, 1, 1)
    untriggered.sql("UPDATE items SET price = '2' WHERE id = 2")
    indexer.enable_async(workers=1)
    until(lambda: untriggered.one("SELECT count(*) FROM opensearch_indexing_workers"), "no worker")
    untriggered.sql("UPDATE opensearch_indexing_dlq SET not_before = NULL")
    assert indexer.retry_dlq(limit=100).retried == 1
    until(lambda: not untriggered.letters(), "the letter stays")
    untriggered.wait_for_rest()
    assert untriggered.differences() == []


# Bad input ------------------------------------------------------------------------------------------------------------


def test_an_unknown_index_is_named_with_the_nearest_known_one(untriggered, indexer):
    with pytest.raises(UsageError, match="there is no index") as caught:
        indexer.index(untriggered.index[:-1], 1)
    assert caught.value.hint == f"did you mean {untriggered.index!r}?"


def test_tables_that_are_missing_are_said_so_when_it_is_enabled(untriggered, database):
    settings = replace(untriggered.settings, database=DatabaseSettings(url=Secret(database)))
    with Indexer(settings) as indexer, pytest.raises(SchemaError, match="not migrated") as caught:
        indexer.enable_async()
    assert "idxctl migrate up" in caught.value.hint


def test_tables_that_are_missing_are_said_so_by_every_call(untriggered, database):
    settings = replace(untriggered.settings, database=DatabaseSettings(url=Secret(database)))
    index = untriggered.index
    with Indexer(settings) as indexer, contextlib.closing(psycopg.connect(database)) as connection:
        for call in (
            lambda: indexer.index(index, 1),
            lambda: indexer.index(index, 1, connection=connection),
            lambda: indexer.wait_for([1], 1, index=index),
            indexer.retry_dlq,
        ):
            with pytest.raises(SchemaError, match="not migrated") as caught:
                call()
            assert "idxctl migrate up" in caught.value.hint
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("timeout", ["5", None, True])
def test_a_timeout_that_is_no_number_is_refused(untriggered, indexer, timeout):
    with pytest.raises(WrongType, match="number of seconds"):
        indexer.wait_for([1], timeout, index=untriggered.index)
    with pytest.raises(WrongType, match="number of seconds"):
        indexer.shutdown(timeout)


def test_a_timeout_that_would_never_come_is_refused(untriggered, indexer):
    with pytest.raises(UsageError, match="not a number"):
        indexer.wait_for([1], float("nan"), index=untriggered.index)


def test_newer_tables_are_said_so_when_it_is_enabled(untriggered, indexer):
    untriggered.sql(
        "INSERT INTO opensearch_indexing_migrations (version, name, checksum, old_workers, applied_by) "
        "VALUES (999, 'later', '', false, 'test')"
    )
    with pytest.raises(SchemaError, match="newer than this program"):
        indexer.enable_async()
    assert indexer.status()["status"] == "disabled"


# One instance first ---------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(untriggered, monkeypatch):
    monkeypatch.setenv("IDXCTL_DATABASE_URL", untriggered.database)
    monkeypatch.setenv("IDXCTL_OPENSEARCH_URL", untriggered.opensearch)
    monkeypatch.delenv("ENABLE_ASYNC_INDEXING", raising=False)
    return monkeypatch


def test_the_environment_switches_one_instance_on(untriggered, environment):
    environment.setenv("ENABLE_ASYNC_INDEXING", "true")
    with Indexer.from_config(untriggered.config) as indexer:
        assert indexer._background is None  # nothing is started before it is used
        assert indexer.status()["status"] == "enabled"


def test_without_the_switch_it_is_off(untriggered, environment):
    with Indexer.from_config(str(untriggered.config)) as indexer:
        assert indexer.status()["status"] == "disabled"


def test_a_switch_that_cannot_start_leaves_it_synchronous(untriggered, environment, database, caplog):
    environment.setenv("ENABLE_ASYNC_INDEXING", "true")
    environment.setenv("IDXCTL_DATABASE_URL", database)
    with Indexer.from_config(untriggered.config) as indexer:
        for _ in range(3):
            assert indexer.status()["status"] == "disabled"
    assert caplog.text.count("cannot start") == 1


# Threads and forks ----------------------------------------------------------------------------------------------------


def test_many_threads_share_one_indexer(untriggered, indexer):
    indexer.enable_async(workers=2)
    errors = []

    def work(number):
        try:
            with psycopg.connect(untriggered.database) as connection:
                for turn in range(10):
                    rename(connection, number, f"turn {turn} of {uuid.uuid4()}")
                    indexer.index(untriggered.index, number, connection=connection)
                    connection.commit()
                    indexer.index(untriggered.index, number)
                    if turn == 5:
                        indexer.disable_async() if number % 2 else indexer.enable_async(workers=2)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    indexer.enable_async(workers=2)
    untriggered.wait_for_rest()
    assert untriggered.differences() == []


def test_a_forked_child_works_with_connections_and_threads_of_its_own(untriggered, indexer):
    """As gunicorn forks after it has loaded the application."""
    indexer.enable_async(workers=1)
    indexer.index(untriggered.index, 1)
    indexer.wait_for([1], 30, index=untriggered.index)
    until(lambda: untriggered.one("SELECT count(*) FROM opensearch_indexing_workers"), "no worker")
    ours = untriggered.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'idxctl-library' ORDER BY pid")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with psycopg.connect(untriggered.database, autocommit=True) as connection:
                rename(connection, 2, "by the child")
                indexer.index(untriggered.index, 2, connection=connection)
            indexer.wait_for([2], 30, index=untriggered.index)
            if indexer.status()["status"] == "enabled" and indexer.shutdown(30):
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert name_of(untriggered, 2) == "by the child"
    still = untriggered.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'idxctl-library' ORDER BY pid")
    assert set(ours) <= set(still)  # the child has closed none of the parent's
    untriggered.sql("UPDATE items SET name = 'by the parent' WHERE id = 3")
    indexer.index(untriggered.index, 3)
    indexer.wait_for([3], 30, index=untriggered.index)
    assert name_of(untriggered, 3) == "by the parent"


def test_importing_the_package_loads_no_driver():
    import subprocess
    import sys

    check = "import sys, idxctl; idxctl.UsageError; sys.exit(bool({'psycopg', 'opensearchpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
