"""What a worker and a rescue rest on, left out: leases, lookups, shutdown, the way to OpenSearch."""

from __future__ import annotations

from mutants.anchors import Code, Mutant, Words

MUTANTS = (
    Mutant(
        "a claim whose answer was lost is not given back",
        ("tests/faults/test_postgres_away.py::test_a_claim_whose_answer_was_lost_is_given_back",),
        (Code("rescue.give_back(conn, self.id, held=held, why=Reason(Kind.UNCLAIMED))", ""),),
    ),
    Mutant(
        "a settle does not look whether its lease still stands",
        ("tests/integration/test_tokens.py::test_a_settle_whose_lease_was_lost_writes_nothing",),
        (
            Code(
                """
                if conn.run(SQL["end_lease"], token=batch.token).fetchone() is None:
                    return Settled(held=False)
            """,
                'conn.run(SQL["end_lease"], token=batch.token)',
            ),
        ),
    ),
    Mutant(
        "a lookup of a lost lease is expanded all the same",
        ("tests/integration/test_expand.py::test_a_lookup_of_a_lost_lease_is_expanded_by_others_and_not_twice",),
        (
            Code(
                """
                if not end_lease(conn, batch):
                    return Expanded(held=False)
            """,
                "end_lease(conn, batch)",
            ),
        ),
    ),
    Mutant(
        "a rescued batch is not halved",
        (
            "tests/faults/test_leases.py::test_a_document_that_kills_its_workers_dies_alone_and_its_letter_tells_of_each",
        ),
        (Code("middle = (len(tasks) + 1) // 2", "middle = len(tasks)"),),
    ),
    Mutant(
        "a watch that cannot look at the time stops the others",
        (
            "tests/integration/test_expand.py::test_a_watch_whose_table_is_gone_holds_up_no_other_that_looks_at_the_time",
        ),
        (
            Code(
                """
                failed.append((index, __))
                continue
            """,
                "raise",
            ),
        ),
    ),
    Mutant(
        "a row that breaks its lookup holds up the others",
        ("tests/integration/test_expand.py::test_a_row_that_breaks_its_lookup_waits_alone",),
        (Code("is_of_values(error) and len(part) > 1 and __", "False"),),
    ),
    Mutant(
        "a mended lookup leaves the tasks of the old one waiting",
        ("tests/integration/test_expand.py::test_a_lookup_that_was_mended_since_frees_the_tasks_of_the_old_one",),
        (Code("return count if fixed else None", "return None"),),
    ),
    Mutant(
        "what was lost together comes back together",
        ("tests/faults/test_leases.py::test_documents_that_were_lost_together_come_back_apart",),
        (Code("one.wait + lost.apart", "one.wait"),),
    ),
    Mutant(
        "a loss is not remembered while the document is not alone",
        (
            "tests/faults/test_leases.py::test_a_document_that_kills_its_workers_dies_alone_and_its_letter_tells_of_each",
        ),
        (Code("Again(lost.remembered_by(task, len(tasks)), wait, lost.why)", "Again(task, wait, lost.why)"),),
    ),
    Mutant(
        "leases are renewed by the thread that may wait for anything",
        ("tests/faults/test_leases.py::test_a_batch_of_a_living_worker_is_nobody_elses_however_long_it_takes",),
        (
            Code("self.renew(self._pool.mine())", ""),
            Code(
                """
                self._carrier.give_back(conn)
                self.rescue(conn)
            """,
                """
                conn.raw.execute(
                    "UPDATE opensearch_indexing_inflight SET lease_until = clock_timestamp() + %s * interval '1 second' WHERE worker = %s",
                    (self._options.lease_seconds, self.id),
                )
                self._carrier.give_back(conn)
                self.rescue(conn)
            """,
            ),
        ),
    ),
    Mutant(
        "a beat waits for a lock as long as it lasts",
        ("tests/faults/test_leases.py::test_a_batch_of_a_living_worker_is_nobody_elses_however_long_it_takes",),
        (
            Code(
                'conn.transaction(local={"statement_timeout": f"{patience_seconds * 1000:.0f}"})', "conn.transaction()"
            ),
        ),
    ),
    Mutant(
        "a renewal waits for a batch that is being settled",
        ("tests/faults/test_leases.py::test_a_batch_that_is_being_settled_does_not_hold_up_the_renewal_of_others",),
        (
            Words(
                "WHERE token = ANY(%(tokens)s) ORDER BY token FOR UPDATE SKIP LOCKED)",
                "WHERE token = ANY(%(tokens)s) ORDER BY token FOR UPDATE)",
            ),
        ),
    ),
    Mutant(
        "a killed worker's batches wait for their leases",
        ("tests/faults/test_leases.py::test_what_a_killed_worker_held_is_taken_over_although_its_lease_stands",),
        (Code("lost = registry.gone(conn, self.id)", "lost: list[str] = []"),),
    ),
    Mutant(
        "a worker behind a pooler is gone when no session is seen",
        (
            "tests/faults/test_leases.py::test_a_worker_whose_sessions_tell_nothing_keeps_its_batch_until_the_lease_lapses",
        ),
        (Words("AND w.session_pid IS NOT NULL", ""),),
    ),
    Mutant(
        "a worker is gone as soon as its session is",
        ("tests/faults/test_leases.py::test_a_living_worker_whose_connections_broke_is_not_taken_for_gone",),
        (Words("AND w.seen_at < clock_timestamp() - %(grace)s * interval '1 second'", ""),),
    ),
    Mutant(
        "who has just connected takes everybody else for gone",
        ("tests/faults/test_leases.py::test_who_has_just_connected_leaves_others_the_time_to_come_back",),
        (Words("AND a.backend_start < clock_timestamp() - %(grace)s * interval '1 second')", ")"),),
    ),
    Mutant(
        "what the drain timeout leaves over is left to its lease",
        ("tests/faults/test_shutdown.py::test_what_the_drain_timeout_leaves_over_goes_back_as_it_was",),
        (Code("rescue.give_back(conn, self.id, held=(), why=Reason(Kind.RELEASED))", ""),),
    ),
    Mutant(
        "the first signal leaves at once",
        ("tests/faults/test_shutdown.py::test_the_first_signal_finishes_what_is_in_flight_and_ends_with_0",),
        (
            Code(
                """
                if here(self._asked):
                    ...
            """,
                "True",
            ),
        ),
    ),
    Mutant(
        "the second signal waits for the first",
        ("tests/faults/test_shutdown.py::test_the_second_signal_leaves_at_once",),
        (
            Code(
                """
                if number == self._asked == signal.SIGTERM and __:
                    return
                os._exit(128 + number)
            """,
                "return",
            ),
        ),
    ),
    Mutant(
        "signals are handled once PostgreSQL has answered",
        ("tests/faults/test_shutdown.py::test_a_signal_before_the_first_connection_stands_ends_it_with_0",),
        (Code("raise SystemExit(0)", "return"),),
    ),
    Mutant(
        "an index that a write made again is taken for ours",
        ("tests/faults/test_index_deleted.py::test_an_index_that_a_write_made_again_is_not_taken_for_ours",),
        (
            Code(
                """
                if known:
                    return None
            """,
                """
                if known is not None:
                    return None
            """,
            ),
        ),
    ),
    Mutant(
        "nobody looks whether an index is there before writing to it",
        ("tests/faults/test_index_deleted.py::test_a_deleted_index_is_not_made_again_by_writes",),
        (Code("strangers = self._identity.strangers(self._client, generations)", "strangers: dict = {}"),),
    ),
    Mutant(
        "the way: a control passes whatever becomes of it",
        (
            "tests/faults/test_the_way.py::test_a_way_that_fails_on_every_document_charges_none_and_goes_on_by_itself[502]",
        ),
        (
            Code(
                """
                try:
                    ...
                except (OpenSearchRefused, OpenSearchUnreachable):
                    return here(False)
            """,
                "True",
            ),
        ),
    ),
    Mutant(
        "the way: what it fails on is never charged",
        (
            "tests/faults/test_the_way.py::test_a_document_that_the_way_fails_on_is_a_letter_and_all_others_are_indexed[502]",
        ),
        (Code("written.search.is_over(trip.limits)", "True"),),
    ),
    Mutant(
        "the way: document and control are sent in turn",
        (
            "tests/unit/test_way.py::test_an_outage_that_comes_and_goes_by_itself_finds_nobody_guilty_but_by_a_chance_of_one_in_924",
        ),
        (
            Code(
                """
                turns = [True] * TURNS + [False] * TURNS
                shuffle(turns)
            """,
                "turns = [True, False] * TURNS",
            ),
        ),
    ),
    Mutant(
        "the way: what was narrowed down is claimed with all others again",
        ("tests/faults/test_the_way.py::test_what_could_not_be_narrowed_down_in_time_is_claimed_apart",),
        (Code("_groups(written)", "{}"),),
    ),
    Mutant(
        "the way: of a pipeline that hangs a control is believed",
        (
            "tests/faults/test_the_way.py::test_a_pipeline_that_hangs_on_every_document_charges_none_although_controls_pass",
        ),
        (Code("return self._passed.get(generation, first) > first", "return True"),),
    ),
    Mutant(
        "the way: one that is closed to a building generation holds the live one up",
        (
            "tests/faults/test_the_way.py::test_a_way_that_is_closed_to_a_building_generation_holds_the_live_one_up_in_nothing",
        ),
        (Code("return replace(verdict, cause=Cause.ELSEWHERE)", "return verdict"),),
    ),
)
