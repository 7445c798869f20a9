"""Whatever answers in OpenSearch's place: nothing counts as indexed that is not, nobody is charged, nothing is called equal."""

# ruff: noqa: SIM117 - apart, it is plain which call is expected to fail

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import threading
from dataclasses import replace

import orjson
import pytest

from idxctl.config.settings import OpenSearchSettings
from idxctl.core.errors import IdxctlError, OpenSearchUnintelligible, OpenSearchUnreachable
from idxctl.opensearch import aliases, answer_parts, scan
from idxctl.opensearch.client import connect
from support.hostile import Hostile, response
from support.rig import Rig

pytestmark = pytest.mark.sampled


def items_of(body: bytes, change) -> bytes:
    """Return what a bulk would be answered if all went well, changed."""
    ids = re.findall(rb'^\{"index":\{"_id":"([^"]*)"', body, re.MULTILINE)
    items = [{"index": {"_id": one.decode(), "status": 200}} for one in ids]
    return response(orjson.dumps(change({"errors": False, "items": items})))


PAGE = b"<html><body>Sign in, s'il vous pla\xeet</body></html>"
WHOLE = {
    "an empty object": lambda _: response(b"{}"),
    "a status of something": lambda _: response(b'{"status":"ok"}'),
    "no items": lambda _: response(b'{"errors":false,"items":[]}'),
    "nothing": lambda _: response(b""),
    "null": lambda _: response(b"null"),
    "a list": lambda _: response(b"[]"),
    "a text": lambda _: response(b'"ok"'),
    "no JSON": lambda _: response(b"{"),
    "deep": lambda _: response(b"[" * 100_000),
    "NaN": lambda _: response(b'{"errors":NaN,"count":NaN}'),
    "acknowledged, and nothing else": lambda _: response(b'{"acknowledged":"yes"}'),
    "a page in Latin-1": lambda _: response(PAGE, headers="content-type: text/html; charset=iso-8859-1"),
    "204": lambda _: b"HTTP/1.1 204 No Content\r\n\r\n",
    "202": lambda _: response(b'{"errors":false}', status="202 Accepted"),
    "206": lambda _: response(b'{"errors":false}', status="206 Partial Content"),
    "302": lambda _: response(b"", status="302 Found", headers="location: http://127.0.0.1:1/login"),
    "502": lambda _: response(PAGE, status="502 Bad Gateway", headers="content-type: text/html"),
    "503": lambda _: response(b"", status="503 Service Unavailable"),
    "504": lambda _: response(b"upstream", status="504 Gateway Timeout", headers="content-type: text/plain"),
    "599": lambda _: response(b"", status="599 ?"),
    "a status of 999": lambda _: response(b"{}", status="999 ?"),
    "early hints for ever": lambda _: b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "cut short": lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{",
    "a chunk cut short": lambda _: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{",
    "a chunk of no size": lambda _: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{",
    "no HTTP": lambda _: b"SSH-2.0-OpenSSH_9.2\r\n",
    "headers without end": lambda _: b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200,
    "closed without a word": lambda _: b"",
    "larger than any": lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 3000000000\r\n\r\n{",
    "a gzip bomb": lambda _: response(gzip.compress(b" " * 300_000_000, 1), headers="content-encoding: gzip"),
}
BULKS = {
    "one item less": lambda body: items_of(body, lambda a: {**a, "items": a["items"][:-1]}),
    "one item more": lambda body: items_of(body, lambda a: {**a, "items": [*a["items"], a["items"][0]]}),
    "permuted": lambda body: items_of(body, lambda a: {**a, "items": a["items"][::-1]}),
    "other ids": lambda body: items_of(body, lambda a: {**a, "items": [{"index": {"_id": "x", "status": 200}} for _ in a["items"]]}),
    "errors unsaid": lambda body: items_of(body, lambda a: {"items": a["items"]}),
    "a status that there is not": lambda body: items_of(
        body, lambda a: {**a, "items": [{"index": {**one["index"], "status": 299, "error": "no"}} for one in a["items"]]}
    ),
}  # fmt: skip


def at(end: str, method: str = ""):
    """Choose requests by the end of their path."""
    return lambda asked, path: (not method or asked == method) and re.search(end, path) is not None


@pytest.fixture
def hostile(items: Rig):
    with Hostile(items.opensearch) as hostile, items.by_way_of(opensearch=hostile.url, request_timeout=5.0):
        yield hostile


@pytest.mark.parametrize("times", [1, 10_000], ids=["once", "always"])
def test_a_bulk_answered_by_anything_is_an_unknown_outcome(items: Rig, hostile, times):
    for what, answer in {**WHOLE, **BULKS}.items():
        if what == "permuted" and times > 1:
            continue  # of a single document that is the answer there should be, and only what was written tells
        items.sql("UPDATE items SET name = name || '!' WHERE id < 5")
        hostile.spoil(at("/_bulk$"), answer, times=times)
        hand = items.hand()
        hand.step()
        assert hostile.spoilt > 0, what
        # Answered so once, a body may be sent again at once, in halves: then it has been written, and may be counted.
        assert (hand.worker.counters.indexed, items.queued()) in ([(0, 4)] if times > 1 else [(0, 4), (4, 0)]), what
        assert items.queued() == 4 or items.differences() == [], what
        assert items.letters() == {}, what
        assert items.one("SELECT coalesce(max(attempts), 0) FROM opensearch_indexing_queue") == 0, what
        hostile.behave()
        items.sql("DELETE FROM opensearch_indexing_pauses")
        items.sql("UPDATE opensearch_indexing_queue SET available_at = clock_timestamp()")
        items.hand().steps()
        items.nothing_was_charged()


ASKED = {
    "the alias": at("/_alias/"),
    "the index": at(r"-00000\d$", "GET"),
    "making the index": at(r"-00000\d$", "PUT"),
    "a refresh": at("/_refresh$"),
    "documents": at("/_mget$"),
    "a count": at("/_count$"),
    "settings": at("/_settings$", "PUT"),
    "health": at("/_cluster/health"),
    "the swap": at("/_aliases$"),
    "a bulk": at("/_bulk$"),
}


@pytest.mark.parametrize("asked", ASKED)
def test_a_reindex_that_is_answered_by_anything_ends_equal_or_swaps_nothing(items: Rig, hostile, asked):
    for what in ("an empty object", "a list", "204", "502", "cut short"):  # of each kind one: a reindex takes its time
        answer = WHOLE[what]
        before = items.generation().name
        hostile.spoil(ASKED[asked], answer)
        try:
            items.reindex()
        except IdxctlError as error:
            assert error.message, what  # noqa: PT017 - some of them do not even disturb it
            hostile.behave()
            assert aliases.targets(items.client, items.index) == [before], what
        hostile.behave()
        assert items.letters() == {}, what
        assert items.differences() == [], what


def test_half_an_index_is_not_the_end_of_it(items: Rig, hostile):
    """A page without hits, one with half of the shards, one that ran out of time: each reads like the last page."""
    name = items.generation().name
    good = {"_scroll_id": "s", "timed_out": False, "_shards": {"total": 2, "successful": 2, "failed": 0}}
    half = {"total": 2, "successful": 1, "failed": 1}
    hits = {"total": {"value": 20, "relation": "eq"}}
    pages = {
        "no hits at all": good,
        "no hits of twenty": {**good, "hits": hits},
        "half of the shards": {**good, "_shards": half, "hits": hits},
        "a shard that says nothing": {**good, "_shards": {**half, "failed": 0}, "hits": hits},
        "out of time": {**good, "timed_out": True, "hits": hits},
        "about as many": {**good, "hits": {"total": {"value": 20, "relation": "gte"}}},
        "hits that are none": {**good, "hits": {**hits, "hits": {"_id": "1"}}},
        "a hit without an id": {**good, "hits": {**hits, "hits": [{}]}},
    }
    for what, page in pages.items():
        text = json.dumps(page).encode()
        hostile.spoil(at("/_search$"), lambda _, text=text: response(text))
        with pytest.raises(OpenSearchUnintelligible):
            list(scan.ids(items.client, name))
        assert hostile.spoilt == 1, what
    for what, answer in WHOLE.items():
        hostile.spoil(at("/_search(/scroll)?$", "POST"), answer, times=9)
        with pytest.raises(IdxctlError):
            list(scan.ids(items.client, name))
        assert hostile.spoilt, what


def test_a_scroll_that_turns_in_a_circle_ends_with_as_many_documents_as_there_are(items: Rig, hostile):
    name = items.generation().name
    page = {"_scroll_id": "s", "timed_out": False, "_shards": {"total": 2, "successful": 2, "failed": 0}}
    page["hits"] = {"total": {"value": 20, "relation": "eq"}, "hits": [{"_id": str(one)} for one in range(8)]}
    hostile.spoil(at("/_search(/scroll)?$", "POST"), lambda _: response(json.dumps(page).encode()), times=1000)
    with pytest.raises(OpenSearchUnintelligible, match="24 of 20"):
        list(scan.ids(items.client, name))
    assert hostile.spoilt == 3


def test_a_document_that_cannot_be_read_is_not_taken_for_missing(items: Rig, hostile):
    doc = {"_index": "x", "_id": "1", "error": {"type": "index_not_found_exception", "reason": "no such index"}}
    hostile.spoil(at("/_mget$"), lambda _: response(json.dumps({"docs": [doc]}).encode()))
    with pytest.raises(OpenSearchUnintelligible, match="index_not_found"):
        scan.sources_text(items.client, "x", [b'"1"']).read(["1"])


# --- time and size -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def dripping(begun: bytes, drop: bytes):
    """A server that sends a drop whenever the last one has gone out, and never ends; yields its address and an event of its end."""
    ended = threading.Event()
    stop = threading.Event()

    def drip(connection):
        with contextlib.suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(begun)
            while not stop.wait(0.01):
                connection.sendall(drop)
        ended.set()

    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=drip, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", ended
        finally:
            stop.set()
            server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("begun", "drop"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"[:1]),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    ],
    ids=["status", "header", "continue", "body", "chunks", "to the end"],
)
def test_an_answer_that_drips_ends_with_the_deadline(begun, drop):
    """Each drop comes in time for a timeout that begins with it: only an end to the whole exchange ends this."""
    with dripping(begun, drop) as (url, ended):
        with connect(OpenSearchSettings(urls=(url,), request_timeout_seconds=0.5)) as client:
            with pytest.raises(OpenSearchUnreachable) as caught:
                client.ask("POST", "/x/_bulk", answer_parts.parsed, body=b"{}\n")
        assert caught.value.slow
        assert ended.wait(10)


def test_a_server_that_does_not_listen_to_what_is_sent_ends_with_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with connect(OpenSearchSettings(urls=(url,), request_timeout_seconds=0.5)) as client:
            with pytest.raises(OpenSearchUnreachable) as caught:
                client.ask("POST", "/x/_bulk", answer_parts.parsed, body=b"x" * 50_000_000)
    assert caught.value.slow


def test_a_body_without_end_is_read_to_a_bound():
    with dripping(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536) as (url, ended):
        with connect(OpenSearchSettings(urls=(url,))) as client:
            with pytest.raises(OpenSearchUnintelligible, match="more than any answer"):
                client.ask("GET", "/", answer_parts.parsed, most_bytes=1_000_000)
        assert ended.wait(10)


@pytest.mark.parametrize("size", [b"-1", b"-5", b"-0x1"])
def test_a_chunk_of_no_size_is_no_leave_to_read_on_for_ever(size):
    begun = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + size + b"\r\n"
    with dripping(begun, b"x" * 65536) as (url, ended):
        with connect(OpenSearchSettings(urls=(url,), request_timeout_seconds=5)) as client:
            with pytest.raises(OpenSearchUnreachable) as caught:
                client.ask("GET", "/", answer_parts.parsed, most_bytes=1000)
        assert not caught.value.slow
        assert ended.wait(10)


def test_nothing_is_asked_to_be_compressed_unless_requests_are(items: Rig):
    seen = []
    with Hostile(items.opensearch) as server:
        server.spoil(lambda *_: True, lambda _: response(b"{}"))
        server._serve = lambda handler, serve=server._serve: (
            seen.append(handler.headers.get("accept-encoding")),
            serve(handler),
        )
        for compress in (False, True):
            with connect(OpenSearchSettings(urls=(server.url,), compress=compress)) as client:
                client.ask("GET", "/", answer_parts.parsed)
    assert seen == [None, "gzip"]


# --- several hosts -----------------------------------------------------------------------------------------------------

DEAD, NAMELESS = "http://127.0.0.1:1", "http://nohost.invalid:9200"


@pytest.mark.parametrize("urls", ["{0},{1}", "{1},{0}", "{1},{2}", "{2},{1}", "{0},{2},{1}"])
def test_reindex_and_retry_work_whichever_hosts_are_dead(items: Rig, idxctl, urls):
    idxctl.use(database=items.database, opensearch=urls.format(DEAD, items.opensearch, NAMELESS), config=items.config)
    for _ in range(3):
        done = idxctl("reindex", "--yes")
        assert done.status == 0, done.stderr
        items.sql("INSERT INTO opensearch_indexing_dlq (index_name, document_id, action, error_type) VALUES (%s, '5', 'index', 'x')", items.index)  # fmt: skip
        done = idxctl("dlq", "retry", "--limit", "100")
        assert done.status == 0, done.stderr
    items.nothing_was_charged()


def test_a_write_whose_answer_is_lost_is_not_sent_to_another_host(items: Rig):
    with Hostile(items.opensearch) as one, Hostile(items.opensearch) as two:
        for server in (one, two):
            server.spoil(at("/_bulk$"), lambda _: b"", times=9)
        with connect(OpenSearchSettings(urls=(one.url, two.url))) as client:
            with pytest.raises(OpenSearchUnreachable):
                client.bulk("x", b'{"delete":{"_id":"1"}}\n', ["1"], deleted={"1"})
        assert one.spoilt + two.spoilt == 1


def test_a_read_whose_answer_is_lost_is_repeated_on_another_host(items: Rig):
    with Hostile(items.opensearch) as one, Hostile(items.opensearch) as two:
        one.spoil(lambda *_: True, lambda _: b"", times=9)
        settings = replace(items.settings.opensearch, urls=(one.url, two.url))
        with connect(settings) as client:
            assert [scan.count(client, items.index) for _ in range(6)] == [20] * 6
        assert one.spoilt == 1
