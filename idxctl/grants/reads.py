"""
What documents and lookups read of the application's, asked of PostgreSQL.

A throwaway view of each document query and lookup tells by its dependencies what its reader must be allowed to read, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from idxctl.capture import catalog, introspect, lookups
from idxctl.capture.catalog import quoted, thrown_away
from idxctl.capture.watches import installed_watches
from idxctl.config.settings import IndexSettings, Settings
from idxctl.core.errors import ConfigError, PostgresRefused
from idxctl.core.queries import bare
from idxctl.grants import SQL
from idxctl.indexes import generations
from idxctl.postgres.connect import Connection

_VIEW = "opensearch_indexing_reads"


@dataclass(frozen=True)
class Relation:
    """A table or view of the application's that documents are read from."""

    oid: int
    schema: str
    name: str
    owner: str
    policies: bool
    forced: bool

    @property
    def qualified(self) -> str:
        """Its name in SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


@dataclass(frozen=True)
class Function:
    """A function of the application's that a document query or lookup calls."""

    oid: int
    schema: str
    name: str
    arguments: str
    owner: str
    public: bool

    @property
    def qualified(self) -> str:
        """Its name in SQL, with the types that tell it from others."""
        return f"{quoted(self.schema)}.{quoted(self.name)}({self.arguments})"


@dataclass(frozen=True)
class Reads:
    """All that is read for documents and lookups."""

    relations: tuple[Relation, ...]
    functions: tuple[Function, ...]


def everything_read(conn: Connection, settings: Settings, path: str, *, migrated: bool) -> Reads:
    """Return what the documents and lookups read, as configured and as stored."""
    relations: dict[int, Relation] = {}
    functions: dict[int, Function] = {}
    queries = [*_configured(conn, settings, path), *(_stored(conn, path) if migrated else ())]
    for query in queries:
        with thrown_away(conn):
            try:
                path = ", ".join(each for each in (introspect.place(conn), query.search_path) if each)
                changed = f"SELECT * FROM {query.changed}"
                but = [introspect.throwaway_view(conn, path, "changed", changed)] if query.changed else []
                view = introspect.throwaway_view(conn, path, _VIEW, query.text)
            except PostgresRefused as error:
                raise ConfigError(
                    f"{query.what} does not run: {error.detail} [{error.sqlstate}]", hint=error.hint
                ) from error
            relations |= {row[0]: Relation(*row) for row in conn.run(SQL["relations"], view=view, but=but)}
            functions |= {row[0]: Function(*row) for row in conn.run(SQL["functions"], view=view)}
    by_name = sorted(relations.values(), key=lambda one: (one.schema, one.name))
    return Reads(tuple(by_name), tuple(sorted(functions.values(), key=lambda one: (one.schema, one.name))))


@dataclass(frozen=True)
class _Query:
    """A query whose reader needs rights."""

    what: str
    text: str
    search_path: str
    changed: str | None = None  # the watched table that `changed` stands for


def _configured(conn: Connection, settings: Settings, path: str) -> Iterator[_Query]:
    for index in settings.indexes.values():
        yield _Query(f"the document query of {index.name}", bare(index.document), path)
        for table, watch in _tables_of(conn, index, path):
            if watch.keys:
                what = f"the lookup of {index.name} over {watch.table}"
                yield _Query(what, bare(watch.keys), path, table.qualified)
            elif watch.at:
                yield _Query(f"watch {watch.table} of {index.name}", f"SELECT 1 AS one FROM {table.qualified}", path)


def _stored(conn: Connection, path: str) -> Iterator[_Query]:
    for generation in generations.all_of_them(conn):
        if generation.active:
            one = generation.definition
            yield _Query(f"the document query of {generation.name}", one.document, one.local.get("search_path", path))
    for installed in installed_watches(conn):
        watch = installed.definition
        name = f"{quoted(watch.table_schema)}.{quoted(watch.table_name)}"
        its_path = str(lookups.local_settings(watch.to_json())["search_path"])
        if not _is_there(conn, name):
            continue
        if watch.keys:
            yield _Query(f"the lookup of {installed.index} over {name}", bare(watch.keys), its_path, name)
        elif watch.at:
            yield _Query(f"watch {name} of {installed.index}", f"SELECT 1 AS one FROM {name}", its_path)


def _tables_of(conn: Connection, index: IndexSettings, path: str) -> Iterator[tuple[catalog.Table, Any]]:
    for watch in index.watches:
        with conn.under(path):
            (oid,) = conn.run(catalog.SQL["resolve"], name=watch.table).fetchone() or (None,)
        table = catalog.table(conn, oid) if oid else None
        if table is None:
            raise ConfigError(
                f"index {index.name}: there is no table {watch.table} to watch", hint="idxctl config validate"
            )
        yield table, watch


def _is_there(conn: Connection, table: str) -> bool:
    row = conn.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    return bool(row and row[0])


def watched_tables(conn: Connection, settings: Settings, path: str, *, migrated: bool) -> tuple[catalog.Member, ...]:
    """Return the watched tables and all below them, once each."""
    oids = {table.oid: None for index in settings.indexes.values() for table, _ in _tables_of(conn, index, path)}
    if migrated:
        for installed in installed_watches(conn):
            one = installed.definition
            name = f"{quoted(one.table_schema)}.{quoted(one.table_name)}"
            (oid,) = conn.run(catalog.SQL["resolve"], name=name).fetchone() or (None,)
            if oid:
                oids[oid] = None
    members = {member.oid: member for oid in oids for member in catalog.members(conn, oid)}
    return tuple(members.values())
