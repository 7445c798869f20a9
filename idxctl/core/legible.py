"""Text of others, such as ids, names and errors, made fit to be shown: it forges no line, no colour, no order of reading."""

from __future__ import annotations

import re

# C0 and C1; soft hyphen; marks, embeddings, overrides and isolates of direction; line and paragraph separators; what has no
# width and joins nothing; annotations; tags; halves of surrogate pairs. Zero-width joiners stay: scripts and emoji need them.
_BEYOND_ASCII = "\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
_WIDE = "\U000e0000-\U000e007f\ud800-\udfff"
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f{_BEYOND_ASCII}{_WIDE}]")
_BREAKING = re.compile(f"[\x00-\x1f{_BEYOND_ASCII}{_WIDE}]")
_IN_JSON = re.compile(f"[{_BEYOND_ASCII}{_WIDE}]")
# The same in UTF-8, to see at the speed of a memory scan that there is nothing to do.
_IN_JSON_BYTES = re.compile(
    rb"[\x7f]|\xc2[\x80-\x9f\xad]|\xd8\x9c|\xe1\xa0\x8e|\xe2\x80[\x8b\x8e\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf"
    rb"|\xef\xbf[\xb9-\xbb]|\xf3\xa0[\x80\x81]|\xed[\xa0-\xbf]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(text: str) -> str:
    """Return *text* with what steers a terminal or a reader escaped; line ends and tabs stay."""
    return _CONTROL.sub(_spelt, text)


def line(text: str) -> str:
    """Return *text* as one line: line ends and tabs are escaped too."""
    return _BREAKING.sub(_spelt, text)


def in_json(document: bytes) -> bytes:
    """Return a JSON document that means the same, with no character in it that steers a terminal or ends a line for some."""
    if _IN_JSON_BYTES.search(document) is None:
        return document
    return _IN_JSON.sub(_as_json, document.decode("utf-8", "surrogatepass")).encode()


def _spelt(found: re.Match[str]) -> str:
    character = found.group()
    if character in _SHORT:
        return _SHORT[character]
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _as_json(found: re.Match[str]) -> str:
    units = found.group().encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
