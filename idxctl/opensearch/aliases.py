"""Indexes and aliases: create, look, swap."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from idxctl.core.errors import OpenSearchRefused, OpenSearchUnintelligible
from idxctl.opensearch import answers, copies
from idxctl.opensearch.client import Client, segment

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
    Create an index and return once its primary shards have started: it takes writes then.

    A mapping that OpenSearch refuses raises `OpenSearchRefused` with its reason, and an index that no node takes
    `ConfigError`; that one is there all the same.
    A mark in its mapping tells it from one of that name that a write created. Snapshots keep it, which they do not do
    with the index's uuid.
    """
    body = {"settings": dict(settings), "mappings": {**mappings, "_meta": _marked(mappings.get("_meta"), name)}}
    # Not for active shards, which OpenSearch would wait for as long as we wait for its answer: here it is found out why.
    client.ask("PUT", f"/{name}", answers.acknowledged, body=body, params={"wait_for_active_shards": "0"})
    copies.require_primaries(client, name)


def _marked(meta: Any, name: str) -> dict[str, Any]:
    return {**(meta if isinstance(meta, Mapping) else {}), _MARK: {"generation": name}}


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


def around(client: Client, names: Collection[str], *, timeout_seconds: float) -> dict[str, dict[str, Any]]:
    """
    Return the concrete indexes of these names and behind these aliases, each with its ``aliases``, in one request.

    Those that `create` made have ``mappings`` beside. What there is not is left out.
    """
    params = {
        "ignore_unavailable": "true",
        "allow_no_indices": "true",
        "filter_path": f"*.aliases,*.mappings._meta.{_MARK}",
    }
    path = "/" + ",".join(map(segment, sorted(names)))
    return client.ask("GET", path, answers.indexes, params=params, timeout_seconds=timeout_seconds)


def put_settings(client: Client, name: str, settings: Mapping[str, Any]) -> None:
    """Change dynamic settings of an index; None takes one back to its default."""
    client.ask("PUT", f"/{name}/_settings", answers.acknowledged, body={"index": dict(settings)})


def standing(client: Client, name: str) -> dict[str, dict[str, Any]] | None:
    """
    Return the aliases on the concrete index *name*, each with what it carries: filter, routing, write flag, hidden.

    None when there is no such index.
    """
    try:
        found = client.ask("GET", f"/{segment(name)}/_alias", answers.indexes)
    except OpenSearchRefused as error:
        if error.status == 404:
            return None
        raise
    if name not in found:
        raise _silent(name)
    carried: dict[str, dict[str, Any]] = found[name]["aliases"]
    return carried


def take_off(client: Client, name: str, unwanted: Collection[str]) -> None:
    """Take aliases off an index; they may stand on others."""
    actions = [{"remove": {"index": name, "alias": alias}} for alias in sorted(unwanted)]
    client.ask("POST", "/_aliases", answers.acknowledged, body={"actions": actions})


def delete_unless_searched(client: Client, name: str) -> list[str]:
    """Delete an index that no alias stands on (G5); returns those that do, and then nothing is deleted."""
    held = standing(client, name)
    if not held:
        delete(client, name)
    return sorted(held or ())


def fits(client: Client, name: str, query: Mapping[str, Any]) -> bool:
    """
    Tell whether an alias's filter can be an alias's filter on index *name*: its mapping may have no place for it.

    Where this role may not ask, the swap will tell.
    """
    try:
        return client.ask(
            "POST", f"/{segment(name)}/_validate/query", answers.valid, body={"query": query}, repeat=True
        )
    except OpenSearchRefused as error:
        if error.status in {401, 403}:
            return True
        raise


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


def swap(
    client: Client,
    alias: str,
    *,
    new: str,
    old: str | None,
    replace_index: bool = False,
    carried: Mapping[str, Mapping[str, Any]] | None = None,
    there: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """
    Point *alias* at *new* in one atomic call, and with it all that is *carried*: aliases and what each of them carries.

    With *old* given, nothing changes unless all of them stand on it (``must_exist`` is a compare-and-swap: 404
    ``aliases_not_found_exception``). With *replace_index*, the concrete index that bears the alias's name is deleted by
    the same call; that has no way back. What stands on *new* already, *there*, stays as it is.
    """
    moved = {alias: {}} if carried is None else dict(carried)
    actions: list[dict[str, Any]] = []
    if replace_index:
        actions.append({"remove_index": {"index": alias}})
    elif old is not None:
        actions += [{"remove": {"index": old, "alias": name, "must_exist": True}} for name in sorted(moved)]
    actions += [
        {"add": {"index": new, "alias": name, **more}}
        for name, more in sorted({alias: {}, **(there or {}), **moved}.items())
    ]
    client.ask("POST", "/_aliases", answers.acknowledged, body={"actions": actions})


def put_mapping(client: Client, name: str, mapping: Mapping[str, Any]) -> None:
    """Merge fields and parameters into the mapping of an index; its mark stays."""
    body = {**mapping, "_meta": _marked(mapping["_meta"], name)} if "_meta" in mapping else dict(mapping)
    client.ask("PUT", f"/{segment(name)}/_mapping", answers.acknowledged, body=body)


def made_of(client: Client, name: str) -> tuple[dict[str, Any], dict[str, str]] | None:
    """Return the mapping that index *name* has, and what is set on it, by full names without the prefix; None without it."""
    try:
        found = client.ask("GET", f"/{segment(name)}", answers.indexes, params={"flat_settings": "true"})
    except OpenSearchRefused as error:
        if error.status == 404:
            return None
        raise
    one = _speaks_of(found, name) or {}
    mapping, settings = one.get("mappings"), one.get("settings")
    if not isinstance(mapping, dict) or not isinstance(settings, dict):
        raise _silent(name)
    return mapping, {key.removeprefix("index."): str(value) for key, value in settings.items()}


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
