"""Texts from outside, as a database of any encoding can hold them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idxctl.core import keys, texts

ENCODINGS = [*texts._CODECS, "EUC_JP", "MULE_INTERNAL", None]


@given(st.text(st.characters(codec=None), max_size=60), st.sampled_from(ENCODINGS))
def test_what_is_storable_has_only_characters_of_the_encoding(text, encoding):
    stored = texts.storable(text, encoding)
    assert "\0" not in stored
    stored.encode(texts._CODECS.get(encoding or "", "ascii"))
    assert texts.storable(stored, encoding) == stored
    assert not texts.unknown_to(stored, encoding)


@pytest.mark.parametrize(
    ("text", "encoding", "stored"),
    [
        ("café € 漢", "UTF8", "café € 漢"),
        ("café € 漢", "LATIN1", "café \\u20ac \\u6f22"),
        ("café € 漢", "LATIN9", "café € \\u6f22"),
        ("café", "EUC_JP", "caf\\xe9"),
        ("half \ud800", "UTF8", "half \\ud800"),
        ("a\0b", "UTF8", "a\\u0000b"),
    ],
)
def test_what_cannot_be_stored_is_written_as_its_escape(text, encoding, stored):
    assert texts.storable(text, encoding) == stored


def test_a_long_text_keeps_its_beginning():
    stored = texts.storable("x" * 100_000, "UTF8")
    assert stored == "x" * texts.LONGEST + "... (96,000 characters more)"


def test_every_text_within_is_made_storable():
    value = {"a\0": ["b\0", {"c": "d\0", "n": 1}], "none": None}
    assert texts.all_storable(value, "UTF8") == {
        "a\\u0000": ["b\\u0000", {"c": "d\\u0000", "n": 1}],
        "none": None,
    }


@pytest.mark.parametrize(("text", "too_long"), [("x" * 512, False), ("x" * 513, True), ("é" * 257, True), ("", False)])
def test_the_length_of_an_id_is_counted_in_bytes(text, too_long):
    assert keys.too_long(text) is too_long
