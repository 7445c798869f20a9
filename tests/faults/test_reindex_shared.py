"""A backfill by many processes: chunks under leases, one rate for all, and what the killed and the stopped leave to the others."""

from __future__ import annotations

import json
import signal

import pytest

from idxctl.rebuild import runs
from idxctl.rebuild.backfill import Backfill
from idxctl.worker.written import Learnt, Limits
from support.processes import Process
from support.reindexing import LAPSED, SILENT, SMALL, cli, killed_at, put_in_order, tokens
from support.rig import Rig, until


def open_chunks(rig: Rig) -> int:
    return rig.one(
        "SELECT count(*) FROM opensearch_indexing_reindex_chunks WHERE done_at IS NULL "
        "AND run = (SELECT max(id) FROM opensearch_indexing_reindex_runs)"
    )


def test_three_processes_one_killed_one_stopped_past_its_lease(many: Rig):
    with Process(many, "reindex", "--workers", "1", point="chunk.done", env=SMALL) as first:
        first.wait_until_held()
        killed_at(many, "send.before", 2, "reindex", "work", "--workers", "1")
        with Process(many, "reindex", "work", "--workers", "1", point="send.before", env=SMALL) as stopped:
            stopped.wait_until_held()
            stopped.send(signal.SIGSTOP)
            done = tokens(many)
            assert len(done) >= 2  # of the first, and of the one that was killed
            many.sql("UPDATE items SET name = name || '!' WHERE id % 50 = 0")
            many.sql(LAPSED)
            other = cli(many, "reindex", "work", "-o", "json")
            assert other.returncode == 0, other.stderr.decode()
            (told,) = json.loads(other.stdout)
            assert told["documents"] == 420 - 50 * len(done)
            assert open_chunks(many) == 0
            first.release()
            assert first.status() == 0, first.said
            stopped.release()
            stopped.send(signal.SIGCONT)
            assert stopped.status() == 0, stopped.said
    again = tokens(many)
    assert {number: again[number] for number in done} == done
    many.drain()
    put_in_order(many)


def test_a_lease_is_renewed_while_its_chunk_is_sent(many: Rig):
    with Process(many, "reindex", "--workers", "1", point="send.before", env=SMALL) as first:
        first.wait_until_held()
        many.sql(
            "UPDATE opensearch_indexing_reindex_chunks SET lease_until = now() + interval '1 second' WHERE owner IS NOT NULL"
        )
        until(
            lambda: many.one(
                "SELECT bool_and(lease_until > now() + interval '10 seconds') FROM opensearch_indexing_reindex_chunks "
                "WHERE owner IS NOT NULL AND done_at IS NULL"
            ),
            "the lease is not renewed",
        )
        first.release()
        assert first.status() == 0, first.said
    put_in_order(many)


def test_who_takes_part_ends_when_the_run_goes_on(many: Rig):
    """The one that began it swaps; the other is left with nothing to do, and says so."""
    with Process(many, "reindex", "--workers", "1", point="chunk.done", env=SMALL) as first:
        first.wait_until_held()
        other = cli(many, "reindex", "work")
        assert other.returncode == 0, other.stderr.decode()
        assert b"no chunk is left" in other.stdout
        first.release()
        assert first.status() == 0, first.said
    put_in_order(many)
    assert cli(many, "reindex", "work").returncode == 2


def test_what_a_reader_lost_is_not_counted_twice(many: Rig):
    killed_at(many, "chunk.done", 2, "reindex", "--workers", "1")
    run = runs.open_run(many.conn, many.index)
    fills = [
        Backfill(
            many.pool,
            many.client,
            many.generation("building"),
            run.id,
            owner,
            limits=Limits(),
            learnt=Learnt(),
            readers=1,
        )
        for owner in ("h:1:one", "h:2:two")
    ]
    lost = fills[0]._take()
    many.sql(LAPSED)
    taken = fills[1]._take()
    assert (taken.number, taken.token > lost.token) == (lost.number, True)
    fills[1]._carry(taken)
    fills[0]._carry(lost)
    assert tokens(many)[taken.number] == taken.token
    many.sql(SILENT)
    assert cli(many, "reindex", "--resume", "-o", "json").returncode == 0
    put_in_order(many)


# the rate ------------------------------------------------------------------------------------------------------------


def test_under_a_rate_no_process_takes_a_chunk_before_the_last_one_is_paid_for(many: Rig):
    killed_at(many, "chunk.done", 2, "reindex", "--workers", "1")
    run = runs.open_run(many.conn, many.index)
    fills = [
        Backfill(
            many.pool,
            many.client,
            many.generation("building"),
            run.id,
            owner,
            limits=Limits(),
            learnt=Learnt(),
            readers=1,
        )
        for owner in ("h:1:one", "h:2:two")
    ]
    assert cli(many, "reindex", "throttle", "0.5", "--reason", "lunch").returncode == 0
    fills[0]._carry(fills[0]._take())
    assert [fill._take() for fill in fills] == [None, None]
    paid = many.one(
        "SELECT extract(epoch FROM paced_until - clock_timestamp()) FROM opensearch_indexing_reindex_runs WHERE id = %s",
        run.id,
    )
    assert 50 < paid <= 100  # fifty documents at one in two seconds
    assert cli(many, "reindex", "throttle", "off").returncode == 0
    assert fills[1]._take() is not None
    acts = many.sql("SELECT reason FROM opensearch_indexing_audit WHERE action = 'reindex throttle' ORDER BY id")
    assert acts == [("lunch",), (None,)]
    many.sql(LAPSED)
    many.sql(SILENT)
    assert cli(many, "reindex", "--resume").returncode == 0
    put_in_order(many)


def test_a_rate_is_taken_off_while_it_runs(many: Rig):
    with Process(many, "reindex", "--max-rate", "1") as slow:
        until(lambda: runs.open_run(many.conn, many.index) and tokens(many), "no chunk is done")
        assert open_chunks(many) > 0
        assert cli(many, "reindex", "throttle", "off").returncode == 0
        assert slow.status() == 0, slow.said
    put_in_order(many)


@pytest.mark.parametrize("rate", ["0", "fast", "-1", "inf"])
def test_a_rate_that_is_none_is_refused(items: Rig, rate):
    assert cli(items, "reindex", "throttle", "--", rate).returncode == 2


# keys ----------------------------------------------------------------------------------------------------------------

KEYS = {
    "uuid": ("id uuid", "gen_random_uuid()", "id AS document_id", '"id"'),
    "text": ("id text", "'ü:%' || i", "id AS document_id", '"id"'),
    "composite": ("tenant text, seq int", "'t%:' || i % 7, i", "tenant, seq", '["tenant", "seq"]'),
}


@pytest.mark.parametrize("kind", KEYS)
def test_any_key_makes_chunks_that_are_resumed(items: Rig, kind):
    columns, values, shown, key = KEYS[kind]
    names = ", ".join(one.split()[0] for one in columns.split(", "))
    items.sql(f"CREATE TABLE things ({columns}, name text, PRIMARY KEY ({names}))")
    items.sql(f"INSERT INTO things SELECT {values}, 'n' FROM generate_series(1, 300) i")
    (items.directory / "things.sql").write_text(
        f"SELECT {shown}, jsonb_build_object('name', name) AS document FROM things"
    )
    (items.directory / "things.json").write_text("{}")
    index = f"{items.index}-things"
    more = "" if kind != "composite" else f"key = {key}\n"
    items.configure(
        toml=items.config.read_text() + f'[indexes.{index}]\ndocument = "things.sql"\nmapping = "things.json"\n{more}'
        f'[[indexes.{index}.watch]]\ntable = "things"\nkey = {key}\n'
    )
    items.watch()
    killed_at(items, "chunk.done", 3, "reindex", "--index", index, "--workers", "1")
    done = tokens(items)
    items.sql(SILENT)
    items.sql(LAPSED)
    resumed = cli(items, "reindex", "--index", index, "--resume", "-o", "json")
    assert resumed.returncode == 0, resumed.stderr.decode()
    assert json.loads(resumed.stdout)["documents"] == 300
    assert {number: tokens(items)[number] for number in done} == done
