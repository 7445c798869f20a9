"""What a caller may name: indexes and the keys of documents, checked without a server."""

import uuid
from datetime import date, datetime, timezone

import pytest

from idxctl import ConfigError, UsageError, WrongType
from idxctl.config.settings import IndexSettings
from idxctl.library import documents, switch

PLAIN = IndexSettings("listings", "SELECT")
COMPOSITE = IndexSettings("parts", "SELECT", key=("tenant", "seq"))
UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("given", "text"),
    [(1, "1"), (-3, "-3"), ("007", "007"), (UUID, str(UUID)), (date(2026, 2, 3), "2026-02-03"), ((5,), "5")],
)
def test_the_text_of_a_plain_key(given, text):
    assert documents.text(PLAIN, given) == text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((1, 2), "1:2"),
        (("a:b", "c%"), "a%3Ab:c%25"),
        ((UUID, True), f"{UUID}:true"),
        ("a%3Ab:2", "a%3Ab:2"),
        (("", 1), ":1"),
    ],
)
def test_the_text_of_a_composite_key(given, text):
    assert documents.text(COMPOSITE, given) == text


@pytest.mark.parametrize(
    "given", [None, 1.5, b"1", True, object(), datetime(2026, 2, 3, tzinfo=timezone.utc), [1], (None,)]
)
def test_what_is_no_key_is_a_type_error_of_ours(given):
    with pytest.raises(
        WrongType, match="a document id of listings is an int, str, UUID or date, or a tuple of them"
    ) as caught:
        documents.text(PLAIN, given)
    assert isinstance(caught.value, TypeError)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("given", ["", "a\0b", "\ud800", (1, 2), ()])
def test_what_cannot_be_a_key_of_this_index(given):
    with pytest.raises(UsageError):
        documents.text(PLAIN, given)


@pytest.mark.parametrize("given", [5, UUID, "5", "1:2:3", (1,), (1, 2, 3), (1, 1.5)])
def test_what_cannot_be_a_composite_key(given):
    with pytest.raises(UsageError, match=r"tenant, seq|has 1 parts|has 3 parts|a document id"):
        documents.text(COMPOSITE, given)


def test_one_id_in_place_of_many_is_not_taken_for_its_letters():
    for given in ("12", b"12", 12):
        with pytest.raises(WrongType, match="document ids are an iterable"):
            documents.texts(PLAIN, given)


def test_ids_are_taken_once_each_in_their_order():
    assert documents.texts(PLAIN, iter([3, "1", 1, 3])) == ["3", "1"]


def test_an_unknown_index_comes_with_the_nearest_name():
    known = {"marketplace_listings": PLAIN, "storefronts": PLAIN}
    assert documents.known_index(known, "storefronts") is PLAIN
    with pytest.raises(UsageError, match="no index 'marketplace_listing'") as caught:
        documents.known_index(known, "marketplace_listing")
    assert caught.value.hint == "did you mean 'marketplace_listings'?"
    with pytest.raises(WrongType, match="the index is named by a str, not None"):
        documents.known_index(known, None)


@pytest.mark.parametrize("word", ["true", "1", "Yes", " on ", "TRUE"])
def test_words_that_switch_it_on(word):
    assert switch.is_on({switch.NAME: word})


@pytest.mark.parametrize("word", ["", "false", "0", "No", "off"])
def test_words_that_leave_it_off(word):
    assert not switch.is_on({switch.NAME: word})


def test_a_switch_that_is_neither_is_an_error():
    with pytest.raises(ConfigError, match="ENABLE_ASYNC_INDEXING is 'ja', wanted true or false"):
        switch.is_on({switch.NAME: "ja"})
