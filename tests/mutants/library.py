"""What the library rests on, left out."""

from __future__ import annotations

from mutants.anchors import Code, Mutant, Words

MUTANTS = (
    Mutant(
        "library: inline claims whatever lies in its range",
        ("tests/integration/test_library.py::test_it_takes_its_own_tasks_and_no_others",),
        (Code("claim.claim(..., documents=here(done.ids))", "None"),),
    ),
    Mutant(
        "library: no savepoint around the append",
        ("tests/integration/test_library.py::test_a_failure_of_ours_leaves_the_callers_transaction_alive",),
        (
            Code(
                """
                if here(not alone):
                    statement = __
            """,
                "False",
            ),
        ),
    ),
    Mutant(
        "library: append may be prepared",
        ("tests/integration/test_library.py::test_whatever_the_callers_connection_is_set_to",),
        (Code("cursor.execute(statement, prepare=False)", "cursor.execute(statement)"),),
    ),
    Mutant(
        "library: naive quoting",
        ("tests/integration/test_library.py::test_dumpers_of_the_callers_own_do_not_reach_our_statement",),
        (
            Code(
                "return bytes(escape.escape_literal(text.encode(encoding)))",
                'return b"\'" + text.encode(encoding) + b"\'"',
            ),
        ),
    ),
    Mutant(
        "library: psycopg: index at once in a transaction",
        ("tests/integration/test_library.py::test_a_transaction_of_ours_is_indexed_in_one_batch_after_its_commit",),
        (
            Code(
                """
                if here(self.connection.info.transaction_status == TransactionStatus.IDLE):
                    index([done])
                    ...
            """,
                "True",
            ),
        ),
    ),
    Mutant(
        "library: psycopg: nothing after the commit of ours",
        ("tests/integration/test_library.py::test_a_transaction_of_ours_is_indexed_in_one_batch_after_its_commit",),
        (
            Code(
                """
                try:
                    with self.connection.transaction():
                        yield
                finally:
                    done = __taken
                if done:
                    index(done)
            """,
                """
                try:
                    with self.connection.transaction():
                        yield
                finally:
                    done = __taken
            """,
            ),
        ),
    ),
    Mutant(
        "library: sqlalchemy: a savepoint's end counts as a commit",
        (
            "tests/integration/test_library_adapters.py::test_a_session_takes_the_task_along_and_indexes_after_its_commit",
        ),
        (
            Code(
                "transaction.parent is None and (committed := pending.take(session))",
                "(committed := pending.take(session))",
            ),
        ),
    ),
    Mutant(
        "library: sqlalchemy: no begin",
        ("tests/integration/test_library_adapters.py::test_a_bare_connection_within_a_transaction_of_ours",),
        (Code("self.connection.begin()", "pass"),),
    ),
    Mutant(
        "library: sqlalchemy: no savepoint, other drivers",
        ("tests/integration/test_library_adapters.py::test_a_failure_of_ours_leaves_the_session_alive",),
        (
            Code(
                "contextlib.nullcontext() if self._autocommit() else self.connection.begin_nested()",
                "contextlib.nullcontext()",
            ),
        ),
    ),
    Mutant(
        "library: django: indexed before the commit",
        ("tests/integration/test_library_adapters.py::test_django_in_autocommit_in_atomic_blocks_and_after_rollbacks",),
        (Code("wrapper.on_commit(committed, robust=True)", "committed()"),),
    ),
    Mutant(
        "library: child keeps the parent's connections and threads",
        ("tests/integration/test_library.py::test_a_forked_child_works_with_connections_and_threads_of_its_own",),
        (Code("one.after_fork()", "pass"),),
    ),
    Mutant(
        "library: request waits as long as a worker",
        (
            "tests/integration/test_library.py::test_a_search_that_does_not_answer_holds_a_request_up_for_seconds_at_most",
        ),
        (Code("LONGEST_SECONDS = 2.0", "LONGEST_SECONDS = 9.0"),),
    ),
    Mutant(
        "library: a full queue stays asynchronous",
        ("tests/integration/test_library.py::test_a_full_queue_makes_it_synchronous_with_one_warning",),
        (Code("return background is None or background.full", "return background is None"),),
    ),
    Mutant(
        "library: wait_for forgets what is in flight",
        ("tests/integration/test_library.py::test_waiting_is_for_what_was_there_before",),
        (
            Words(
                "WHERE f.index_name = %(index)s AND f.kind = 'document'",
                "WHERE f.index_name = %(index)s AND f.kind = 'nothing'",
            ),
        ),
    ),
    Mutant(
        "library: wait_for waits for later moments",
        ("tests/integration/test_library.py::test_waiting_is_for_what_was_there_before",),
        (
            Words(
                "AND (q.available_at <= statement_timestamp() OR q.attempts > 0 OR q.last_error IS NOT NULL)",
                "",
                within="unsettled",
            ),
        ),
    ),
    Mutant(
        "library: wait_for waits for newer tasks",
        ("tests/integration/test_library.py::test_waiting_is_for_what_was_there_before",),
        (Words("AND q.enqueued_at <= %(before)s", "", within="unsettled"),),
    ),
    Mutant(
        "library: disable_async waits",
        ("tests/integration/test_library.py::test_disabling_is_immediate_while_a_batch_is_held",),
        (
            Code(
                """
                running.stop()
                self._draining.append(running)
            """,
                """
                running.stop()
                running.join(60)
                self._draining.append(running)
            """,
            ),
        ),
    ),
    Mutant(
        "library: healthy up to the capacity",
        ("tests/integration/test_library.py::test_the_status_has_exactly_these_shapes",),
        (Code("self.size < 0.9 * self.capacity", "self.size < self.capacity"),),
    ),
    Mutant(
        "library: low priority counted",
        ("tests/integration/test_library.py::test_the_status_has_exactly_these_shapes",),
        (Words("(VALUES (1), (0)) AS p", "(VALUES (1), (0), (-1)) AS p"),),
    ),
    Mutant(
        "library: an inline failure fails the request",
        ("tests/integration/test_library.py::test_a_connection_cut_after_the_commit_fails_no_request",),
        (Code('log.warning("not indexed in the request, left to the workers: %s", error)', "raise"),),
    ),
    Mutant(
        "library: a lost idle connection is an error",
        ("tests/integration/test_library.py::test_an_idle_connection_that_was_cut_is_made_anew",),
        (
            Code(
                """
                for last in here((False, True)):
                    ...
            """,
                "(True,)",
            ),
        ),
    ),
    Mutant(
        "library: a conflict is ours",
        ("tests/integration/test_library.py::test_a_conflict_stays_the_drivers_error_so_that_the_caller_tries_again",),
        (
            Code(
                """
                try:
                    ...
                except here(psycopg.OperationalError):
                    raise
                except psycopg.Error as error:
                    ...
            """,
                "ZeroDivisionError",
            ),
        ),
    ),
    Mutant(
        "library: switch starts at once",
        ("tests/integration/test_library.py::test_the_environment_switches_one_instance_on",),
        (
            Code(
                "made._wanted = (made.settings.worker.workers, made.settings.worker.queue_size)", "made.enable_async()"
            ),
        ),
    ),
    Mutant(
        "library: delete enqueued as index",
        ("tests/integration/test_library.py::test_many_documents_are_one_statement_and_each_is_queued_once",),
        (
            Code(
                'self._append(index, document_ids, "delete", connection)',
                'self._append(index, document_ids, "index", connection)',
            ),
        ),
    ),
    Mutant(
        "library: enable_async does not look at the tables",
        ("tests/integration/test_library.py::test_newer_tables_are_said_so_when_it_is_enabled",),
        (
            Code(
                """
                migrate.require(conn)
                started = __made
            """,
                "started = __made",
            ),
        ),
    ),
    Mutant(
        "library: broken workers stay broken",
        ("tests/integration/test_library.py::test_workers_that_broke_start_again",),
        (Code("self._stopping.wait(backoff.before_probe(failures))", "break"),),
    ),
    Mutant(
        "library: the schema of our tables is taken to be public",
        ("tests/integration/test_library.py::test_a_schema_of_our_own",),
        (Code('return SQL["append"].qualified(self.schema)', 'return SQL["append"].qualified("public")'),),
    ),
    Mutant(
        "library: one claim only",
        ("tests/integration/test_library.py::test_more_documents_than_a_claim_takes",),
        (Code("full = taken.rows >= self._settings.batch_size", "full = False"),),
    ),
    Mutant(
        "library: after shutdown it indexes on",
        ("tests/integration/test_library.py::test_while_shutting_down_it_is_not_healthy_and_still_enqueues",),
        (
            Code(
                "self._closed or (background is not None and background.circuit_open)",
                "background is not None and background.circuit_open",
            ),
        ),
    ),
)
