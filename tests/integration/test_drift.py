"""Drift made on purpose, of every kind that docs/how-to/drift.md names: what verify says of it, and what a repair does."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from idxctl.indexes.sizes import Sizes
from idxctl.verify import evidence, judge, run, runs, scrubs
from idxctl.verify.causes import Cause
from idxctl.verify.judge import Versions
from making.drift import DRIFTS
from support.drift import behind_our_back, copy_under, in_five_shards
from support.rig import ITEMS_DOCUMENT, ITEMS_MAPPING, Rig, until


def past_the_triggers(rig: Rig, *statements: str) -> None:
    """Run statements that no trigger of idxctl's sees."""
    for state in ("DISABLE", "ENABLE"):
        for table in ("items", "parts"):
            rig.sql(f"ALTER TABLE {table} {state} TRIGGER USER")
        for statement in statements if state == "DISABLE" else ():
            rig.sql(statement)


def triggers_disabled(rig: Rig) -> None:
    past_the_triggers(
        rig,
        "UPDATE items SET name = 'unseen' WHERE id = 3",
        "DELETE FROM items WHERE id = 4",
        "INSERT INTO items (id, name) VALUES (21, 'unseen')",
    )


def document_deleted(rig: Rig) -> None:
    behind_our_back(rig, deleted=(3,))


def document_altered(rig: Rig) -> None:
    behind_our_back(rig, altered=(3,))


def document_added(rig: Rig) -> None:
    behind_our_back(rig, added=("stranger",))


def greater_version(rig: Rig) -> None:
    version = rig.version(3) + 10**12
    rig.ask(
        "PUT", f"/{rig.generation().name}/_doc/3?version_type=external&version={version}&refresh=true", {"name": "x"}
    )


def other_routing(rig: Rig) -> None:
    in_five_shards(rig)
    name = rig.generation().name
    for number in range(20):  # the first that leads to another shard
        copy_under(rig, 7, f"r{number}")
        found = rig.ask("POST", f"/{name}/_search", {"query": {"ids": {"values": ["7"]}}})["hits"]["hits"]
        if len(found) == 2:
            return
        rig.enqueue(7)
        rig.drain()
    raise AssertionError("every routing led to one shard")


def lost_tombstone(rig: Rig) -> None:
    """A write of before the deletion arrives once OpenSearch has forgotten that."""
    name = rig.generation().name
    held, version = rig.document(4), rig.version(4)
    rig.sql("DELETE FROM items WHERE id = 4")
    rig.drain()
    rig.ask("PUT", f"/{name}/_settings", {"index": {"gc_deletes": "0s"}})
    way = f"/{name}/_doc/4?version_type=external_gte&version={version}&refresh=true"

    def arrives() -> bool:
        rig.ask("POST", f"/{name}/_flush?force=true")
        rig.ask("POST", f"/{name}/_refresh")
        return rig.ask("PUT", way, held).get("result") == "created"

    until(arrives, "the tombstone is not forgotten")
    rig.ask("PUT", f"/{name}/_settings", {"index": {"gc_deletes": "5m"}})


def changes(rig: Rig) -> None:
    rig.sql("UPDATE items SET name = 'later' WHERE id = 3")
    rig.sql("DELETE FROM items WHERE id = 4")
    rig.sql("INSERT INTO items (id, name) VALUES (21, 'later')")
    rig.drain()


def snapshot_restored(rig: Rig) -> None:
    """What a snapshot brings back is documents with their versions, and the index's mapping with idxctl's mark in it."""
    name = rig.generation().name
    index = rig.ask("GET", f"/{name}")[name]
    search = {"size": 100, "version": True, "query": {"match_all": {}}}
    held = rig.ask("POST", f"/{name}/_search", search)["hits"]["hits"]
    changes(rig)
    settings = {"number_of_shards": 1, "number_of_replicas": 0, "gc_deletes": "5m"}
    rig.ask("DELETE", f"/{name}")
    rig.ask(
        "PUT", f"/{name}", {"mappings": index["mappings"], "aliases": index["aliases"], "settings": {"index": settings}}
    )
    for one in held:
        way = f"/{name}/_doc/{one['_id']}?version_type=external&version={one['_version']}&refresh=true"
        # in the bytes that a snapshot keeps: as PostgreSQL wrote them
        rig.ask("PUT", way, one["_source"])


def backup_restored(rig: Rig) -> None:
    """The rows and the sequence of tokens are those of before."""
    token = rig.one("SELECT last_value FROM opensearch_indexing_token")
    before = rig.sql("SELECT to_jsonb(i) FROM items i WHERE id IN (3, 4)")
    changes(rig)
    past_the_triggers(
        rig,
        "DELETE FROM items WHERE id IN (3, 4, 21)",
        *(
            f"INSERT INTO items SELECT * FROM jsonb_populate_record(NULL::items, '{json.dumps(row)}')"
            for (row,) in before
        ),
        "INSERT INTO parts (item_id, name) VALUES (3, 'part of 3'), (4, 'part of 4')",
    )
    rig.sql("SELECT setval('opensearch_indexing_token', %s)", token)


def table_unwatched(rig: Rig) -> None:
    toml = rig.config.read_text()
    rig.configure(toml=toml[: toml.index("[[indexes.", toml.index('table = "parts"'))])
    rig.watch()
    rig.sql("UPDATE categories SET name = 'renamed' WHERE id = 2")


def reads_the_clock(rig: Rig) -> None:
    """Put in place by hand: a reindex compares before it swaps, and refuses such a query."""
    properties = {**ITEMS_MAPPING["mappings"]["properties"], "at": {"type": "keyword"}}
    rig.configure(
        document=ITEMS_DOCUMENT.replace("'name', i.name,", "'name', i.name, 'at', clock_timestamp(),"),
        mapping={**ITEMS_MAPPING, "mappings": {"dynamic": "strict", "properties": properties}},
    )
    before, made = rig.generation(), rig.register()
    move = {"index": before.name, "alias": rig.index}, {"index": made.name, "alias": rig.index}
    rig.ask("POST", "/_aliases", {"actions": [{"remove": move[0]}, {"add": move[1]}]})
    states = "UPDATE opensearch_indexing_generations SET state = CASE id WHEN %s THEN 'live' ELSE 'retired' END"
    rig.sql(states, made.id)
    rig.enqueue(*range(1, 21))
    rig.drain()


def dead_letter(rig: Rig) -> None:
    rig.sql("UPDATE items SET price = 'dear' WHERE id = 3")
    rig.drain()


MADE: dict[str, Callable[[Rig], None]] = {
    one.__name__: one
    for one in (
        triggers_disabled, document_deleted, document_altered, document_added, greater_version, other_routing, lost_tombstone,
        snapshot_restored, backup_restored, table_unwatched, reads_the_clock, dead_letter,
    )
}  # fmt: skip


def verified(rig: Rig, **options) -> run.Verified:
    return run.verify(rig.pool, rig.client, rig.index, run.Options(**options), run.Steps())


def causes(rig: Rig) -> set[Cause]:
    """Return what a scrub names of what the last comparison found."""
    (comparison,) = rig.sql(
        "SELECT id, generation, owner, started_at FROM opensearch_indexing_verify_runs ORDER BY id DESC LIMIT 1"
    )
    number, generation, owner, started_at = comparison
    found = runs.examples(rig.conn, runs.Run(number, rig.index, generation, "", {}, owner, started_at, 0.0), 50)
    elsewhere = [(name, said) for name, said in found if said.routing is not None]
    live, names = rig.generation(), [name for name, said in found if said.routing is None]
    said = judge.twice(rig.conn, rig.client, live, names, versions=Versions.of(rig.conn, live), sizes=Sizes())
    dead = scrubs.dead_among(rig.conn, rig.index, names)
    some = [*elsewhere, *((name, one) for name, one in said.items() if name not in dead)]
    named = evidence.causes(rig.conn, rig.client, live, some, sizes=Sizes())
    return {cause for _, _, cause in named} | ({Cause.REFUSED} if dead else set())


def test_every_kind_on_the_page_is_made_here():
    assert list(MADE) == list(DRIFTS)


@pytest.mark.parametrize("kind", MADE)
def test_drift_is_counted_exactly_and_repaired_as_the_page_says(items, kind):
    said = DRIFTS[kind]
    MADE[kind](items)
    one = verified(items)
    assert (one.missing, one.stale, one.orphan) == said.counts, one
    assert (one.lagging, one.unreadable, one.dead) == (0, 0, int(kind == "dead_letter"))
    named = causes(items)
    assert named, "no cause is named"
    assert named <= said.causes, named
    with items.working():
        until(lambda: items.one("SELECT count(*) FROM opensearch_indexing_workers"), "no worker")
        done = verified(items, repair=True, wait=True)
    assert done.repaired == one.drift
    assert (done.drift == 0) == said.heals, done
    if said.heals:
        assert items.differences() == []
