"""
What came is no answer of OpenSearch's: its words, for people.

Gateways, firewalls and login pages answer in any encoding, declared or not, and packed or not whatever was asked for. What
cannot be read is said to be so: nobody at a terminal wants a kilobyte of what looks like an attack.
"""

from __future__ import annotations

import codecs
import html
import re
import zlib

from idxctl.opensearch import answer_parts
from idxctl.opensearch.exchange import Response

_READ = 8_000  # bytes of a page; a stylesheet may fill many more
_SHOWN = 200  # characters of its words
_BRIEF = 60
_NOT_SHOWN = re.compile(r"<(style|script)\b.*?(</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"<!--.*?(?:-->|\Z)|<[^<>]{0,1000}>|\s+", re.DOTALL)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PACKED = (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")  # gzip, and zlib at each of its levels
_MARKUP_BEGINS = 12  # bytes, all of ASCII
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd]")
_MOST_NO_TEXT = 0.05  # of the characters: a page in an encoding that it does not name is not worth guessing at


def words(response: Response) -> str:
    """Return the first words of a page, without its markup; "" where it has none or holds no text."""
    text = _text(response)
    if text is None:
        return ""
    shown = html.unescape(_MARKUP.sub(" ", _NOT_SHOWN.sub(" ", text)))
    return answer_parts.plain(" ".join(shown.split()), _SHOWN)[:_SHOWN]  # what is escaped grows


def came(response: Response) -> str:
    """Say in a few words what came: "502 text/html: Bad Gateway"."""
    kind = answer_parts.plain(response.content_type.partition(";")[0].strip(), 40)
    begun = f"{response.status}{' ' if kind else ''}{kind}"
    if not response.body:
        return f"{begun}, empty"
    if _text(response) is None:
        return f"{begun}: {len(response.body):,} bytes that are no text"
    said = words(response)
    return f"{begun}: {answer_parts.plain(said, _BRIEF)}" if said else f"{begun}, without words"


def _text(response: Response) -> str | None:
    """Return the beginning of a page as text, whatever it is written in; None where it is none."""
    packed = response.body.startswith(_PACKED)
    begun = _unpacked(response.body) if packed else response.body[:_READ]
    text = _decoded(begun, response.content_type).rstrip("\ufffd")  # its last character may be cut
    return None if len(_NO_TEXT.findall(text)) > _MOST_NO_TEXT * len(text) else text


def _unpacked(body: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=47).decompress(body, _READ)  # 32 + 15: either format
    except zlib.error:
        return body[:_READ]


def _decoded(begun: bytes, content_type: str) -> str:
    for mark, encoding in _MARKS:
        if begun.startswith(mark):
            return begun.decode(encoding, "replace")
    for at, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):  # what markup looks like in these, where no mark says so
        if len(begun) > 1 and not begun[at:_MARKUP_BEGINS:2].strip(b"\0"):
            return begun.decode(encoding, "replace")
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(begun, final=len(begun) < _READ)
    except UnicodeDecodeError:
        pass
    declared = _CHARSET.search(content_type) or _CHARSET.search(begun[:1024].decode("ascii", "replace"))
    try:
        return begun.decode(declared[1] if declared else "latin-1", "replace")
    except (LookupError, ValueError):  # no encoding of that name, or none of texts
        return begun.decode("latin-1")
