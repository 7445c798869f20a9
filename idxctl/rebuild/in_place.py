"""
A configuration beside its live generation, and what of it can be put in place without a rebuild (G1).

What is put is recorded as the generation's own definition, so that everything that compares with it agrees. Documents are
rendered as before: their SQL, key, routing and pipeline change by a rebuild alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from idxctl.config import sums
from idxctl.config.settings import IndexSettings
from idxctl.core.errors import ConfigError, DocumentError, IdxctlError, Locked, OpenSearchRefused
from idxctl.core.failpoints import reach
from idxctl.indexes import definitions, generations
from idxctl.indexes.differences import Compared, Difference, How, all_fields, as_text, compare, shown
from idxctl.indexes.generations import Generation
from idxctl.opensearch import aliases, answer_parts, templates
from idxctl.opensearch import cluster as cluster_of
from idxctl.opensearch.client import Client
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection
from idxctl.rebuild import lifetime as lifetime_
from idxctl.rebuild.lifetime import Lifetime

_MADE_BY_OPENSEARCH = ("creation_date", "history.", "number_of_shards", "provided_name", "replication.type", "resize.",
                       "routing.allocation.initial_recovery.", "uuid", "verified_before_close", "version.")  # fmt: skip
_BY_ITSELF = {"text", "keyword", "long", "float", "boolean", "date"}  # types that a document may bring about


@dataclass(frozen=True)
class Planned:
    """What separates the configuration of an index from what its live generation is."""

    index: str
    generation: str | None  # the live one
    changed: bool  # the two differ
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Plan:
    """The same, with what is to be done about it."""

    planned: Planned
    live: Generation | None = None
    compared: Compared | None = None
    lifetime: Lifetime | None = None


@dataclass(frozen=True)
class Applied:
    """What was put in place, and what is left for a rebuild."""

    index: str
    generation: str
    applied: tuple[Difference, ...]
    left: tuple[Difference, ...]
    dry_run: bool = False


def plan(conn: Connection, client: Client, index: IndexSettings) -> Plan:
    """Compare and change nothing; raises what is wrong with the configuration."""
    definition = definitions.define(conn, index)
    live = generations.live(conn, index.name)
    if live is None:
        first = Difference("generation", "", None, None, How.REBUILD, "none was built yet")
        return Plan(Planned(index.name, None, changed=True, differences=(first,)))
    made = aliases.made_of(client, live.name)
    if made is None:
        gone = Difference("generation", "", live.name, None, How.REBUILD, "its index is not in OpenSearch")
        return Plan(Planned(index.name, live.name, changed=True, differences=(gone,)), live)
    now = definitions.compared(definition, live.definition, index)
    compared = compare(live.definition, now)
    given = templates.given(client, live.name)
    default = answer_parts.number(cluster_of.settings(client).get("cluster.default_number_of_replicas"), default=1)
    lifetime = Lifetime(sums.flattened(now.settings), given.settings, default)
    lost = [
        *_fields_of_its_own(made[0], (live.definition.mappings, now.mappings, given.mappings)),
        *_settings_of_its_own(made[1], lifetime, {one.name for one in compared.differences if one.part == "settings"}),
    ]
    changed = bool(compared.differences)
    return Plan(Planned(index.name, live.name, changed, (*compared.differences, *lost)), live, compared, lifetime)


def _fields_of_its_own(held: Mapping[str, Any], known: tuple[Mapping[str, Any], ...]) -> Iterator[Difference]:
    """Yield fields that were put into the live index by others than us; those that documents bring about come again."""
    named = {name for mapping in known for name, _ in all_fields(mapping)}
    dynamic = str(held.get("dynamic", "true")).lower() not in {"false", "strict"}
    for name, one in sorted(all_fields(held)):
        if name in named or (dynamic and one.get("type", "text") in _BY_ITSELF):
            continue
        yield Difference("mapping", name, shown(one), None, How.LOST, "on the live index alone")


def _settings_of_its_own(held: Mapping[str, str], lifetime: Lifetime, said: set[str]) -> Iterator[Difference]:
    """Yield settings that others gave to the live index, and that a new one would not have."""
    wanted = lifetime.served
    for name, value in sorted(held.items()):
        if name in said or name.startswith(_MADE_BY_OPENSEARCH) or as_text(wanted.get(name)) == value:
            continue
        if name == "number_of_replicas" and name not in wanted:  # those of auto_expand_replicas
            continue
        yield Difference("settings", name, value, wanted.get(name), How.LOST, "on the live index alone")


def apply(conn: Connection, client: Client, wanted: Plan, *, dry_run: bool = False) -> Applied:
    """
    Put in place what can be, and record it as the generation's own.

    OpenSearch is changed first: who is stopped in between runs it again, and it comes to the same.
    """
    planned, live, compared = wanted.planned, wanted.live, wanted.compared
    if live is None:
        raise IdxctlError(f"{planned.index} has no live generation", hint=f"idxctl reindex --index {planned.index}")
    applied = tuple(one for one in planned.differences if one.how is How.IN_PLACE)
    left = tuple(one for one in planned.differences if one.how is How.REBUILD)
    if applied and not dry_run and compared is not None and wanted.lifetime is not None:
        if not generations.may_redefine(conn):
            raise ConfigError(
                "this role of PostgreSQL may not record what is put in place: it lacks UPDATE of a generation's definition",
                hint="run it as the owner of idxctl's tables: a definition is SQL that workers run, so no other role may change one",
            )
        _put(client, live, compared, wanted.lifetime)
        reach("apply.put")
        _record(conn, live, compared, applied)
    return Applied(planned.index, live.name, applied, left, dry_run)


def _put(client: Client, live: Generation, compared: Compared, lifetime: Lifetime) -> None:
    try:
        if compared.mappings:
            aliases.put_mapping(client, live.name, compared.mappings)
    except OpenSearchRefused as error:
        if error.status != 400:
            raise
        raise DocumentError(
            f"OpenSearch does not take the mapping of {live.name} in place: {error.reason or error.message}; nothing was changed",
            hint=f"idxctl reindex --index {live.index}",
        ) from error
    names = set(compared.settings)
    if "auto_expand_replicas" in names:
        names.add("number_of_replicas")
    served = lifetime.served
    settings = {name: served.get(name) for name in names if name != "number_of_replicas" or name in served}
    try:
        lifetime_.put(client, live.name, settings)
    except OpenSearchRefused as error:
        if error.status != 400:
            raise
        done = "; its mapping has the new fields, and running it again finds them there" if compared.mappings else ""
        raise DocumentError(
            f"OpenSearch does not take the settings of {live.name} in place: {error.reason or error.message}{done}",
            hint="correct them in the mapping file, then run idxctl index apply again",
        ) from error


def _record(conn: Connection, live: Generation, compared: Compared, applied: tuple[Difference, ...]) -> None:
    """Compare-and-swap of the generation's definition, with its row of the audit."""
    names = [f"{one.part} {one.name}".strip() for one in applied]
    with conn.transaction():
        if not generations.redefine(conn, live, compared.reached):
            raise Locked(
                f"{live.name} was swapped or changed by others meanwhile; what was put in place is not recorded",
                hint="run idxctl index plan again",
            )
        detail = {"generation": live.name, "put": names}
        audit.record(conn, action="index apply", what=live.index, count=len(applied), detail=detail)
