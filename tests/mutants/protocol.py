"""The rules of tokens, generations and claims (T, G, C, floors and horizons), left out one at a time."""

from __future__ import annotations

from mutants.anchors import HISTORIES, Code, Mutant, Words

MUTANTS = (
    Mutant(
        "T1: the token is drawn before the tasks are taken",
        (
            "tests/integration/test_claim.py::test_a_token_is_drawn_by_the_statement_that_takes_the_tasks",
            HISTORIES,
        ),
        (
            Code(
                'reach("claim.locked")',
                """
                early = conn.execute("SELECT nextval('" + conn.schema + ".opensearch_indexing_token')").fetchone()[0]
                reach("claim.locked")
            """,
            ),
            Code('conn.run(here(SQL["claim"]), ...)', 'SQL["claim"], early=early'),
            Words("SELECT nextval('opensearch_indexing_token'), %(index)s,", "SELECT %(early)s::bigint, %(index)s,"),
        ),
    ),
    Mutant(
        "T1: documents are read with the claim's own snapshot",
        (
            "tests/integration/test_claim.py::test_documents_are_read_after_the_commit_of_the_claim",
            HISTORIES,
        ),
        (
            Words(
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {pin};",
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE; {pin};",
            ),
            Code('conn.raw.execute(b"COMMIT")', "pass"),
            Code(
                """
                with here(conn.transaction(local=local, read_only=True)), translated("read documents"), __ as __, __ as __:
                    ...
            """,
                '__import__("contextlib").nullcontext()',
            ),
            Code(
                'reach("read.done")',
                """
                conn.raw.execute(b"COMMIT")
                reach("read.done")
            """,
            ),
        ),
    ),
    Mutant(
        "T1: a chunk of a backfill is read before its token is drawn",
        (
            "tests/integration/test_generations.py::test_a_chunk_of_a_backfill_is_read_after_its_token_was_drawn",
            HISTORIES,
        ),
        (
            Code(
                """
                conn = self._pool.mine()
                reach("chunk.before")
            """,
                """
                conn = self._pool.mine()
                number_, after_, upto_ = conn.run(SQL["chunks"], run=self._run).fetchall(), None, None
                self._early = [list(render.stream(conn, self._generation.definition, between(self._generation.definition, *keys), token=7777777777777777)) for keys in number_]
                self._early_keys = [tuple(map(str, keys)) for keys in number_]
                reach("chunk.before")
            """,
            ),
            Code(
                "yield from here(ranges.readable(...))",
                """
                [
                    render.Lines(one.ids, one.text.replace(b"7777777777777777", str(chunk.token).encode()))
                    for one in self._early[self._early_keys.index((str(chunk.after), str(chunk.upto)))]
                ]
            """,
            ),
        ),
    ),
    Mutant(
        "T2: a chunk's token is drawn and not committed durably",
        ("tests/faults/test_tokens_survive.py::test_the_token_of_a_chunk_survives_a_crash_of_the_server",),
        (Code('conn.run(SQL["durable"])', ""),),
    ),
    Mutant(
        "T2: a claim's token is drawn and not committed durably",
        ("tests/faults/test_tokens_survive.py::test_the_token_of_a_claim_survives_a_crash_of_the_server",),
        (
            Words(
                "lock_timeout = {wait}; SELECT set_config('synchronous_commit', 'on', true)",
                "lock_timeout = {wait}; SELECT set_config('synchronous_commit', 'off', true)",
            ),
        ),
    ),
    Mutant(
        "T2: a chunk's token is drawn by a bare nextval",
        ("tests/faults/test_tokens_survive.py::test_the_token_of_a_chunk_survives_a_crash_of_the_server",),
        (
            Words("SET token = nextval('opensearch_indexing_token')", "SET token = %(token)s", times=2),
            Code(
                """
                with conn.transaction():
                    conn.run(SQL["durable"])
                    row = conn.run(statement, **parameters).fetchone()
            """,
                """
                parameters["token"] = conn.execute(b"SELECT nextval('opensearch_indexing_token')").fetchone()[0]
                row = conn.run(statement, **parameters).fetchone()
            """,
            ),
        ),
    ),
    Mutant(
        "T3: the age of the bytes is counted from their lease",
        (
            "tests/faults/test_leases.py::test_bytes_older_than_a_forgotten_delete_are_not_sent_however_their_lease_was_renewed",
        ),
        (
            Code(
                "time.monotonic() - here(__batch.born) > __",
                '__import__("builtins").__dict__.setdefault("renewed", {}).get(__batch.token, __batch.born)',
            ),
            Code(
                """
                for __ in here(__since.keys() & set(__tokens)):
                    __since[__] = now
            """,
                '(__import__("builtins").__dict__.setdefault("renewed", {}).update(dict.fromkeys(__tokens, time.monotonic())), __since.keys() & set(__tokens))[1]',
            ),
        ),
    ),
    Mutant(
        "T3: what was rescued keeps its token",
        ("tests/faults/test_leases.py::test_what_was_rescued_is_claimed_under_a_new_token",),
        (
            Code("middle = (len(tasks) + 1) // 2", "middle = len(tasks)"),
            Code(
                "return remember(task, LOST, why, at=self.at, worker=self.worker)",
                """
                kept = remember(task, LOST, why, at=self.at, worker=self.worker)
                return replace(kept, payload={**kept.payload, 'token': self.token})
            """,
            ),
            Words(
                "SELECT nextval('opensearch_indexing_token'), %(index)s,",
                "SELECT coalesce((SELECT min((m.payload->>'token')::bigint) FROM merged m), nextval('opensearch_indexing_token')), %(index)s,",
            ),
        ),
    ),
    Mutant(
        "T3: the age of the bytes is not looked at",
        ("tests/integration/test_tokens.py::test_bytes_that_have_grown_too_old_are_not_sent_but_read_again",),
        (Code("return time.monotonic() - batch.born > limits.age_limit_seconds", "return False"),),
    ),
    Mutant(
        "T4: a conflict is success, whoever drew the version",
        (
            "tests/integration/test_tokens.py::test_a_version_above_the_sequence_is_overtaken",
            "tests/integration/test_tokens.py::test_a_version_in_the_gap_that_a_jump_left_is_overtaken",
            "tests/faults/test_restore.py::test_a_sequence_set_back_within_the_hour_is_found_by_the_conflict",
        ),
        (
            Code(
                """
                if version is not None and version not in foreign:
                    return DONE
            """,
                "return DONE",
            ),
        ),
    ),
    Mutant(
        "T4: tasks are taken from a server started anew before its sequence is moved",
        (
            "tests/faults/test_restore.py::test_nothing_is_claimed_from_a_server_started_anew_before_the_sequence_has_been_moved",
        ),
        (
            Words(
                "AND (SELECT j.server FROM opensearch_indexing_token_jumps j ORDER BY j.id DESC LIMIT 1) = (SELECT opensearch_indexing_server())",
                "",
            ),
        ),
    ),
    Mutant(
        "T4: only a sequence an hour behind the clock is moved",
        ("tests/faults/test_restore.py::test_a_base_backup_taken_before_a_thousand_changes_is_restored",),
        (
            Words(
                "AND (SELECT j.server FROM opensearch_indexing_token_jumps j ORDER BY j.id DESC LIMIT 1) = (SELECT opensearch_indexing_server())",
                "",
            ),
            Code("known and __lag < __far", "__lag < __far"),
        ),
    ),
    Mutant(
        "T4: a conflict that names no version is success",
        ("tests/faults/test_restore.py::test_a_conflict_that_names_no_version_is_no_success",),
        (
            Code(
                """
                if here(version is not None and version not in foreign):
                    return DONE
            """,
                "version not in foreign",
            ),
        ),
    ),
    Mutant(
        "T5: a success clears letters without comparing tokens",
        (
            "tests/integration/test_tokens.py::test_an_older_success_leaves_the_letter_of_a_newer_failure",
            HISTORIES,
        ),
        (
            Words("AND d.document_id = ANY(%(ids)s) AND d.token < settled.token", "AND d.document_id = ANY(%(ids)s)"),
            Words("AND document_id = ANY(%(ids)s) AND token < %(token)s", "AND document_id = ANY(%(ids)s)"),
        ),
    ),
    Mutant(
        "T5: an older failure takes the place of a newer one",
        ("tests/integration/test_tokens.py::test_an_older_failure_does_not_take_the_place_of_a_newer_one",),
        (Words("WHERE d.token <= excluded.token", "WHERE true"),),
    ),
    Mutant(
        "T6: the live generation is written through the alias",
        (
            "tests/integration/test_tokens.py::test_a_bulk_in_flight_during_a_swap_reaches_the_index_it_was_meant_for",
            HISTORIES,
        ),
        (
            Code(
                "bulk.send(self.client, here(self.generation.name), self.body, ...)",
                'self.generation.index if self.generation.state == "live" else self.generation.name',
            ),
        ),
    ),
    Mutant(
        "external, not external_gte: what was sent may not be sent again",
        (
            "tests/integration/test_tokens.py::test_the_same_token_may_reach_a_document_twice",
            "tests/integration/test_tokens.py::test_everything_a_worker_sends_may_be_sent_again_under_its_token",
        ),
        (Words('"version_type":"external_gte"', '"version_type":"external"', times=2),),
    ),
    Mutant(
        "G2: the set of generations is remembered from an earlier claim",
        (
            "tests/integration/test_generations.py::test_a_generation_registered_between_two_claims_is_written_by_the_second",
            HISTORIES,
        ),
        (
            Code(
                "token, kind, active, *arrays, reached, rows, claimed_at = row",
                """
                token, kind, active, *arrays, reached, rows, claimed_at = row
                active = __import__("builtins").__dict__.setdefault("seen", {}).setdefault((take.worker, take.index), active)
            """,
            ),
        ),
    ),
    Mutant(
        "G2: a change of the set does not wait for open claims",
        (
            "tests/integration/test_generations.py::test_a_change_of_the_set_waits_for_an_open_claim",
            HISTORIES,
        ),
        (
            Words("IN EXCLUSIVE MODE", "IN ROW SHARE MODE"),
            Words("SELECT pg_advisory_xact_lock(", "SELECT pg_try_advisory_xact_lock(", within="older_exclusive"),
        ),
    ),
    Mutant(
        "G2: a claim takes no lock before its statement",
        ("tests/integration/test_generations.py::test_a_claim_that_waited_for_a_change_of_the_set_sees_it",),
        (
            Words(
                "LOCK TABLE {home}.opensearch_indexing_barrier IN ROW SHARE MODE; SELECT pg_try_advisory_xact_lock_shared(hashtextextended('opensearch_indexing generations ' || {schema}, 0))",
                "SELECT true",
            ),
        ),
    ),
    Mutant(
        "G2: an index is deleted while a batch under way may write to it",
        (
            "tests/integration/test_generations.py::test_an_index_is_kept_while_a_batch_under_way_may_write_to_it",
            HISTORIES,
        ),
        (
            Code(
                """
                if generations.in_flight_with(conn, one.id):
                    continue
            """,
                "",
            ),
        ),
    ),
    Mutant(
        "G3: an index is deleted as soon as nothing is in flight",
        (
            "tests/integration/test_generations.py::test_an_index_is_kept_until_bytes_of_a_lost_lease_are_too_old_to_be_sent",
        ),
        (Words("AND retired_at < clock_timestamp() - %(age)s::interval", "AND %(age)s::interval IS NOT NULL"),),
    ),
    Mutant(
        "G3: a retired generation that is gone holds the others up",
        (
            "tests/integration/test_tokens.py::test_a_retired_generation_that_is_gone_holds_nothing_up",
            HISTORIES,
        ),
        (
            Code('states.get(one.id, "retired") != "retired"', "states.get(one.id)"),
            Code('[__ for one, verdict in troubles if here(states[one.id] == "live")]', 'states[one.id] != "building"'),
        ),
    ),
    Mutant(
        "the floor: heads are looked for below it each time",
        ("tests/faults/test_old_snapshot.py::test_claims_from_the_floor_do_not_read_the_dead_rows_at_the_head",),
        (Code("claim.heads(..., floors=here(__))", "None"),),
    ),
    Mutant(
        "the floor: claims begin below it each time",
        ("tests/faults/test_old_snapshot.py::test_claims_from_the_floor_do_not_read_the_dead_rows_at_the_head",),
        (Code("claim.claim(..., floor=here(floors.get(place)))", "None"),),
    ),
    Mutant(
        "the floor: nobody looks below it",
        (
            "tests/faults/test_old_snapshot.py::test_workers_look_below_the_floor_by_themselves",
            "tests/faults/test_old_snapshot.py::test_a_change_committed_late_lies_below_the_floor_and_is_claimed_by_the_next_look_there",
        ),
        (Code("below = time.monotonic() - self.swept_at >= self._sweep_wait", "below = not self._floors"),),
    ),
    Mutant(
        "the floor: it stays where it is though a claim from below it was full",
        ("tests/faults/test_old_snapshot.py::test_a_full_claim_from_below_the_floor_is_followed_by_the_rest",),
        (Code("full or place not in self._floors", "place not in self._floors"),),
    ),
    Mutant(
        "the horizon: every look below the floor is at everything",
        (
            "tests/faults/test_old_snapshot.py::test_further_looks_below_the_floor_go_no_deeper_than_the_oldest_open_transaction",
        ),
        (Code("{} if here(horizon is None) else __", "True"),),
    ),
    Mutant(
        "the horizon: open transactions are not minded",
        ("tests/faults/test_old_snapshot.py::test_a_look_goes_as_deep_as_a_transaction_that_is_still_open",),
        (Code("self._marks[0][1] <= oldest_open", "self._marks[0][1] <= given"),),
    ),
    Mutant(
        "the horizon: the end of the snapshot is taken for the next transaction id",
        ("tests/faults/test_old_snapshot.py::test_a_look_goes_as_deep_as_a_transaction_that_is_still_open",),
        (Words("pg_current_xact_id()::text::bigint", "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"),),
    ),
    Mutant(
        "the horizon: it rises with the look that sees the last transaction ended",
        ("tests/faults/test_old_snapshot.py::test_a_look_goes_as_deep_as_a_transaction_that_is_still_open",),
        (
            Code(
                "self._marks.append((now, given))",
                """
                self._marks.append((now, given))
                self._passed = self._next
            """,
            ),
        ),
    ),
    Mutant(
        "the horizon: what is below it is never looked for",
        ("tests/faults/test_old_snapshot.py::test_everything_is_looked_at_now_and_then",),
        (Code("__passed is None or self._clock() >= self.everything_at", "__passed is None"),),
    ),
    Mutant(
        "C3: a sweep does not wait for batches in flight",
        (
            "tests/integration/test_expand.py::test_truncate_empties_the_index_once_batches_in_flight_are_through",
            HISTORIES,
        ),
        (Code("_others(conn, batch, _before(batch, task), bytes_gone_after_seconds)", "False"),),
    ),
)
