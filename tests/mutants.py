"""
The rules of the protocol, left out one at a time: each mutant of the code must turn a test red.

    python tests/mutants.py              all of them: a line each, status 1 if one survives
    python tests/mutants.py T1 fan-out   those whose name has one of these words
    python tests/mutants.py --quick      without random histories
    python tests/mutants.py --list

A mutant is made in a copy of the tree, by replacing text that must be there; so it breaks when the code moves on, and is
moved along with it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mutants_of_the_library import TABLE as OF_THE_LIBRARY

ROOT = Path(__file__).resolve().parents[1]
HISTORIES = "tests/faults/test_histories.py"


@dataclasses.dataclass(frozen=True)
class Edit:
    """One place where a mutant differs: *old* stands *times* in *path*, and becomes *new*."""

    path: str
    old: str
    new: str
    times: int = 1


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A rule left out, and the tests that must notice: a deterministic one, random histories, or both."""

    name: str
    tests: tuple[str, ...]
    edits: tuple[Edit, ...]


def _edit(path: str, old: str, new: str, times: int = 1) -> Edit:
    return Edit(path, old, new, times)


_CLAIM, _QUEUE, _BATCH = "idxctl/queue/claim.py", "idxctl/queue/queue.sql", "idxctl/worker/batch.py"
_SETTLE, _RESCUE, _EXPAND = "idxctl/queue/settle.py", "idxctl/queue/rescue.py", "idxctl/queue/expand.py"
_RENDER, _TRIGGERS, _BULK = "idxctl/indexes/render.py", "idxctl/capture/triggers.py", "idxctl/opensearch/bulk.py"
_POOL, _JANITOR = "idxctl/worker/pool.py", "idxctl/worker/janitor.sql"
_LEASES, _RESTORE, _SHUTDOWN = (f"tests/faults/test_{name}.py" for name in ("leases", "restore", "shutdown"))
_BACKFILL, _REBUILD = "idxctl/rebuild/backfill.py", "idxctl/rebuild/rebuild.sql"
_ALIASES = "tests/integration/test_reindex_aliases.py"
_WAY, _THE_WAY = "idxctl/worker/way.py", "tests/faults/test_the_way.py"
_POOL, _FLOORS = "idxctl/worker/pool.py", "idxctl/queue/floors.py"
_CONNECT, _PATIENT = "idxctl/postgres/connect.py", "idxctl/postgres/patient.py"
_LIFE = "tests/integration/test_lookalikes.py::test_no_statement_of_a_whole_life_calls_one"
_BOUNCER = "tests/system/test_pgbouncer.py::test_the_main_path"
_GENERATIONS, _INDEXES, _RETIRE = (
    "idxctl/indexes/generations.py",
    "idxctl/indexes/indexes.sql",
    "idxctl/indexes/retire.py",
)

_READ_IN_THE_CLAIMS_TRANSACTION = (
    _edit(_CLAIM, 'conn.raw.execute(b"COMMIT")', "pass"),
    _edit(_RENDER, "        conn.transaction(local=local, read_only=True),\n", ""),
    _edit(_BATCH, '    reach("read.done")\n', '    conn.raw.execute(b"COMMIT")\n    reach("read.done")\n'),
)  # fmt: skip

MUTANTS = (
    Mutant(
        "T1: the token is drawn before the tasks are taken",
        ("tests/integration/test_claim.py::test_a_token_is_drawn_by_the_statement_that_takes_the_tasks", HISTORIES),
        (
            _edit(_CLAIM, '        reach("claim.locked")\n', "        early = conn.execute(\"SELECT nextval('\" + conn.schema + \".opensearch_indexing_token')\").fetchone()[0]\n        reach(\"claim.locked\")\n"),
            _edit(_CLAIM, '            SQL["claim"],\n', '            SQL["claim"],\n            early=early,\n'),
            _edit(_QUEUE, "SELECT nextval('opensearch_indexing_token'), %(index)s,", "SELECT %(early)s::bigint, %(index)s,"),
        ),
    ),
    Mutant(
        "T1: documents are read with the claim's own snapshot",
        ("tests/integration/test_claim.py::test_documents_are_read_after_the_commit_of_the_claim", HISTORIES),
        (
            _edit(_CLAIM, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE"),
            *_READ_IN_THE_CLAIMS_TRANSACTION,
        ),
    ),
    Mutant(
        "T1: a chunk of a backfill is read before its token is drawn",
        ("tests/integration/test_generations.py::test_a_chunk_of_a_backfill_is_read_after_its_token_was_drawn", HISTORIES),
        (
            _edit(
                _BACKFILL,
                '        conn = self._pool.mine()\n        reach("chunk.before")\n',
                '        conn = self._pool.mine()\n'
                '        number_, after_, upto_ = conn.run(SQL["chunks"], run=self._run).fetchall(), None, None\n'
                '        self._early = [list(render.stream(conn, self._generation.definition, render.between(self._generation.definition, *keys), token=7777777777777777)) for keys in number_]\n'
                '        self._early_keys = [tuple(map(str, keys)) for keys in number_]\n'
                '        reach("chunk.before")\n',
            ),
            _edit(
                _BACKFILL,
                "            yield from ranges.readable(\n",
                "            early = self._early[self._early_keys.index((str(chunk.after), str(chunk.upto)))]\n"
                "            yield from [render.Lines(one.ids, one.text.replace(b'7777777777777777', str(chunk.token).encode())) for one in early]\n            return\n"
                "            yield from ranges.readable(\n",
            ),
        ),
    ),
    Mutant(
        "T2: a chunk's token is drawn and not committed durably",
        ("tests/faults/test_tokens_survive.py::test_the_token_of_a_chunk_survives_a_crash_of_the_server",),
        (_edit(_BACKFILL, '            conn.run(SQL["durable"])\n', ""),),
    ),
    Mutant(
        "T2: a claim's token is drawn and not committed durably",
        ("tests/faults/test_tokens_survive.py::test_the_token_of_a_claim_survives_a_crash_of_the_server",),
        (_edit(_CLAIM, "set_config('synchronous_commit', 'on', true)", "set_config('synchronous_commit', 'off', true)"),),
    ),
    Mutant(
        "T2: a chunk's token is drawn by a bare nextval",
        ("tests/faults/test_tokens_survive.py::test_the_token_of_a_chunk_survives_a_crash_of_the_server",),
        (
            _edit(_REBUILD, "SET token = nextval('opensearch_indexing_token')", "SET token = %(token)s", times=2),
            _edit(_BACKFILL, '        with conn.transaction():\n            conn.run(SQL["durable"])\n            row = conn.run(statement, **parameters).fetchone()\n',
                  '        parameters["token"] = conn.execute(b"SELECT nextval(\'opensearch_indexing_token\')").fetchone()[0]\n        row = conn.run(statement, **parameters).fetchone()\n'),
        ),
    ),
    Mutant(
        "T3: the age of the bytes is counted from their lease",
        (f"{_LEASES}::test_bytes_older_than_a_forgotten_delete_are_not_sent_however_their_lease_was_renewed",),
        (
            _edit(_BATCH, "return time.monotonic() - batch.born >", "return time.monotonic() - RENEWED.get(batch.token, batch.born) >"),
            _edit(_BATCH, "_GREATEST_VERSION = 2**62", "RENEWED: dict = {}\n_GREATEST_VERSION = 2**62"),
            _edit(_POOL, "            with self._guard:\n                for token in renewed", "            steps.RENEWED.update(dict.fromkeys(renewed, time.monotonic()))\n            with self._guard:\n                for token in renewed"),
        ),
    ),
    Mutant(
        "T3: what was rescued keeps its token",
        (f"{_LEASES}::test_what_was_rescued_is_claimed_under_a_new_token",),
        (
            _edit(_RESCUE, "middle = (len(tasks) + 1) // 2", "middle = len(tasks)"),
            _edit(_RESCUE, "        return remember(task, LOST, why, at=self.at, worker=self.worker)\n",
                  "        kept = remember(task, LOST, why, at=self.at, worker=self.worker)\n        return replace(kept, payload={**kept.payload, 'token': self.token})\n"),
            _edit(_QUEUE, "SELECT nextval('opensearch_indexing_token'), %(index)s,",
                  "SELECT coalesce((SELECT min((m.payload->>'token')::bigint) FROM merged m), nextval('opensearch_indexing_token')), %(index)s,"),
        ),
    ),
    Mutant(
        "T3: the age of the bytes is not looked at",
        ("tests/integration/test_tokens.py::test_bytes_that_have_grown_too_old_are_not_sent_but_read_again",),
        (_edit(_BATCH, "return time.monotonic() - batch.born > limits.age_limit_seconds", "return False"),),
    ),
    Mutant(
        "T4: a conflict is success, whoever drew the version",
        (
            "tests/integration/test_tokens.py::test_a_version_above_the_sequence_is_overtaken",
            "tests/integration/test_tokens.py::test_a_version_in_the_gap_that_a_jump_left_is_overtaken",
            "tests/faults/test_restore.py::test_a_sequence_set_back_within_the_hour_is_found_by_the_conflict",
        ),
        (_edit(_BATCH, "    if version is not None and version not in foreign:\n        return DONE\n", "    return DONE\n"),),
    ),
    Mutant(
        "T4: tasks are taken from a server started anew before its sequence is moved",
        (
            f"{_RESTORE}::test_nothing_is_claimed_from_a_server_started_anew_before_the_sequence_has_been_moved",
        ),
        (_edit(_QUEUE, "      AND (SELECT j.server FROM opensearch_indexing_token_jumps j ORDER BY j.id DESC LIMIT 1) = (SELECT opensearch_indexing_server())\n", ""),),
    ),
    Mutant(
        "T4: only a sequence an hour behind the clock is moved",
        (f"{_RESTORE}::test_a_base_backup_taken_before_a_thousand_changes_is_restored",),
        (
            _edit(_QUEUE, "      AND (SELECT j.server FROM opensearch_indexing_token_jumps j ORDER BY j.id DESC LIMIT 1) = (SELECT opensearch_indexing_server())\n", ""),
            _edit("idxctl/queue/tokens.py", "if known and lag < _FAR", "if lag < _FAR"),
        ),
    ),
    Mutant(
        "T4: a conflict that names no version is success",
        (f"{_RESTORE}::test_a_conflict_that_names_no_version_is_no_success",),
        (_edit(_BATCH, "    if version is not None and version not in foreign:", "    if version not in foreign:"),),
    ),
    Mutant(
        "T5: a success clears letters without comparing tokens",
        ("tests/integration/test_tokens.py::test_an_older_success_leaves_the_letter_of_a_newer_failure", HISTORIES),
        (
            _edit(_QUEUE, "AND d.document_id = ANY(%(ids)s) AND d.token < settled.token", "AND d.document_id = ANY(%(ids)s)"),
            _edit(_QUEUE, "AND document_id = ANY(%(ids)s) AND token < %(token)s", "AND document_id = ANY(%(ids)s)"),
        ),
    ),
    Mutant(
        "T5: an older failure takes the place of a newer one",
        ("tests/integration/test_tokens.py::test_an_older_failure_does_not_take_the_place_of_a_newer_one",),
        (_edit(_QUEUE, "WHERE d.token <= excluded.token", "WHERE true"),),
    ),
    Mutant(
        "T6: the live generation is written through the alias",
        ("tests/integration/test_tokens.py::test_a_bulk_in_flight_during_a_swap_reaches_the_index_it_was_meant_for", HISTORIES),
        (_edit(_BATCH, "self.client, self.generation.name, self.body,", 'self.client, self.generation.index if self.generation.state == "live" else self.generation.name, self.body,'),),
    ),
    Mutant(
        "external, not external_gte: what was sent may not be sent again",
        (
            "tests/integration/test_tokens.py::test_the_same_token_may_reach_a_document_twice",
            "tests/integration/test_tokens.py::test_everything_a_worker_sends_may_be_sent_again_under_its_token",
        ),
        (
            _edit(_BULK, '"version_type":"external_gte"', '"version_type":"external"'),
            _edit(_RENDER, '"version_type":"external_gte"', '"version_type":"external"'),
        ),
    ),
    Mutant(
        "G2: the set of generations is remembered from an earlier claim",
        ("tests/integration/test_generations.py::test_a_generation_registered_between_two_claims_is_written_by_the_second", HISTORIES),
        (
            _edit(_CLAIM, "    token, kind, active, *arrays, reached, rows, claimed_at = row\n",
                  "    token, kind, active, *arrays, reached, rows, claimed_at = row\n    generations = _SEEN.setdefault((take.worker, take.index), generations)\n"),
            _edit(_CLAIM, "Floors = Mapping", "_SEEN: dict = {}\nFloors = Mapping"),
        ),
    ),
    Mutant(
        "G2: a change of the set does not wait for open claims",
        ("tests/integration/test_generations.py::test_a_change_of_the_set_waits_for_an_open_claim", HISTORIES),
        (
            _edit(_INDEXES, "IN EXCLUSIVE MODE", "IN ROW SHARE MODE"),
            _edit(_INDEXES, "SELECT pg_advisory_xact_lock(", "SELECT pg_try_advisory_xact_lock("),
        ),
    ),
    Mutant(
        "G2: a claim takes no lock before its statement",
        ("tests/integration/test_generations.py::test_a_claim_that_waited_for_a_change_of_the_set_sees_it",),
        (
            _edit(
                _CLAIM,
                "LOCK TABLE {home}.opensearch_indexing_barrier IN ROW SHARE MODE;\n"
                "SELECT pg_try_advisory_xact_lock_shared(hashtextextended('opensearch_indexing generations ' || {schema}, 0))",
                "SELECT true",
            ),
        ),
    ),
    Mutant(
        "G2: an index is deleted while a batch under way may write to it",
        ("tests/integration/test_generations.py::test_an_index_is_kept_while_a_batch_under_way_may_write_to_it", HISTORIES),
        (_edit(_RETIRE, "        if generations.in_flight_with(conn, one.id):\n            continue\n", ""),),
    ),
    Mutant(
        "G3: an index is deleted as soon as nothing is in flight",
        ("tests/integration/test_generations.py::test_an_index_is_kept_until_bytes_of_a_lost_lease_are_too_old_to_be_sent",),
        (_edit(_INDEXES, "AND retired_at < clock_timestamp() - %(age)s::interval", "AND %(age)s::interval IS NOT NULL"),),
    ),
    Mutant(
        "G3: a retired generation that is gone holds the others up",
        ("tests/integration/test_tokens.py::test_a_retired_generation_that_is_gone_holds_nothing_up", HISTORIES),
        (_edit(_BATCH, 'if states.get(one.id, "retired") != "retired"]', "if states.get(one.id)]"),
         _edit(_BATCH, 'in troubles if states[one.id] == "live"]', 'in troubles if states[one.id] != "building"]')),
    ),
    Mutant(
        "the floor: heads are looked for below it each time",
        ("tests/faults/test_old_snapshot.py::test_claims_from_the_floor_do_not_read_the_dead_rows_at_the_head",),
        (_edit(_POOL, "indexes=self.options.indexes, floors=floors)", "indexes=self.options.indexes, floors=None)"),),
    ),
    Mutant(
        "the floor: claims begin below it each time",
        ("tests/faults/test_old_snapshot.py::test_claims_from_the_floor_do_not_read_the_dead_rows_at_the_head",),
        (_edit(_POOL, "floor=floors.get(place)", "floor=None"),),
    ),
    Mutant(
        "the floor: nobody looks below it",
        (
            "tests/faults/test_old_snapshot.py::test_workers_look_below_the_floor_by_themselves",
            "tests/faults/test_old_snapshot.py::test_a_change_committed_late_lies_below_the_floor_and_is_claimed_by_the_next_look_there",
        ),
        (_edit(_POOL, "below = time.monotonic() - self._swept_at >= self._sweep_wait", "below = not self._floors"),),
    ),
    Mutant(
        "the floor: it stays where it is though a claim from below it was full",
        ("tests/faults/test_old_snapshot.py::test_a_full_claim_from_below_the_floor_is_followed_by_the_rest",),
        (_edit(_POOL, "taken.reached if full or place not in self._floors", "taken.reached if place not in self._floors"),),
    ),
    Mutant(
        "the horizon: every look below the floor is at everything",
        ("tests/faults/test_old_snapshot.py::test_further_looks_below_the_floor_go_no_deeper_than_the_oldest_open_transaction",),
        (_edit(_POOL, "return {} if horizon is None else", "return {} if True else"),),
    ),
    Mutant(
        "the horizon: open transactions are not minded",
        ("tests/faults/test_old_snapshot.py::test_a_look_goes_as_deep_as_a_transaction_that_is_still_open",),
        (_edit(_FLOORS, "self._marks[0][1] <= oldest_open", "self._marks[0][1] <= given"),),
    ),
    Mutant(
        "the horizon: the end of the snapshot is taken for the next transaction id",
        ("tests/faults/test_old_snapshot.py::test_a_look_goes_as_deep_as_a_transaction_that_is_still_open",),
        (_edit(_QUEUE, "pg_current_xact_id()::text::bigint", "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"),),
    ),
    Mutant(
        "the horizon: it rises with the look that sees the last transaction ended",
        ("tests/faults/test_old_snapshot.py::test_a_look_goes_as_deep_as_a_transaction_that_is_still_open",),
        (_edit(_FLOORS, "        self._marks.append((now, given))\n", "        self._marks.append((now, given))\n        self._passed = self._next\n"),),
    ),
    Mutant(
        "the horizon: what is below it is never looked for",
        ("tests/faults/test_old_snapshot.py::test_everything_is_looked_at_now_and_then",),
        (_edit(_FLOORS, " or self._clock() >= self.everything_at", ""),),
    ),
    Mutant(
        "autovacuum of the queue by a share of its rows",
        ("tests/faults/test_old_snapshot.py::test_the_migration_has_tables_that_turn_over_vacuumed_by_count_and_without_pause",),
        (_edit("migrations/000001_tables.up.sql", "    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,\n", ""),),
    ),
    Mutant(
        "silence: a worker waits for ever",
        ("tests/integration/test_connect.py::test_a_silent_server_is_given_up_and_the_thread_gets_another_connection",),
        (_edit(_PATIENT, "        if self.patience is None:", "        if True:"),),
    ),
    Mutant(
        "silence: threads of a worker are not patient",
        ("tests/faults/test_network.py::test_a_black_hole_under_load_is_given_up_and_left",),
        (_edit(_POOL, "            with self._pool.patient(self._patience):\n                act()\n", "            act()\n"),),
    ),
    Mutant(
        "silence: a read is waited for beyond the age of its bytes",
        ("tests/faults/test_network.py::test_a_read_that_gets_no_answer_is_made_again",),
        (_edit("idxctl/worker/carry.py", "with conn.patient(limit), conn.reading_within(limit / 3):", "with conn.patient(1000):"),),
    ),
    Mutant(
        "silence: a statement that was given up goes on waiting on the server",
        ("tests/faults/test_network.py::test_a_worker_that_waits_for_a_lock_gives_up_and_takes_its_statement_with_it",),
        (_edit(_PATIENT, "self.cancel_safe(timeout=_CANCEL_SECONDS)", "pass"),),
    ),
    Mutant(
        "silence: the server keeps a claim open for a worker that is gone",
        ("tests/faults/test_network.py::test_a_claim_that_never_reaches_its_commit_leaves_the_tasks_to_others",),
        (_edit(_CLAIM, "pin=conn.pin,", "pin=conn.pin.removesuffix(conn.let_go),"),),
    ),
    Mutant(
        "silence: the server keeps a transaction open for a worker that is stopped",
        ("tests/integration/test_connect.py::test_a_client_that_is_stopped_in_a_transaction_is_given_up_by_the_server",),
        (_edit(_CONNECT, ".server_version)) + self.let_go", ".server_version))"),),
    ),
    Mutant(
        "silence: the server's end of an idle transaction is taken for a refusal",
        ("tests/integration/test_connect.py::test_a_client_that_is_stopped_in_a_transaction_is_given_up_by_the_server",),
        (_edit(_CONNECT, '("57P", "08", "25P03")', '("57P", "08")'),),
    ),
    Mutant(
        "silence: the kernel's own timers",
        ("tests/integration/test_connect.py::test_dead_connections_are_found_in_half_a_minute_not_in_hours",),
        (_edit(_CONNECT, "            **{name: given.get(name, value) for name, value in KEEPALIVES.items()},\n", ""),),
    ),
    Mutant(
        "a claim whose answer was lost is not given back",
        ("tests/faults/test_postgres_away.py::test_a_claim_whose_answer_was_lost_is_given_back",),
        (_edit(_POOL, '        rescue.give_back(conn, self.id, held=held, why="the answer to its claim was lost")\n', ""),),
    ),
    Mutant(
        "PgBouncer: statements are prepared",
        (_BOUNCER,),
        (_edit(_CONNECT, "prepare_threshold=None", "prepare_threshold=0"),),
    ),
    Mutant(
        "PgBouncer: settings of the session",
        (_BOUNCER,),
        (_edit(_CONNECT, '["pg_catalog.set_config(%s, %s, true)"]', '["pg_catalog.set_config(%s, %s, false)"]'),),
    ),
    Mutant(
        "look-alikes: a claim is not pinned",
        (_LIFE,),
        (_edit(_CLAIM, "pin=conn.pin,", 'pin="SET LOCAL jit = off" + conn.let_go,'),),
    ),
    Mutant(
        "look-alikes: a single statement is not pinned",
        (_LIFE,),
        (_edit(_CONNECT, "pins = pinned.pin_single(self.raw.info.server_version, writes=writes)", 'pins = ("SELECT 1",)'),),
    ),
    Mutant(
        "look-alikes: what stands around a document query does not name pg_catalog",
        (_LIFE,),
        (_edit(_RENDER, '"pg_catalog.to_json({})"', '"to_json({})"'),),
    ),
    Mutant(
        "look-alikes: the append of the library does not name pg_catalog",
        ("tests/integration/test_lookalikes.py::test_an_application_that_indexes_in_its_own_transaction_calls_none",),
        (_edit("idxctl/library/library.sql", "FROM pg_catalog.unnest(CAST", "FROM unnest(CAST"),),
    ),
    Mutant(
        "definers: letters are filled in on any table",
        ("tests/integration/test_definers.py::test_what_fills_in_letters_looks_at_no_row_of_another_table",),
        (_edit("migrations/000003_own_functions.up.sql", "IF TG_TABLE_SCHEMA <> @schema@ OR", "IF"),),
    ),
    Mutant(
        "PgBouncer: locks of the session",
        (_BOUNCER,),
        (_edit(_CLAIM, "pg_try_advisory_xact_lock_shared", "pg_try_advisory_lock_shared"),),
    ),
    Mutant(
        "C1: lookups are expanded in the writer's transaction",
        ("tests/integration/test_expand.py::test_a_listing_that_moves_into_a_category_while_it_is_renamed_gets_the_new_name", HISTORIES),
        (
            _edit(_TRIGGERS, "for each in watches if each.definition.user_code and not each.definition.keys", "for each in watches if each.definition.keys"),
            _edit(_TRIGGERS, "        return (  # C1: the changed rows' columns, old and new; the query over them runs after the commit\n",
                  '        one = watch.definition\n'
                  '        values = ", ".join(f"{literal(name)}, d.value OPERATOR(pg_catalog.->) {place}" for place, name in enumerate(one.columns))\n'
                  '        record = f"pg_catalog.jsonb_populate_record(NULL::{quoted(one.table_schema)}.{quoted(one.table_name)}, pg_catalog.jsonb_build_object({values}))"\n'
                  '        if one.keys:\n'
                  '            return (\n'
                  '                f"INSERT INTO {self._queue} (index_name, document_id, priority, origin)\\n"\n'
                  '                f"SELECT DISTINCT {literal(watch.index)}, k.id::text, 0, \'trigger\' FROM (\\n"\n'
                  '                f"WITH changed AS (SELECT r.* FROM {distinct} CROSS JOIN LATERAL {record} AS r)\\n{one.keys}) AS k (id) WHERE k.id IS NOT NULL;"\n'
                  '            )\n'
                  "        return (  # C1: the changed rows' columns, old and new; the query over them runs after the commit\n"),
        ),
    ),
    Mutant(
        "C3: a sweep does not wait for batches in flight",
        ("tests/integration/test_expand.py::test_truncate_empties_the_index_once_batches_in_flight_are_through", HISTORIES),
        (_edit(_EXPAND, "            if _others(conn, batch, waited_for, bytes_gone_after_seconds):\n", "            if False:\n"),),
    ),
    Mutant(
        "a settle does not look whether its lease still stands",
        ("tests/integration/test_tokens.py::test_a_settle_whose_lease_was_lost_writes_nothing",),
        (_edit(_SETTLE, '        if conn.run(SQL["end_lease"], token=batch.token).fetchone() is None:\n            return Settled(held=False)\n', '        conn.run(SQL["end_lease"], token=batch.token)\n'),),
    ),
    Mutant(
        "a lookup of a lost lease is expanded all the same",
        ("tests/integration/test_expand.py::test_a_lookup_of_a_lost_lease_is_expanded_by_others_and_not_twice",),
        (_edit(_EXPAND, "        if not end_lease(conn, batch):\n            return Expanded(held=False)\n", "        end_lease(conn, batch)\n"),),
    ),
    Mutant(
        "a rescued batch is not halved",
        (f"{_LEASES}::test_a_document_that_kills_its_workers_dies_alone_and_its_letter_tells_of_each",),
        (_edit(_RESCUE, "middle = (len(tasks) + 1) // 2", "middle = len(tasks)"),),
    ),
    Mutant(
        "a virtual column is read from the transition table",
        ("tests/integration/test_capture_odd_tables.py::test_a_virtual_column_as_key",),
        (_edit(_TRIGGERS, "        if not one.virtual:\n", "        if True:\n"),),
    ),
    Mutant(
        "an aggregate is taken for a key",
        ("tests/integration/test_capture_odd_tables.py::test_a_key_that_takes_many_rows_together_is_refused",),
        (_edit("idxctl/capture/probe.py", "        _require_row_by_row(conn, table, text, path)\n", ""),),
    ),
    Mutant(
        "a lookup's columns are stored under the writer's settings",
        ("tests/integration/test_capture_odd_tables.py::test_what_a_lookup_stores_does_not_depend_on_the_writers_settings",),
        (_edit(_TRIGGERS, "        settings += _SAME_TEXT\n", "        pass\n"),),
    ),
    Mutant(
        "a key expression is read under the writer's kind of strings",
        ("tests/integration/test_capture_odd_tables.py::test_a_backslash_in_a_key_expression_means_the_same_to_every_writer",),
        (_edit(_TRIGGERS, '        settings.append("SET standard_conforming_strings = on")\n', "        pass\n"),),
    ),
    Mutant(
        "the triggers of another idxctl are taken",
        ("tests/integration/test_capture_odd_tables.py::test_a_table_that_another_idxctl_captures_is_refused_and_stays_captured",),
        (_edit("idxctl/capture/install.py", "        refuse_captured_elsewhere(conn, todo)\n", ""),),
    ),
    Mutant(
        "a watch that cannot look at the time stops the others",
        ("tests/integration/test_expand.py::test_a_watch_whose_table_is_gone_holds_up_no_other_that_looks_at_the_time",),
        (_edit(_EXPAND, "                broken.append((index, why))\n                continue\n", "                raise\n"),),
    ),
    Mutant(
        "a row that breaks its lookup holds up the others",
        ("tests/integration/test_expand.py::test_a_row_that_breaks_its_lookup_waits_alone",),
        (_edit(_EXPAND, "if is_of_values(error) and len(part) > 1", "if False and len(part) > 1"),),
    ),
    Mutant(
        "a mended lookup leaves the tasks of the old one waiting",
        ("tests/integration/test_expand.py::test_a_lookup_that_was_mended_since_frees_the_tasks_of_the_old_one",),
        (_edit(_EXPAND, "    return count if mended else None\n", "    return None\n"),),
    ),
    Mutant(
        "G5: aliases move without what they carry",
        (f"{_ALIASES}::test_every_alias_comes_along_with_all_that_it_carries",),
        (_edit("idxctl/opensearch/aliases.py", '"alias": name, **more}}', '"alias": name}}'),),
    ),
    Mutant(
        "G5: aliases are those of the start, not of the swap",
        (f"{_ALIASES}::test_what_is_put_on_the_live_index_while_another_is_built_comes_along_too",),
        (
            _edit(
                "idxctl/rebuild/swap.py",
                "    held = aliases.standing(client, behind) or {}  #",
                "    held = {index: {}}  #",
            ),
        ),
    ),
    Mutant(
        "G5: an index that an alias stands on is deleted",
        (f"{_ALIASES}::test_a_retired_index_that_an_alias_stands_on_is_kept_and_said",),
        (_edit("idxctl/opensearch/aliases.py", "    if not held:\n        delete", "    if True:\n        delete"),),
    ),
    Mutant(
        "G5: aliases that came with a new index stay on it",
        (f"{_ALIASES}::test_a_template_that_came_meanwhile_is_found_when_the_index_is_made",),
        (_edit("idxctl/rebuild/run.py", "        self._require_bare()\n", ""),),
    ),
    Mutant(
        "T5: a rebuild heals letters of what it refused",
        (f"{_ALIASES}::test_letters_of_what_the_rebuild_refused_and_newer_ones_stay",),
        (
            _edit(
                "idxctl/rebuild/swap.py",
                """        letters = write_letters(conn, SQL["failures_to_letters"], index=new.index, generation=new.id)
""",
                """        letters = 0
        conn.run(SQL["drop_failures"], generation=new.id)
""",
            ),
        ),
    ),
    Mutant(
        "T5: a letter written again since it was looked at is healed",
        (
            f"{_ALIASES}::test_letters_that_came_during_the_build_are_healed_where_the_new_generation_took_the_document",
        ),
        (_edit(_REBUILD, "WHERE p.id = l.id AND p.token = l.token)", "WHERE p.id = l.id)"),),
    ),
    Mutant(
        "a swap does not wait for replicas that have a place",
        ("tests/integration/test_reindex_settings.py::test_a_swap_waits_for_replicas_that_have_a_place_and_have_not_begun",),
        (_edit("idxctl/opensearch/copies.py", "            if can:\n", "            if False:\n"),),
    ),
    Mutant(
        "writes to a new index wait for copies that are not there yet",
        ("tests/integration/test_reindex_settings.py::test_an_index_that_could_take_no_write_is_not_put_into_service",),
        (_edit("idxctl/rebuild/run.py", "        if found.fewest < needed:\n", "        if False:\n"),),
    ),
    Mutant(
        "a reindex over a broken live query takes any difference for lag",
        ("tests/integration/test_expand.py::test_what_no_waiting_task_will_mend_keeps_such_a_reindex_from_its_swap",),
        (_edit("idxctl/rebuild/run.py", "drift = stuck.not_waiting(self.conn, self.plan.index, drift)", "drift = []"),),
    ),
    Mutant(
        "a reindex over a broken live query takes lag for drift",
        ("tests/integration/test_expand.py::test_a_reindex_does_not_wait_for_tasks_that_wait_for_it",),
        (_edit("idxctl/rebuild/run.py", "drift = stuck.not_waiting(self.conn, self.plan.index, drift)", "pass"),),
    ),
    Mutant(
        "documents are compared by one strict parser",
        ("tests/integration/test_reindex.py::test_texts_that_few_parsers_read_are_compared",),
        (_edit("idxctl/opensearch/scan.py", "        return json.loads(text)\n", "        raise\n"),),
    ),
    Mutant(
        "documents come in the database's own encoding",
        ("tests/integration/test_reindex.py::test_a_database_that_is_not_of_utf8",),
        (_edit("idxctl/postgres/connect.py", '"client_encoding": "UTF8",', ""),),
    ),
    Mutant(
        "a row that breaks the query stops the check of the others",
        ("tests/integration/test_reindex.py::test_a_row_that_breaks_the_query_becomes_a_letter_and_the_others_are_checked",),
        (_edit("idxctl/indexes/ranges.py", "        elif not render.is_of_values(error):\n", "        elif token is None or not render.is_of_values(error):\n"),),
    ),
    Mutant(
        "what was lost together comes back together",
        (f"{_LEASES}::test_documents_that_were_lost_together_come_back_apart",),
        (_edit(_RESCUE, "wait + lost.apart, why", "wait, why"),),
    ),
    Mutant(
        "a loss is not remembered while the document is not alone",
        (f"{_LEASES}::test_a_document_that_kills_its_workers_dies_alone_and_its_letter_tells_of_each",),
        (_edit(_RESCUE, "(lost.remembered_by(task, len(tasks)), wait, lost.why)", "(task, wait, lost.why)"),),
    ),
    Mutant(
        "leases are renewed by the thread that may wait for anything",
        (f"{_LEASES}::test_a_batch_of_a_living_worker_is_nobody_elses_however_long_it_takes",),
        (
            _edit(_POOL, "                self._renew(self._pool.mine())\n", ""),
            _edit(_POOL, "                self._carrier.give_back(conn)\n                self._rescue(conn)\n", "                self._renew(conn)\n                self._carrier.give_back(conn)\n                self._rescue(conn)\n"),
        ),
    ),
    Mutant(
        "a beat waits for a lock as long as it lasts",
        (f"{_LEASES}::test_a_batch_of_a_living_worker_is_nobody_elses_however_long_it_takes",),
        (_edit("idxctl/worker/janitor.py", 'conn.transaction(local={"statement_timeout": f"{patience_seconds * 1000:.0f}"})', "conn.transaction()"),),
    ),
    Mutant(
        "a renewal waits for a batch that is being settled",
        (f"{_LEASES}::test_a_batch_that_is_being_settled_does_not_hold_up_the_renewal_of_others",),
        (_edit(_QUEUE, "WHERE token = ANY(%(tokens)s) ORDER BY token FOR UPDATE SKIP LOCKED)", "WHERE token = ANY(%(tokens)s) ORDER BY token FOR UPDATE)"),),
    ),
    Mutant(
        "a killed worker's batches wait for their leases",
        (f"{_LEASES}::test_what_a_killed_worker_held_is_taken_over_although_its_lease_stands",),
        (_edit(_POOL, "lost = janitor.gone(conn, self.id)", "lost: list[str] = []"),),
    ),
    Mutant(
        "a worker behind a pooler is gone when no session is seen",
        (f"{_LEASES}::test_a_worker_whose_sessions_tell_nothing_keeps_its_batch_until_the_lease_lapses",),
        (_edit(_JANITOR, " AND w.session_pid IS NOT NULL\n", "\n"),),
    ),
    Mutant(
        "a worker is gone as soon as its session is",
        (f"{_LEASES}::test_a_living_worker_whose_connections_broke_is_not_taken_for_gone",),
        (_edit(_JANITOR, "  AND w.seen_at < clock_timestamp() - %(grace)s * interval '1 second'\n", ""),),
    ),
    Mutant(
        "who has just connected takes everybody else for gone",
        (f"{_LEASES}::test_who_has_just_connected_leaves_others_the_time_to_come_back",),
        (_edit(_JANITOR, " AND a.backend_start < clock_timestamp() - %(grace)s * interval '1 second')", ")"),),
    ),
    Mutant(
        "what the drain timeout leaves over is left to its lease",
        (f"{_SHUTDOWN}::test_what_the_drain_timeout_leaves_over_goes_back_as_it_was",),
        (_edit(_POOL, '            rescue.give_back(conn, self.id, held=(), why="its worker ended before the outcome was known")\n', ""),),
    ),
    Mutant(
        "the first signal leaves at once",
        (f"{_SHUTDOWN}::test_the_first_signal_finishes_what_is_in_flight_and_ends_with_0",),
        (_edit("idxctl/cli/worker.py", "        if self._asked:\n", "        if True:\n"),),
    ),
    Mutant(
        "the second signal waits for the first",
        (f"{_SHUTDOWN}::test_the_second_signal_leaves_at_once",),
        (_edit("idxctl/cli/worker.py", "            os._exit(128 + number)", "            return"),),
    ),
    Mutant(
        "signals are handled once PostgreSQL has answered",
        (f"{_SHUTDOWN}::test_a_signal_before_the_first_connection_stands_ends_it_with_0",),
        (_edit("idxctl/cli/worker.py", "            raise SystemExit(0)", "            return"),),
    ),
    Mutant(
        "an index that a write made again is taken for ours",
        ("tests/faults/test_index_deleted.py::test_an_index_that_a_write_made_again_is_not_taken_for_ours",),
        (_edit("idxctl/worker/identity.py", "    if known:\n        return None\n", "    if known is not None:\n        return None\n"),),
    ),
    Mutant(
        "nobody looks whether an index is there before writing to it",
        ("tests/faults/test_index_deleted.py::test_a_deleted_index_is_not_made_again_by_writes",),
        (_edit(_BATCH, "strangers = limits.identity.strangers(client, generations)", "strangers: dict = {}"),),
    ),
    Mutant(
        "the way: a control passes whatever becomes of it",
        (f"{_THE_WAY}::test_a_way_that_fails_on_every_document_charges_none_and_goes_on_by_itself[502]",),
        (_edit(_WAY, "except (OpenSearchRefused, OpenSearchUnreachable):\n            return False", "except (OpenSearchRefused, OpenSearchUnreachable):\n            return True"),),
    ),
    Mutant(
        "the way: what it fails on is never charged",
        (f"{_THE_WAY}::test_a_document_that_the_way_fails_on_is_a_letter_and_all_others_are_indexed[502]",),
        (_edit(_BATCH, "    if written.search.is_over(limits):", "    if True:"),),
    ),
    Mutant(
        "the way: document and control are sent in turn",
        ("tests/unit/test_way.py::test_an_outage_that_comes_and_goes_by_itself_finds_nobody_guilty_but_by_a_chance_of_one_in_924",),
        (_edit(_WAY, "[True] * TURNS + [False] * TURNS\n    shuffle(turns)\n", "[True, False] * TURNS\n"),),
    ),
    Mutant(
        "the way: what was narrowed down is claimed with all others again",
        (f"{_THE_WAY}::test_what_could_not_be_narrowed_down_in_time_is_claimed_apart",),
        (_edit(_BATCH, "_groups(written))", "{})"),),
    ),
    Mutant(
        "the way: of a pipeline that hangs a control is believed",
        (f"{_THE_WAY}::test_a_pipeline_that_hangs_on_every_document_charges_none_although_controls_pass",),
        (_edit(_WAY, "return self._passed.get(generation, first) > first", "return True"),),
    ),
    Mutant(
        "the way: one that is closed to a building generation holds the live one up",
        (f"{_THE_WAY}::test_a_way_that_is_closed_to_a_building_generation_holds_the_live_one_up_in_nothing",),
        (_edit(_BATCH, "return replace(verdict, cause=Cause.ELSEWHERE)", "return verdict"),),
    ),
)  # fmt: skip


MUTANTS += tuple(
    Mutant(name, (test,), (_edit(f"idxctl/library/{file}", old, new),)) for name, test, file, old, new in OF_THE_LIBRARY
)


def make(mutant: Mutant, tree: Path) -> None:
    """Make *mutant* in *tree*; raises `LookupError` when the text it replaces is not there."""
    for edit in mutant.edits:
        path = tree / edit.path
        text = path.read_text(encoding="utf-8")
        if text.count(edit.old) != edit.times:
            raise LookupError(
                f"{mutant.name}: {edit.path} has {text.count(edit.old)} times, wanted {edit.times}: {edit.old!r}"
            )
        path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")


def survivors(mutant: Mutant, *, quick: bool, verbose: bool) -> list[str]:
    """Return those of its tests that pass although the rule is left out; *quick* spares random histories."""
    green = []
    tests = [one for one in mutant.tests if one != HISTORIES] if quick and len(mutant.tests) > 1 else mutant.tests
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "dist", "build", "__pycache__"))
        make(mutant, tree)
        for test in tests:
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
            environ = {"IDXCTL_TEST_HISTORIES": "300", **os.environ, "IDXCTL_TEST_SHRINK": "no"}
            done = subprocess.run(command, cwd=tree, env=environ, capture_output=True, text=True, check=False)
            if verbose:
                print(done.stdout[-4000:], done.stderr[-2000:])
            if done.returncode == 0:
                green.append(test)
            elif done.returncode != 1:
                raise RuntimeError(f"{mutant.name}: {test} did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return green


def main() -> int:
    """Try the mutants that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--quick", action="store_true", help="without random histories, where another test is named")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    wanted = [one for one in MUTANTS if not given.words or any(word in one.name for word in given.words)]
    alive = 0
    for mutant in wanted:
        if given.list:
            print(mutant.name)
            continue
        green = survivors(mutant, quick=given.quick, verbose=given.verbose)
        alive += bool(green)
        print(
            f"{'SURVIVES' if green else 'red':9} {mutant.name}" + "".join(f"\n          green: {one}" for one in green),
            flush=True,
        )
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
