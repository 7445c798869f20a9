"""
Texts from outside as a database can hold them: what OpenSearch quotes, what a host is called, what an error says.

PostgreSQL takes no NUL, no half of a surrogate pair, and no character that the database's own encoding lacks. A sentence is
for people: such a character is written as its escape, and a sentence without end is cut. Ids are never changed like this:
they come from the database, and would not find their row again.
"""

from __future__ import annotations

from typing import Any

LONGEST = 4000  # characters of a sentence that is kept; OpenSearch quotes whole documents in some

# Encodings of one byte a character, where Python's table is PostgreSQL's; of the others (EUC and the like) ASCII alone is sure.
_CODECS = {
    "UTF8": "utf-8", "SQL_ASCII": "utf-8",  # which takes any bytes, and gets those of UTF-8
    "LATIN1": "iso8859-1", "LATIN2": "iso8859-2", "LATIN3": "iso8859-3", "LATIN4": "iso8859-4", "LATIN5": "iso8859-9",
    "LATIN6": "iso8859-10", "LATIN7": "iso8859-13", "LATIN8": "iso8859-14", "LATIN9": "iso8859-15", "LATIN10": "iso8859-16",
    "ISO_8859_5": "iso8859-5", "ISO_8859_6": "iso8859-6", "ISO_8859_7": "iso8859-7", "ISO_8859_8": "iso8859-8",
    "KOI8R": "koi8-r", "KOI8U": "koi8-u", "WIN866": "cp866", "WIN874": "cp874", "WIN1250": "cp1250", "WIN1251": "cp1251",
    "WIN1252": "cp1252", "WIN1253": "cp1253", "WIN1254": "cp1254", "WIN1255": "cp1255", "WIN1256": "cp1256",
    "WIN1257": "cp1257", "WIN1258": "cp1258",
}  # fmt: skip


def storable(text: str, encoding: str | None, *, longest: int = LONGEST) -> str:
    """Return *text* as a database of that *encoding*, by PostgreSQL's name, can hold it; of a long one the beginning."""
    codec = _CODECS.get(encoding or "", "ascii")
    if len(text) > longest:
        text = f"{text[:longest]}... ({len(text) - longest:,} characters more)"
    text = text.replace("\0", "\\u0000")
    return text.encode(codec, "backslashreplace").decode(codec)


def unknown_to(text: str, encoding: str | None) -> bool:
    """Whether a database of that encoding has no such text, for sure: a character is none of its own, or none at all."""
    codec = _CODECS.get(encoding or "")
    if codec is None:
        return "\0" in text
    bytes_ = "surrogateescape" if encoding == "SQL_ASCII" else "strict"  # which has them as they are
    try:
        return b"\0" in text.encode(codec, bytes_)
    except UnicodeEncodeError:
        return True


def all_storable(value: Any, encoding: str | None) -> Any:
    """Return *value*, anything that JSON can hold, with every text in it storable."""
    if isinstance(value, str):
        return storable(value, encoding)
    if isinstance(value, dict):
        return {storable(str(name), encoding): all_storable(one, encoding) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [all_storable(one, encoding) for one in value]
    return value
