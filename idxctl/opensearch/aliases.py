"""Indexes and aliases: create, look, swap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from idxctl.core.errors import OpenSearchRefused
from idxctl.opensearch.client import Client

_MARK = "idxctl"


def targets(client: Client, alias: str) -> list[str]:
    """Return the indexes behind *alias*; none when there is no such alias."""
    try:
        return sorted(client.request("GET", f"/_alias/{alias}"))
    except OpenSearchRefused as error:
        if error.status == 404:
            return []
        raise


def is_index(client: Client, name: str) -> bool:
    """Tell whether *name* is a concrete index and not an alias."""
    try:
        found: Mapping[str, Any] = client.request("GET", f"/{name}", params={"filter_path": "*.aliases"})
    except OpenSearchRefused as error:
        if error.status == 404:
            return False
        raise
    return name in found


def exists(client: Client, name: str) -> bool:
    """Tell whether an index or alias of that name exists."""
    try:
        client.request("GET", f"/{name}", params={"filter_path": "*.aliases"})
    except OpenSearchRefused as error:
        if error.status == 404:
            return False
        raise
    return True


def create(client: Client, name: str, *, settings: Mapping[str, Any], mappings: Mapping[str, Any]) -> None:
    """
    Create an index; a mapping that OpenSearch refuses raises `OpenSearchRefused` with its reason.

    A mark in its mapping tells it from one of that name that a write created. Snapshots keep it, which they do not do
    with the index's uuid.
    """
    meta = mappings.get("_meta")
    marked = {**(meta if isinstance(meta, Mapping) else {}), _MARK: {"generation": name}}
    client.request("PUT", f"/{name}", body={"settings": dict(settings), "mappings": {**mappings, "_meta": marked}})


def ours(client: Client, name: str, alias: str) -> bool | None:
    """
    Tell whether index *name* was made by `create`, or stands behind *alias*; None when there is no such index.

    One that is neither was created by a write to that name, or by somebody else.
    """
    params = {"filter_path": f"*.aliases,*.mappings._meta.{_MARK}"}
    try:
        found: Mapping[str, Any] = client.request("GET", f"/{name}", params=params)
    except OpenSearchRefused as error:
        if error.status == 404:
            return None
        raise
    if name not in found:  # an answer that does not speak of it tells nothing
        return True
    index = found[name]
    return alias in index.get("aliases", {}) or "mappings" in index


def put_settings(client: Client, name: str, settings: Mapping[str, Any]) -> None:
    """Change dynamic settings of an index; None takes one back to its default."""
    client.request("PUT", f"/{name}/_settings", body={"index": dict(settings)})


def refresh(client: Client, name: str) -> None:
    """Make every write so far visible to searches."""
    client.request("POST", f"/{name}/_refresh")


def delete(client: Client, name: str) -> bool:
    """Delete an index; False when it was not there."""
    try:
        client.request("DELETE", f"/{name}")
    except OpenSearchRefused as error:
        if error.status == 404:
            return False
        raise
    return True


def wait_for_health(client: Client, name: str, *, timeout_seconds: int = 60) -> str:
    """Wait until every primary of *name* is there and its replicas as far as they can be; returns the status."""
    params = {"wait_for_status": "yellow", "timeout": f"{timeout_seconds}s", "wait_for_no_initializing_shards": "true"}
    try:
        answer = client.request("GET", f"/_cluster/health/{name}", params=params, timeout_seconds=timeout_seconds + 10)
    except OpenSearchRefused as error:
        if error.status == 408:
            return "red"
        raise
    return str(answer["status"])


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
    client.request("POST", "/_aliases", body={"actions": actions})
