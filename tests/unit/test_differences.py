"""What separates two definitions, and what OpenSearch is asked for to get from one to the other."""

from __future__ import annotations

import pytest

from idxctl.indexes.definitions import Definition
from idxctl.indexes.differences import How, compare

LIVE = Definition(
    "SELECT 1", ("document_id",), ("bigint",), "jsonb",
    {
        "dynamic": "strict",
        "properties": {
            "name": {"type": "text", "fields": {"raw": {"type": "keyword", "ignore_above": 100}}},
            "place": {"properties": {"city": {"type": "keyword"}}},
            "parts": {"type": "nested", "dynamic": "false", "properties": {"sku": {"type": "keyword"}}},
        },
    },
    {"number_of_shards": 2, "index": {"refresh_interval": "5s", "analysis": {"analyzer": {"a": {"type": "standard"}}}}},
)  # fmt: skip


def changed(**changes) -> Definition:
    return Definition.restore({**LIVE.stored(), **changes})


def mapped(change) -> Definition:
    """The live definition with its mapping's fields changed by a function."""
    properties = Definition.restore(LIVE.stored()).mappings["properties"]
    return changed(mappings={**LIVE.mappings, "properties": change({**properties})})


def hows(now: Definition) -> dict[str, str]:
    return {f"{one.part} {one.name}".strip(): one.how.value for one in compare(LIVE, now).differences}


def test_equal_definitions_have_no_difference():
    found = compare(LIVE, Definition.restore(LIVE.stored()))
    assert (found.differences, found.mappings, found.settings) == ((), {}, frozenset())
    assert found.reached.fingerprint == LIVE.fingerprint


def test_new_fields_at_any_depth_are_put_and_nothing_else_is_sent():
    now = mapped(lambda all_: {
        **all_, "price": {"type": "float"},
        "place": {"properties": {"city": {"type": "keyword"}, "zip": {"type": "keyword"}}},
        "parts": {**all_["parts"], "properties": {"sku": {"type": "keyword"}, "count": {"type": "long"}}},
    })  # fmt: skip
    assert hows(now) == {f"mapping {name}": "in_place" for name in ("price", "place.zip", "parts.count")}
    found = compare(LIVE, now)
    assert found.mappings == {"properties": {
        "price": {"type": "float"}, "place": {"properties": {"zip": {"type": "keyword"}}},
        "parts": {"type": "nested", "dynamic": "false", "properties": {"count": {"type": "long"}}},
    }}  # fmt: skip
    assert found.reached.fingerprint == now.fingerprint


def test_a_new_multi_field_sends_its_field_whole():
    fields = {"raw": {"type": "keyword", "ignore_above": 100}, "en": {"type": "text"}}
    now = mapped(lambda all_: {**all_, "name": {"type": "text", "fields": fields}})
    assert hows(now) == {"mapping name.en": "in_place"}
    assert compare(LIVE, now).mappings == {"properties": {"name": {"type": "text", "fields": fields}}}


@pytest.mark.parametrize(
    ("name", "field", "how"),
    [
        ("name", {"type": "text", "search_analyzer": "a", "fields": LIVE.mappings["properties"]["name"]["fields"]}, "in_place"),
        ("name", {"type": "text", "analyzer": "a", "fields": LIVE.mappings["properties"]["name"]["fields"]}, "rebuild"),
        ("name", {"type": "keyword", "fields": LIVE.mappings["properties"]["name"]["fields"]}, "rebuild"),
        ("parts", {"type": "nested", "dynamic": "true", "properties": {"sku": {"type": "keyword"}}}, "in_place"),
        ("parts", {"type": "nested", "properties": {"sku": {"type": "keyword"}}}, "rebuild"),
        ("parts", {"type": "object", "dynamic": "false", "properties": {"sku": {"type": "keyword"}}}, "rebuild"),
    ],
)  # fmt: skip
def test_a_changed_parameter_is_put_only_where_an_index_takes_it(name, field, how):
    assert hows(mapped(lambda all_: {**all_, name: field})) == {f"mapping {name}": how}


def test_what_is_within_a_field_that_must_be_made_again_waits_with_it():
    flat = {
        "type": "object",
        "dynamic": "false",
        "properties": {"sku": {"type": "keyword"}, "new": {"type": "keyword"}},
    }
    now = mapped(lambda all_: {**all_, "parts": flat, "price": {"type": "float"}})
    assert hows(now) == {"mapping parts": "rebuild", "mapping parts.new": "rebuild", "mapping price": "in_place"}
    found = compare(LIVE, now)
    assert found.mappings == {"properties": {"price": {"type": "float"}}}
    assert found.reached.mappings["properties"]["parts"] == LIVE.mappings["properties"]["parts"]
    assert found.reached.mappings["properties"]["price"] == {"type": "float"}


def test_an_object_said_in_so_many_words_is_the_same_object():
    assert hows(mapped(lambda all_: {**all_, "place": {"type": "object", **all_["place"]}})) == {
        "definition": "in_place"
    }


def test_a_field_that_is_no_longer_asked_for_needs_a_rebuild_and_stays_recorded():
    now = mapped(lambda all_: {name: one for name, one in all_.items() if name != "place"})
    assert hows(now) == {"mapping place": "rebuild"}
    assert "place" in compare(LIVE, now).reached.mappings["properties"]


def test_parameters_of_the_root_are_told_apart():
    now = changed(mappings={**LIVE.mappings, "dynamic": "true", "_source": {"excludes": ["x"]}})
    assert hows(now) == {"mapping dynamic": "in_place", "mapping _source": "rebuild"}
    assert compare(LIVE, now).mappings == {"dynamic": "true"}


def test_dynamic_settings_are_put_and_static_ones_are_not():
    now = changed(settings={"number_of_shards": 3, "refresh_interval": "9s", "max_result_window": 5,
        "index.analysis.analyzer.a.type": "standard"})  # fmt: skip
    assert hows(now) == {
        "settings number_of_shards": "rebuild", "settings refresh_interval": "in_place", "settings max_result_window": "in_place",
    }  # fmt: skip
    found = compare(LIVE, now)
    assert found.settings == {"refresh_interval", "max_result_window"}
    assert found.reached.settings == {
        "number_of_shards": 2, "refresh_interval": "9s", "max_result_window": 5, "analysis.analyzer.a.type": "standard",
    }  # fmt: skip


def test_a_setting_taken_out_goes_back_to_its_default():
    kept = {"number_of_shards": 2, "index": {"analysis": {"analyzer": {"a": {"type": "standard"}}}}}
    found = compare(LIVE, changed(settings=kept))
    (one,) = found.differences
    assert (one.name, one.before, one.now, one.how) == ("refresh_interval", "5s", None, How.IN_PLACE)
    assert found.reached.fingerprint == changed(settings=kept).fingerprint


def test_settings_spelt_otherwise_are_the_same_and_only_recorded():
    spelt = {
        "index.number_of_shards": "2",
        "index.refresh_interval": "5s",
        "index.analysis.analyzer.a.type": "standard",
    }
    found = compare(LIVE, changed(settings=spelt))
    assert [(one.part, one.how) for one in found.differences] == [("definition", How.IN_PLACE)]
    assert found.settings == frozenset()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("document", "SELECT 2"),
        ("key", ("a", "b")),
        ("routing", "document_id % 7"),
        ("pipeline", "mine"),
        ("local", {"TimeZone": "UTC"}),
    ],
)
def test_what_documents_are_made_by_needs_a_rebuild(name, value):
    found = compare(LIVE, changed(**{name: value}))
    assert [one.how for one in found.differences] == [How.REBUILD]
    assert found.reached.render_fingerprint == LIVE.render_fingerprint


def test_what_is_compared_is_recorded_alone():
    found = compare(LIVE, changed(verify_ignore=("vector",)))
    assert [(one.part, one.how) for one in found.differences] == [("verify_ignore", How.IN_PLACE)]
    assert (found.mappings, found.settings) == ({}, frozenset())
