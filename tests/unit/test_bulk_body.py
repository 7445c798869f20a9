"""Bulk bodies are joined, bounded and cut without touching the documents in them."""

from __future__ import annotations

import pytest

from idxctl.opensearch.bulk import Body, deletes, gather, join
from idxctl.opensearch.error_answers import reason_of


def index(name: str, size: int = 10) -> Body:
    return Body([name], b'{"index":{"_id":"%b"}}\n{"f":"%b"}\n' % (name.encode(), b"x" * size))


def test_halves_are_the_whole_with_every_item_in_one_piece():
    whole = join([index("a"), deletes(["b"], 7, {}), index("c"), deletes(["d"], 7, {}), index("e")])
    first, second = whole.halves()
    assert first.ids + second.ids == whole.ids
    assert first.text + second.text == whole.text
    assert (first.ids, second.ids) == (["a", "b"], ["c", "d", "e"])
    assert second.text == join([index("c"), deletes(["d"], 7, {}), index("e")]).text


@pytest.mark.parametrize("gone", [{"a"}, {"c"}, {"a", "c"}, {"a", "b", "c"}, {"z"}, set()])
def test_without_leaves_the_other_items_as_they_are(gone):
    pieces = [index("a"), deletes(["b"], 7, {}), index("c")]
    kept = [one for one in pieces if one.ids[0] not in gone]
    left = join(pieces).without(gone)
    assert (left.ids, left.text) == ([one.ids[0] for one in kept], b"".join(one.text for one in kept))


def test_bodies_are_bounded_but_for_one_large_piece():
    pieces = [index("a", 40), index("b", 40), index("c", 4000), index("d", 40)]
    assert [body.ids for body in gather(pieces, max_bytes=200)] == [["a", "b"], ["c"], ["d"]]


def test_delete_carries_token_and_routing():
    body = deletes(['qu"ote', "b"], 7, {"b": b'"nord"'})
    first, second = body.text.splitlines()
    assert first == b'{"delete":{"_id":"qu\\"ote","version":7,"version_type":"external_gte"}}'
    assert second == b'{"delete":{"_id":"b","version":7,"version_type":"external_gte","routing":"nord"}}'


def test_reason_names_the_cause_behind_the_error():
    error = {"reason": "failed to parse field [price]", "caused_by": {"reason": 'For input string: "x"'}}
    assert reason_of(error) == 'failed to parse field [price]: For input string: "x"'
