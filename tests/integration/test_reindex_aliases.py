"""What stands on an index when it is rebuilt comes along, or the rebuild is refused; what is searched is never deleted (G5)."""

from __future__ import annotations

import contextlib
import threading
from datetime import timedelta

import pytest

from idxctl.core.errors import ConfigError, DocumentError, IdxctlError
from idxctl.indexes import generations, retire
from idxctl.opensearch import aliases
from support.gateway import Gateway, reply
from support.rig import Rig

FILTER = {"term": {"category": "category 1"}}
CARRIED = {
    "public": {"filter": FILTER},
    "writing": {"is_write_index": True},
    "routed": {"index_routing": "1", "search_routing": "1,2"},
    "hidden": {"is_hidden": True},
    "plain": {},
}


def put(rig: Rig, index: str, alias: str, **more: object) -> None:
    answer = rig.ask("POST", "/_aliases", {"actions": [{"add": {"index": index, "alias": alias, **more}}]})
    assert answer == {"acknowledged": True}, answer


def standing(rig: Rig, index: str) -> dict[str, dict]:
    return rig.ask("GET", f"/{index}/_alias")[index]["aliases"]


def count(rig: Rig, name: str) -> int:
    return rig.ask("GET", f"/{name}/_count")["count"]


@contextlib.contextmanager
def template(rig: Rig, kind: str, **body: object):
    path = f"/_{kind}/{rig.index}"
    patterns = [f"{rig.index}-*"]
    given = (
        {"index_patterns": patterns, "priority": 7, "template": body}
        if kind == "index_template"
        else {"index_patterns": patterns, **body}
    )
    answer = rig.ask("PUT", path, given)
    assert answer == {"acknowledged": True}, answer
    try:
        yield
    finally:
        rig.ask("DELETE", path)


def test_every_alias_comes_along_with_all_that_it_carries(items: Rig):
    old = items.generation().name
    put(items, old, items.index, filter=FILTER, is_write_index=True)
    for name, more in CARRIED.items():
        put(items, old, f"{items.index}-{name}", **more)
    before, seen = standing(items, old), count(items, items.index)
    assert len(before) == 6
    items.reindex()
    assert standing(items, items.generation().name) == before
    assert standing(items, old) == {}
    assert count(items, items.index) == count(items, f"{items.index}-public") == seen == 6


def test_an_alias_that_others_share_leaves_them_theirs(items: Rig):
    old, alias = items.generation().name, f"{items.index}-all"
    items.ask("PUT", f"/{items.index}x", {"aliases": {alias: {"is_write_index": True}}})
    put(items, old, alias, is_write_index=False)
    items.reindex()
    assert set(items.ask("GET", f"/_alias/{alias}")) == {items.generation().name, f"{items.index}x"}
    assert standing(items, items.generation().name)[alias] == {"is_write_index": False}


def test_what_is_put_on_the_live_index_while_another_is_built_comes_along_too(items: Rig, stops):
    old = items.generation().name
    stops.do("reindex.checked", lambda: put(items, old, f"{items.index}-late", filter=FILTER))
    items.reindex()
    assert standing(items, items.generation().name)[f"{items.index}-late"] == {"filter": FILTER}


def test_an_alias_taken_away_right_before_the_call_costs_nothing(items: Rig, stops):
    old, alias = items.generation().name, f"{items.index}-gone"
    put(items, old, alias)
    stops.do("swap.intended", lambda: aliases.take_off(items.client, old, [alias]))
    items.reindex()
    assert set(standing(items, items.generation().name)) == {items.index}


def test_an_alias_moved_elsewhere_meanwhile_is_left_there(items: Rig, stops):
    old, other = items.generation().name, f"{items.index}x"
    items.ask("PUT", f"/{other}")
    stops.do("reindex.checked", lambda: aliases.swap(items.client, items.index, new=other, old=old))
    with pytest.raises(IdxctlError, match=r"does not stand on .* any more"):
        items.reindex()
    assert list(items.ask("GET", f"/_alias/{items.index}")) == [other]


def test_aliases_of_a_replaced_index_come_along(untriggered: Rig):
    rig = untriggered
    live = rig.generation()
    rig.sql("UPDATE opensearch_indexing_generations SET state = 'retired', deleted_at = now() WHERE id = %s", live.id)
    aliases.delete(rig.client, live.name)
    rig.ask("PUT", f"/{rig.index}", {"aliases": {f"{rig.index}-shop": {"filter": FILTER}}})
    rig.reindex()
    new = rig.generation().name
    assert standing(rig, new) == {rig.index: {}, f"{rig.index}-shop": {"filter": FILTER}}


def test_an_alias_taken_from_others_keeps_its_filter_and_leaves_theirs(untriggered: Rig):
    rig = untriggered
    live, theirs = rig.generation(), f"{rig.index}x"
    rig.sql("UPDATE opensearch_indexing_generations SET state = 'retired', deleted_at = now() WHERE id = %s", live.id)
    aliases.delete(rig.client, live.name)
    rig.ask("PUT", f"/{theirs}", {"aliases": {f"{rig.index}-shop": {}, rig.index: {"filter": FILTER}}})
    rig.reindex(take_alias=True)
    assert standing(rig, rig.generation().name) == {rig.index: {"filter": FILTER}}
    assert standing(rig, theirs) == {f"{rig.index}-shop": {}}


def test_a_filter_that_the_new_mapping_has_no_place_for_is_refused_before_the_build(items: Rig):
    old = items.generation().name
    items.ask("PUT", f"/{old}/_mapping", {"properties": {"made": {"type": "nested"}}})
    nested = {"nested": {"path": "made", "query": {"match_all": {}}}}
    put(items, old, f"{items.index}-nested", filter=nested)
    with pytest.raises(DocumentError, match=f"{items.index}-nested"):
        items.reindex()
    assert items.generation().name == old
    assert "filter" in standing(items, old)[f"{items.index}-nested"]
    assert (
        items.one(
            "SELECT count(*) FROM opensearch_indexing_reindex_chunks WHERE run = (SELECT max(run) FROM opensearch_indexing_reindex_chunks)"
        )
        == 1
    )


@pytest.mark.parametrize("kind", ["index_template", "template"])
def test_a_template_that_gives_aliases_is_refused_before_anything_is_made(items: Rig, kind):
    with template(items, kind, aliases={items.index: {}}):
        with pytest.raises(ConfigError) as refused:
            items.reindex()
        assert f"template {items.index} puts {items.index} on each new index" in str(refused.value)
        assert [one.state for one in generations.of_index(items.conn, items.index)] == ["live"]
        assert not aliases.exists(items.client, f"{items.index}-000002")


def test_a_template_that_came_meanwhile_is_found_when_the_index_is_made(items: Rig, stops):
    with contextlib.ExitStack() as stack:
        stops.do(
            "reindex.started", lambda: stack.enter_context(template(items, "index_template", aliases={items.index: {}}))
        )
        with pytest.raises(DocumentError, match="was given aliases as it was made"):
            items.reindex()
    assert list(items.ask("GET", f"/_alias/{items.index}")) == [items.generation().name]
    assert not aliases.exists(items.client, f"{items.index}-000002")


def test_readers_never_see_a_half_built_index_even_where_it_is_gone_on_with(items: Rig):
    """A reader who polls the alias all the while sees one count."""
    seen: set[int] = set()
    over = threading.Event()

    def poll() -> None:
        while not over.is_set():
            seen.add(count(items, items.index))

    with template(items, "index_template", aliases={items.index: {}}):
        reader = threading.Thread(target=poll, daemon=True)
        reader.start()
        try:
            items.reindex(force=True)
        finally:
            over.set()
            reader.join(30)
    assert seen == {20}
    assert items.generation().number == 2


def test_no_index_that_an_alias_stands_on_is_deleted_and_a_standby_of_that_kind_stays_current(items: Rig):
    first = items.generation()
    items.reindex(keep=timedelta(0))
    put(items, first.name, f"{items.index}-yesterday")
    told = {}
    zero = timedelta(0)
    assert retire.sweep_up(items.conn, items.client, age_limit=zero, kept=told.__setitem__) == []
    assert told == {first.name: [f"{items.index}-yesterday"]}
    items.sql("UPDATE items SET name = name || '!'")
    items.drain()
    assert items.differences(first.name) == []
    aliases.take_off(items.client, first.name, [f"{items.index}-yesterday"])
    assert retire.sweep_up(items.conn, items.client, age_limit=zero) == [first.name]


def test_a_retired_index_that_an_alias_stands_on_is_kept_and_said(items: Rig):
    first = items.generation()
    items.reindex()
    retire.retire(items.conn, first.id)
    put(items, first.name, f"{items.index}-yesterday")
    told = {}
    assert retire.sweep_up(items.conn, items.client, age_limit=timedelta(0), kept=told.__setitem__) == []
    assert told == {first.name: [f"{items.index}-yesterday"]}
    assert any(f"DELETE /{first.name}/_alias/{items.index}-yesterday" in one for one in items.plan().warnings)


def test_an_alias_moved_back_to_a_standby_by_hand_is_said_at_once(items: Rig):
    first = items.generation()
    items.reindex()
    aliases.swap(items.client, items.index, new=first.name, old=items.generation().name)
    with pytest.raises(ConfigError, match=f"stands on {first.name}, which is standby"):
        items.plan()


def test_a_data_stream_of_that_name_is_refused_before_anything_is_built(untriggered: Rig):
    rig = untriggered
    live = rig.generation()
    rig.sql("UPDATE opensearch_indexing_generations SET state = 'retired', deleted_at = now() WHERE id = %s", live.id)
    aliases.delete(rig.client, live.name)
    rig.ask(
        "PUT",
        f"/_index_template/{rig.index}",
        {"index_patterns": [rig.index], "priority": 9, "data_stream": {}, "template": {}},
    )
    try:
        rig.ask("PUT", f"/_data_stream/{rig.index}")
        with pytest.raises(ConfigError, match="is a data stream"):
            rig.plan()
    finally:
        rig.ask("DELETE", f"/_data_stream/{rig.index}")
        rig.ask("DELETE", f"/_index_template/{rig.index}")


OLD = b'{"version":{"distribution":"opensearch","number":"2.11.1"}}'


def test_an_opensearch_that_cannot_swap_safely_is_refused_before_anything_is_built(
    items: Rig, opensearch_url, monkeypatch
):
    with Gateway(opensearch_url) as gateway, items.by_way_of(opensearch=gateway.url):
        monkeypatch.setattr(
            "support.gateway.ANSWERS", {"old": lambda handler, _: reply(handler, 200, OLD, "application/json")}
        )
        gateway.mode, gateway.dislikes = "old", lambda seen: seen.path == "/"
        with pytest.raises(ConfigError, match=r"2\.11\.1 is too old"):
            items.plan()


def test_letters_of_documents_that_a_rebuild_has_proved_equal_are_healed(items: Rig):
    """T5."""
    items.sql("UPDATE items SET price = 'poison' WHERE id <= 3")
    items.drain()
    assert sorted(items.letters()) == ["1", "2", "3"]
    mapping = {"settings": {"number_of_replicas": 0}, "mappings": {"properties": {"price": {"type": "keyword"}}}}
    items.configure(mapping=mapping)
    assert items.reindex().failed == 0
    assert items.letters() == {}


def test_letters_of_what_the_rebuild_refused_and_newer_ones_stay(items: Rig, stops):
    items.sql("UPDATE items SET price = 'poison' WHERE id <= 2")
    items.drain()
    items.sql("ALTER TABLE items DISABLE TRIGGER ALL")
    items.sql("UPDATE items SET price = '1' WHERE id = 1")
    items.sql("ALTER TABLE items ENABLE TRIGGER ALL")

    def newer() -> None:
        items.sql("UPDATE items SET price = 'poison' WHERE id = 3")
        items.drain()

    stops.do("reindex.filled", newer)
    items.reindex()
    assert sorted(items.letters()) == ["2", "3"]


def test_letters_that_came_during_the_build_are_healed_where_the_new_generation_took_the_document(items: Rig, stops):
    mapping = {"settings": {"number_of_replicas": 0}, "mappings": {"properties": {"price": {"type": "keyword"}}}}
    items.configure(mapping=mapping)

    def fails_on_the_old_one() -> None:
        items.sql("UPDATE items SET price = 'poison' WHERE id <= 3")
        items.drain()
        assert sorted(items.letters()) == ["1", "2", "3"]

    stops.do("reindex.filled", fails_on_the_old_one)
    stops.do(
        "swap.intended",
        lambda: items.sql("UPDATE opensearch_indexing_dlq SET token = token + 1 WHERE document_id = '3'"),
    )
    items.reindex()
    assert list(items.letters()) == ["3"]  # written again since it was looked at
