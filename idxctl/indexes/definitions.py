"""
What a generation owns (G1): the document query, its key, mapping and settings, and all that rendering depends on.

A definition is made once, from the configuration and the catalog, and stored with the generation. Workers, verify and
explain use the stored one, never a file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from psycopg import sql

from idxctl.config.settings import IndexSettings
from idxctl.core import fingerprints, keys
from idxctl.core.errors import DocumentError, PostgresRefused
from idxctl.core.queries import bare
from idxctl.postgres import pinned
from idxctl.postgres.connect import Connection
from idxctl.postgres.statements import load
from idxctl.postgres.user_sql import require_one_query

SQL = load("idxctl.indexes", "indexes.sql")

_NAMED = re.compile(r"current_setting\s*\(\s*'(\w+(?:\.\w+)+)'", re.IGNORECASE)  # of the application's own
_SINCE = "standard_conforming_strings"  # stored by every idxctl that stores more than five
_ENUM = " (enum)"


@dataclass(frozen=True)
class Definition:
    """How documents of one generation are made and indexed."""

    document: str  # the query, without a trailing semicolon
    key: tuple[str, ...]  # output columns that identify a document; ("document_id",) unless composite
    key_types: tuple[str, ...]  # as format_type names them
    document_type: str  # json or jsonb
    mappings: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    routing: str | None = None
    pipeline: str | None = None
    verify_ignore: tuple[str, ...] = ()
    local: Mapping[str, str] = field(default_factory=dict)  # settings in force while it renders
    given: tuple[str, ...] = ()  # those of them that the session which made it was given by its client

    @property
    def composite(self) -> bool:
        """Whether a document's id is made of several columns."""
        return len(self.key) > 1

    @property
    def in_force(self) -> dict[str, str | None]:
        """
        The settings under which its SQL runs.

        One that an older idxctl did not store is as the session that renders was given it, as it was then.
        """
        return {**pinned.THEIRS, **self.local}

    @property
    def render_fingerprint(self) -> str:
        """The same for definitions that render the same bytes."""
        names = ("document", "key", "key_types", "document_type", "routing", "local")
        return fingerprints.of_content({name: value for name, value in asdict(self).items() if name in names})

    @property
    def fingerprint(self) -> str:
        """The same for definitions that make the same index."""
        return fingerprints.of_content({name: value for name, value in asdict(self).items() if name != "given"})

    def beside(self, live: Definition, pinned_by: Collection[str]) -> Definition:
        """
        Return it as it compares with *live*: what only one client's session was given (``PGTZ``) makes no difference.

        Nor does what an older idxctl did not store, unless the configuration pins it (*pinned_by*).
        """
        older = _SINCE not in live.local
        local = {}
        for name, value in self.local.items():
            if name in pinned_by or (name in live.local and name not in {*self.given, *live.given}):
                local[name] = value
            elif name in live.local:
                local[name] = live.local[name]
            elif not older:
                local[name] = value
        return replace(self, local=local)

    def stored(self) -> dict[str, Any]:
        """Return it as the database keeps it."""
        return asdict(self)

    @classmethod
    def restore(cls, stored: Mapping[str, Any]) -> Definition:
        """Make it from what the database keeps; keys of a newer program are left out."""
        known = {name: value for name, value in stored.items() if name in cls.__dataclass_fields__}
        for name in ("key", "key_types", "verify_ignore", "given"):
            known[name] = tuple(known.get(name, ()))
        return cls(**known)


def define(conn: Connection, index: IndexSettings) -> Definition:
    """
    Make the definition of *index* as configured, checked against the database.

    Raises `DocumentError` for a query that cannot run, lacks its columns or has a key that does not round-trip.
    """
    query = bare(index.document)
    local, given = _depends_on(conn, index, query)
    # The names of types are ours to read, whatever the application's own SQL is to see.
    with conn.transaction(local={**local, "quote_all_identifiers": "off"}, read_only=True):
        columns = _columns(conn, index, query)
    key = index.key or ("document_id",)
    _check_columns(index, columns, key)
    _check_mapping(index)
    with conn.transaction(local=local, read_only=True):
        _check_routing(conn, index, "text" if len(key) > 1 else columns[key[0]])
    document_type = columns["document"]
    if document_type not in {"json", "jsonb"}:
        raise DocumentError(
            f"index {index.name}: column document of the document query is {document_type}, wanted jsonb (or json)",
            hint="jsonb_build_object(...) or to_jsonb(row) makes one",
        )
    return Definition(
        document=query,
        key=tuple(key),
        key_types=tuple(columns[name] for name in key),
        document_type=document_type,
        mappings=dict(index.mapping.get("mappings", {})),
        settings=dict(index.mapping.get("settings", {})),
        routing=index.routing,
        pipeline=index.pipeline,
        verify_ignore=index.verify_ignore,
        local=local,
        given=given,
    )


def compared(definition: Definition, live: Definition, index: IndexSettings) -> Definition:
    """Return the *definition* that *index* has now as it compares with the one it was made from."""
    named = {one.lower() for one in index.pinned}
    pinned_by = {name for name in definition.local if name.lower() in named}
    return definition.beside(live, pinned_by | ({"search_path"} if index.search_path else set()))


def _depends_on(conn: Connection, index: IndexSettings, query: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the settings that rendering depends on, and which of them only this session was given by its client."""
    names = (*pinned.RENDERED, *dict.fromkeys(_NAMED.findall(f"{query}\n{index.routing or ''}")))
    row = conn.execute(SQL["render_settings"].qualified(conn.schema), {"names": list(names)}).fetchone()
    assert row is not None
    path, values, given = row
    local = {
        "search_path": path,
        **{name: value for name, value in zip(names, values, strict=True) if value is not None},
    }
    if index.search_path:
        local["search_path"] = ", ".join('"' + name.replace('"', '""') + '"' for name in index.search_path)
    exact = {name.lower(): name for name in local}
    local |= {exact.get(name.lower(), name): value for name, value in index.pinned.items()}
    configured = {exact.get(name.lower(), name) for name in index.pinned}
    return local, tuple(name for name in given or () if name not in configured)


def _columns(conn: Connection, index: IndexSettings, query: str) -> dict[str, str]:
    """Return the query's output columns and their types."""
    try:
        require_one_query(conn, query)
        cursor = conn.execute(f"SELECT * FROM (\n{query}\n) AS d LIMIT 0".encode())
    except PostgresRefused as error:
        where = f" ({index.document_path.name})" if index.document_path else ""
        raise DocumentError(
            f"index {index.name}: the document query{where} does not run: {error.detail} [{error.sqlstate}]",
            hint=error.hint or "run it in psql; it must be one SELECT that returns document_id and document",
        ) from error
    described = cursor.description or []
    names = conn.column_names(cursor)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise DocumentError(f"index {index.name}: the document query returns column {doubled[0]} twice")
    types = conn.run(SQL["type_names"], oids=[column.type_code for column in described]).fetchall()
    return dict(zip(names, (row[0] + (_ENUM if row[1] == "e" else "") for row in types), strict=True))


def _check_columns(index: IndexSettings, columns: dict[str, str], key: tuple[str, ...]) -> None:
    missing = [name for name in (*key, "document") if name not in columns]
    if missing:
        have = ", ".join(columns) or "none"
        raise DocumentError(
            f"index {index.name}: the document query returns no column {missing[0]} (it returns: {have})",
            hint="SELECT l.id AS document_id, to_jsonb(l) AS document FROM ...",
        )
    for name in key:
        type_name = columns[name].removesuffix(_ENUM)
        why = keys.refusal(type_name, is_enum=columns[name].endswith(_ENUM))
        columns[name] = type_name
        if why is not None:
            raise DocumentError(
                f"index {index.name}: key column {name} of the document query is {type_name}; {why}, so it may not find its row again",
                hint="a key may be " + ", ".join(sorted(keys.PLAIN_TYPES)) + " or an enum",
            )


def _check_routing(conn: Connection, index: IndexSettings, key_type: str) -> None:
    """T7: routing is an expression over document_id alone."""
    if index.routing is None:
        return
    over = f"FROM (SELECT NULL::{keys.type_sql(key_type)} AS document_id) AS r LIMIT 0"
    try:
        require_one_query(conn, f"SELECT {index.routing}\n{over}")
        conn.execute(f"SELECT ({index.routing}\n)::pg_catalog.text {over}".encode())
    except PostgresRefused as error:
        raise DocumentError(
            f"index {index.name}: routing = {index.routing!r} does not run: {error.detail} [{error.sqlstate}]",
            hint=f"it is an SQL expression over document_id alone, which is {key_type}",
        ) from error


def _check_mapping(index: IndexSettings) -> None:
    """Refuse what would leave every document different from its row, or refused, whatever was done."""
    mappings = index.mapping.get("mappings", {})
    source, routing = mappings.get("_source"), mappings.get("_routing")
    if isinstance(source, dict) and str(source.get("enabled", True)).lower() == "false":
        raise DocumentError(
            f"index {index.name}: the mapping turns _source off, so no document could be compared with its row",
            hint='take "_source" out of the mapping; what need not be searched can be left out of the document',
        )
    if isinstance(source, dict) and (source.get("excludes") or source.get("includes")) and not index.verify_ignore:
        raise DocumentError(
            f"index {index.name}: the mapping leaves fields out of _source, so no document would equal its row",
            hint="name these fields in verify_ignore",
        )
    if isinstance(routing, dict) and str(routing.get("required")).lower() == "true" and index.routing is None:
        raise DocumentError(
            f"index {index.name}: the mapping requires a routing, and the index names none",
            hint="routing = an SQL expression over document_id, or take _routing out of the mapping",
        )


def rows_of(definition: Definition) -> sql.Composed:
    """Return the document query as a FROM item named d."""
    return sql.SQL("(\n{}\n) AS d").format(sql.SQL(definition.document))


def key_columns(definition: Definition) -> list[sql.Composable]:
    """Return the key's columns as SQL, of FROM item d."""
    return [sql.SQL("d.") + sql.Identifier(name) for name in definition.key]
