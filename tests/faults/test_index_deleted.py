"""A live index is deleted where OpenSearch makes indexes on a write, as it does by default: nothing lies, nothing is lost."""

from __future__ import annotations

import pytest

from support.rig import Rig

pytestmark = pytest.mark.sampled


@pytest.fixture
def eager(items: Rig):
    """Items on a server that creates an index of theirs when it is written to."""
    setting = "action.auto_create_index"
    items.ask("PUT", "/_cluster/settings", {"persistent": {setting: f"+{items.index}*,-*"}})
    yield items
    items.ask("PUT", "/_cluster/settings", {"persistent": {setting: None}})


def paused_for(rig: Rig) -> str | None:
    return rig.one("SELECT max(reason) FROM opensearch_indexing_pauses")


def let_it_probe(rig: Rig) -> None:
    rig.sql("UPDATE opensearch_indexing_pauses SET probe_at = clock_timestamp()")
    rig.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")


def test_a_deleted_index_is_not_made_again_by_writes(eager: Rig):
    name = eager.generation().name
    eager.ask("DELETE", f"/{name}")
    eager.sql("UPDATE items SET name = 'new' WHERE id <= 5")
    hand = eager.hand()
    hand.step()
    assert "index_not_found_exception" in paused_for(eager)
    assert eager.queued() == 5
    assert eager.letters() == {}
    assert not eager.client.exists(f"/{name}")


def test_an_index_that_a_write_made_again_is_not_taken_for_ours(eager: Rig):
    """The delete falls between the look and the write."""
    name = eager.generation().name
    eager.ask("DELETE", f"/{name}")
    eager.ask("PUT", f"/{name}/_doc/1", {"name": "guessed"})
    eager.sql("UPDATE items SET name = 'new' WHERE id <= 5")
    eager.hand().step()
    assert "idxctl reindex" in paused_for(eager)
    assert eager.queued() == 5
    assert eager.letters() == {}


@pytest.mark.parametrize("made_again", [False, True])
def test_a_reindex_builds_a_deleted_index_anew_while_changes_go_on(eager: Rig, made_again):
    name = eager.generation().name
    eager.ask("DELETE", f"/{name}")
    if made_again:
        eager.ask("PUT", f"/{name}/_doc/1", {"name": "guessed"})
    eager.sql("UPDATE items SET name = 'new' WHERE id <= 5")
    with eager.working() as worker:
        done = eager.reindex()
        eager.sql("UPDATE items SET name = 'newer' WHERE id <= 5")
        eager.wait_for_rest()
        assert worker.counters.dead == 0
    assert done.swapped
    assert eager.generation().name == done.generation
    assert eager.generation("retired").name == name
    assert eager.letters() == {}
    assert eager.differences() == []


def test_an_index_brought_back_behind_the_alias_is_taken_for_ours(eager: Rig):
    """By hand, or from a snapshot: the pause ends by itself."""
    name = eager.generation().name
    mapping = eager.ask("GET", f"/{name}/_mapping")[name]["mappings"]
    del mapping["_meta"]
    eager.ask("DELETE", f"/{name}")
    eager.sql("UPDATE items SET name = 'new' WHERE id <= 5")
    hand = eager.hand()
    hand.step()
    eager.ask("PUT", f"/{name}", {"mappings": mapping, "aliases": {eager.index: {}}})
    let_it_probe(eager)
    hand.steps()
    assert paused_for(eager) is None
    eager.enqueue(*range(1, 21))
    hand.steps()
    assert eager.differences() == []


def test_an_alias_that_was_taken_away_is_put_back_by_a_reindex(eager: Rig):
    old = eager.generation().name
    eager.ask("POST", "/_aliases", {"actions": [{"remove": {"index": old, "alias": eager.index}}]})
    done = eager.reindex()
    assert eager.ask("GET", f"/_alias/{eager.index}").keys() == {done.generation}
    assert eager.generation("standby").name == old
    assert eager.differences() == []
