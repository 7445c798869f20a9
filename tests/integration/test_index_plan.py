"""index plan compares the configuration with the live generation; index apply puts in place what an open index takes."""

from __future__ import annotations

import json

import pytest

from idxctl.core.errors import ConfigError, DocumentError, Locked
from idxctl.indexes import differences
from idxctl.opensearch import aliases, index_settings
from idxctl.rebuild import in_place
from support import judge
from support.rig import ITEMS_DOCUMENT, ITEMS_MAPPING, Rig

MAPPINGS = ITEMS_MAPPING["mappings"]
PROPERTIES = MAPPINGS["properties"]
SETTINGS = ITEMS_MAPPING["settings"]


@pytest.fixture
def cli(idxctl, items: Rig):
    return idxctl.use(database=items.database, opensearch=items.opensearch, config=items.config)


def mapping(*, settings: dict | None = None, root: dict | None = None, **properties: dict) -> dict:
    return {
        "settings": {**SETTINGS, **(settings or {})},
        "mappings": {**MAPPINGS, **(root or {}), "properties": {**PROPERTIES, **properties}},
    }


def plan(rig: Rig) -> in_place.Plan:
    return in_place.plan(rig.conn, rig.client, rig.settings.indexes[rig.index])


def apply(rig: Rig) -> in_place.Applied:
    return in_place.apply(rig.conn, rig.client, plan(rig))


def test_nothing_changed_is_said_with_status_0(cli, items: Rig):
    done = cli("index", "plan")
    assert (done.status, done.stdout) == (
        0,
        f"ok {items.index}: live generation {items.index}-000001 is as configured\n",
    )
    assert cli("index", "apply").stdout == f"ok {items.index}: nothing to put in place\n"


def test_what_differs_is_shown_field_by_field_with_status_7(cli, items: Rig):
    items.configure(
        mapping=mapping(brand={"type": "keyword"}, name={"type": "text"}, settings={"refresh_interval": "7s", "number_of_shards": 2}),
        document=ITEMS_DOCUMENT + " WHERE true",
    )  # fmt: skip
    done = cli("index", "plan", "-o", "json")
    assert done.status == 7
    assert f"idxctl index apply --index {items.index}" in done.stderr
    (found,) = done.json
    assert (found["index"], found["generation"], found["changed"]) == (items.index, f"{items.index}-000001", True)
    assert {(one["part"], one["name"], one["how"]) for one in found["differences"]} == {
        ("document", "", "rebuild"), ("mapping", "brand", "in_place"), ("mapping", "name", "rebuild"),
        ("settings", "refresh_interval", "in_place"), ("settings", "number_of_shards", "rebuild"),
    }  # fmt: skip
    shown = cli("index", "plan").stdout
    assert "needs a reindex" in shown
    assert "in place" in shown


def test_what_is_put_in_place_is_the_generations_own(cli, items: Rig):
    items.configure(
        mapping=mapping(brand={"type": "keyword"}, settings={"refresh_interval": "7s", "max_result_window": 20})
    )
    done = cli("index", "apply", "--yes", "--reason", "brands are searched", "-o", "json")
    assert done.status == 0, done.stderr
    (found,) = done.json
    assert {one["name"] for one in found["applied"]} == {"brand", "refresh_interval", "max_result_window"}
    assert (found["generation"], found["left"], found["dry_run"]) == (f"{items.index}-000001", [], False)
    held, settings = aliases.made_of(items.client, items.generation().name)
    assert held["properties"]["brand"] == {"type": "keyword"}
    assert held["_meta"]["idxctl"]
    assert (settings["refresh_interval"], settings["max_result_window"]) == ("7s", "20")
    assert cli("index", "plan").status == 0
    again = cli("reindex", "--if-changed")
    assert (again.status, "is up to date" in again.stdout) == (0, True), again.stderr
    assert items.generation().number == 1
    stats = cli("queue", "stats", "-o", "json").json
    assert "definition_changed" not in json.dumps(stats)
    (action, what, count, reason) = items.sql(
        "SELECT action, subject, count, reason FROM opensearch_indexing_audit ORDER BY id DESC LIMIT 1"
    )[0]
    assert (action, what, count, reason) == ("index apply", items.index, 3, "brands are searched")


def test_documents_written_afterwards_have_the_new_field(items: Rig):
    items.configure(mapping=mapping(brand={"type": "keyword"}))
    apply(items)
    with items.working():
        items.sql("""UPDATE items SET extra = '{"brand": "acme"}' WHERE id = 3""")
        items.wait_for_rest()
    assert items.letters() == {}
    assert items.differences() == []  # which refreshes it
    found = items.ask("POST", f"/{items.index}/_search?q=brand:acme")
    assert [one["_id"] for one in found["hits"]["hits"]] == ["3"]


def test_what_needs_a_reindex_is_left_with_status_3_and_still_said(cli, items: Rig):
    items.configure(mapping=mapping(brand={"type": "keyword"}, name={"type": "text"}))
    done = cli("index", "apply", "--yes", "-o", "json")
    assert done.status == 3
    assert "1 difference needs a reindex" in done.stderr
    (found,) = done.json
    assert ([one["name"] for one in found["applied"]], [one["name"] for one in found["left"]]) == (["brand"], ["name"])
    assert [(one.name, one.how.value) for one in plan(items).planned.differences] == [("name", "rebuild")]
    assert plan(items).planned.changed
    assert items.plan().changed


def test_it_asks_and_a_dry_run_changes_nothing(cli, items: Rig):
    items.configure(mapping=mapping(brand={"type": "keyword"}))
    before = items.generation().fingerprint
    refused = cli("index", "apply")
    assert (refused.status, "--yes" in refused.stderr, "mapping brand" in refused.stderr) == (2, True, True)
    assert cli("index", "apply", "--dry-run", "-o", "json").json[0]["dry_run"] is True
    assert items.generation().fingerprint == before
    assert "brand" not in aliases.made_of(items.client, items.generation().name)[0]["properties"]


def test_stopped_between_opensearch_and_the_record_it_is_run_again(items: Rig, stops):
    items.configure(mapping=mapping(brand={"type": "keyword"}))

    def stop() -> None:
        raise KeyboardInterrupt

    stops.do("apply.put", stop)
    with pytest.raises(KeyboardInterrupt):
        apply(items)
    assert plan(items).planned.changed
    assert apply(items).left == ()
    assert not plan(items).planned.changed


def test_a_swap_meanwhile_keeps_its_definition(items: Rig, stops):
    items.configure(mapping=mapping(brand={"type": "keyword"}))
    stops.do("apply.put", lambda: items.reindex() and None)
    with pytest.raises(Locked, match="swapped or changed by others"):
        apply(items)
    assert not plan(items).planned.changed


def test_a_field_that_the_index_has_otherwise_is_refused_and_nothing_is_recorded(items: Rig):
    items.ask("PUT", f"/{items.generation().name}/_mapping", {"properties": {"brand": {"type": "long"}}})
    items.configure(mapping=mapping(brand={"type": "keyword"}))
    before = items.generation().fingerprint
    with pytest.raises(DocumentError, match="nothing was changed") as refused:
        apply(items)
    assert refused.value.hint == f"idxctl reindex --index {items.index}"
    assert items.generation().fingerprint == before


def test_who_may_not_record_it_changes_nothing(items: Rig, unique_name: str):
    items.configure(mapping=mapping(brand={"type": "keyword"}))
    items.sql(f"CREATE ROLE {unique_name}w LOGIN")
    try:
        items.grant(worker=f"{unique_name}w")
        with items.as_role(f"{unique_name}w") as theirs, pytest.raises(ConfigError, match="may not record"):
            apply(theirs)
    finally:
        items.sql(f"DROP OWNED BY {unique_name}w")
        items.sql(f"DROP ROLE {unique_name}w")
    assert "brand" not in aliases.made_of(items.client, items.generation().name)[0]["properties"]


def test_a_setting_that_the_index_refuses_is_named(items: Rig):
    items.configure(mapping=mapping(settings={"refresh_interval": "often"}))
    with pytest.raises(DocumentError, match="does not take the settings"):
        apply(items)
    assert plan(items).planned.changed


def test_a_setting_taken_out_of_the_file_goes_back_to_its_default(items: Rig):
    items.configure(mapping=mapping(settings={"max_result_window": 20, "gc_deletes": "9m"}))
    apply(items)
    items.configure(mapping=ITEMS_MAPPING)
    apply(items)
    held = index_settings.held(items.client, items.generation().name)
    assert "max_result_window" not in held
    assert held["gc_deletes"] == "5m"


def test_what_a_reindex_would_lose_is_shown_and_is_no_difference(cli, items: Rig):
    name = items.generation().name
    items.ask("PUT", f"/{name}/_mapping", {"properties": {"brand": {"type": "keyword"}}})
    items.ask("PUT", f"/{name}/_settings", {"index": {"max_result_window": 12, "number_of_replicas": 3}})
    done = cli("index", "plan", "-o", "json")
    assert done.status == 0
    assert {(one["part"], one["name"], one["how"]) for one in done.json[0]["differences"]} == {
        ("mapping", "brand", "lost"), ("settings", "max_result_window", "lost"), ("settings", "number_of_replicas", "lost")
    }  # fmt: skip


def test_fields_that_documents_bring_about_are_no_loss(items: Rig):
    items.configure(mapping={"settings": SETTINGS, "mappings": {"properties": {"name": {"type": "keyword"}}}})
    items.reindex()
    items.sql("""UPDATE items SET extra = '{"brand": "acme"}'""")
    items.drain()
    assert plan(items).planned.differences == ()


def test_without_a_live_generation_a_reindex_makes_the_first(cli, items: Rig):
    items.sql("UPDATE opensearch_indexing_generations SET state = 'retired'")
    done = cli("index", "plan", "-o", "json")
    assert (done.status, done.json[0]["generation"]) == (7, None)
    assert "idxctl reindex" in done.stderr
    assert cli("index", "apply", "--yes").status == 1


VALUES = {
    "auto_expand_replicas": "0-1", "gc_deletes": "6m", "hidden": True, "query.default_field": "name", "refresh_interval": "3s",
    "search.default_pipeline": "_none", "search.idle.after": "40s", "translog.durability": "REQUEST",
    "translog.flush_threshold_size": "600mb", "translog.sync_interval": "6s", "unassigned.node_left.delayed_timeout": "2m",
    "requests.cache.enable": False, "number_of_replicas": 0, "write.wait_for_active_shards": "all",
    "indexing.slowlog.threshold.index.warn": "10s", "merge.policy.max_merged_segment": "4gb", "routing.allocation.enable": "all",
    "merge.scheduler.max_thread_count": 1, "search.slowlog.threshold.query.warn": "10s",
}  # fmt: skip
OF_A_PLUGIN = {"knn.algo_param.ef_search"}
FIELDS = [
    ("name", {"search_analyzer": "whitespace"}),
    ("name", {"search_quote_analyzer": "whitespace", "search_analyzer": "whitespace"}),
    ("name", {"eager_global_ordinals": True}),
    ("name", {"meta": {"unit": "x"}}),
    ("name", {"fields": {"raw": {"type": "keyword", "ignore_above": 5}}}),
    ("name", {"fields": {"raw": {"type": "keyword", "split_queries_on_whitespace": True}}}),
    ("o", {"dynamic": "strict"}),
]
ROOTS = [
    {"dynamic": "strict"}, {"date_detection": False}, {"numeric_detection": True}, {"dynamic_date_formats": ["yyyy"]},
    {"_meta": {"x": 1}}, {"dynamic_templates": [{"s": {"match_mapping_type": "string", "mapping": {"type": "keyword"}}}]},
]  # fmt: skip


def test_all_that_is_said_to_be_changeable_is_taken_by_an_open_index(opensearch_url, unique_name):
    name = f"{unique_name}x"
    fields = {
        "name": {"type": "text", "analyzer": "standard", "fields": {"raw": {"type": "keyword"}}},
        "o": {"type": "nested", "properties": {}},
    }

    def ask(path: str, body: object) -> dict:
        return judge.call(opensearch_url, "PUT", f"/{name}{path}", body)

    ask("", {"mappings": {"properties": fields}})
    settings = (differences._DYNAMIC - OF_A_PLUGIN) | VALUES.keys()
    answers = {one: ask("/_settings", {"index": {one: VALUES.get(one, 700)}}) for one in settings}
    answers |= {
        f"{one} {more}": ask("/_mapping", {"properties": {one: {**fields[one], **more}}}) for one, more in FIELDS
    }
    answers |= {str(root): ask("/_mapping", root) for root in ROOTS}
    assert {one: answer for one, answer in answers.items() if answer != {"acknowledged": True}} == {}
    named = {key for _, more in FIELDS for key in (more | more.get("fields", {}).get("raw", {}))} | {
        key for one in ROOTS for key in one
    }
    assert named >= differences._OF_ROOT | differences._OF_FIELD | differences._OF_OBJECT
