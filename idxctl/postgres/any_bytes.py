"""
Texts that are no UTF-8: a database without an encoding (SQL_ASCII) takes any bytes, and hands them out as they are.

Nobody can say which characters they are, but they must come back as they were, or a task would not find its row again. So a
byte that is no UTF-8 is half of a surrogate pair in our strings, as in names of files (PEP 383). To a client that says UTF8
the server refuses to send such a text at all, and one of them would end every claim: so we say LATIN1, in which all bytes are
characters, and which is converted from and to nothing here. The driver believes it; texts and queries are ours to read and write.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg
from psycopg import sql
from psycopg.adapt import Buffer, Loader
from psycopg.pq import Format
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg.types.string import StrDumperUnknown

_AS_THEY_ARE = "surrogateescape"
_TEXTS = (0, "bpchar", "name", "text", "varchar", '"char"')


def passed_by(raw: psycopg.Connection[Any]) -> None:
    """Have a connection to a database without an encoding read and write any bytes."""
    raw.execute(b"SET client_encoding = 'LATIN1'")  # poolers keep it, as one of what a client may set
    for kind in _TEXTS:
        raw.adapters.register_loader(kind, _Text)
    raw.adapters.register_dumper(str, _Str)
    set_json_loads(_read, raw)
    set_json_dumps(_written, raw)


def is_passed_by(raw: psycopg.Connection[Any]) -> bool:
    """Whether `passed_by` was called for a connection, one of ours; callers' own have the encoding that they say."""
    return raw.adapters.get_loader(raw.adapters.types["text"].oid, Format.TEXT) is _Text


def is_of(raw: psycopg.Connection[Any]) -> bool:
    """Whether a connection's database takes any bytes."""
    return raw.info.parameter_status("server_encoding") == "SQL_ASCII"


def name(text: str) -> str:
    """Return the name of a result's column, which the driver has read as LATIN1."""
    return text.encode("iso8859-1").decode("utf-8", _AS_THEY_ARE)


def query(text: Any, raw: psycopg.Connection[Any]) -> bytes:
    """Return a query as the bytes that are sent."""
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode("utf-8", _AS_THEY_ARE)
    if isinstance(text, sql.Composed):
        return b"".join(query(part, raw) for part in text)
    composed: bytes = text.as_bytes(raw if isinstance(text, sql.Literal) else None)
    return composed


def _read(data: str | bytes) -> Any:
    return json.loads(data if isinstance(data, str) else bytes(data).decode("utf-8", _AS_THEY_ARE))


def _written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", _AS_THEY_ARE)


class _Text(Loader):
    def load(self, data: Buffer) -> str:
        return bytes(data).decode("utf-8", _AS_THEY_ARE)


class _Str(StrDumperUnknown):
    def dump(self, obj: str) -> Buffer | None:
        if "\0" in obj:
            return super().dump(obj)  # which refuses it
        return obj.encode("utf-8", _AS_THEY_ARE)
