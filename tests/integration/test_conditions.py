"""What is wrong is said where people look first: each of these is broken in its own way, and the first line names the cause."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from datetime import datetime, timezone

import psycopg
import pytest

from idxctl.core import reasons
from idxctl.core.conditions import MEANINGS, Condition, Kind, State, states, worst_first
from idxctl.core.errors import OpenSearchUnreachable
from idxctl.queue import pause, stats
from idxctl.status.overview import Looks, overview
from idxctl.status.watcher import Watcher, watching
from idxctl.worker import registry
from support.calls import served
from support.rig import ITEMS_DOCUMENT, ITEMS_MAPPING, Rig, until

UNWATCHED = ITEMS_DOCUMENT.replace("i.name,", "i.name || (SELECT count(*) FROM extras e WHERE e.item_id = i.id),")


def beat(items: Rig, **counters) -> None:
    """Have a worker stand there as its heartbeats show it, with these figures."""
    breaker = counters.pop("breaker", None)
    registry.beat(
        items.conn, "host:1:aaaa", state="running", threads=1, queue_size=counters.pop("queue_size", 1000), indexes=None,
        counters=counters, breaker=breaker, patience_seconds=5,
    )  # fmt: skip


def reindex_with(items: Rig, document: str) -> None:
    items.configure(document=document)
    items.reindex()


def unwatched_table(items: Rig) -> str:
    items.sql("CREATE TABLE extras (item_id bigint)")
    items.sql("CREATE INDEX ON extras (item_id)")
    reindex_with(items, UNWATCHED)
    return "reads table extras (item_id), which no watch of this index covers"


def ignored_column(items: Rig) -> str:
    reindex_with(items, ITEMS_DOCUMENT.replace("i.name,", "i.name || i.seen,"))
    return "shows items (seen), which its watch ignores"


def table_swapped(items: Rig) -> str:
    items.sql("CREATE TABLE items_new (LIKE items INCLUDING ALL)")
    items.sql("ALTER TABLE items RENAME TO items_old")
    items.sql("ALTER TABLE items_new RENAME TO items")
    return "table items is another one since it was swapped by rename: its triggers are on items_old"


def table_renamed(items: Rig) -> str:
    items.sql("ALTER TABLE parts RENAME TO pieces")
    return "watched table parts is not there"


def triggers_dropped(items: Rig) -> str:
    for (name,) in items.sql(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'parts'::regclass AND tgname LIKE 'opensearch%'"
    ):
        items.sql(f'DROP TRIGGER "{name}" ON parts')
    return "table parts has lost its triggers"


def triggers_off(items: Rig) -> str:
    items.sql("ALTER TABLE parts DISABLE TRIGGER ALL")
    return "triggers on table parts are disabled"


def new_partition(items: Rig) -> str:
    items.sql("CREATE TABLE parts_more () INHERITS (parts)")
    return "partition parts_more of parts has no triggers yet"


def alias_removed(items: Rig) -> str:
    items.ask("DELETE", f"/{items.generation().name}/_alias/{items.index}")
    return f"alias {items.index} is gone"


def alias_moved(items: Rig) -> str:
    alias, live = items.index, items.generation().name
    items.ask("PUT", f"/{alias}-stranger")
    moved = [{"remove": {"index": live, "alias": alias}}, {"add": {"index": f"{alias}-stranger", "alias": alias}}]
    items.ask("POST", "/_aliases", {"actions": moved})
    return f"alias {alias} stands on {alias}-stranger, not on the live index"


def alias_on_two(items: Rig) -> str:
    items.ask("PUT", f"/{items.index}-stranger")
    items.ask("PUT", f"/{items.index}-stranger/_alias/{items.index}")
    return f"alias {items.index} stands on {items.index}-000001, {items.index}-stranger; wanted is"


def index_deleted(items: Rig) -> str:
    items.ask("DELETE", f"/{items.generation().name}")
    return f"the live index {items.index}-000001 is not in OpenSearch"


def index_made_again(items: Rig) -> str:
    items.ask("DELETE", f"/{items.generation().name}")
    items.ask("PUT", f"/{items.generation().name}")
    return "is not the index that idxctl made"


def definition_edited(items: Rig) -> str:
    properties = {**ITEMS_MAPPING["mappings"]["properties"], "colour": {"type": "keyword"}}
    items.configure(mapping={**ITEMS_MAPPING, "mappings": {"dynamic": "strict", "properties": properties}})
    return "1 field added; the live generation was made before"


def nobody_works(items: Rig) -> str:
    items.enqueue(1)
    return "no worker is running"


def paused(items: Rig) -> str:
    items.enqueue(1)
    pause.pause(items.conn, items.index, reason="migration of the shop", by="ops")
    return "is paused: migration of the shop"


def blocked(items: Rig) -> str:
    items.enqueue(1)
    pause.block(
        items.conn,
        items.index,
        why=reasons.Reason(reasons.Kind.REFUSED, "the disk is full"),
        by="w",
        probe_after_seconds=60,
    )
    return "is paused: the disk is full"


def circuit_open(items: Rig) -> str:
    items.enqueue(1)
    beat(items, breaker={"state": "open", "reason": "503 from everywhere", "since": 1.0, "next_probe_seconds": 4})
    return "503 from everywhere; nothing is lost"


def frozen(items: Rig) -> str:
    items.enqueue(1)
    beat(items, request_seconds=12.3)
    return "OpenSearch has not answered a request for 12 s"


def claims_repeat(items: Rig) -> str:
    items.enqueue(1)
    beat(items, put_back={items.index: 40})
    return "40 batches in a row were claimed and put back"


def queue_full(items: Rig) -> str:
    items.enqueue(*range(1, 20))
    beat(items, queue_size=20)
    return "the queue is at 95% of its size (19 of 20)"


def batch_stuck(items: Rig) -> str:
    items.enqueue(1)
    items.hand().claim()
    items.sql("UPDATE opensearch_indexing_inflight SET lease_until = now() - interval '1 hour', worker = 'gone'")
    beat(items)
    return "1 batch in flight long past the lease"


def sequence_back(items: Rig) -> str:
    items.sql("ALTER SEQUENCE opensearch_indexing_token RESTART WITH 1000")
    return "the sequence of tokens stands at 1000, behind"


def letters_coming(items: Rig) -> str:
    items.sql(
        "INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, attempts, last_error, last_attempt_at, created_at) "
        "SELECT %s, i::text, 'index', 1, 'x', now(), now() - i * interval '1 minute' FROM generate_series(1, 9) i",
        items.index,
    )
    return "9 dead letters in the last ten minutes"


def gap(items: Rig) -> str:
    items.sql("SELECT nextval('opensearch_indexing_gap')")
    return "1 statement left no task"


def coarse(items: Rig) -> str:
    items.sql("ALTER TABLE parts RENAME COLUMN item_id TO article_id")
    return "column item_id of parts is gone"


def standby_behind(items: Rig) -> str:
    items.reindex()
    items.sql("UPDATE opensearch_indexing_generations SET behind_since = now() WHERE state = 'standby'")
    return f"{items.index}-000001, which is standby, missed writes"


def retired_searched(items: Rig) -> str:
    items.reindex()
    items.sql(
        "UPDATE opensearch_indexing_generations SET state = 'retired', retired_at = now() WHERE state = 'standby'"
    )
    items.ask("PUT", f"/{items.index}-000001/_alias/{items.index}-old")
    return f"alias {items.index}-old is still on {items.index}-000001, which is retired"


BREAKS = [
    unwatched_table, ignored_column, table_swapped, table_renamed, triggers_dropped, triggers_off, new_partition, alias_removed,
    alias_moved, alias_on_two, index_deleted, index_made_again, definition_edited, nobody_works, paused, blocked, circuit_open,
    frozen, claims_repeat, queue_full, batch_stuck, sequence_back, letters_coming, gap, coarse, standby_behind, retired_searched,
]  # fmt: skip


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda one: one.__name__)
def test_the_first_line_names_the_cause_and_readyz_says_it(items: Rig, idxctl, break_it: Callable[[Rig], str]):
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    said = break_it(items)
    told = idxctl("queue", "stats")
    first = told.stdout.splitlines()[0]
    assert said in first, told
    (worst, *_) = found = idxctl("queue", "stats", "-o", "json").json["conditions"]
    kind = Kind(worst["kind"])
    assert said in worst["reason"]
    assert worst["state"] == {"bad": "act", "warn": "look"}[first.split()[0]]
    with served(items.settings) as api:
        ready = api.get("/readyz").json
        page = api.metrics()
    assert ready["ready"] is True
    prefix = f"{worst['index']}: " if worst["index"] else ""
    assert f"{prefix}{MEANINGS[kind].means}" in ready["reasons"]
    asked = {one["kind"] for one in found if Kind(one["kind"]) not in _LOOKED_AT}
    shown = {
        key.split('kind="')[1].split('"')[0]
        for key, value in page.items()
        if key.startswith("opensearch_indexing_condition{") and value
    }
    assert asked <= shown  # what takes a look is scraped where a worker has found it


_LOOKED_AT = {
    kind for kind in Kind
    if MEANINGS[kind].group.value == "searched"
    or kind in {Kind.UNWATCHED, Kind.SHOWS_IGNORED, Kind.MAY_BE_UNCAPTURED, Kind.COARSE_WATCH, Kind.WRITES_FAIL, Kind.TRIGGERS_OUTDATED}
}  # fmt: skip


def test_where_nothing_is_wrong_nothing_is_said(items: Rig, idxctl):
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    told = idxctl("queue", "stats", "-o", "json").json
    assert (told["conditions"], set(told["states"].values())) == ([], {"ok"})
    assert idxctl("queue", "stats").stdout.startswith("ok")
    with served(items.settings) as api:
        assert api.get("/readyz").json == {"ready": True}


def test_who_holds_claims_up_is_a_condition(items: Rig, monkeypatch):
    monkeypatch.setattr(stats, "_HELD_SECONDS", 0.0)
    with psycopg.connect(items.database, application_name="a migration") as holder:
        holder.execute("LOCK TABLE opensearch_indexing_barrier IN EXCLUSIVE MODE")
        (found,) = overview(items.conn, items.settings, None).conditions
    assert (found.kind, "a migration" in found.reason) == (Kind.HELD, True)


def test_a_server_that_hangs_is_named_and_waited_for_two_seconds(items: Rig, hanging):
    with items.by_way_of(opensearch=hanging):
        seen = overview(items.conn, items.settings, Looks(lambda: items.client))
    (found,) = seen.conditions
    assert found.kind is Kind.UNREACHABLE
    assert found.state is State.ACT


@pytest.fixture
def hanging():
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def ping(items: Rig) -> None:
    with pytest.raises(OpenSearchUnreachable):
        items.client.ping(timeout_seconds=2)


def test_a_request_under_way_shows_its_age_in_the_heartbeat(items: Rig, hanging):
    with items.by_way_of(opensearch=hanging, request_timeout=20):
        assert items.client.longest_under_way == 0.0
        thread = threading.Thread(target=ping, args=(items,), daemon=True)
        thread.start()
        until(lambda: items.client.longest_under_way > 0.3, "no request is under way")
        worker = items.hand().worker
        worker.keeper.beat(items.conn, "running")
        (row,) = registry.alive(items.conn)
        assert row.counters["request_seconds"] >= 0.3
        thread.join()
        assert items.client.longest_under_way == 0.0


def test_what_a_worker_found_is_taken_over_and_not_looked_for_again(items: Rig):
    ignored_column(items)
    with items.working() as worker, watching(worker, items.pool, items.client, items.settings) as watcher:
        watcher.look()
        found = until(lambda: overview(items.conn, items.settings, None).conditions, "no heartbeat carries it")
        assert [(one.kind, one.since is None) for one in found] == [(Kind.SHOWS_IGNORED, False)]
        with served(items.settings) as api:
            assert any('kind="shows_ignored"' in key and value == 2 for key, value in api.metrics().items())
            assert "conditions" not in api.get("/workers").json["workers"][0]
        items.configure(toml=items.config.read_text().replace('ignore = ["seen"]\n', ""))
        items.watch()  # of other watches the worker has said nothing
        assert overview(items.conn, items.settings, Looks(lambda: items.client)).conditions == ()


def test_the_log_says_when_a_condition_begins_and_when_it_ends(items: Rig, caplog):
    caplog.set_level(logging.INFO, "idxctl.worker")
    watcher = Watcher(items.pool, items.client, items.settings)
    watcher.look()
    assert caplog.messages == []
    items.sql("ALTER TABLE parts DISABLE TRIGGER ALL")
    watcher.look()
    watcher.look()
    items.watch()
    watcher.look()
    said = [one for one in caplog.messages if "triggers on table parts are disabled" in one]
    assert said[0] == "triggers on table parts are disabled; idxctl watch install"
    assert said[1].startswith("over after ")
    assert len(said) == 2


def test_conditions_come_in_one_order_and_each_question_shows_its_worst():
    now = datetime.now(timezone.utc)
    found = worst_first([
        Condition(Kind.NO_WORKER), Condition(Kind.PAUSED, "a", {"reason": "x"}, now, mild=True),
        Condition(Kind.ALIAS_MISSING, "a", {"name": "a-1"}), Condition(Kind.ALIAS_MISSING, "a", {"name": "a-1"}),
    ])  # fmt: skip
    assert [one.kind for one in found] == [Kind.ALIAS_MISSING, Kind.PAUSED, Kind.NO_WORKER]
    assert states(found) == {"captured": "ok", "claimed": "look", "written": "ok", "searched": "act"}


def test_every_kind_has_words():
    assert set(MEANINGS) == set(Kind)
    for one in MEANINGS.values():
        assert one.means
        assert "{" not in one.means
        one.fix.format(index="i")
