"""
The copies of an index: waited for until those that can be there have started, primaries first.

A replica that has not begun counts for nothing in a swap: after it, one node lost would be all lost. One that no node can
take is not waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from idxctl.core import backoff
from idxctl.core.errors import ConfigError, IdxctlError, OpenSearchRefused, OpenSearchUnreachable
from idxctl.opensearch import answer_parts, answers
from idxctl.opensearch.answers import IndexHealth
from idxctl.opensearch.client import Client, segment

_POLL_SECONDS = 0.1
_PLACED_SECONDS = 60.0  # for the primaries of an index that is empty yet
_RULES = 2  # that say no, shown of one shard
_ALLOCATABLE = {"yes", "throttled", "awaiting_info", "allocation_delayed", "no_attempt"}


@dataclass(frozen=True)
class Copies:
    """How many copies of an index's shards have started, of how many; and why others cannot."""

    started: int
    wanted: int
    fewest: int  # copies of the shard that has the fewest
    of_each: int  # copies that each shard is to have
    homeless: str = ""  # why no node takes the rest; empty while it is still coming


def wait(client: Client, name: str, *, seconds: float, tick: Callable[[Copies, str], None]) -> Copies:
    """
    Return once each copy of *name* that a node can take has started; raises after *seconds*.

    *tick* is told how far it has come, and what it waits for. OpenSearch may be away in between.
    """
    began, failed, why = time.monotonic(), 0, "OpenSearch was not asked yet"
    homeless: Copies | None = None
    while True:
        looked = time.monotonic()
        try:
            found, why = _look(client, name)
        except OpenSearchUnreachable as error:
            failed += 1
            tick(Copies(0, 0, 0, 0), error.message)
            why = error.message
        else:
            failed = 0
            if not why and (not found.homeless or found == homeless):  # a place may be found a moment later
                return found
            homeless = found if found.homeless else None
            tick(found, why or found.homeless)
        if time.monotonic() - began > seconds:
            raise IdxctlError(
                f"the copies of {name} have not started within {seconds:,.0f} s: {why}; nothing was swapped",
                hint="look at _cluster/allocation/explain and _cat/recovery, or give it longer: idxctl reindex --wait-for-copies 2h",
            )
        took = time.monotonic() - looked
        time.sleep(backoff.before_probe(failed) if failed else backoff.before_look(took, shortest=_POLL_SECONDS))


def require_primaries(client: Client, name: str, *, seconds: float = _PLACED_SECONDS) -> None:
    """Return once each primary shard of a new index has started; raises `ConfigError` where no node takes one."""
    began = time.monotonic()
    while True:
        looked = time.monotonic()
        health = _health(client, name)
        waiting = [shard for shard in health.shards if not shard.primary]
        if not waiting and len(health.shards) >= health.primaries:
            return
        for shard in waiting:
            can, why = _explained(client, name, shard.number, health, primary=True)
            if not can:
                raise ConfigError(
                    f"no node of OpenSearch takes shard {shard.number} of {name}: {why}",
                    hint="see index.routing.allocation in the mapping file and the templates, and cluster.routing.allocation in GET _cluster/settings",
                )
        if time.monotonic() - began > seconds:
            raise IdxctlError(
                f"the shards of {name} have not started within {seconds:,.0f} s, though it is empty",
                hint="look at GET _cluster/allocation/explain and GET _cat/shards, and at OpenSearch's log",
            )
        time.sleep(backoff.before_look(time.monotonic() - looked, shortest=_POLL_SECONDS))


def primaries_missing(client: Client, name: str) -> int:
    """Return how many primary shards of an index are not there: of what they hold nothing would be found."""
    health = _health(client, name)
    return max(health.primaries, len(health.shards)) - sum(shard.primary for shard in health.shards)


def _health(client: Client, name: str) -> IndexHealth:
    return client.ask(
        "GET",
        f"/_cluster/health/{segment(name)}",
        lambda text: answers.index_health(text, name),
        params={"level": "shards"},
    )


def _look(client: Client, name: str) -> tuple[Copies, str]:
    """Return how it stands, and what is still to come; nothing where all is there that can be."""
    health = _health(client, name)
    shards = health.shards
    wanted = health.primaries * (1 + health.replicas)
    started = sum(shard.active for shard in shards)
    fewest = min((shard.active for shard in shards), default=0)
    so_far = Copies(started, wanted, fewest, 1 + health.replicas)
    if any(not shard.primary for shard in shards) or len(shards) < health.primaries:
        return so_far, "a primary shard is not there"
    if started >= wanted:
        return so_far, ""
    if any(shard.initializing for shard in shards):
        return so_far, f"{started} of {wanted} copies have started"
    homeless = ""
    for shard in shards:
        if shard.unassigned:
            can, why = _explained(client, name, shard.number, health)
            if can:
                return so_far, f"{started} of {wanted} copies have started"
            homeless = homeless or why
    return replace(so_far, homeless=homeless or "no node takes them"), ""


def _explained(
    client: Client, name: str, shard: int, health: IndexHealth, *, primary: bool = False
) -> tuple[bool, str]:
    """Tell whether a node can take the unassigned primary of a shard, or its replica, and if not why."""
    body = {"index": name, "shard": shard, "primary": primary}
    try:
        found: dict[str, Any] = client.ask(
            "POST", "/_cluster/allocation/explain", answers.explanation, body=body, repeat=True
        )
    except OpenSearchRefused as error:
        if error.status == 400:  # assigned meanwhile
            return True, ""
        if error.status in {401, 403} and primary:
            return True, ""  # we may not ask
        if error.status in {401, 403}:  # a copy a node is all that there can be
            return health.nodes > min(one.active for one in health.shards), "there are no more data nodes"
        raise
    verdict = found.get("can_allocate")
    if verdict is None or verdict in _ALLOCATABLE:  # None: it is assigned by now
        return True, ""
    return False, answer_parts.plain(
        ": ".join([str(found.get("allocate_explanation") or verdict), *_of_nodes(found)]), 500
    )


def _of_nodes(explained: dict[str, Any]) -> list[str]:
    """Return what stands against a shard on the nodes, each once: the rule that says no, with its setting."""
    nodes = explained.get("node_allocation_decisions")
    against: dict[str, None] = {}
    for node in nodes if isinstance(nodes, list) else ():
        deciders = node.get("deciders") if isinstance(node, dict) else None
        for one in deciders if isinstance(deciders, list) else ():
            if isinstance(one, dict) and one.get("decision") == "NO" and isinstance(one.get("explanation"), str):
                against[one["explanation"]] = None
    return ["; ".join(list(against)[:_RULES])] if against else []
