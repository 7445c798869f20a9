"""
Documents as bytes, rendered by Postgres and passed through untouched.

Postgres writes the lines of a bulk body itself: an action line with the id and the token, then the document's text. They
come by COPY in binary, dozens of documents a message once their size is known to be small, so that Python's share is a
microsecond or two a document.

Every read runs in a transaction of its own, READ COMMITTED, with the settings stored in the definition (G1) and
``row_security = off``, so that a policy is an error and not "no row: delete" (C5).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import orjson
from psycopg import sql

from idxctl.core import keys
from idxctl.core.errors import PostgresRefused
from idxctl.indexes import document_sql, reading
from idxctl.indexes.definitions import Definition
from idxctl.indexes.ids import existing, possible_ids
from idxctl.indexes.key_sql import wanted
from idxctl.indexes.sizes import Sizes
from idxctl.postgres.connect import Connection
from idxctl.postgres.translated import translated

_COPY_HEADER = b"PGCOPY\n\xff\r\n\x00"
_HEADER_SIZE = 19
_TRAILER = b"\xff\xff"


@dataclass(frozen=True)
class Lines:
    """
    Some documents as text: with a token the lines of a bulk body, without one a line a document.

    ``routings`` are JSON, one a document, where the index routes and there is no token.
    """

    ids: list[str]
    text: bytes
    routings: list[bytes] = field(default_factory=list)


@dataclass
class Read:
    """What a read of some ids found. ``rest``: ids not yet read, since the bytes asked for were reached."""

    found: list[Lines] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)  # of the documents found
    doubled: set[str] = field(default_factory=set)  # ... more than once
    failures: dict[str, PostgresRefused] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)
    unfit: dict[str, str] = field(
        default_factory=dict
    )  # ids with a row, which OpenSearch takes no document of, and why
    impossible: set[str] = field(default_factory=set)  # ... without one: nothing has to be written or deleted
    size: int = 0
    slow: int = 0  # documents that were asked for at once, and were too many for the time that a statement has


def by_ids(
    conn: Connection, definition: Definition, ids: Sequence[str], *, token: int | None, max_bytes: int, sizes: Sizes
) -> Read:
    """
    Read the documents of *ids* as they are now; an id without a row is in none of the result's parts.

    A document whose own values make the query fail is found by halving and returned in ``failures`` with its error; an
    error that is not one document's raises. Where the time was too short for all, ``rest`` has those that were not read, and
    ``slow`` is not 0; a document that alone takes too long is in ``failures``, unless it was a lock that was waited for. An id that cannot be one of this key has no row. About *max_bytes* are held at
    the most, and one document.
    """
    at_once = sizes.at_once(definition, max_bytes)
    now = list(ids[:at_once])
    unfit = {one: why for one in now if (why := keys.unfit(one)) is not None}
    fit = [one for one in now if one not in unfit] if unfit else now
    read = _read_in_time(conn, definition, fit, token, max_bytes, sizes) if fit else Read()
    if unfit:
        there = set(existing(conn, definition, list(unfit)))
        read.unfit.update((one, why) for one, why in unfit.items() if one in there)
        read.impossible.update(unfit.keys() - there)
    read.rest.extend(ids[at_once:])
    sizes.note(definition, len(read.ids), read.size)
    return read


def _read_in_time(
    conn: Connection, definition: Definition, ids: list[str], token: int | None, max_bytes: int, sizes: Sizes
) -> Read:
    """Read *ids*, fewer of them where all would take too long."""
    slow = 0
    while True:
        asked = ids[: sizes.at_once(definition, max_bytes)] if slow else ids
        began = time.monotonic()
        try:
            read = _read_halving(conn, definition, asked, token, max_bytes, sizes)
        except PostgresRefused as error:
            if not reading.is_too_slow(error):
                raise
            sizes.too_slow(definition, len(asked))
            slow = slow or len(asked)
            if len(asked) == 1:
                return Read(failures={asked[0]: error}, rest=ids[1:], slow=slow)
            if token is not None:
                return Read(rest=ids, slow=slow)  # what was read before it grows old meanwhile (T3)
            continue
        took, limit = time.monotonic() - began, conn.read_limit_ms / 1000
        sizes.in_time(definition, len(asked), seconds=took, limit=limit)
        read.rest.extend(ids[len(asked) :])
        read.slow = slow
        return read


def _read_halving(
    conn: Connection,
    definition: Definition,
    ids: list[str],
    token: int | None,
    max_bytes: int,
    sizes: Sizes,
    *,
    sifted: bool = False,
) -> Read:
    """Read *ids*; where that fails those that cannot be ids are sifted out, once, and what still fails is halved."""
    try:
        return _read(conn, definition, ids, token, max_bytes, sizes.group(definition))
    except PostgresRefused as error:
        if not reading.is_of_values(error):
            raise
        if not sifted and len(possible := possible_ids(conn, definition, ids)) < len(ids):
            if not possible:
                return Read()
            return _read_halving(conn, definition, possible, token, max_bytes, sizes, sifted=True)
        if len(ids) == 1:
            return Read(failures={ids[0]: error})
    middle = len(ids) // 2
    first = _read_halving(conn, definition, ids[:middle], token, max_bytes, sizes, sifted=True)
    if first.rest or first.size >= max_bytes:
        first.rest.extend(ids[middle:])
        return first
    second = _read_halving(conn, definition, ids[middle:], token, max_bytes, sizes, sifted=True)
    return Read(
        [*first.found, *second.found],
        first.ids | second.ids,
        first.doubled | second.doubled | (first.ids & second.ids),
        {**first.failures, **second.failures},
        second.rest,
        size=first.size + second.size,
    )


def _read(
    conn: Connection, definition: Definition, ids: list[str], token: int | None, max_bytes: int, group: int
) -> Read:
    """Read *ids* in one statement; over *max_bytes*, those not seen become ``rest``."""
    read = Read()
    condition = wanted(definition, ids)
    with contextlib.closing(stream(conn, definition, condition, token=token, group=group)) as messages:
        for lines in messages:
            read.doubled.update(_repeated(lines.ids, read.ids))
            read.ids.update(lines.ids)
            read.found.append(lines)
            read.size += len(lines.text)
            if read.size >= max_bytes and len(read.ids) < len(ids):
                read.rest.extend(one for one in ids if one not in read.ids)
                return read
    return read


def _repeated(ids: Sequence[str], seen: set[str]) -> set[str]:
    """Return those of *ids* that are in *seen* or stand there twice."""
    distinct = set(ids)
    repeated = distinct & seen
    if len(distinct) != len(ids):
        repeated |= {one for one in distinct if ids.count(one) > 1}
    return repeated


def stream(
    conn: Connection, definition: Definition, condition: sql.Composable, *, token: int | None = None, group: int = 1
) -> Generator[Lines, None, None]:
    """
    Yield the documents for which *condition* holds, in no order; each is read by one READ COMMITTED statement.

    With a *group*, large ones are left out of it and come after the others, one a message: a few of them are all that is
    held at once, here and in the server. The transaction is open while the caller iterates: take what is needed and be done.
    """
    large: list[str] = []
    yield from _copied(conn, definition, condition, token, group, large)
    if large:
        yield from _copied(conn, definition, wanted(definition, large), token, 1, large)


def _copied(
    conn: Connection, definition: Definition, condition: sql.Composable, token: int | None, group: int, large: list[str]
) -> Generator[Lines, None, None]:
    """Yield documents, *group* of them a message, and add the ids of those too large for that to *large*."""
    query = sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(
        document_sql.grouped(document_sql.lines(definition, condition, token), group)
    )
    paired = token is None and definition.routing is not None
    checked = conn.encoding == "SQL_ASCII"
    # jit: compiling takes longer than a page of documents does.
    local = {**reading.settings(conn, definition), "jit": "off"}
    with (
        conn.transaction(local=local, read_only=True),
        translated("read documents"),
        conn.raw.cursor() as cursor,
        cursor.copy(conn.query(query)) as copy,
    ):
        for message in copy:
            names, text, left_out = _fields(message)
            if checked:
                _check(names, text, left_out)
            if left_out:
                named = orjson.loads(left_out)
                large.extend([name for name, _ in named] if paired else named)
            if names is None or text is None:  # NULL: the query says there is no such document
                continue
            if paired:
                pairs = orjson.loads(names)
                yield Lines([name for name, _ in pairs], text, [orjson.dumps(way) for _, way in pairs])
            else:
                yield Lines(orjson.loads(names), text)


def _check(*fields: bytes | None) -> None:
    """Raise where a row's values are no UTF-8, which a database without an encoding lets through."""
    for field_ in fields:
        if field_ is not None:
            field_.decode()


def _fields(message: bytes | bytearray | memoryview) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Return the three fields of a row of binary COPY; all None for its header and its end."""
    row = memoryview(message)
    if row[: len(_COPY_HEADER)] == _COPY_HEADER:
        row = row[_HEADER_SIZE:]
    if not row or row == _TRAILER:
        return None, None, None
    fields: list[bytes | None] = []
    at = 2
    for _ in range(3):
        size = int.from_bytes(row[at : at + 4], "big", signed=True)
        at += 4
        fields.append(None if size < 0 else bytes(row[at : at + size]))
        at += max(size, 0)
    names, text, large = fields
    return names, text, large
