"""A search for documents is answered only by all of them; their sources are the bytes that were sent."""

from __future__ import annotations

import json

import pytest

from idxctl.opensearch import hits
from idxctl.opensearch.answers import NoAnswer

SHARDS = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}
HITS = [
    {"_index": "i", "_id": "1", "_version": 7, "_score": None, "_source": {"a": "é\n", "n": 1.0}, "sort": [0]},
    {"_index": "i", "_id": "2", "_version": 2**62, "_score": None, "_source": {}, "sort": [1]},
]


def answer(found: object = HITS, *, total: object = 2, relation: str = "eq", shards: object = SHARDS, **more: object) -> bytes:  # fmt: skip
    body = {
        "took": 1,
        "timed_out": False,
        "_shards": shards,
        "hits": {"total": {"value": total, "relation": relation}, "max_score": None, "hits": found},
    }
    return json.dumps({**body, **more}, ensure_ascii=False).encode()


def test_documents_have_id_version_and_the_bytes_of_their_source():
    first, second = hits.documents(answer())
    assert (first.id, first.version, bytes(first.source)) == ("1", 7, b'{"a": "\xc3\xa9\\n", "n": 1.0}')
    assert (second.id, second.version, bytes(second.source)) == ("2", 2**62, b"{}")


@pytest.mark.parametrize(
    "source",
    [
        rb'{"a":"\ud800"}',  # half of a surrogate pair
        rb'{"a":"\ud83d\ude00","b":"\udc00\\ud800"}',
        rb'{"n":1e400,"m":123456789012345678901234567890}',  # beyond a double
        rb'{ "spaced" : [ 1 , 2 ] }',
        rb'{"x":[{"a":1},{"_index":"i","_id":"9","_version":1,"_source":{}}]}',
    ],
)
def test_a_source_is_passed_on_as_it_is(source):
    three = [{**HITS[0], "_source": "SOURCE"}, HITS[1], {**HITS[1], "_id": "3", "_source": "SOURCE"}]
    text = json.dumps(json.loads(answer(three, total=3)), separators=(",", ":")).encode().replace(b'"SOURCE"', source)
    assert [bytes(one.source) for one in hits.documents(text)] == [source, b"{}", source]


def test_without_sources_ids_and_versions_are_there():
    (one,) = hits.documents(answer([{"_id": "1", "_version": 3}], total=1))
    assert (one.id, one.version, bytes(one.source)) == ("1", 3, b"")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"<html>",
        b"[" * 100_000,
        b'{"a":"\xff"}',
        answer(HITS[:1]),  # one of two
        answer(total=3),
        answer(total=2, relation="gte"),
        answer(timed_out=True),
        answer(shards={**SHARDS, "failed": 1}),
        answer(shards={**SHARDS, "successful": 0}),
        answer(shards={**SHARDS, "total": 2, "successful": 2}),
        answer([HITS[0], {"_id": "2", "_source": {}}]),
        answer([HITS[0], {"_version": 1, "_source": {}}]),
        answer([HITS[0], {**HITS[1], "_version": "1"}]),
        answer([HITS[0], {**HITS[1], "_id": 2}]),
        answer()[:-2],
    ],
)
def test_whatever_lacks_something_is_no_answer(text):
    with pytest.raises(NoAnswer):
        hits.documents(text)


def test_the_newest_number_is_that_of_the_sort():
    assert hits.newest(answer([{"_id": "1", "sort": [41]}], total=42)) == 41
    assert hits.newest(answer([], total=0)) is None


@pytest.mark.parametrize(
    "text",
    [b"{}", answer([], total=3), answer([{"sort": []}]), answer([{"sort": ["1"]}]), answer([{"sort": [-1]}]), answer([{}])],
)  # fmt: skip
def test_what_names_no_number_is_no_answer(text):
    with pytest.raises(NoAnswer):
        hits.newest(text)
