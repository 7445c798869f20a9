"""Pages that are no answers of OpenSearch's are read to their first words, and never further."""

from __future__ import annotations

import gzip
import os

import pytest

from idxctl.opensearch import pages
from idxctl.opensearch.exchange import Response


def page(body: bytes, kind: str = "text/html") -> Response:
    return Response(502, kind, body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html><style>" + b"x" * 5_000 + b"</style><b>Blocked</b>\0 by <i>us</i>", "Blocked \\u0000 by us"),
        (b"<script>if (1 < 2) alert()</script>Rejected<!-- a <b> that is none -->", "Rejected"),
        (b"<p>no end of a style <style>p {", "no end of a style"),
        (b"a &lt;b&gt; &amp; &#233;", "a <b> & \xe9"),
        (b"\xff\xfe", ""),
        (b"", ""),
        (b"<html>", ""),
        (b"\x1f\x8b", ""),
        (gzip.compress(b"packed", mtime=0)[:-8], "packed"),
        (b"x", "x"),
        (b"\xe9", "\xe9"),
    ],
)
def test_the_words_of_a_page_are_read(body, words):
    assert pages.words(page(body)) == words


def test_what_came_is_short_and_says_what_it_is_not():
    assert pages.came(page(b"", "")) == "502, empty"
    assert pages.came(page(b"<p>")) == "502 text/html, without words"
    assert pages.came(page(os.urandom(1_000), "image/png")) == "502 image/png: 1,000 bytes that are no text"
    assert len(pages.came(page(b"w " * 100_000, "k" * 1_000))) < 150


def test_any_bytes_are_read():
    for size in (1, 2, 3, 4, 5, 12, 50, 9_000):
        for _ in range(200):
            body = os.urandom(size)
            for kind in ("", "text/html; charset=utf-16", "text/html; charset=idna", "text/html; charset=\0"):
                assert isinstance(pages.words(page(body, kind)), str)
                assert len(pages.words(page(body, kind))) <= 200
                pages.came(page(body, kind)).encode()
