"""What stands between us and PostgreSQL, left out: patience, pins, what a pooler cannot do."""

from __future__ import annotations

from mutants.anchors import Code, Mutant, Words

MUTANTS = (
    Mutant(
        "autovacuum of the queue by a share of its rows",
        (
            "tests/faults/test_old_snapshot.py::test_the_migration_has_tables_that_turn_over_vacuumed_by_count_and_without_pause",
        ),
        (Words("autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,", ""),),
    ),
    Mutant(
        "silence: a worker waits for ever",
        ("tests/integration/test_connect.py::test_a_silent_server_is_given_up_and_the_thread_gets_another_connection",),
        (
            Code(
                """
                if here(self.patience is None):
                    return __
            """,
                "True",
            ),
        ),
    ),
    Mutant(
        "silence: threads of a worker are not patient",
        ("tests/faults/test_network.py::test_a_black_hole_under_load_is_given_up_and_left",),
        (
            Code(
                """
                with self._pool.patient(self._patience):
                    act()
            """,
                "act()",
            ),
        ),
    ),
    Mutant(
        "silence: a read is waited for beyond the age of its bytes",
        ("tests/faults/test_network.py::test_a_read_that_gets_no_answer_is_made_again",),
        (
            Code("conn.patient(here(limit))", "1000"),
            Code(
                """
                with __, here(conn.reading_within(limit / 3)):
                    ...
            """,
                '__import__("contextlib").nullcontext()',
            ),
        ),
    ),
    Mutant(
        "silence: a statement that was given up goes on waiting on the server",
        ("tests/faults/test_network.py::test_a_worker_that_waits_for_a_lock_gives_up_and_takes_its_statement_with_it",),
        (Code("self.cancel_safe(timeout=_CANCEL_SECONDS)", "pass"),),
    ),
    Mutant(
        "silence: the server keeps a claim open for a worker that is gone",
        ("tests/faults/test_network.py::test_a_claim_that_never_reaches_its_commit_leaves_the_tasks_to_others",),
        (Code("_BEGIN.format(..., pin=here(conn.pin))", "conn.pin.removesuffix(conn.let_go)"),),
    ),
    Mutant(
        "silence: the server keeps a transaction open for a worker that is stopped",
        (
            "tests/integration/test_connect.py::test_a_client_that_is_stopped_in_a_transaction_is_given_up_by_the_server",
        ),
        (Code("__pins + self.let_go", "__pins"),),
    ),
    Mutant(
        "silence: the server's end of an idle transaction is taken for a refusal",
        (
            "tests/integration/test_connect.py::test_a_client_that_is_stopped_in_a_transaction_is_given_up_by_the_server",
        ),
        (Code('("57P", "08", "25P03")', '("57P", "08")'),),
    ),
    Mutant(
        "silence: the kernel's own timers",
        ("tests/integration/test_connect.py::test_dead_connections_are_found_in_half_a_minute_not_in_hours",),
        (Code("{name: given.get(name, value) for name, value in KEEPALIVES.items()}", "{}"),),
    ),
    Mutant(
        "PgBouncer: statements are prepared",
        ("tests/system/test_pgbouncer.py::test_the_main_path",),
        (Code("PatientConnection.connect(..., prepare_threshold=here(None))", "0"),),
    ),
    Mutant(
        "PgBouncer: settings of the session",
        ("tests/system/test_pgbouncer.py::test_the_main_path",),
        (Code('["pg_catalog.set_config(%s, %s, true)"]', '["pg_catalog.set_config(%s, %s, false)"]'),),
    ),
    Mutant(
        "look-alikes: a claim is not pinned",
        ("tests/integration/test_lookalikes.py::test_no_statement_of_a_whole_life_calls_one",),
        (Code("_BEGIN.format(..., pin=here(conn.pin))", '"SET LOCAL jit = off" + conn.let_go'),),
    ),
    Mutant(
        "look-alikes: a single statement is not pinned",
        ("tests/integration/test_lookalikes.py::test_no_statement_of_a_whole_life_calls_one",),
        (Code("pins = pinned.pin_single(self.raw.info.server_version, writes=writes)", 'pins = ("SELECT 1",)'),),
    ),
    Mutant(
        "look-alikes: what stands around a document query does not name pg_catalog",
        ("tests/integration/test_lookalikes.py::test_no_statement_of_a_whole_life_calls_one",),
        (Code('"pg_catalog.to_json({})"', '"to_json({})"'),),
    ),
    Mutant(
        "look-alikes: the append of the library does not name pg_catalog",
        ("tests/integration/test_lookalikes.py::test_an_application_that_indexes_in_its_own_transaction_calls_none",),
        (Words("FROM pg_catalog.unnest(CAST", "FROM unnest(CAST"),),
    ),
    Mutant(
        "definers: letters are filled in on any table",
        ("tests/integration/test_definers.py::test_what_fills_in_letters_looks_at_no_row_of_another_table",),
        (Words("IF TG_TABLE_SCHEMA <> @schema@ OR", "IF"),),
    ),
    Mutant(
        "PgBouncer: locks of the session",
        ("tests/system/test_pgbouncer.py::test_the_main_path",),
        (
            Words(
                "IN ROW SHARE MODE; SELECT pg_try_advisory_xact_lock_shared",
                "IN ROW SHARE MODE; SELECT pg_try_advisory_lock_shared",
            ),
        ),
    ),
    Mutant(
        "documents come in the database's own encoding",
        ("tests/integration/test_reindex.py::test_a_database_that_is_not_of_utf8",),
        (Words('"client_encoding": "UTF8",', ""),),
    ),
)
