"""Errors that differ in their values alone are one group."""

from __future__ import annotations

from idxctl.core.fingerprints import of_content, of_error, pattern

PARSE = "failed to parse field [{}] of type [{}] in document with id '{}'. Preview of field's value: '{}': For input string: \"{}\""


def same(first: str, second: str) -> bool:
    return of_error("mapper_parsing_exception", first) == of_error("mapper_parsing_exception", second)


def test_values_and_ids_do_not_count():
    assert same(
        PARSE.format("price", "float", "7", "12,50", "12,50"), PARSE.format("price", "float", "a'b:9", "x 'y'", "x")
    )


def test_field_and_type_count():
    first = PARSE.format("price", "float", "7", "x", "x")
    assert not same(first, PARSE.format("stock", "float", "7", "x", "x"))
    assert not same(first, PARSE.format("price", "long", "7", "x", "x"))


def test_dynamic_field_of_a_strict_mapping_counts():
    reason = "mapping set to strict, dynamic introduction of [{}] within [_doc] is not allowed"
    assert not same(reason.format("colour"), reason.format("size"))


def test_error_types_are_told_apart():
    assert of_error("a", "same") != of_error("b", "same")


def test_content_does_not_depend_on_the_order_of_keys():
    assert of_content({"a": 1, "b": [1, 2]}) == of_content({"b": [1, 2], "a": 1})
    assert of_content({"a": [1, 2]}) != of_content({"a": [2, 1]})


def test_a_value_of_any_length_is_taken_out_and_only_the_ends_of_a_reason_are_looked_at():
    quoted = "invalid input syntax for type integer: {}"
    long = '"' + "x" * 60_000_000 + '"'
    assert pattern(quoted.format(long)) == pattern(quoted.format('"y"'))
    assert len(pattern('"\\"' * 20_000_000)) <= 5_000
