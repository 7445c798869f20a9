"""An answer is one only if it accounts for everything that was asked; what it quotes is cut and can be stored."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idxctl.core import fingerprints
from idxctl.opensearch import answer_parts, answers, bulk_answers, error_answers
from idxctl.opensearch.answer_parts import NoAnswer

IDS = ["1", "2", "gone"]
DONE = [
    {"index": {"_id": "1", "status": 200}},
    {"index": {"_id": "2", "status": 201}},
    {"delete": {"_id": "gone", "result": "not_found", "status": 404}},
]
BROKEN = {"type": "mapper_parsing_exception", "reason": "failed to parse"}


def read(
    answer: object, *, ids: list[str] = IDS, deleted: frozenset[str] = frozenset({"gone"})
) -> list[bulk_answers.Refusal]:
    text = answer if isinstance(answer, bytes) else json.dumps(answer, separators=(",", ":")).encode()
    return bulk_answers.refused(text, ids, deleted)


def test_an_answer_that_accounts_for_every_document_has_no_refusals():
    assert read({"took": 3, "errors": False, "items": DONE}) == []


def test_an_answer_printed_with_blanks_is_one():
    assert read(json.dumps({"errors": False, "items": DONE}, indent=2).encode()) == []


def test_a_refused_item_is_named_with_status_type_and_reason():
    items = [DONE[0], {"index": {"_id": "2", "status": 400, "error": BROKEN}}, DONE[2]]
    assert read({"errors": True, "items": items}) == [
        bulk_answers.Refusal("2", 400, "mapper_parsing_exception", "failed to parse")
    ]


def one(place: int, **fields: object) -> list[dict]:
    """Return the good items with some fields of one changed; None takes a field out."""
    items = json.loads(json.dumps(DONE))
    ((_, result),) = items[place].items()
    result.update(fields)
    for name in [name for name, value in fields.items() if value is None]:
        del result[name]
    return items


def first(item: bytes, *, errors: bytes = b"false") -> bytes:
    """Return an answer whose first item is as given, byte for byte."""
    return b'{"errors":%b,"items":[%b,%b]}' % (errors, item, json.dumps(DONE[1:], separators=(",", ":")).encode()[1:-1])


def test_the_first_item_alone_makes_the_difference():
    assert read(first(b'{"index":{"_id":"1","status":200}}')) == []


@given(
    st.lists(st.text(max_size=6) | st.sampled_from([",", '"', '","', "\\", '"status":201}']), min_size=1, max_size=5)
)
def test_ids_of_any_text_are_told_apart(ids):
    items = [{"index": {"_id": one, "status": 200}} for one in ids]
    text = orjson.dumps({"errors": False, "items": items})
    assert bulk_answers.refused(text, ids) == []
    others = [*ids[:-1], ids[-1] + ","]
    with pytest.raises(NoAnswer):
        bulk_answers.refused(text, others)


NONE_AT_ALL = {
    "empty": b"",
    "blank": b"  \n",
    "null": b"null",
    "a list": b"[]",
    "a text": b'"errors"',
    "a number": b"7",
    "an empty object": {},
    "a status of something": {"status": "ok"},
    "a page": b"<html>Sign in</html>",
    "cut in the middle": json.dumps({"errors": False, "items": DONE}).encode()[:-5],
    "another encoding": '{"errors":false,"items":"é"}'.encode("latin-1"),
    "UTF-16": json.dumps({"errors": False, "items": DONE}).encode("utf-16"),
    "nested too deep": b'{"errors":' + b"[" * 200_000,
    "nested too deep, and closed": b'{"errors":false,"items":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "NaN": b'{"errors":NaN,"items":[]}',
    "an endless number": b'{"errors":false,"items":' + b"9" * 10_000 + b"}",
    "no items": {"errors": False},
    "fewer items": {"errors": False, "items": DONE[:2]},
    "more items": {"errors": False, "items": [*DONE, DONE[0]]},
    "no item": {"errors": False, "items": []},
    "items of an object": {"errors": False, "items": {"0": DONE[0]}},
    "items of null": {"errors": False, "items": [None, None, None]},
    "items of lists": {"errors": False, "items": [[], [], []]},
    "items of strings": {"errors": False, "items": [{"index": "ok"}, *DONE[1:]]},
    "empty items": {"errors": False, "items": [{}, {}, {}]},
    "permuted": {"errors": False, "items": [DONE[1], DONE[0], DONE[2]]},
    "one twice": {"errors": False, "items": [DONE[0], DONE[0], DONE[2]]},
    "another id": {"errors": False, "items": one(0, _id="7")},
    "an id that is a number": {"errors": False, "items": one(0, _id=1)},
    "no id": {"errors": False, "items": one(0, _id=None)},
    "another operation": {"errors": False, "items": [{"create": {"_id": "1", "status": 201}}, *DONE[1:]]},
    "a delete for an index": {"errors": False, "items": [{"delete": {"_id": "1", "status": 200}}, *DONE[1:]]},
    "an index for a delete": {"errors": False, "items": [*DONE[:2], {"index": {"_id": "gone", "status": 200}}]},
    "two operations": {"errors": False, "items": [{**DONE[0], "delete": {"_id": "1", "status": 200}}, *DONE[1:]]},
    "no status": {"errors": False, "items": one(0, status=None)},
    "a status in words": {"errors": False, "items": one(0, status="200")},
    "a status of true": {"errors": False, "items": one(0, status=True)},
    "a status with a fraction": {"errors": False, "items": one(0, status=200.0)},
    "202": {"errors": False, "items": one(0, status=202)},
    "299": {"errors": False, "items": one(0, status=299)},
    "400 without an error": {"errors": False, "items": one(0, status=400)},
    "an index that found nothing": {"errors": False, "items": one(0, status=404, result="not_found")},
    "a delete's 404 without a result": {"errors": False, "items": one(2, result=None)},
    "an error of null": first(b'{"index":{"_id":"1","status":400,"error":null}}', errors=b"true"),
    "an error in words": {"errors": True, "items": one(0, status=400, error="no")},
    "an error without a type": {"errors": True, "items": one(0, status=400, error={"reason": "no"})},
    "an error of an empty type": {"errors": True, "items": one(0, status=400, error={"type": ""})},
    "an error with 200": {"errors": True, "items": one(0, status=200, error=BROKEN)},
    "an error with 999": {"errors": True, "items": one(0, status=999, error=BROKEN)},
    "an error that errors denies": {"errors": False, "items": one(0, status=400, error=BROKEN)},
    "errors without one": {"errors": True, "items": DONE},
    "errors of null": {"errors": None, "items": DONE},
    "errors of zero": {"errors": 0, "items": DONE},
    "errors in words": {"errors": "false", "items": DONE},
    "errors twice": b'{"errors":true,"errors":false,' + json.dumps({"items": DONE}).encode()[1:],
    "items twice": b'{"items":[],"errors":false,' + json.dumps({"items": DONE}).encode()[1:],
    "a status twice": first(b'{"index":{"_id":"1","status":500,"status":200}}'),
    "an operation twice": first(b'{"index":{"_id":"1","status":500},"index":{"_id":"1","status":200}}'),
}


@pytest.mark.parametrize("what", NONE_AT_ALL)
def test_what_does_not_account_for_every_document_is_no_answer(what):
    with pytest.raises(NoAnswer) as caught:
        read(NONE_AT_ALL[what])
    assert 0 < len(str(caught.value)) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["errors", "items", "index", "delete", "_id", "status", "error", "type", "result"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON | st.binary(max_size=60))
def test_whatever_else_comes_is_no_answer_and_no_other_exception(answer):
    text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    with pytest.raises(NoAnswer):
        bulk_answers.refused(text, IDS, {"gone"})


@given(st.lists(st.sampled_from([200, 201, 400, 404, 409, 429, 500]), min_size=1, max_size=8), st.data())
def test_any_change_to_a_true_answer_changes_nothing_to_done(statuses, data):
    """Whatever one byte more, less or other makes of it: a document that was refused is never among the done."""
    ids = [str(number) for number in range(len(statuses))]
    items = [
        {"index": {"_id": one, "status": status, **({} if status < 400 else {"error": BROKEN})}}
        for one, status in zip(ids, statuses, strict=True)
    ]
    refused = {one for one, status in zip(ids, statuses, strict=True) if status >= 400}
    text = bytearray(json.dumps({"errors": bool(refused), "items": items}, separators=(",", ":")).encode())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        found = bulk_answers.refused(bytes(text), ids)
    except NoAnswer:
        return
    assert {one.document_id for one in found} == refused


def test_half_of_a_surrogate_pair_in_an_answer_is_read_and_can_be_stored():
    """OpenSearch quotes a document's own value in its error, as it was escaped."""
    error = rb'{"type":"mapper_parsing_exception","reason":"failed to parse: \ud800\u0000x"}'
    (found,) = read(b'{"errors":true,"items":[{"index":{"_id":"1","status":400,"error":' + error + b"}}]}", ids=["1"])
    assert found.reason == r"failed to parse: \ud800\u0000x"
    found.reason.encode()


def test_a_reason_of_megabytes_is_cut_and_keeps_what_depends_on_its_ends():
    value = "x" * 60_000_000
    reason = (
        f"failed to parse field [price] of type [float] in document with id '7'. Preview of field's value: '{value}'"
    )
    error = {
        "type": "mapper_parsing_exception",
        "reason": reason,
        "caused_by": {"type": "e", "reason": f'For "{value}"'},
    }
    (found,) = read({"errors": True, "items": [{"index": {"_id": "1", "status": 400, "error": error}}]}, ids=["1"])
    assert len(found.reason) <= 4 * answer_parts.LONGEST_SENTENCE + 6
    short = error_answers.reason_of({"reason": reason.replace(value, "y"), "caused_by": {"reason": 'For "y"'}})
    assert fingerprints.of_error("e", found.reason) == fingerprints.of_error("e", short)


def test_causes_without_end_are_read_to_a_bound():
    error: dict = {"type": "e", "reason": "0"}
    for number in range(1, 600):
        error = {"type": "e", "reason": str(number) * 3, "caused_by": error}
    assert error_answers.reason_of(error).count(": ") == 3


@pytest.mark.parametrize("text", ["9" * 5000, "٣", "-1", "1.5", "", " 1", "abc", None, 3])
def test_a_number_that_nothing_could_count_to_is_none(text):
    assert answer_parts.number(text) is None
    assert answer_parts.number(text, default=1) == 1


def test_a_node_whose_disk_has_an_endless_number_is_left_out():
    nodes = [{"disk.avail": "9" * 5000, "disk.total": "9"}, {"disk.avail": "5", "disk.total": "9"}]
    assert answers.disks(json.dumps(nodes).encode()) == [(5, 9)]


def test_a_shard_of_an_endless_number_is_no_shard():
    shards = {"9" * 5000: {"primary_active": True}}
    index = {"number_of_shards": 1, "number_of_replicas": 0, "shards": shards}
    answer = {"number_of_data_nodes": 1, "indices": {"i": index}}
    with pytest.raises(NoAnswer, match="of shard"):
        answers.index_health(json.dumps(answer).encode(), "i")
