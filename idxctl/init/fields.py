"""
From a column's type to a field: the mapping that one would keep, and the SQL that writes its value.

Nothing is asked of a server here; what a look at rows has found comes as `Seen`. Sources: field types of OpenSearch 2.12 to 3.x
(docs.opensearch.org, "Mappings and field types"), and what PostgreSQL's to_jsonb makes of each type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from idxctl.init.schema import Column

_EXACT_DIGITS = 15  # decimal digits that a double always keeps
_LONG_DIGITS = 18  # that a long always holds
_LONGEST_KEYWORD = 8191  # characters; Lucene takes 32,766 bytes, and a character may need four
_SHORT = 20  # characters of a code
_LONG_TEXT = 200  # bytes, on average: prose, which nobody sorts by
_FEW = 50  # different values of what is one of a list

_CODE = re.compile(
    r"(^|_)(id|uuid|guid|code|sku|slug|status|state|type|kind|currency|country|locale|lang|language|email|url|uri|path|hash|"
    r"colou?r|gender|postal|postcode|zip|isbn|ean|upc|gtin|phone|key|ref|reference|rating_code|sha|md5|mime|extension|tz|timezone)$",
    re.IGNORECASE,
)
_PRIVATE = re.compile(
    r"(^|_)(password|passwd|pwd|secret|token|api_?key|salt|otp|pin|ssn|iban|bic|cvv|cvc|card_?number|tax_?id|passport|private_?key|"
    r"credentials?|session|hashed|encrypted|e_?mail|phone|mobile|fax|birth_?(day|date)|date_?of_?birth|dob)(_|$)",
    re.IGNORECASE,
)
_DATES = "strict_date_optional_time||epoch_millis"

_NUMBERS = {
    "smallint": "short",
    "integer": "integer",
    "bigint": "long",
    "oid": "long",
    "real": "float",
    "double precision": "double",
}
_AS_TEXT = {"macaddr", "macaddr8", "bit", "bit varying", "pg_lsn", "xid", "xid8", "cid", "tid", '"char"', "name", "uuid", "jsonpath",
            "time without time zone", "time with time zone", "ltree", "regclass", "txid_snapshot", "pg_snapshot"}  # fmt: skip
_TEXTS = {"text", "character varying", "character", "citext", "xml"}
_RANGES = {
    "int4range": "integer_range", "int8range": "long_range", "numrange": "double_range",
    "daterange": "date_range", "tsrange": "date_range", "tstzrange": "date_range",
}  # fmt: skip
_MULTIRANGES = {name.replace("range", "multirange"): of for name, of in _RANGES.items()}
_LEFT_OUT = {
    "bytea": "bytes are not searched",
    "tsvector": "OpenSearch makes its own of the text",
    "tsquery": "it is a query",
    "vector": "vectors need a knn_vector field and a pipeline or setting of your choice",
    "halfvec": "vectors need a knn_vector field and a pipeline or setting of your choice",
    "sparsevec": "vectors need a field and a setting of your choice",
    "box": "OpenSearch has no field for it",
    "circle": "OpenSearch has no field for it",
    "line": "OpenSearch has no field for it",
    "lseg": "OpenSearch has no field for it",
    "path": "OpenSearch has no field for it",
    "polygon": "OpenSearch has no field for it",
}


@dataclass(frozen=True)
class Seen:
    """What a look at some rows has found of one column; nothing, where none was taken."""

    kinds: frozenset[str] = frozenset()  # jsonb_typeof of its values
    infinite: bool = False  # a date that is infinity, or a float that is
    nan: bool = False
    far: bool = False  # a date that OpenSearch does not read: before the year 0 or after 9999
    imprecise: bool = False  # a number with more digits than a double keeps
    geographic: bool = False  # every point lies on the globe, as longitude and latitude


@dataclass(frozen=True)
class Field:
    """A field of a document: its mapping, and how its value is written from ``{x}``, the column in SQL."""

    mapping: Mapping[str, Any]
    value: str = "{x}"
    note: str = ""  # why this mapping, or what to look at; a comment beside it

    def sql(self, column: str) -> str:
        """Return the expression that writes the value of *column*."""
        return self.value.replace("{x}", column)


@dataclass(frozen=True)
class LeftOut:
    """A column that no document shows, and why."""

    why: str
    private: bool = field(default=False)


def private(column: Column) -> bool:
    """Whether a column's name says that it is nobody's business."""
    return _PRIVATE.search(column.name) is not None


def make(column: Column, seen: Seen | None = None) -> Field | LeftOut:
    """Return the field that a column becomes."""
    seen = seen or Seen()
    if column.element is not None:
        return _array(column, seen)
    return _of(column.type, column.kind, column, seen)


def _array(column: Column, seen: Seen) -> Field | LeftOut:
    """An array has the field of its elements; OpenSearch takes many values in any."""
    assert column.element is not None
    name = column.element.rpartition(".")[2]
    if name in _TEXTS - {"xml"}:  # labels
        return Field(
            {"type": "keyword", "ignore_above": _LONGEST_KEYWORD}, "{x}::text[]" if name == "citext" else "{x}"
        )
    of = _of(column.element, column.element_kind, column, seen)
    if isinstance(of, LeftOut):
        return of
    if of.value == "{x}":
        return of
    inner = of.value.replace("{x}", "e.v")
    return Field(of.mapping, f"(SELECT jsonb_agg({inner}) FROM unnest({{x}}) AS e (v))", of.note)


def _of(name: str, kind: str, column: Column, seen: Seen) -> Field | LeftOut:
    bare = name.rpartition(".")[2].strip('"')
    if kind == "e":
        return Field({"type": "keyword"})
    if kind == "c":
        return Field({"type": "object", "enabled": False}, "to_jsonb({x})", "a row in itself: kept, not searched")
    if bare in _LEFT_OUT:
        return LeftOut(_LEFT_OUT[bare])
    if bare in _NUMBERS:
        return _number(bare, seen)
    if bare in _RANGES or bare in _MULTIRANGES:
        return _range(bare)
    if bare in _TEXTS:
        return _text(bare, column)
    if bare in _AS_TEXT:
        return Field({"type": "keyword"}, "{x}" if bare in {"uuid", "name"} else "{x}::text")
    known = _OTHERS.get(bare)
    return known(column, seen) if known else LeftOut(f"idxctl init knows no field for {name}")


def _number(bare: str, seen: Seen) -> Field:
    mapping = {"type": _NUMBERS[bare]}
    if bare in {"real", "double precision"} and (seen.nan or seen.infinite):
        return Field(mapping, _FINITE_FLOAT, "NaN and infinity, which some rows have, are left out")
    return Field(mapping)


_FINITE_FLOAT = "CASE WHEN {x} NOT IN ('NaN', 'Infinity', '-Infinity') THEN {x} END"


def _numeric(column: Column, seen: Seen) -> Field:
    precision, scale = column.modifiers
    value = "NULLIF({x}, 'NaN')" if seen.nan else "{x}"
    if seen.infinite:
        value = "CASE WHEN {x} NOT IN ('NaN', 'Infinity', '-Infinity') THEN {x} END"
    said = "NaN and infinity, which some rows have, are left out; " if seen.nan or seen.infinite else ""
    if precision is not None and not scale:
        if precision <= _LONG_DIGITS:
            return Field({"type": "long"}, value, f"{said}{column.whole_type} has no decimals")
    elif precision is not None and scale is not None and 0 < scale <= _EXACT_DIGITS >= precision:
        return Field(
            {"type": "scaled_float", "scaling_factor": 10**scale}, value,
            f"{said}scaled_float: {column.whole_type} is exact to {scale} decimals",
        )  # fmt: skip
    why = "has more digits than a double keeps" if seen.imprecise or precision is not None else "may have any precision"
    return Field({"type": "double"}, value, f"{said}double: {column.whole_type} {why}")


def _money(_column: Column, _seen: Seen) -> Field:
    return Field({"type": "scaled_float", "scaling_factor": 100}, "{x}::numeric", "money, as a number")


def _text(bare: str, column: Column) -> Field:
    length, _ = column.modifiers
    few = column.distinct is not None and 0 < column.distinct <= _FEW and (column.width or 0) <= _SHORT * 2
    if bare == "xml":
        return Field({"type": "text"}, "{x}::text")
    value = "{x}::text" if bare == "citext" else "{x}"
    if _CODE.search(column.name) or bare == "character" or (length is not None and length <= _SHORT) or few:
        limit = {} if length is not None and length <= _LONGEST_KEYWORD else {"ignore_above": _LONGEST_KEYWORD}
        return Field({"type": "keyword", **limit}, value, "keyword: it has few different values" if few else "")
    if (column.width or 0) > _LONG_TEXT:
        return Field({"type": "text"}, value, "text alone: too long to sort or group by")
    return Field({"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}}, value)


def _boolean(_column: Column, _seen: Seen) -> Field:
    return Field({"type": "boolean"})


def _date(_column: Column, seen: Seen) -> Field:
    mapping = {"type": "date", "format": _DATES}
    if seen.far:
        return Field(
            mapping, "CASE WHEN {x} >= '0001-01-01' AND {x} < '9999-12-31' THEN {x} END",
            "dates that OpenSearch does not read, which some rows have, are left out",
        )  # fmt: skip
    if seen.infinite:
        return Field(mapping, "CASE WHEN isfinite({x}) THEN {x} END", "infinity, which some rows have, is left out")
    return Field(mapping)


def _interval(_column: Column, _seen: Seen) -> Field:
    return Field({"type": "double"}, "extract(epoch FROM {x})", "seconds")


def _json(_column: Column, seen: Seen) -> Field:
    if seen.kinds and seen.kinds <= {"object", "null"}:
        return Field(
            {"type": "flat_object"},
            note="flat_object: any keys, each searched as a keyword; give it properties to do more",
        )
    if seen.kinds and seen.kinds <= {"string", "number", "boolean", "null"} and len(seen.kinds - {"null"}) == 1:
        (of,) = seen.kinds - {"null"}
        return Field(
            {"type": {"string": "keyword", "number": "double", "boolean": "boolean"}[of]}, note=f"every value is a {of}"
        )
    why = (
        f"its values are of several kinds ({', '.join(sorted(seen.kinds))})"
        if seen.kinds
        else "no row tells what it holds"
    )
    return Field({"type": "object", "enabled": False}, note=f"kept, not searched: {why}")


def _hstore(_column: Column, _seen: Seen) -> Field:
    return Field({"type": "flat_object"}, "to_jsonb({x})")


def _inet(_column: Column, _seen: Seen) -> Field:
    return Field({"type": "ip"}, "host({x})", "the address alone, without its network")


def _cidr(_column: Column, _seen: Seen) -> Field:
    return Field({"type": "ip_range"}, "{x}::text")


def _range(bare: str) -> Field:
    one = (
        "CASE WHEN NOT isempty({r}) THEN jsonb_strip_nulls(jsonb_build_object("
        "CASE WHEN lower_inc({r}) THEN 'gte' ELSE 'gt' END, lower({r}), CASE WHEN upper_inc({r}) THEN 'lte' ELSE 'lt' END, upper({r}))) END"
    )
    if bare in _RANGES:
        return Field(_range_mapping(_RANGES[bare]), one.replace("{r}", "{x}"))
    many = "(SELECT jsonb_agg(" + one.replace("{r}", "r.v") + ") FROM unnest({x}) AS r (v))"
    return Field(_range_mapping(_MULTIRANGES[bare]), many)


def _range_mapping(of: str) -> dict[str, Any]:
    return {"type": of, "format": _DATES} if of == "date_range" else {"type": of}


def _point(_column: Column, seen: Seen) -> Field | LeftOut:
    if not seen.geographic:
        return LeftOut("nothing tells that it is a longitude and a latitude")
    return Field(
        {"type": "geo_point"},
        "CASE WHEN {x} IS NOT NULL THEN jsonb_build_object('lat', ({x})[1], 'lon', ({x})[0]) END",
        "a point of longitude and latitude, by its values",
    )


def _geometry(column: Column, _seen: Seen) -> Field:
    shape = "{x}" if column.type.endswith("geometry") else "{x}::geometry"
    if "(Point" in column.whole_type:
        return Field(
            {"type": "geo_point"},
            f"CASE WHEN {{x}} IS NOT NULL THEN jsonb_build_object('lat', ST_Y({shape}), 'lon', ST_X({shape})) END",
        )
    return Field({"type": "geo_shape"}, f"ST_AsGeoJSON({shape})::jsonb")


_OTHERS = {
    "numeric": _numeric, "money": _money, "boolean": _boolean, "interval": _interval,
    "date": _date, "timestamp without time zone": _date, "timestamp with time zone": _date,
    "json": _json, "jsonb": _json, "hstore": _hstore, "inet": _inet, "cidr": _cidr,
    "point": _point, "geometry": _geometry, "geography": _geometry,
}  # fmt: skip
