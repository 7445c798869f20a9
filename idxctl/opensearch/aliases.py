"""Indexes and aliases: create, look, swap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from idxctl.core.errors import OpenSearchRefused, OpenSearchUnintelligible
from idxctl.opensearch import answers
from idxctl.opensearch.client import Client

_MARK = "idxctl"


def targets(client: Client, alias: str) -> list[str]:
    """Return the indexes behind *alias*; none when there is no such alias."""
    try:
        found = client.ask("GET", f"/_alias/{alias}", answers.indexes)
    except OpenSearchRefused as error:
        if error.status == 404:
            return []
        raise
    if not found or not all(alias in index["aliases"] for index in found.values()):
        raise _silent(alias)
    return sorted(found)


def is_index(client: Client, name: str) -> bool:
    """Tell whether *name* is a concrete index and not an alias."""
    try:
        found = client.ask("GET", f"/{name}", answers.indexes, params={"filter_path": "*.aliases"})
    except OpenSearchRefused as error:
        if error.status == 404:
            return False
        raise
    return _speaks_of(found, name) is not None


def exists(client: Client, name: str) -> bool:
    """Tell whether an index or alias of that name exists."""
    try:
        found = client.ask("GET", f"/{name}", answers.indexes, params={"filter_path": "*.aliases"})
    except OpenSearchRefused as error:
        if error.status == 404:
            return False
        raise
    _speaks_of(found, name)
    return True


def create(client: Client, name: str, *, settings: Mapping[str, Any], mappings: Mapping[str, Any]) -> None:
    """
    Create an index; a mapping that OpenSearch refuses raises `OpenSearchRefused` with its reason.

    A mark in its mapping tells it from one of that name that a write created. Snapshots keep it, which they do not do
    with the index's uuid.
    """
    meta = mappings.get("_meta")
    marked = {**(meta if isinstance(meta, Mapping) else {}), _MARK: {"generation": name}}
    body = {"settings": dict(settings), "mappings": {**mappings, "_meta": marked}}
    client.ask("PUT", f"/{name}", answers.acknowledged, body=body)


def ours(client: Client, name: str, alias: str) -> bool | None:
    """
    Tell whether index *name* was made by `create`, or stands behind *alias*; None when there is no such index.

    One that is neither was created by a write to that name, or by somebody else.
    """
    params = {"filter_path": f"*.aliases,*.mappings._meta.{_MARK},error.type"}
    try:
        found = client.ask("GET", f"/{name}", answers.indexes, params=params)
    except OpenSearchRefused as error:
        if error.status == 404 and error.error_type:  # without a type it is not OpenSearch that finds nothing there
            return None
        raise
    index = _speaks_of(found, name)
    return index is not None and (alias in index["aliases"] or "mappings" in index)


def put_settings(client: Client, name: str, settings: Mapping[str, Any]) -> None:
    """Change dynamic settings of an index; None takes one back to its default."""
    client.ask("PUT", f"/{name}/_settings", answers.acknowledged, body={"index": dict(settings)})


def refresh(client: Client, name: str) -> None:
    """Make every write so far visible to searches."""
    client.ask("POST", f"/{name}/_refresh", answers.refreshed, repeat=True)


def delete(client: Client, name: str) -> bool:
    """Delete an index; False when it was not there."""
    try:
        client.ask("DELETE", f"/{name}", answers.acknowledged)
    except OpenSearchRefused as error:
        if error.status == 404:
            return False
        raise
    return True


def wait_for_health(client: Client, name: str, *, timeout_seconds: int = 60) -> str:
    """Wait until every primary of *name* is there and its replicas as far as they can be; returns the status."""
    params = {"wait_for_status": "yellow", "timeout": f"{timeout_seconds}s", "wait_for_no_initializing_shards": "true"}
    try:
        path = f"/_cluster/health/{name}"
        return client.ask("GET", path, answers.health, params=params, timeout_seconds=timeout_seconds + 10)
    except OpenSearchRefused as error:
        if error.status == 408:
            return "red"
        raise


def swap(client: Client, alias: str, *, new: str, old: str | None, replace_index: bool = False) -> None:
    """
    Point *alias* at *new* in one atomic call.

    With *old* given, nothing changes unless the alias stands on it (``must_exist`` is a compare-and-swap: 404
    ``aliases_not_found_exception``). With *replace_index*, the concrete index that bears the alias's name is deleted by
    the same call; that has no way back.
    """
    actions: list[dict[str, Any]] = []
    if replace_index:
        actions.append({"remove_index": {"index": alias}})
    elif old is not None:
        actions.append({"remove": {"index": old, "alias": alias, "must_exist": True}})
    actions.append({"add": {"index": new, "alias": alias}})
    client.ask("POST", "/_aliases", answers.acknowledged, body={"actions": actions})


def put_mapping(client: Client, name: str, properties: Mapping[str, Any]) -> None:
    """Add fields to the mapping of an index."""
    client.ask("PUT", f"/{name}/_mapping", answers.acknowledged, body={"properties": dict(properties)})


def matching(client: Client, names: str) -> list[str]:
    """Return the indexes whose names match a pattern."""
    return sorted(client.ask("GET", f"/{names}", answers.indexes, params={"filter_path": "*.aliases"}))


def _speaks_of(found: Mapping[str, dict[str, Any]], name: str) -> dict[str, Any] | None:
    """Return what an answer says of index *name*, None where that is an alias; an answer that is silent of it is none."""
    if name in found:
        return found[name]
    if any(name in index["aliases"] for index in found.values()):
        return None
    raise _silent(name)


def _silent(name: str) -> OpenSearchUnintelligible:
    return OpenSearchUnintelligible(
        f"what answers when asked for {name} does not speak of it", answered=f"an answer that does not speak of {name}"
    )
