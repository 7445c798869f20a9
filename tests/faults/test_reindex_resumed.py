"""A reindex that was killed is resumed where it was: equal, one live index, nothing read again that was done."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from idxctl.core.errors import IdxctlError, Locked, UsageError
from idxctl.indexes import generations
from idxctl.opensearch import aliases
from idxctl.rebuild import runs
from support.processes import Process
from support.reindexing import LAPSED, SILENT, cli, killed_at, put_in_order, tokens
from support.rig import Rig

POINTS = [
    ("reindex.started", 1),
    ("reindex.created", 1),
    ("reindex.registered", 1),
    ("chunk.before", 3),
    ("chunk.committed", 3),
    ("send.before", 3),
    ("send.done", 3),
    ("chunk.done", 3),
    ("reindex.filled", 1),
    ("reindex.caught_up", 1),
    ("reindex.checked", 1),
    ("reindex.restored", 1),
    ("reindex.copied", 1),
    ("reindex.ready", 1),
    ("swap.intended", 1),
    ("swap.made", 1),
]


@pytest.mark.sampled
@pytest.mark.parametrize(("point", "nth"), POINTS)
def test_killed_anywhere_and_resumed_it_ends_equal_and_reads_nothing_again(many: Rig, point, nth):
    before = many.generation().number
    killed_at(many, point, nth, "reindex", "--workers", "1")
    done = tokens(many)
    many.sql("UPDATE items SET name = name || '!' WHERE id < 5 OR id % 100 = 0")
    many.sql("DELETE FROM items WHERE id = 1150")
    many.sql(SILENT)
    many.sql(LAPSED)
    resumed = cli(many, "reindex", "--resume", "-o", "json")
    assert resumed.returncode == 0, resumed.stderr.decode()
    told = json.loads(resumed.stdout)
    assert told["swapped"] is True
    assert many.generation().name == told["generation"]
    assert many.generation().number > before
    many.drain()
    put_in_order(many)
    again = tokens(many)
    assert {number: again[number] for number in done} == done  # under the token that it was done with


def test_killed_in_a_resume_it_is_resumed_again(many: Rig):
    killed_at(many, "chunk.done", 2, "reindex", "--workers", "1")
    for point in ("reindex.resumed", "chunk.done", "reindex.filled"):
        many.sql(SILENT)
        many.sql(LAPSED)
        done = tokens(many)
        killed_at(many, point, 1, "reindex", "--resume")
        assert {number: tokens(many)[number] for number in done} == done
    many.sql(SILENT)
    assert cli(many, "reindex", "--resume").returncode == 0
    put_in_order(many)


def test_a_plain_reindex_goes_on_with_one_that_died_and_says_so(many: Rig):
    killed_at(many, "chunk.done", 4, "reindex", "--workers", "1")
    done = tokens(many)
    many.sql(SILENT)
    many.sql(LAPSED)
    again = cli(many, "reindex", "-o", "json")
    assert again.returncode == 0, again.stderr.decode()
    assert b"did not end; it is gone on with" in again.stderr
    assert json.loads(again.stdout)["resumed"] is True
    assert {number: tokens(many)[number] for number in done} == done
    put_in_order(many)


def test_a_plain_reindex_of_another_definition_begins_another_run(many: Rig):
    killed_at(many, "chunk.done", 4, "reindex", "--workers", "1")
    dead = many.generation("building")
    many.configure(document=many.query.replace("'name', i.name", "'name', upper(i.name)"))
    many.sql(SILENT)
    again = cli(many, "reindex", "-o", "json")
    assert again.returncode == 0, again.stderr.decode()
    told = json.loads(again.stdout)
    assert (told["resumed"], told["generation"] != dead.name) == (False, True)
    put_in_order(many)


def test_one_that_is_under_way_is_neither_resumed_nor_begun_again(items: Rig, stops):
    stop = stops.at("reindex.checked")
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(items.reindex)
        stop.wait()
        for arguments in (["reindex"], ["reindex", "--resume"]):
            refused = cli(items, *arguments)
            assert refused.returncode == 6, refused.stderr.decode()
            assert b"reindex work" in refused.stderr
        stop.release()
        assert run.result(60).swapped
    put_in_order(items)


def test_an_interrupted_reindex_is_resumed_at_once(many: Rig):
    with Process(many, "reindex", "--workers", "1", "--max-rate", "50", point="chunk.done") as process:
        process.wait_until_held()
        process.send(signal.SIGINT)
        process.release()
        assert process.status() == 130
        assert "--resume goes on" in process.said
    done = tokens(many)
    assert done
    again = cli(many, "reindex", "--resume")
    assert again.returncode == 0, again.stderr.decode()
    many.drain()
    assert {number: tokens(many)[number] for number in done} == done
    put_in_order(many)


def test_without_a_run_there_is_nothing_to_resume(items: Rig):
    refused = cli(items, "reindex", "--resume")
    assert refused.returncode == 2
    assert b"waits to be resumed" in refused.stderr


def test_whose_generation_was_retired_is_not_gone_on_with(many: Rig):
    killed_at(many, "chunk.done", 2, "reindex", "--workers", "1")
    many.sql(
        "UPDATE opensearch_indexing_generations SET state = 'retired', retired_at = now() WHERE state = 'building'"
    )
    many.sql(SILENT)
    refused = cli(many, "reindex", "--resume")
    assert refused.returncode == 1
    assert b"cannot be gone on with" in refused.stderr
    assert cli(many, "reindex").returncode == 0
    put_in_order(many)


# --no-swap ----------------------------------------------------------------------------------------------------------


def test_no_swap_stops_when_ready_and_a_resume_swaps_what_is_current_by_then(items: Rig):
    before = items.generation().name
    done = items.reindex(swap=False)
    assert (done.swapped, done.state) == (False, "ready")
    assert items.generation().name == before
    assert aliases.targets(items.client, items.index) == [before]
    items.sql("UPDATE items SET name = name || '!' WHERE id <= 12")
    items.sql("DELETE FROM items WHERE id = 13")
    with pytest.raises(Locked, match="is ready"):
        items.reindex()
    swapped = cli(items, "reindex", "--resume", "-o", "json")
    assert swapped.returncode == 0, swapped.stderr.decode()
    assert json.loads(swapped.stdout)["generation"] == done.generation
    put_in_order(items)


def test_a_resume_of_what_is_ready_does_not_swap_what_has_drifted_since(items: Rig):
    """The check is made again, or it would prove what was."""
    before = items.generation().name
    done = items.reindex(swap=False)
    items.sql("ALTER TABLE items DISABLE TRIGGER ALL")
    items.sql("UPDATE items SET price = 'dear' WHERE id <= 15")
    items.sql("ALTER TABLE items ENABLE TRIGGER ALL")
    refused = cli(items, "reindex", "--resume", "--max-failures", "5")
    assert refused.returncode == 1
    assert b"15 of 20 documents were refused (at most 5 may be)" in refused.stderr
    assert b"mapper_parsing_exception" in refused.stderr
    assert items.generation().name == before
    assert done.generation not in {one.name for one in generations.of_index(items.conn, items.index) if one.active}


# cancel -------------------------------------------------------------------------------------------------------------


def test_cancel_removes_a_half_built_index_and_every_trace(many: Rig):
    killed_at(many, "chunk.done", 3, "reindex", "--workers", "1")
    building = many.generation("building").name
    refused = cli(many, "reindex", "cancel")
    assert refused.returncode == 2
    assert b"--yes" in refused.stderr
    done = cli(many, "reindex", "cancel", "--yes", "--reason", "wrong day", "-o", "json")
    assert done.returncode == 0, done.stderr.decode()
    (told,) = json.loads(done.stdout)
    assert (told["generation"], told["state"], told["index_deleted"]) == (building, "backfilling", True)
    assert not aliases.exists(many.client, building)
    assert many.sql("SELECT FROM opensearch_indexing_reindex_chunks c WHERE run = %s", told["run"]) == []
    assert many.sql("SELECT action, reason FROM opensearch_indexing_audit ORDER BY id DESC LIMIT 1") == [
        ("reindex cancel", "wrong day")
    ]
    put_in_order(many)
    assert cli(many, "reindex", "cancel", "--yes").returncode == 2
    assert cli(many, "reindex").returncode == 0
    put_in_order(many)


def test_a_process_whose_run_is_cancelled_ends_and_writes_no_more(many: Rig, stops):
    stop = stops.at("chunk.before")
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(many.reindex, readers=1)
        stop.wait()
        assert cli(many, "reindex", "cancel", "--yes").returncode == 0
        stop.release()
        with pytest.raises(IdxctlError, match="cancelled"):
            run.result(60)
    many.drain()
    put_in_order(many)


def test_what_was_swapped_is_not_cancelled(items: Rig):
    killed_at(items, "swap.made", 1, "reindex")
    items.sql(SILENT)
    refused = cli(items, "reindex", "cancel", "--yes")
    assert refused.returncode == 1
    assert b"had been put into service" in refused.stderr
    put_in_order(items)


def test_an_option_before_the_verb_is_refused(items: Rig):
    """It would be of no effect, and all of them would be cancelled."""
    items.reindex(swap=False)
    refused = cli(items, "reindex", "--index", "another", "cancel", "--yes")
    assert refused.returncode == 2
    assert runs.open_run(items.conn, items.index) is not None


# status -------------------------------------------------------------------------------------------------------------

KEYS = {"index", "run", "generation", "state", "documents", "total", "failed", "per_second", "seconds_left", "started_at",
        "seen_at", "owner", "error"}  # fmt: skip


def test_status_has_the_promised_keys_in_every_state(many: Rig):
    (first,) = json.loads(cli(many, "reindex", "status", "-o", "json").stdout)
    assert first.keys() >= KEYS
    assert (first["state"], first["documents"]) == ("finished", 20)  # nothing to go back to
    killed_at(many, "chunk.done", 4, "reindex", "--workers", "1")
    (second,) = json.loads(cli(many, "reindex", "status", "-o", "json").stdout)
    assert (second["state"], second["generation"]) == ("backfilling", many.generation("building").name)
    assert {one["state"] for one in second["generations"]} == {"live", "building"}
    many.sql(SILENT)
    shown = cli(many, "reindex", "status")
    assert b"--resume" in shown.stdout
    assert cli(many, "reindex", "--resume").returncode == 0
    (third,) = json.loads(cli(many, "reindex", "status", "-o", "json").stdout)
    assert third["state"] == "swapped"
    (standby,) = [one for one in third["generations"] if one["state"] == "standby"]
    assert standby["keep_until"] is not None
    many.sql("UPDATE opensearch_indexing_generations SET state = 'retired' WHERE state = 'standby'")
    (fourth,) = json.loads(cli(many, "reindex", "status", "-o", "json").stdout)
    assert fourth["state"] == "finished"


def test_resume_raises_what_cannot_be_meant(items: Rig):
    for arguments in (["--resume", "--dry-run"], ["--max-failures", "many"], ["--max-failures", "101%"]):
        assert cli(items, "reindex", *arguments).returncode == UsageError.exit_status
