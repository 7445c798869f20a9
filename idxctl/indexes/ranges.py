"""Reads of a range of documents that no single row can end (P3)."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from idxctl.core.errors import PostgresRefused
from idxctl.indexes import reading, render
from idxctl.indexes.definitions import Definition
from idxctl.indexes.ids import ids_where
from idxctl.indexes.render import Lines
from idxctl.indexes.sizes import Sizes
from idxctl.postgres.connect import Connection


def readable(
    conn: Connection,
    definition: Definition,
    condition: sql.Composable,
    *,
    token: int | None,
    max_bytes: int,
    sizes: Sizes,
    failures: dict[str, PostgresRefused],
) -> Iterator[Lines]:
    """
    Yield the documents for which *condition* holds, in one statement as long as that goes well.

    Rows whose own values make the query fail, or that take too long by themselves, are found by reading what is left by id,
    and put into *failures*. An error that is not one row's raises; so does a lack of time for all where there is a *token*,
    since what was read before grows old (T3): *sizes* knows how many are in time.
    """
    yielded: set[str] = set()
    try:
        if sizes.most_in_time(definition) is None:
            for lines in render.stream(conn, definition, condition, token=token, group=sizes.group(definition)):
                yielded.update(lines.ids)
                yield lines
            return
    except PostgresRefused as error:
        if reading.is_too_slow(error):
            sizes.too_slow(definition, len(yielded) or sizes.at_once(definition, max_bytes))
            if token is not None:
                raise
        elif not reading.is_of_values(error):
            raise
    rest = [one for one in ids_where(conn, definition, condition) if one not in yielded]
    while rest:
        read = render.by_ids(conn, definition, rest, token=token, max_bytes=max_bytes, sizes=sizes)
        failures.update(read.failures)
        failures.update((one, PostgresRefused(why, sqlstate="22000", detail=why)) for one, why in read.unfit.items())
        yield from read.found
        rest = read.rest
