"""What a cluster is and has room for; nothing where this role may not ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from idxctl.core.errors import OpenSearchRefused
from idxctl.opensearch import answers
from idxctl.opensearch.client import Client, segment

T = TypeVar("T")

_NOT_FOR_US = frozenset({401, 403, 404, 405})  # not for this role, or nothing of the kind is there


def settings(client: Client) -> dict[str, str]:
    """Return the settings that hold, defaults among them."""
    params = {"include_defaults": "true", "flat_settings": "true"}
    return _allowed(lambda: client.ask("GET", "/_cluster/settings", answers.cluster_settings, params=params)) or {}


def size(client: Client) -> tuple[int, int] | None:
    """Return how many data nodes and how many shards there are."""
    return _allowed(lambda: client.ask("GET", "/_cluster/health", answers.cluster_size))


def stored(client: Client, index: str) -> int | None:
    """Return how many bytes the primary shards of an index hold."""
    return _allowed(lambda: client.ask("GET", f"/{segment(index)}/_stats/store", answers.stored))


def disks(client: Client) -> list[tuple[int, int]] | None:
    """Return of each data node how many bytes of its disk are free, and how many there are."""
    params = {"format": "json", "bytes": "b"}
    return _allowed(lambda: client.ask("GET", "/_cat/allocation", answers.disks, params=params))


def is_data_stream(client: Client, name: str) -> bool:
    """Whether a data stream bears that name; one that may not be asked about is none."""
    try:
        found = client.ask("GET", f"/_data_stream/{segment(name)}", lambda text: answers.listed(text, "data_streams"))
    except OpenSearchRefused as error:
        if error.status in {400, *_NOT_FOR_US}:
            return False
        raise
    return any(one.get("name") == name for one in found)


def _allowed(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except OpenSearchRefused as error:
        if error.status in _NOT_FOR_US:
            return None
        raise
