"""Every document of an index by ranges of sequence numbers, on a real OpenSearch."""

from __future__ import annotations

import itertools
import json

import pytest

from idxctl.config.settings import OpenSearchSettings
from idxctl.core.errors import OpenSearchRefused, OpenSearchUnintelligible
from idxctl.opensearch import answers, by_sequence
from idxctl.opensearch.by_sequence import Span
from idxctl.opensearch.client import connect

NESTED = {"properties": {"parts": {"type": "nested"}}}


@pytest.fixture
def client(opensearch_url):
    with connect(OpenSearchSettings(urls=(opensearch_url,))) as one:
        yield one


def make(client, name: str, *, shards: int = 1, **settings) -> None:
    index = {"number_of_shards": shards, "number_of_replicas": 0, "refresh_interval": "-1", **settings}
    client.ask("PUT", f"/{name}", answers.acknowledged, body={"settings": {"index": index}, "mappings": NESTED})


def write(client, name: str, documents: dict[str, bytes], version: int) -> None:
    head = '{"index":{"_id":%s,"version":%d,"version_type":"external_gte"}}\n'
    body = b"".join((head % (json.dumps(one), version)).encode() + text + b"\n" for one, text in documents.items())
    assert client.bulk(name, body, list(documents)) == []


def refresh(client, name: str) -> None:
    client.ask("POST", f"/{name}/_refresh", answers.refreshed)


def all_of(client, name: str, *, shards: int = 1, at_once: int = 7) -> list[tuple[str, int, bytes]]:
    upto = [by_sequence.newest(client, name, shard) for shard in range(shards)]
    pages = (by_sequence.read(client, name, span, sources=True) for span in by_sequence.spans(upto, lambda: at_once))
    return [(one.id, one.version, bytes(one.source)) for page in pages for one in page]


@pytest.mark.parametrize("shards", [1, 3])
def test_every_document_is_read_once_with_its_version_and_the_bytes_that_were_sent(client, unique_name, shards):
    make(client, unique_name, shards=shards)
    texts = [
        b'{"n": 1.00,"b":[ ]}',
        '{"text":"žluťoučký\\n"}'.encode(),
        rb'{"half":"\ud800"}',
        b'{"parts":[{"a":1},{}]}',
    ]
    documents = {f"{n}": texts[n % len(texts)] for n in range(40)}
    write(client, unique_name, documents, 5)
    write(client, unique_name, {"3": b"{}"}, 6)  # its old place is empty now
    refresh(client, unique_name)
    wanted = [(one, 5, text) for one, text in {**documents, "3": b"{}"}.items()]
    wanted[3] = ("3", 6, b"{}")
    assert sorted(all_of(client, unique_name, shards=shards)) == sorted(wanted)


def test_what_was_written_again_comes_before_what_was_written_once(client, unique_name):
    make(client, unique_name)
    write(client, unique_name, {f"{n}": b"{}" for n in range(30)}, 5)
    write(client, unique_name, {"29": b"{}", "0": b"{}"}, 6)
    refresh(client, unique_name)
    assert {one for one, _, _ in all_of(client, unique_name, at_once=2)[:2]} == {"29", "0"}


def test_an_empty_index_has_no_ranges(client, unique_name):
    make(client, unique_name, shards=2)
    assert all_of(client, unique_name, shards=2) == []


def test_what_is_written_meanwhile_is_not_seen_as_it_never_was(client, unique_name):
    make(client, unique_name)
    write(client, unique_name, {f"{n}": b'{"old":1}' for n in range(20)}, 5)
    refresh(client, unique_name)
    spans = by_sequence.spans([by_sequence.newest(client, unique_name, 0)], lambda: 5)
    first = by_sequence.read(client, unique_name, next(spans), sources=True)
    write(client, unique_name, {"19": b'{"new":1}', "0": b'{"new":1}'}, 6)
    refresh(client, unique_name)
    others = itertools.chain.from_iterable(by_sequence.read(client, unique_name, one, sources=True) for one in spans)
    seen = [(one.id, bytes(one.source)) for one in [*first, *others]]
    assert sorted(seen) == sorted((f"{n}", b'{"old":1}') for n in range(1, 20))


def test_a_range_can_be_cut_until_it_is_one_number():
    assert Span(0, 4, 8).halves() == (Span(0, 7, 8), Span(0, 4, 6))
    assert Span(0, 4, 5).halves() == (Span(0, 5, 5), Span(0, 4, 4))
    assert Span(0, 4, 4).halves() is None


def test_shards_are_gone_through_side_by_side():
    spans = list(by_sequence.spans([99, None, 9], lambda: 5))
    assert [one for one in spans if one.shard == 2] == [Span(2, 5, 9), Span(2, 0, 4)]
    assert spans[spans.index(Span(2, 0, 4)) - 1] in {Span(0, 40, 44), Span(0, 35, 39)}  # half of either is behind them
    assert sum(one.last - one.first + 1 for one in spans) == 110


def test_more_documents_than_one_answer_may_have_are_refused(client, unique_name):
    make(client, unique_name, max_result_window=10)
    with pytest.raises(OpenSearchRefused) as refused:
        by_sequence.read(client, unique_name, Span(0, 0, 10), sources=True)
    assert refused.value.status == 400


def test_a_shard_that_is_not_there_is_no_answer(client, unique_name):
    make(client, unique_name)
    with pytest.raises((OpenSearchRefused, OpenSearchUnintelligible)):
        by_sequence.read(client, unique_name, Span(4, 0, 10), sources=True)
