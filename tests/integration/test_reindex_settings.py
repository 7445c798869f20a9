"""A new index lives with what the mapping file says, then with what templates of the site give, then with ours; and its copies are there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import timedelta

import pytest

from idxctl.core.errors import ConfigError, IdxctlError
from idxctl.opensearch import copies, index_settings
from idxctl.rebuild.obstacles import kept_free
from support.gateway import Gateway, Seen, reply
from support.rig import ITEMS_MAPPING, Rig

MAPPINGS = ITEMS_MAPPING["mappings"]


@contextlib.contextmanager
def site(rig: Rig, **body: object) -> Iterator[None]:
    """A template of the site."""
    path = f"/_index_template/{rig.index}"
    answer = rig.ask("PUT", path, {"index_patterns": [f"{rig.index}-*"], "priority": 7, "template": body})
    assert answer == {"acknowledged": True}, answer
    try:
        yield
    finally:
        rig.ask("DELETE", path)


def settings_of(rig: Rig) -> dict[str, str]:
    return index_settings.held(rig.client, rig.generation().name)


def obstacle(rig: Rig) -> str:
    with pytest.raises(ConfigError) as refused:
        rig.plan()
    assert "--force" in str(refused.value.hint)
    assert rig.plan(force=True).warnings
    return str(refused.value)


def test_what_a_template_of_the_site_gives_is_kept_where_the_file_is_silent(items: Rig):
    items.configure(mapping={"mappings": MAPPINGS})
    given = {"number_of_replicas": 0, "refresh_interval": "30s", "index": {"gc_deletes": "20m"}}
    with site(items, settings=given):
        items.reindex()
    held = settings_of(items)
    assert (held["number_of_replicas"], held["refresh_interval"], held["gc_deletes"]) == ("0", "30s", "20m")


def test_the_file_wins_over_a_template_and_no_deletion_is_forgotten_too_soon(items: Rig):
    items.configure(
        mapping={"settings": {"index.number_of_replicas": 0, "refresh_interval": "7s"}, "mappings": MAPPINGS}
    )
    with site(items, settings={"number_of_replicas": 3, "refresh_interval": "30s", "gc_deletes": "1s"}):
        items.reindex()
    held = settings_of(items)
    assert (held["number_of_replicas"], held["refresh_interval"], held["gc_deletes"]) == ("0", "7s", "5m")


def test_without_either_the_defaults_of_the_cluster_hold(items: Rig):
    items.configure(mapping={"mappings": MAPPINGS})
    items.reindex()
    assert settings_of(items)["number_of_replicas"] == "1"
    assert "refresh_interval" not in settings_of(items)


def test_writes_that_wait_for_copies_are_built_without_and_restored(items: Rig, stops):
    seen = []
    stops.do("reindex.filled", lambda: seen.append(index_settings.held(items.client, f"{items.index}-000002")))
    waits = {"index": {"write": {"wait_for_active_shards": "1"}, "number_of_replicas": 1}}
    items.configure(mapping={"settings": waits, "mappings": MAPPINGS})
    items.reindex()
    assert seen[0]["number_of_replicas"] == "0"
    assert settings_of(items)["write.wait_for_active_shards"] == "1"
    assert settings_of(items)["number_of_replicas"] == "1"


def test_an_index_that_could_take_no_write_is_not_put_into_service(items: Rig):
    """One node: the second copy that each write waits for has no place."""
    old = items.generation().name
    waits = {"number_of_replicas": 1, "write.wait_for_active_shards": "2"}
    items.configure(mapping={"settings": waits, "mappings": MAPPINGS})
    with pytest.raises(IdxctlError, match="waits for 2 copies"):
        items.reindex()
    assert items.generation().name == old


def test_auto_expanded_replicas_are_the_clusters_affair(items: Rig):
    items.configure(mapping={"settings": {"auto_expand_replicas": "0-all"}, "mappings": MAPPINGS})
    items.reindex()
    assert settings_of(items)["auto_expand_replicas"] == "0-all"


def test_a_replica_that_no_node_takes_is_said_and_not_waited_for(items: Rig, cli):
    items.configure(mapping={"settings": {"number_of_replicas": 1}, "mappings": MAPPINGS})
    done = cli("reindex")
    assert done.status == 0, done.stderr
    assert "1 of 2 have started; no node takes the others" in done.stderr


@pytest.fixture
def cli(idxctl, items: Rig):
    idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)
    return idxctl


def shards(active: int, initializing: int, unassigned: int) -> bytes:
    one = {
        "primary_active": active > 0,
        "active_shards": active,
        "initializing_shards": initializing,
        "unassigned_shards": unassigned,
    }
    index = {"number_of_shards": 1, "number_of_replicas": 1, "shards": {"0": one}}
    return json.dumps({"number_of_data_nodes": 2, "status": "yellow", "indices": {"NAME": index}}).encode()


@contextlib.contextmanager
def answering(rig: Rig, opensearch_url: str, monkeypatch, answers: dict[str, list[bytes]]) -> Iterator[Gateway]:
    """
    A cluster that says of itself what *answers* have for a path: each in turn, the last one again and again. All else is true.
    """

    def wanted(seen: Seen) -> list[bytes] | None:
        return next((texts for path, texts in answers.items() if path in seen.path), None)

    def answer(handler, gateway: Gateway) -> None:
        texts = wanted(gateway.disliked[-1])
        text = texts.pop(0) if len(texts) > 1 else texts[0]
        name = gateway.disliked[-1].path.partition("?")[0].rpartition("/")[2]
        reply(handler, 200, text.replace(b"NAME", name.encode()), "application/json")

    monkeypatch.setattr("support.gateway.ANSWERS", {"said": answer})
    with Gateway(opensearch_url) as gateway, rig.by_way_of(opensearch=gateway.url):
        gateway.mode, gateway.dislikes = "said", lambda seen: wanted(seen) is not None
        yield gateway


THROTTLED = b'{"current_state":"unassigned","can_allocate":"throttled"}'


def test_a_swap_waits_for_replicas_that_have_a_place_and_have_not_begun(items: Rig, opensearch_url, monkeypatch):
    health = [shards(1, 0, 1)] * 3 + [shards(1, 1, 0)] * 3 + [shards(2, 0, 0)]
    said = {"/_cluster/health/": health, "/_cluster/allocation/explain": [THROTTLED]}
    with answering(items, opensearch_url, monkeypatch, said):
        assert items.reindex().swapped
    assert len(health) == 1


def test_replicas_that_never_start_end_the_run_at_its_own_limit(items: Rig, opensearch_url, monkeypatch):
    old = items.generation().name
    said = {"/_cluster/health/": [shards(1, 1, 0)]}
    with answering(items, opensearch_url, monkeypatch, said):
        with pytest.raises(IdxctlError, match="1 of 2 copies have started; nothing was swapped") as failed:
            items.reindex(wait_for_copies=timedelta(0))
        assert "--wait-for-copies" in str(failed.value.hint)
    assert items.generation().name == old


def test_an_opensearch_that_is_away_while_copies_start_fails_no_run(items: Rig, opensearch_url, monkeypatch):
    said = {"/_cluster/health/": [b"<html>", b"", shards(2, 0, 0)]}
    with answering(items, opensearch_url, monkeypatch, said):
        found = copies.wait(items.client, items.generation().name, seconds=60, tick=lambda _found, _why: None)
    assert (found.started, found.wanted, found.homeless) == (2, 2, "")


def cluster(**settings: str) -> dict[str, list[bytes]]:
    return {
        "/_cluster/settings": [
            json.dumps({"defaults": {key.replace("__", "."): value for key, value in settings.items()}}).encode()
        ]
    }


def test_too_few_shards_left_is_said_with_the_figures_before_anything_is_built(items: Rig, opensearch_url, monkeypatch):
    with answering(items, opensearch_url, monkeypatch, cluster(cluster__max_shards_per_node="1")):
        assert "the new index needs 1 shards, and the cluster has" in obstacle(items)


def test_too_little_disk_for_a_second_copy_is_said_with_the_figures(items: Rig, opensearch_url, monkeypatch):
    said = {
        **cluster(cluster__routing__allocation__disk__watermark__high="90%"),
        "/_cat/allocation": [b'[{"disk.avail":"1000","disk.total":"10000"},{"disk.avail":null,"disk.total":null}]'],
        "/_stats/store": [b'{"_all":{"primaries":{"store":{"size_in_bytes":52428800}}}}'],
    }
    with answering(items, opensearch_url, monkeypatch, said):
        assert "needs about 50 MB with its replicas, and the disks of 1 nodes have 0 MB below" in obstacle(items)


@pytest.mark.parametrize("block", ["read_only", "read_only_allow_delete", "create_index"])
def test_a_cluster_in_which_nothing_can_be_made_is_said(items: Rig, opensearch_url, monkeypatch, block):
    with answering(items, opensearch_url, monkeypatch, cluster(**{f"cluster__blocks__{block}": "true"})):
        assert f"cluster.blocks.{block} is set" in obstacle(items)


TEMPLATES = {
    "_source off": ({"mappings": {"_source": {"enabled": False}}}, "turns _source off"),
    "part of _source": ({"mappings": {"_source": {"excludes": ["name"]}}}, "leaves fields out of _source"),
    "routing": ({"mappings": {"_routing": {"required": True}}}, "requires a routing"),
    "pipeline": ({"settings": {"default_pipeline": "mine"}}, "through the pipeline mine (default_pipeline)"),
    "final pipeline": (
        {"settings": {"index": {"final_pipeline": "mine"}}},
        "through the pipeline mine (final_pipeline)",
    ),
    "block": ({"settings": {"index.blocks.write": True}}, "sets blocks.write"),
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_what_a_template_would_spoil_is_refused_before_anything_is_built(items: Rig, case):
    body, named = TEMPLATES[case]
    with site(items, **body):
        assert named in obstacle(items)


def test_derived_source_is_refused_before_anything_is_built(items: Rig):
    if items.client.info().version < (3, 1):
        pytest.skip("no such setting before 3.1")
    items.configure(mapping={"settings": {"index": {"derived_source": {"enabled": True}}}, "mappings": MAPPINGS})
    assert "the mapping file sets derived_source.enabled" in obstacle(items)


def test_a_dry_run_shows_what_is_in_the_way(items: Rig, cli):
    with site(items, mappings={"_source": {"enabled": False}}):
        assert cli("reindex", "--dry-run").status == 4
        shown = cli("reindex", "--dry-run", "--force")
    assert shown.status == 0
    assert "turns _source off" in shown.stderr


@pytest.mark.parametrize(
    ("mark", "kept"), [("90%", 100), ("0.9", 100), ("95.5%", 45), ("100b", 100), ("1kb", 1024), ("-1", 0), ("", 0)]
)
def test_a_watermark_is_read_as_opensearch_writes_it(mark, kept):
    assert kept_free(mark, 1000) == pytest.approx(kept, abs=1)
