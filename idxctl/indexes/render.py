"""
Documents as bytes, rendered by Postgres and passed through untouched.

Postgres writes the lines of a bulk body itself: an action line with the id and the token, then the document's text. They
come by COPY in binary, dozens of documents a message once their size is known to be small, so that Python's share is a
microsecond or two a document.

Every read runs in a transaction of its own, READ COMMITTED, with the settings stored in the definition (G1) and
``row_security = off``, so that a policy is an error and not "no row: delete" (C5).

The definition's search path is the application's, for its document query and routing alone. All that we put around them is
in the same statement, and so names pg_catalog for every function, operator and type: see `idxctl.postgres.connect`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import orjson
from psycopg import sql

from idxctl.core import keys, texts
from idxctl.core.errors import PostgresRefused
from idxctl.indexes.definitions import Definition, key_columns, rows_of
from idxctl.postgres.connect import Connection, translated

_COPY_HEADER = b"PGCOPY\n\xff\r\n\x00"
_HEADER_SIZE = 19
_TRAILER = b"\xff\xff"
# SQLSTATE classes that one row's values can cause; everything else is the query's or the server's.
_VALUE_CLASSES = ("22", "21", "54", "P0")
_GROUP = 64  # documents a message, where they are small ...
_SMALL_BYTES = 32 * 1024  # ... on average
_LARGE_BYTES = 256 * 1024  # a document of more is a message of its own in any case
_ASKS_WITHOUT_ERROR = 160000  # the release from which a value can be tried without an error
_AND = sql.SQL("OPERATOR(pg_catalog.||)")
_ENDED = "57014"
_FEWER = 8  # times, after a read that took too long: it has taken that time from the batch
_MANY = 4096
_UNKNOWN = 100  # documents in a first read, when nothing is known of their size


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


class Sizes:
    """How large documents are on average, by shape; what is read at once, and how, depends on it. Thread-safe."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}
        self._in_time: dict[str, int] = {}  # documents at once, of those that were too slow for more
        self._lock = threading.Lock()

    def note(self, definition: Definition, documents: int, size: int) -> None:
        """Take *documents* of *size* bytes in all into account; old ones count less and less."""
        if not documents:
            return
        with self._lock:
            before, bytes_before = self._seen.get(definition.render_fingerprint, (0, 0))
            if before > 100_000:
                before, bytes_before = before // 2, bytes_before // 2
            self._seen[definition.render_fingerprint] = (before + documents, bytes_before + size)

    def average(self, definition: Definition) -> float | None:
        """Return the average size of a document in bytes, if any was seen."""
        documents, size = self._seen.get(definition.render_fingerprint, (0, 0))
        return size / documents if documents else None

    def group(self, definition: Definition) -> int:
        """Return how many documents a message may carry: one while they may be large."""
        average = self.average(definition)
        return _GROUP if average is not None and average <= _SMALL_BYTES else 1

    def at_once(self, definition: Definition, max_bytes: int) -> int:
        """Return how many documents to read so that they come to about *max_bytes*, and are read in time."""
        average = self.average(definition)
        most = _UNKNOWN if average is None else max(int(max_bytes / max(average, 1.0)), 1)
        return min(most, self.most_in_time(definition) or most)

    def most_in_time(self, definition: Definition) -> int | None:
        """Return how many at once are read in time, where more were not."""
        return self._in_time.get(definition.render_fingerprint)

    def too_slow(self, definition: Definition, documents: int) -> None:
        """*documents* at once took too long."""
        with self._lock:
            self._in_time[definition.render_fingerprint] = max(documents // _FEWER, 1)

    def in_time(self, definition: Definition, documents: int) -> None:
        """*documents* at once took a small part of the time."""
        shape = definition.render_fingerprint
        with self._lock:
            if documents >= self._in_time.get(shape, documents + 1):
                self._in_time[shape] = 2 * documents
                if self._in_time[shape] > _MANY:
                    del self._in_time[shape]


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
            if not is_too_slow(error):
                raise
            sizes.too_slow(definition, len(asked))
            slow = slow or len(asked)
            if len(asked) == 1:
                return Read(failures={asked[0]: error}, rest=ids[1:], slow=slow)
            if token is not None:
                return Read(rest=ids, slow=slow)  # what was read before it grows old meanwhile (T3)
            continue
        if time.monotonic() - began < conn.read_limit_ms / 1000 / _FEWER:
            sizes.in_time(definition, len(asked))
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
        if not is_of_values(error):
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


def possible_ids(conn: Connection, definition: Definition, ids: Sequence[str]) -> list[str]:
    """
    Return those of *ids* that may be ids of this key, by its types: a text that is no number is none of a bigint.

    One statement, however many are none. Before PostgreSQL 16 there is no asking without an error, and some pass that are not.
    """
    known = [one for one in ids if not texts.unknown_to(one, conn.encoding)]
    width = len(definition.key)
    parts = {one: keys.key_parts(one, width) for one in known if width == 1 or one.count(":") == width - 1}
    if conn.raw.info.server_version < _ASKS_WITHOUT_ERROR:
        enums = _labels(conn, definition)
        return [
            one for one, values in parts.items()
            if all(value in enums[of] if of in enums else keys.fits(value, of)
                   for value, of in zip(values, definition.key_types, strict=True))
        ]  # fmt: skip
    if not parts:
        return []
    columns = [sql.Identifier(f"c{place}") for place in range(width)]
    query = sql.SQL("SELECT i.n FROM ROWS FROM ({arrays}) WITH ORDINALITY AS i ({names}, n) WHERE {valid}").format(
        arrays=sql.SQL(", ").join(
            sql.SQL("pg_catalog.unnest({}::pg_catalog.text[])").format(
                sql.Literal([values[place] for values in parts.values()])
            )
            for place in range(width)
        ),
        names=sql.SQL(", ").join(columns),
        valid=sql.SQL(" AND ").join(
            sql.SQL("pg_catalog.pg_input_is_valid(i.{}, {})").format(column, sql.Literal(of))
            for column, of in zip(columns, definition.key_types, strict=True)
        ),
    )
    with conn.transaction(local=definition.in_force, read_only=True):
        valid = {row[0] for row in conn.execute(query)}
    return [one for place, one in enumerate(parts, start=1) if place in valid]


def _labels(conn: Connection, definition: Definition) -> dict[str, set[str]]:
    """Return the labels of the enums among the key's types."""
    query = sql.SQL(
        "SELECT e.enumlabel::pg_catalog.text FROM pg_catalog.pg_enum e WHERE e.enumtypid OPERATOR(pg_catalog.=) {}::pg_catalog.regtype"
    )
    plain = keys.PLAIN_TYPES
    with conn.transaction(local=definition.in_force, read_only=True):
        return {
            of: {row[0] for row in conn.execute(query.format(sql.Literal(of)))}
            for of in set(definition.key_types) if of not in plain
        }  # fmt: skip


def is_of_values(error: PostgresRefused) -> bool:
    """Whether one row's values can be the cause, and not the query or the server."""
    return error.sqlstate.startswith(_VALUE_CLASSES)


def is_too_slow(error: PostgresRefused) -> bool:
    """Whether a statement was ended for the time it took: fewer documents at once may do."""
    return error.sqlstate == _ENDED


def reading(conn: Connection, definition: Definition) -> dict[str, str | None]:
    """
    Return the settings that documents are read under.

    The limit is ours, whatever the role's. A lock that is waited for says nothing about the documents, so that wait has an
    end of its own before it.
    """
    limit = conn.read_limit_ms
    ours = {"row_security": "off", "statement_timeout": f"{limit}ms", "lock_timeout": f"{max(limit // 2, 1)}ms"}
    return {**definition.in_force, **ours}


def _read(
    conn: Connection, definition: Definition, ids: list[str], token: int | None, max_bytes: int, group: int
) -> Read:
    """Read *ids* in one statement; over *max_bytes*, those not seen become ``rest``."""
    read = Read()
    condition = _wanted(definition, ids)
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
        yield from _copied(conn, definition, _wanted(definition, large), token, 1, large)


def _copied(
    conn: Connection, definition: Definition, condition: sql.Composable, token: int | None, group: int, large: list[str]
) -> Generator[Lines, None, None]:
    """Yield documents, *group* of them a message, and add the ids of those too large for that to *large*."""
    query = sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(_grouped(_lines(definition, condition, token), group))
    paired = token is None and definition.routing is not None
    checked = conn.encoding == "SQL_ASCII"
    # jit: compiling takes longer than a page of documents does.
    local = {**reading(conn, definition), "jit": "off"}
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


def _lines(definition: Definition, condition: sql.Composable, token: int | None) -> sql.Composed:
    """Return the query for two columns: the id as a JSON string, and the document's lines."""
    ident = id_text(definition)
    body: sql.Composable = sql.SQL("d.document::pg_catalog.text")
    if definition.document_type == "json":  # may hold raw line breaks between tokens; inside strings they are escaped
        body = sql.SQL("pg_catalog.translate(d.document::pg_catalog.text, E'\\n\\r', '  ')")
    name: sql.Composable = sql.SQL("pg_catalog.to_json({})").format(ident)
    routing = _routing_over(definition, ident) if definition.routing is not None else None
    if token is None and routing is not None:
        name = sql.SQL("pg_catalog.json_build_array({}, ({})::pg_catalog.text)").format(ident, routing)
    if token is not None:
        route: sql.Composable = sql.SQL("''")
        if routing is not None:
            route = sql.SQL(
                "coalesce(',\"routing\":' OPERATOR(pg_catalog.||) "
                "pg_catalog.to_json(({})::pg_catalog.text)::pg_catalog.text, '')"
            ).format(routing)
        # external_gte and not external: the same token may reach a document twice, after an unknown outcome.
        body = sql.SQL(
            """'{{"index":{{"_id":' {and_} pg_catalog.to_json({ident})::pg_catalog.text """
            """{and_} {version} {and_} {routing} {and_} E'}}}}\\n' {and_} {body}"""
        ).format(
            and_=_AND,
            ident=ident,
            version=sql.Literal(f',"version":{token},"version_type":"external_gte"'),
            routing=route,
            body=body,
        )
    return sql.SQL(
        "SELECT {name}::pg_catalog.text AS k, {body} {and_} E'\\n' AS t FROM {rows} WHERE {condition}"
    ).format(name=name, body=body, and_=_AND, rows=rows_of(definition), condition=condition)


def _grouped(lines: sql.Composed, group: int) -> sql.Composed:
    """
    Return *lines* with *group* rows in one, and in a third column the names of those too large for that.

    The window keeps the planner from rendering a document twice, once to test it for NULL.
    """
    if group == 1:
        return sql.SQL("SELECT '[' {and_} k {and_} ']', t, NULL::pg_catalog.text FROM ({lines}) AS l").format(
            and_=_AND, lines=lines
        )
    return sql.SQL(
        "SELECT '[' {and_} pg_catalog.string_agg(k, ',') FILTER (WHERE n.small) {and_} ']', "
        "pg_catalog.string_agg(t, '') FILTER (WHERE n.small), "
        "'[' {and_} pg_catalog.string_agg(k, ',') FILTER (WHERE NOT n.small) {and_} ']' "
        "FROM (SELECT k, t, pg_catalog.octet_length(t) OPERATOR(pg_catalog.<=) {large} AS small, "
        "(pg_catalog.row_number() OVER () OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog./) {group} AS g "
        "FROM ({lines}) AS l) AS n GROUP BY g"
    ).format(and_=_AND, large=sql.Literal(_LARGE_BYTES), group=sql.Literal(group), lines=lines)


def _routing_over(definition: Definition, ident: sql.Composable) -> sql.Composed:
    """Return the routing expression over nothing but document_id (T7)."""
    assert definition.routing is not None
    typed = ident if definition.composite else sql.SQL("d.{}").format(sql.Identifier(definition.key[0]))
    return sql.SQL("SELECT ({expression}\n) FROM (SELECT {ident} AS document_id) AS r").format(
        expression=sql.SQL(definition.routing),
        ident=typed,
    )


def routings(conn: Connection, definition: Definition, ids: Sequence[str]) -> dict[str, bytes]:
    """Return the routing, as JSON, of ids that may have no row: deletes are routed as well (T7)."""
    if definition.routing is None or not ids:
        return {}
    kind = sql.SQL(keys.type_sql("text" if definition.composite else definition.key_types[0]))
    query = sql.SQL(
        "SELECT id, pg_catalog.to_json((SELECT ({expression}\n) FROM (SELECT id::{kind} AS document_id) AS r)"
        "::pg_catalog.text)::pg_catalog.text FROM pg_catalog.unnest({ids}::pg_catalog.text[]) AS id"
    ).format(expression=sql.SQL(definition.routing), kind=kind, ids=sql.Literal(list(ids)))
    try:
        with conn.transaction(local=definition.in_force, read_only=True):
            return {row[0]: row[1].encode() for row in conn.execute(query) if row[1] is not None}
    except PostgresRefused as error:
        if not is_of_values(error):
            raise
    possible = possible_ids(conn, definition, ids)
    if len(possible) < len(ids):  # no document has the others, wherever they are looked for
        return routings(conn, definition, possible)
    if len(ids) == 1:
        return {}
    middle = len(ids) // 2
    return {**routings(conn, definition, ids[:middle]), **routings(conn, definition, ids[middle:])}


def id_text(definition: Definition) -> sql.Composable:
    """Return the document's id as text, an expression over d."""
    columns = [column.as_string(None) for column in key_columns(definition)]
    return sql.SQL(keys.document_id_sql(columns, definition.key_types))


def _wanted(definition: Definition, ids: Sequence[str]) -> sql.Composable:
    """
    Return the condition that finds *ids* by the key's own columns and types, so that the key's index serves it.

    A composite key's parts are compared column by column; a concatenation would miss the index.
    """
    if not definition.composite:
        return sql.SQL("{} OPERATOR(pg_catalog.=) ANY({}::pg_catalog.text[]::{}[])").format(
            key_columns(definition)[0],
            sql.Literal(list(ids)),
            sql.SQL(keys.type_sql(definition.key_types[0])),
        )
    width = len(definition.key)
    parts = [keys.key_parts(one, width) for one in ids if one.count(":") == width - 1]
    if not parts:  # no row has such an id
        return sql.SQL("false")
    columns = sql.SQL(", ").join(key_columns(definition))
    arrays = sql.SQL(", ").join(
        sql.SQL("pg_catalog.unnest({}::pg_catalog.text[]::{}[])").format(
            sql.Literal([part[place] for part in parts]), sql.SQL(keys.type_sql(kind))
        )
        for place, kind in enumerate(definition.key_types)
    )
    return sql.SQL("ROW({}) OPERATOR(pg_catalog.=) ANY (SELECT * FROM ROWS FROM ({}) AS wanted)").format(
        columns, arrays
    )


def between(definition: Definition, after: Sequence[str] | None, upto: Sequence[str] | None) -> sql.Composable:
    """Return the condition for keys after *after* (exclusive; None: from the first) up to *upto* (inclusive; None: to the last)."""
    row = sql.SQL("({})" if len(definition.key) == 1 else "ROW({})").format(sql.SQL(", ").join(key_columns(definition)))
    parts: list[sql.Composable] = []
    if after is not None:
        parts.append(sql.SQL("{} OPERATOR(pg_catalog.>) {}").format(row, key_literal(definition, after)))
    if upto is not None:
        parts.append(sql.SQL("{} OPERATOR(pg_catalog.<=) {}").format(row, key_literal(definition, upto)))
    return sql.SQL(" AND ").join(parts) if parts else sql.SQL("true")


def key_literal(definition: Definition, values: Sequence[str]) -> sql.Composed:
    """Return a key, given as the text of its parts, in the key's own types."""
    return sql.SQL("({})" if len(values) == 1 else "ROW({})").format(
        sql.SQL(", ").join(
            sql.SQL("{}::pg_catalog.text::{}").format(sql.Literal(value), sql.SQL(keys.type_sql(kind)))
            for value, kind in zip(values, definition.key_types, strict=True)
        )
    )


def next_boundary(
    conn: Connection,
    definition: Definition,
    after: Sequence[str] | None,
    count: int,
    *,
    upto: Sequence[str] | None = None,
) -> list[str] | None:
    """
    Return the key of the *count*-th document after *after*, as the text of its parts; None when fewer are left up to *upto*.

    Reads keys alone: Postgres leaves the document out of a subquery that nobody asks it of.
    """
    names = key_columns(definition)
    query = sql.SQL("SELECT {texts} FROM {rows} WHERE {condition} ORDER BY {names} OFFSET {skip} LIMIT 1").format(
        texts=sql.SQL(", ").join(sql.SQL("{}::pg_catalog.text").format(name) for name in names),
        rows=rows_of(definition),
        condition=between(definition, after, upto),
        names=sql.SQL(", ").join(names),
        skip=sql.Literal(count - 1),
    )
    with conn.transaction(local=reading(conn, definition), read_only=True):
        row = conn.execute(query).fetchone()
    return None if row is None else [str(part) for part in row]


def ids_where(conn: Connection, definition: Definition, condition: sql.Composable) -> list[str]:
    """Return the ids of the rows for which *condition* holds, without rendering a document."""
    query = sql.SQL("SELECT {ident} FROM {rows} WHERE {condition}").format(
        ident=id_text(definition), rows=rows_of(definition), condition=condition
    )
    with conn.transaction(local=reading(conn, definition), read_only=True):
        return [row[0] for row in conn.execute(query)]


def existing(conn: Connection, definition: Definition, ids: Sequence[str]) -> list[str]:
    """Return those of *ids* that have a document; an id that cannot be one of this key has none."""
    if not ids:
        return []
    query = sql.SQL("SELECT {ident} FROM {rows} WHERE {condition} AND d.document IS NOT NULL").format(
        ident=id_text(definition), rows=rows_of(definition), condition=_wanted(definition, ids)
    )
    try:
        with conn.transaction(local=reading(conn, definition), read_only=True):
            return [row[0] for row in conn.execute(query)]
    except PostgresRefused as error:
        if not is_of_values(error):
            raise
        possible = possible_ids(conn, definition, ids)
        if len(possible) < len(ids):
            return existing(conn, definition, possible)
        if len(ids) == 1:
            return []
        middle = len(ids) // 2
        return [*existing(conn, definition, ids[:middle]), *existing(conn, definition, ids[middle:])]
