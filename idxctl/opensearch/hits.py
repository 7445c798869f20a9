"""
What counts as an answer to a search for documents: each with its version, and its source as the bytes that were sent.

A part of `answers`, by another parser: it checks the shape of all of an answer and leaves sources unread, at a microsecond a
document, where making objects of them takes ten.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from idxctl.opensearch.answer_parts import NoAnswer

T = TypeVar("T")


class Hit(msgspec.Struct, frozen=True, gc=False):
    """A document that was found. ``source`` is its bytes, without blanks around them; empty where none was asked for."""

    id: str = msgspec.field(name="_id")
    version: int = msgspec.field(name="_version")
    source: msgspec.Raw = msgspec.field(name="_source", default=msgspec.Raw(b""))


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_IN_ITS_PLACE = rb"\\ufffd"
_SOURCE = b'"_source":'


class _Total(msgspec.Struct, gc=False):
    value: int
    relation: str


class _Hits(msgspec.Struct, gc=False):
    total: _Total
    hits: list[Hit]


class _Shards(msgspec.Struct, gc=False):
    total: int
    successful: int
    failed: int


class _Found(msgspec.Struct, gc=False):
    timed_out: bool
    shards: _Shards = msgspec.field(name="_shards")
    hits: _Hits


class _Sorted(msgspec.Struct, gc=False):
    sort: list[Any]


class _SortedHits(msgspec.Struct, gc=False):
    total: _Total
    hits: list[_Sorted]


class _Newest(msgspec.Struct, gc=False):
    timed_out: bool
    shards: _Shards = msgspec.field(name="_shards")
    hits: _SortedHits


_DOCUMENTS = msgspec.json.Decoder(_Found)
_NEWEST = msgspec.json.Decoder(_Newest)


def documents(text: bytes) -> Sequence[Hit]:
    """Read all documents of one shard that a search matches; an answer with fewer of them than there are is none."""
    try:
        return _documents(text)
    except NoAnswer:
        if not _SURROGATE.search(text):
            raise
    return _as_they_came(_documents(_SURROGATE.sub(_IN_ITS_PLACE, text)), text)


def _documents(text: bytes) -> Sequence[Hit]:
    found = _decoded(_DOCUMENTS, text)
    _whole(found)
    total, hits = found.hits.total, found.hits.hits
    if total.relation != "eq" or total.value != len(hits):
        raise NoAnswer(f"it has {len(hits)} of {total.value} documents")
    return hits


def _as_they_came(hits: Sequence[Hit], text: bytes) -> Sequence[Hit]:
    """
    Return *hits*, read of a text in which surrogates had others in their place, with their sources as they are in *text*.

    Half of a pair is JSON to PostgreSQL and to OpenSearch, and not to the parser. What stands in its place is as long.
    """
    found, place, read = [], 0, _SURROGATE.sub(_IN_ITS_PLACE, text)
    for one in hits:
        source = bytes(one.source)
        place = read.find(_SOURCE + source, place) + len(_SOURCE)
        if place < len(_SOURCE):
            raise NoAnswer("a source does not stand where it should")
        found.append(Hit(one.id, one.version, msgspec.Raw(text[place : place + len(source)])))
        place += len(source)
    return found


def newest(text: bytes) -> int | None:
    """Read the greatest sequence number of one shard's documents, asked for as the first of a sort; None where it has none."""
    found = _decoded(_NEWEST, text)
    _whole(found)
    if not found.hits.hits and not found.hits.total.value:
        return None
    numbers = found.hits.hits[0].sort if len(found.hits.hits) == 1 else []
    if len(numbers) != 1 or type(numbers[0]) is not int or numbers[0] < 0:
        raise NoAnswer("it does not name a sequence number")
    return numbers[0]


def _decoded(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise NoAnswer(f"it is not what a search answers: {error}" if text else "it is empty") from error


def _whole(found: _Found | _Newest) -> None:
    """A search that ran out of time, or that its shard did not answer, has part of the documents."""
    shards = found.shards
    if found.timed_out or shards.failed or not shards.total == shards.successful == 1:
        raise NoAnswer(f"{shards.successful} of {shards.total} shards answered in time, where one was asked")
