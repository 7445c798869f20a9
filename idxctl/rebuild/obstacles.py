"""
What a cluster and its templates have in store for a rebuild: looked for before anything is built, not met at its end.

Some of it has no way around (a data stream of that name); the rest is refused, and gone on with only if asked to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from idxctl.config import sums
from idxctl.core.errors import ConfigError
from idxctl.indexes.definitions import Definition
from idxctl.opensearch import answer_parts
from idxctl.opensearch import cluster as cluster_of
from idxctl.opensearch.client import Client
from idxctl.opensearch.templates import Given
from idxctl.rebuild.lifetime import Lifetime

_OLDEST = (2, 12)  # _aliases knows must_exist, without which a swap is no compare-and-swap


class Obstacle(NamedTuple):
    """What is in the way, and how it is taken out of it."""

    what: str
    way_out: str


def require_version(client: Client) -> None:
    """Refuse a cluster whose ``_aliases`` does not know what a swap rests on."""
    distribution, version = client.info()
    if distribution == "opensearch" and version < _OLDEST:
        shown = ".".join(map(str, version))
        raise ConfigError(
            f"OpenSearch {shown} is too old for a reindex: its _aliases does not know must_exist, so a swap could not be made safely",
            hint="OpenSearch 2.12 or newer is needed",
        )


def refuse_data_stream(client: Client, name: str) -> None:
    """Refuse a name that is a data stream's: no alias can bear it."""
    if cluster_of.is_data_stream(client, name):
        raise ConfigError(
            f"{name} is a data stream, and no alias can bear that name",
            hint="choose another name for [indexes.NAME], or delete the data stream",
        )


def of_templates(given: Given, definition: Definition) -> Iterator[Obstacle]:
    """Yield what templates of the site would do to a new index that spoils it."""
    if given.aliases:
        yield Obstacle(
            f"{given.by} puts {', '.join(given.aliases)} on each new index, so a half-built one would be searched",
            "take the aliases out of the template: those that stand on the live index come along with a swap",
        )
    source, routing = given.mappings.get("_source"), given.mappings.get("_routing")
    if isinstance(source, dict) and "_source" not in definition.mappings:
        if _off(source.get("enabled", True)):
            yield Obstacle(
                f"{given.by} turns _source off, so no document could be compared with its row",
                'take it out of the template, or put "_source": {"enabled": true} into the mapping file',
            )
        elif (source.get("excludes") or source.get("includes")) and not definition.verify_ignore:
            yield Obstacle(
                f"{given.by} leaves fields out of _source, so no document would equal its row",
                "name these fields in verify_ignore, or take them out of the template",
            )
    if isinstance(routing, dict) and _on(routing.get("required")) and definition.routing is None:
        yield Obstacle(f"{given.by} requires a routing, and the index names none", "routing = an SQL expression")
    if definition.verify_ignore:
        return
    for kind, overruled in (("default_pipeline", definition.pipeline is not None), ("final_pipeline", False)):
        pipeline = str(given.settings.get(kind, "_none"))
        if pipeline != "_none" and not overruled and kind not in sums.flattened(definition.settings):
            yield Obstacle(
                f"{given.by} sends each document through the pipeline {pipeline} ({kind}), so none may equal its row",
                f'put "{kind}": "_none" into the settings of the mapping file, or name what it changes in verify_ignore',
            )


def of_settings(given: Given, lifetime: Lifetime) -> Iterator[Obstacle]:
    """Yield settings, of the file or of templates, with which an index cannot be filled or compared."""
    wanted = lifetime.effective
    for key, why, way_out in (
        ("derived_source.enabled", "so documents come back in other words than they were written in", "turn it off"),
        ("blocks.write", "so nothing could be written", "set it once the index is in service"),
        ("blocks.read_only", "so nothing could be written", "set it once the index is in service"),
        ("blocks.read_only_allow_delete", "so nothing could be written", "set it once the index is in service"),
    ):
        if _on(wanted.get(key)):
            whose = "the mapping file" if key in lifetime.asked else given.by
            yield Obstacle(f"{whose} sets {key}, {why}", f"{way_out} in {whose}")


def of_cluster(
    client: Client, cluster: Mapping[str, str], lifetime: Lifetime, *, live: str | None
) -> Iterator[Obstacle]:
    """Yield what the cluster has no room for, with the figures."""
    for key in ("cluster.blocks.read_only", "cluster.blocks.read_only_allow_delete", "cluster.blocks.create_index"):
        if _on(cluster.get(key)):
            yield Obstacle(f"{key} is set, so no index can be made", "take it away: PUT _cluster/settings")
    size = cluster_of.size(client)
    most_a_node = answer_parts.number(cluster.get("cluster.max_shards_per_node"))
    if size is not None and most_a_node is not None:
        nodes, shards = size
        most = nodes * most_a_node
        more = lifetime.primaries * (1 + lifetime.replicas)
        if shards + more > most:
            yield Obstacle(
                f"the new index needs {more:,} shards, and the cluster has {shards:,} of the {most:,} it may have "
                f"({nodes} data nodes, cluster.max_shards_per_node)",
                "delete indexes that nobody needs, or raise cluster.max_shards_per_node",
            )
    yield from _of_disks(client, cluster, lifetime, live)


def _of_disks(client: Client, cluster: Mapping[str, str], lifetime: Lifetime, live: str | None) -> Iterator[Obstacle]:
    """A second copy of the live index must fit below the high watermark, beyond which shards are moved away."""
    mark = cluster.get("cluster.routing.allocation.disk.watermark.high", "")
    if live is None or _off(cluster.get("cluster.routing.allocation.disk.threshold_enabled", "true")):
        return
    held, disks = cluster_of.stored(client, live), cluster_of.disks(client)
    if not held or not disks:
        return
    room = sum(max(free - kept_free(mark, total), 0) for free, total in disks)
    needed = held * (1 + lifetime.replicas)
    if needed > room:
        yield Obstacle(
            f"a second {live} needs about {_megabytes(needed)} with its replicas, and the disks of {len(disks)} nodes have "
            f"{_megabytes(room)} below the high watermark ({mark})",
            "make room on the data nodes",
        )


def kept_free(mark: str, total: int) -> int:
    """Return how many bytes a watermark keeps free of a disk: "90%" and "0.9" are used, "10gb" is free."""
    text = mark.strip().lower()
    used = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)%", text)
    if used is not None:
        return int(total * (100 - float(used[1])) / 100)
    free = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)([kmgtp]?)b", text)
    if free is not None:
        return int(float(free[1]) * 1024 ** " kmgtp".index(free[2] or " "))
    share = re.fullmatch(r"0?\.[0-9]{1,18}|1\.0{1,6}", text)
    return int(total * (1 - float(text))) if share is not None else 0


def _megabytes(size: int) -> str:
    return f"{size / 1024 / 1024:,.0f} MB"


def _on(value: Any) -> bool:
    return str(value).lower() == "true"


def _off(value: Any) -> bool:
    return str(value).lower() == "false"
