"""
The copies of an index: waited for until those that can be there have started.

A replica that has not begun counts for nothing in a swap: after it, one node lost would be all lost. One that no node can
take is not waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from idxctl.core import backoff
from idxctl.core.errors import IdxctlError, OpenSearchRefused, OpenSearchUnreachable
from idxctl.opensearch import answers
from idxctl.opensearch.client import Client, segment

_POLL_SECONDS = 0.1
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


def _look(client: Client, name: str) -> tuple[Copies, str]:
    """Return how it stands, and what is still to come; nothing where all is there that can be."""
    health = client.ask(
        "GET",
        f"/_cluster/health/{segment(name)}",
        lambda text: answers.index_health(text, name),
        params={"level": "shards"},
    )
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


def _explained(client: Client, name: str, shard: int, health: answers.IndexHealth) -> tuple[bool, str]:
    """Tell whether a node can take the unassigned replica of a shard, and if not why."""
    body = {"index": name, "shard": shard, "primary": False}
    try:
        found: dict[str, Any] = client.ask(
            "POST", "/_cluster/allocation/explain", answers.explanation, body=body, repeat=True
        )
    except OpenSearchRefused as error:
        if error.status == 400:  # assigned meanwhile
            return True, ""
        if error.status in {401, 403}:  # we may not ask: a copy a node is all that there can be
            return health.nodes > min(one.active for one in health.shards), "there are no more data nodes"
        raise
    verdict = found.get("can_allocate")
    if verdict is None or verdict in _ALLOCATABLE:  # None: it is assigned by now
        return True, ""
    return False, answers.plain(str(found.get("allocate_explanation") or verdict), 300)
