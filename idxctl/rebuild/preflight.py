"""
What must hold before anything is built: a query that can be read by key, ids that are unique and there, an alias that is
ours to move.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from psycopg import sql

from idxctl.capture import coverage
from idxctl.capture.watches import installed_watches
from idxctl.config import sums
from idxctl.config.settings import IndexSettings
from idxctl.core import keys
from idxctl.core.errors import ConfigError, DocumentError, PostgresRefused
from idxctl.indexes import generations
from idxctl.indexes.definitions import Definition, compared, define, key_columns, rows_of
from idxctl.indexes.generations import Generation
from idxctl.indexes.retire import still_searched
from idxctl.opensearch import aliases, answer_parts, templates
from idxctl.opensearch import cluster as cluster_of
from idxctl.opensearch.client import Client
from idxctl.opensearch.templates import Given
from idxctl.postgres.connect import Connection
from idxctl.rebuild import SQL, obstacles, runs
from idxctl.rebuild.lifetime import Lifetime

_LARGE = 10_000  # rows from which a read that misses the index is an error and not a warning


@dataclass(frozen=True)
class Plan:
    """What a reindex is about to do."""

    index: str
    number: int
    name: str  # the physical index it makes
    definition: Definition
    rows: int  # the planner's estimate
    live: Generation | None
    replaces_index: bool  # a concrete index bears the alias's name today
    foreign: str | None  # an index not ours that the alias stands on
    changed: bool  # the definition differs from the live generation's
    lost: bool = False  # the live generation's index was deleted: nothing serves, and nothing is to be kept
    warnings: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()  # aliases beside ours that come along
    given: Given = field(default_factory=Given)  # what templates of the site give to the new index
    lifetime: Lifetime = field(default_factory=lambda: Lifetime({}, {}))

    @property
    def behind(self) -> str | None:
        """The index that is searched today: one of ours, one of others, or one that bears the alias's name."""
        if self.replaces_index:
            return self.index
        return self.foreign or (self.live.name if self.live is not None and not self.lost else None)


def plan(
    conn: Connection,
    client: Client,
    index: IndexSettings,
    *,
    take_alias: bool = False,
    force: bool = False,
    if_changed: bool = False,
) -> Plan:
    """
    Check everything and change nothing; raises what `reindex` would stumble over.

    With *force*, what only seems to be in the way becomes a warning; with *if_changed*, where nothing is to be built too.
    """
    obstacles.require_version(client)
    _require_rights(conn)
    definition = define(conn, index)
    try:
        rows, warnings = check_query(conn, index.name, definition)
        check_ids(conn, index, definition)
    except PostgresRefused as error:
        raise unreadable(index.name, error) from error
    known = generations.of_index(conn, index.name)
    live = next((one for one in known if one.state == "live"), None)
    obstacles.refuse_data_stream(client, index.name)
    begun = _begun(conn, index.name)
    replaces, foreign = _alias(client, index.name, known, begun=begun, take_alias=take_alias)
    number = generations.next_number(conn, index.name)
    while aliases.exists(client, generations.physical_name(index.name, number)):  # left there by somebody; not ours
        number += 1
    if conn.run(SQL["watched"], index=index.name).fetchone() is None:
        warnings.append(f"index {index.name}: no watch is installed, so changes are not captured; idxctl watch install")
    warnings += _uncovered(conn, index.name, definition)
    changed = live is None or live.fingerprint != compared(definition, live.definition, index).fingerprint
    name = generations.physical_name(index.name, number)
    lost = live is not None and not aliases.ours(client, live.name, index.name)
    if lost and live is not None:
        warnings.append(f"index {index.name}: {live.name}, which was live, is gone; it is built again from the rows")
    behind = index.name if replaces else foreign or (live.name if live is not None and not lost else None)
    carried = sorted(set((aliases.standing(client, behind) if behind else None) or ()) - {index.name})
    if foreign and carried:
        warnings.append(f"index {index.name}: {', '.join(carried)} stay on {foreign}, which is not idxctl's")
    elif carried:
        warnings.append(
            f"index {index.name}: other aliases of {behind} come along, with what they carry: {', '.join(carried)}"
        )
    warnings += _searched(conn, client, index.name, known)
    given = templates.given(client, name)
    cluster = cluster_of.settings(client)
    lifetime = Lifetime(
        sums.flattened(definition.settings),
        given.settings,
        answer_parts.number(cluster.get("cluster.default_number_of_replicas"), default=1),
    )
    found = [
        *obstacles.of_templates(given, definition),
        *obstacles.of_settings(given, lifetime),
        *obstacles.of_cluster(client, cluster, lifetime, live=behind),
    ]
    if found and not force and (changed or lost or not if_changed):
        raise ConfigError(
            f"index {index.name}: " + "; ".join(one.what for one in found),
            hint="; ".join(one.way_out for one in found) + "; or go on all the same with --force",
        )
    warnings += [f"index {index.name}: {one.what}" for one in found]
    return Plan(
        index.name, number, name, definition, rows, live, replaces, foreign, changed or lost, lost, tuple(warnings),
        () if foreign else tuple(carried), given, lifetime,
    )  # fmt: skip


def _uncovered(conn: Connection, index: str, definition: Definition) -> Iterator[str]:
    """C7: yield what the new documents show and no installed watch captures; what this role may not look at is passed over."""
    mine = {watch.position: watch.definition for watch in installed_watches(conn) if watch.index == index}
    try:
        holes = coverage.uncovered(conn, definition.document, mine, local=definition.in_force)
    except PostgresRefused:
        return
    yield from (one.reason for one in coverage.conditions(index, holes))


def _searched(conn: Connection, client: Client, index: str, known: list[Generation]) -> Iterator[str]:
    """Yield what there is to say of older generations that an alias stands on (G5)."""
    for one in generations.to_delete(conn, timedelta(0)):
        if one.index == index and (held := aliases.standing(client, one.name)):
            yield still_searched(one.name, sorted(held))
    for one in known:
        if one.state == "standby" and (held := aliases.standing(client, one.name)):
            yield f"index {index}: standby {one.name} is kept, and current, as long as {', '.join(sorted(held))} is on it"


def _require_rights(conn: Connection) -> None:
    """A swap that may not write its letters would fail after everything else."""
    lacking = [row[0] for row in conn.run(SQL["lacking"])]
    if lacking:
        raise ConfigError(
            f"a rebuild needs rights that this role of PostgreSQL does not have: {', '.join(lacking)}",
            hint="idxctl grants --operator ROLE prints them",
        )


def check_query(conn: Connection, index: str, definition: Definition) -> tuple[int, list[str]]:
    """
    Return the planner's estimate of the rows, and warnings; a read by key that misses every index is an error on a
    large table.
    """
    local = {**definition.in_force, "row_security": "off"}
    with conn.transaction(local=local, read_only=True):
        whole = _explain(conn, sql.SQL("SELECT 1 FROM {}").format(rows_of(definition)))
    with conn.transaction(local={**local, "enable_seqscan": "off", "enable_bitmapscan": "on"}, read_only=True):
        by_key = _explain(conn, _sample(definition))
    sizes = {node["Relation Name"]: _size(conn, node) for node in _nodes(by_key) if _misses(node)}
    warnings = []
    for table, size in sorted(sizes.items()):
        message = f"index {index}: reading documents by key scans the whole of {table} (about {size:,} rows)"
        hint = _index_hint(definition)
        if size >= _LARGE:
            raise DocumentError(message, hint=hint)
        warnings.append(f"{message}; {hint}")
    return int(whole["Plan Rows"]), warnings


def _sample(definition: Definition) -> sql.Composed:
    """Return the read of one document by its key, with values that any type takes: NULL."""
    condition = sql.SQL(" AND ").join(
        sql.SQL("{} OPERATOR(pg_catalog.=) ANY(ARRAY[NULL, NULL]::{}[])").format(column, sql.SQL(keys.type_sql(kind)))
        for column, kind in zip(key_columns(definition), definition.key_types, strict=True)
    )
    return sql.SQL("SELECT d.document FROM {} WHERE {}").format(rows_of(definition), condition)


def _explain(conn: Connection, query: sql.Composable) -> dict[str, Any]:
    row = conn.execute(sql.SQL("EXPLAIN (FORMAT JSON, VERBOSE) {}").format(query)).fetchone()
    assert row is not None
    plans = row[0] if isinstance(row[0], list) else json.loads(row[0])
    top: dict[str, Any] = plans[0]["Plan"]
    return top


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _misses(node: Mapping[str, Any]) -> bool:
    """Whether a node reads a whole table although sequential scans are off: no index serves it."""
    whole_index = node.get("Node Type") in {"Index Scan", "Index Only Scan"} and "Index Cond" not in node
    return "Relation Name" in node and (node.get("Node Type") == "Seq Scan" or whole_index)


def _size(conn: Connection, node: Mapping[str, Any]) -> int:
    table = sql.Identifier(node.get("Schema", "public"), node["Relation Name"]).as_string(None)
    row = conn.pinned(
        "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass(%s)", (table,)
    ).fetchone()
    return int(row[0]) if row else 0


def _index_hint(definition: Definition) -> str:
    if definition.composite:
        return (
            "an index on the key's columns ("
            + ", ".join(definition.key)
            + ") makes it a look-up, and one on each column that joins a child table"
        )
    return (
        "return the key column itself as document_id, without a cast (l.id AS document_id), "
        "or index the expression; child tables need an index on the column that joins them"
    )


def check_ids(conn: Connection, index: IndexSettings, definition: Definition) -> None:
    """A document without an id could never be indexed, and none would notice."""
    missing = sql.SQL(" OR ").join(sql.SQL("{} IS NULL").format(column) for column in key_columns(definition))
    query = sql.SQL("SELECT 1 FROM {} WHERE {} LIMIT 1").format(rows_of(definition), missing)
    with conn.transaction(local={**definition.in_force, "row_security": "off"}, read_only=True):
        found = conn.execute(query).fetchone()
    if found is not None:
        raise DocumentError(
            f"index {index.name}: the document query returns a row whose {' or '.join(definition.key)} is NULL",
            hint="every document needs an id: add WHERE ... IS NOT NULL, or fix the rows",
        )


def _begun(conn: Connection, index: str) -> str | None:
    """
    Return the index that a run which has not ended made, or was about to.

    An alias on it is the next run's affair: given by a template it is taken off, made by a swap it is recorded (G4).
    """
    found = runs.open_run(conn, index)
    return None if found is None else found.intent.get("create") or (found.intent.get("swap") or {}).get("new")


def _alias(
    client: Client, alias: str, known: list[Generation], *, begun: str | None, take_alias: bool
) -> tuple[bool, str | None]:
    """Return whether a concrete index bears the alias's name, and the foreign index it stands on, if any."""
    behind = [name for name in aliases.targets(client, alias) if name != begun]
    ours = {one.name for one in known}
    foreign = [name for name in behind if name not in ours]
    if not behind:
        return aliases.is_index(client, alias), None
    if len(behind) > 1:
        raise ConfigError(
            f"alias {alias} stands on {len(behind)} indexes ({', '.join(behind)}); wanted is one",
            hint="take the others off it, or choose another name for [indexes.NAME]",
        )
    aside = next((one for one in known if one.name == behind[0] and one.state != "live"), None)
    if aside is not None:
        live = next((one for one in known if one.state == "live"), None)
        verb = "rollback" if live is not None and aside.number < live.number else "forward"
        name = live.name if live is not None else "none"
        raise ConfigError(
            f"alias {alias} stands on {aside.name}, which is {aside.state}; the live generation is {name}",
            hint=f"idxctl reindex {verb} --index {alias} records that {aside.name} serves; "
            f"or move the alias back to {name} (POST _aliases), then run idxctl reindex again",
        )
    if foreign and not take_alias:
        raise ConfigError(
            f"alias {alias} stands on {foreign[0]}, which idxctl did not make for this database",
            hint="idxctl reindex --take-alias moves it and leaves that index as it is; or choose another name for [indexes.NAME]",
        )
    return False, foreign[0] if foreign else None


class UnreadableQuery(PostgresRefused):
    """PostgreSQL refuses a document query."""

    @property
    def passing(self) -> bool:
        """As of any statement, but that a query which writes (25006 in a READ ONLY transaction) goes on doing so."""
        return super().passing and self.sqlstate != "25006"


def unreadable(index: str, error: PostgresRefused) -> UnreadableQuery:
    """Return the error for a document query that PostgreSQL refuses once there are rows to read."""
    return UnreadableQuery(
        f"index {index}: the document query fails: {error.detail} [{error.sqlstate}]",
        sqlstate=error.sqlstate,
        detail=error.detail,
        hint=error.hint or "run it in psql, in a READ ONLY transaction",
    )


def duplicate(index: str, document_id: str) -> DocumentError:
    """Return the error for an id that the document query returns more than once."""
    return DocumentError(
        f"index {index}: the document query returns document_id {document_id} more than once",
        hint="a join that multiplies rows? aggregate child tables in a subquery, one row a document",
    )
