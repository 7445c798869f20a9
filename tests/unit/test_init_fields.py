"""The field that a column's type becomes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from idxctl.init.fields import Field, LeftOut, Seen, make, private
from idxctl.init.schema import Column

PLAIN = Column("x", "x", "text", "text", None, False, "", "b", "", None, None)


def column(whole: str, name: str = "x", **more) -> Column:
    bare = whole.partition("(")[0] + whole.partition(")")[2]
    return replace(PLAIN, name=name, quoted=name, whole_type=whole, type=bare, **more)


@pytest.mark.parametrize(
    ("given", "mapping"),
    [
        (column("numeric(12,2)"), {"type": "scaled_float", "scaling_factor": 100}),
        (column("numeric(15,15)"), {"type": "scaled_float", "scaling_factor": 10**15}),
        (column("numeric(16,2)"), {"type": "double"}),
        (column("numeric(18,0)"), {"type": "long"}),
        (column("numeric(19,0)"), {"type": "double"}),
        (column("numeric"), {"type": "double"}),
        (column("bigint"), {"type": "long"}),
        (column("uuid"), {"type": "keyword"}),
        (column("public.mood", kind="e"), {"type": "keyword"}),
        (column("character(3)"), {"type": "keyword"}),
        (column("character varying(20)"), {"type": "keyword"}),
        (column("text", "status"), {"type": "keyword", "ignore_above": 8191}),
        (column("text", width=12, distinct=5.0), {"type": "keyword", "ignore_above": 8191}),
        (column("text", width=12, distinct=-1.0), {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}}),
        (column("text", width=900), {"type": "text"}),
        (column("text[]", element="text"), {"type": "keyword", "ignore_above": 8191}),
        (column("public.citext[]", element="public.citext"), {"type": "keyword", "ignore_above": 8191}),
        (column("daterange", kind="r"), {"type": "date_range", "format": "strict_date_optional_time||epoch_millis"}),
        (column("int8multirange", kind="m"), {"type": "long_range"}),
        (column("public.geometry(Point,4326)"), {"type": "geo_point"}),
        (column("public.geometry"), {"type": "geo_shape"}),
        (column("public.pair", kind="c"), {"type": "object", "enabled": False}),
        (column("jsonb"), {"type": "object", "enabled": False}),
    ],
    ids=lambda one: one.whole_type if isinstance(one, Column) else "",
)  # fmt: skip
def test_a_type_has_its_field(given, mapping):
    made = make(given)
    assert isinstance(made, Field)
    assert made.mapping == mapping


@pytest.mark.parametrize("name", ["bytea", "tsvector", "public.vector", "box", "somebody.sown"])
def test_what_no_field_is_for_is_left_out(name):
    assert isinstance(make(column(name)), LeftOut)


@pytest.mark.parametrize(
    ("name", "seen", "sql"),
    [
        ("date", Seen(infinite=True), "CASE WHEN isfinite(t.x) THEN t.x END"),
        ("timestamp with time zone", Seen(infinite=True, far=True), "CASE WHEN t.x >= '0001-01-01' AND t.x < '9999-12-31' THEN t.x END"),
        ("numeric", Seen(nan=True), "NULLIF(t.x, 'NaN')"),
        ("double precision", Seen(infinite=True), "CASE WHEN t.x NOT IN ('NaN', 'Infinity', '-Infinity') THEN t.x END"),
        ("money", Seen(), "t.x::numeric"),
        ("date", Seen(), "t.x"),
    ],
)  # fmt: skip
def test_values_that_opensearch_refuses_are_not_sent(name, seen, sql):
    made = make(column(name), seen)
    assert isinstance(made, Field)
    assert made.sql("t.x") == sql


@pytest.mark.parametrize(
    ("kinds", "mapping"),
    [
        ({"object", "null"}, "flat_object"),
        ({"string"}, "keyword"),
        ({"number", "null"}, "double"),
        ({"boolean"}, "boolean"),
        ({"object", "array"}, "object"),
    ],
)
def test_json_has_a_field_by_what_it_holds(kinds, mapping):
    made = make(column("jsonb"), Seen(kinds=frozenset(kinds)))
    assert isinstance(made, Field)
    assert made.mapping["type"] == mapping


@pytest.mark.parametrize("name", ["password_hash", "email", "api_key", "apikey", "date_of_birth", "phone"])
def test_private_columns_are_known_by_their_names(name):
    assert private(column("text", name))


@pytest.mark.parametrize("name", ["title", "emails_sent", "passwordless", "keyboard", "tokens"])
def test_others_are_not(name):
    assert not private(column("text", name))
