"""The answer to a bulk: an item for every document sent, in its place."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from idxctl.opensearch.answer_parts import NoAnswer, counted, loads, object_of, parsed, plain, shown
from idxctl.opensearch.error_answers import reason_of


@dataclass(frozen=True)
class Refusal:
    """One item of a bulk that OpenSearch refused."""

    document_id: str
    status: int
    error_type: str
    reason: str


def refused(text: bytes, sent: Sequence[str], deleted: Collection[str] = ()) -> list[Refusal]:
    """
    Return the items of a bulk that were refused; all others were done.

    Every document *sent* must have its item in its place: its id, its operation (*deleted* are the ids of deletes), and a
    status that fits whether there is an error. Only a delete may find nothing.
    """
    if not deleted and _all_written(text, sent):
        return []
    answer = object_of(parsed(text))
    errors, items = answer.get("errors"), answer.get("items")
    if type(errors) is not bool:
        raise NoAnswer("it has no boolean errors")
    if type(items) is not list or len(items) != len(sent):
        raise NoAnswer(f"it has {counted(items)} for {len(sent)} documents")
    _each_key_once(text, len(sent))
    refusals: list[Refusal] = []
    for document_id, item in zip(sent, items, strict=True):
        if type(item) is not dict or len(item) != 1:
            raise NoAnswer(f"an item is {shown(item)}")
        ((operation, result),) = item.items()
        if (
            type(result) is not dict
            or result.get("_id") != document_id
            or operation != ("delete" if document_id in deleted else "index")
        ):
            raise NoAnswer(f"the item of document {shown(document_id)} is {shown(item)}")
        status = result.get("status")
        if "error" in result:
            refusals.append(_refusal(document_id, status, result["error"]))
        elif not (
            type(status) is int
            and (
                status in (200, 201)
                or (status == 404 and operation == "delete" and result.get("result") == "not_found")
            )
        ):
            raise NoAnswer(f"document {shown(document_id)} has status {shown(status)} without an error")
    if errors is not bool(refusals):
        raise NoAnswer(f"errors is {str(errors).lower()}, and {len(refusals)} items have one")
    return refusals


def _all_written(text: bytes, sent: Sequence[str]) -> bool:
    """
    Tell whether *text* is, byte for byte, the answer that OpenSearch gives when every document was written.

    That is most answers, and comparing costs a quarter of parsing. No text within JSON holds a bare quote, so what is put
    between the ids stands nowhere in them.
    """
    ids = orjson.dumps(sent)[1:-1].replace(b'","', b'","status":200}},{"index":{"_id":"')
    wanted = b'{"errors":false,"items":[{"index":{"_id":%b,"status":200}}]}' % ids
    return bool(sent) and text.replace(b'"status":201}', b'"status":200}') == wanted


def _refusal(document_id: str, status: Any, error: Any) -> Refusal:
    kind = error.get("type") if type(error) is dict else None
    if type(status) is not int or not 400 <= status <= 599 or type(kind) is not str or not kind:
        raise NoAnswer(f"document {shown(document_id)} has status {shown(status)} with the error {shown(error)}")
    return Refusal(document_id, status, plain(kind, 200), reason_of(error))


def _each_key_once(text: bytes, items: int) -> None:
    """
    Refuse an object that has a key twice: which of the two is meant, nobody knows.

    A key's bytes occur nowhere else in JSON, since a quote within a text is escaped: counting them is enough where there are
    as many as there should be.
    """
    if (
        text.count(b'"_id":') == items == text.count(b'"status":')
        and text.count(b'"errors":') == text.count(b'"items":') == 1
    ):
        return
    loads(text, object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NoAnswer("a key of it occurs twice")
    return found
