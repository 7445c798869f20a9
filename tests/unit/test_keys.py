"""Document ids and key parts are each other's inverse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idxctl.core import keys


def test_id_of_one_column_is_its_text():
    assert keys.document_id(["a:b%"]) == "a:b%"
    assert keys.key_parts("a:b%", 1) == ("a:b%",)


def test_parts_are_escaped_so_that_two_keys_never_share_an_id():
    assert keys.document_id(["a:b", "c"]) == "a%3Ab:c"
    assert keys.document_id(["a", "b:c"]) == "a:b%3Ac"


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\0")), min_size=1, max_size=4))
def test_parts_come_back_from_the_id(parts):
    assert keys.key_parts(keys.document_id(parts), len(parts)) == tuple(parts)


def test_an_id_with_another_number_of_parts_is_refused():
    with pytest.raises(ValueError, match="2 parts"):
        keys.key_parts("a:b", 3)


@pytest.mark.parametrize(
    "type_name", ["numeric", "double precision", "timestamp with time zone", "character", "public.citext"]
)
def test_types_whose_text_does_not_round_trip_are_refused(type_name):
    assert keys.refusal(type_name)


@pytest.mark.parametrize("type_name", ["bigint", "uuid", "text", "character varying"])
def test_ordinary_key_types_are_taken(type_name):
    assert keys.refusal(type_name) is None
