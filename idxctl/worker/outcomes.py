"""
Sort what OpenSearch answers, by level, status and type; never by status alone.

One pure function for an item and one for a whole request. The table was read in OpenSearch's source (bulk action, indexing
pressure, cluster blocks) and tried on 2.19 and 3.8 servers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from idxctl.core.errors import OpenSearchRefused, OpenSearchUnreachable


class Kind(Enum):
    """What a failure means for the document, and so what is done."""

    DONE = "done"
    SUPERSEDED = "superseded"  # a newer write is there; success, once its version is seen to be ours (T4)
    TRANSIENT = "transient"  # try again; no attempt is spent
    DOUBTFUL = "doubtful"  # the document's own failure, perhaps passing: an attempt is spent
    SPLIT = "split"  # the request is too large, or one item spoils it: halve
    BLOCKED = "blocked"  # the index, or the credentials: pause and say why
    PERMANENT = "permanent"  # trying again cannot help
    GONE = "gone"  # the index does not exist


@dataclass(frozen=True)
class Verdict:
    """A failure's kind, OpenSearch's name for it and its sentence; ``whole`` when it was the request's and not an item's."""

    kind: Kind
    error_type: str = ""
    reason: str = ""
    whole: bool = False


DONE = Verdict(Kind.DONE)

_OVERLOAD = {"rejected_execution_exception", "circuit_breaking_exception", "opensearch_rejected_execution_exception"}
_CLUSTER = {"unavailable_shards_exception", "process_cluster_event_timeout_exception", "no_shard_available_action_exception",
            "cluster_manager_not_discovered_exception", "master_not_discovered_exception", "node_closed_exception",
            "node_not_connected_exception", "node_disconnected_exception", "already_closed_exception",
            "index_shard_closed_exception", "shard_not_in_primary_mode_exception", "primary_shard_closed_exception"}  # fmt: skip
_BLOCKED_TYPES = {
    "index_closed_exception",
    "cluster_block_exception",
    "security_exception",
    "routing_missing_exception",
}
_VERSION = re.compile(r"current version \[(\d+)\]")


def of_item(status: int, error_type: str, reason: str) -> Verdict:
    """Sort one item of a bulk that was answered with 200; *error_type* is "" where the item has no error."""
    if not error_type:
        return DONE  # 200, 201, and 404 of a delete that found nothing
    return Verdict(_item_kind(status, error_type, reason), error_type, reason)


def _item_kind(status: int, error_type: str, reason: str) -> Kind:
    if error_type == "version_conflict_engine_exception":
        return Kind.SUPERSEDED
    if error_type in {"index_not_found_exception", "no_such_index_exception"}:
        return Kind.GONE
    if error_type in _BLOCKED_TYPES or status in {401, 403}:
        return Kind.BLOCKED
    if "no write index is defined for alias" in reason:
        return Kind.BLOCKED
    if error_type in _OVERLOAD or error_type in _CLUSTER or status == 429:
        return Kind.TRANSIENT
    if status in {502, 503, 504}:
        return Kind.TRANSIENT
    return Kind.DOUBTFUL if status >= 500 else Kind.PERMANENT


def of_request(error: OpenSearchRefused | OpenSearchUnreachable) -> Verdict:
    """Sort a whole request that failed. Nothing of it was applied for 400, 413 and 429; otherwise that is unknown."""
    if isinstance(error, OpenSearchUnreachable):
        return Verdict(Kind.TRANSIENT, "unreachable", error.message, whole=True)
    error_type = error.error_type or f"http_{error.status}"
    return Verdict(_request_kind(error), error_type, error.reason or error.message, whole=True)


def _request_kind(error: OpenSearchRefused) -> Kind:
    if error.status == 413:
        return Kind.SPLIT
    if error.status == 404:
        return Kind.GONE
    if error.status in {401, 403}:
        return Kind.BLOCKED
    if error.status == 429:
        return Kind.BLOCKED if error.error_type == "cluster_block_exception" else _pressure(error)
    if error.status == 400:
        return Kind.SPLIT
    return Kind.TRANSIENT if error.status >= 500 else Kind.BLOCKED


_PRESSURE = re.compile(r"coordinating_operation_bytes=(\d+), max_coordinating_and_primary_bytes=(\d+)")


def _pressure(error: OpenSearchRefused) -> Kind:
    """A body larger than all the memory that bulks may take can never pass; any other wait is overload."""
    found = _PRESSURE.search(error.reason)
    if found and int(found.group(1)) > int(found.group(2)):
        return Kind.SPLIT
    return Kind.TRANSIENT


def current_version(reason: str) -> int | None:
    """Return the version that a conflict's sentence names; it stands nowhere else (T4)."""
    found = _VERSION.search(reason)
    return None if found is None else int(found.group(1))
