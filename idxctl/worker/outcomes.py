"""
Sort what OpenSearch answers, by level, status and type; never by status alone.

One pure function for an item and one for a whole request. The table was read in OpenSearch's source (bulk action, indexing
pressure, cluster blocks) and tried on 2.19 and 3.8 servers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum

from idxctl.core import fingerprints, reasons
from idxctl.core.errors import OpenSearchRefused, OpenSearchUnintelligible, OpenSearchUnreachable
from idxctl.core.reasons import Reason


class Kind(Enum):
    """What a failure means for the document, and so what is done."""

    DONE = "done"
    SUPERSEDED = "superseded"  # a newer write is there; success, once its version is seen to be ours (T4)
    TRANSIENT = "transient"  # try again; no attempt is spent
    DOUBTFUL = "doubtful"  # the document's own failure, perhaps passing: an attempt is spent
    SPLIT = "split"  # the request is too large, or one item spoils it: halve; alone, it is the document's own failure
    BLOCKED = "blocked"  # the index, or the credentials: pause and say why
    PERMANENT = "permanent"  # trying again cannot help
    GONE = "gone"  # the index does not exist


class Cause(Enum):
    """What else a failure tells, whatever it means for the document."""

    OVERLOAD = "overload"  # too much at once: send less
    TOO_LARGE = "too large"  # the request's size, whatever the load: such a one never passes
    CUT = "cut"  # the connection was closed while the request was under way, as some do with what is too large
    SLOW = "slow"  # no answer in time: it may work on it still, and on more of that size soon on nothing else
    FAULT = "fault"  # OpenSearch fell over it, by its own word
    SHARDS = "shards"  # where the document belongs cannot be written now: the index's trouble, if it is all of it
    ELSEWHERE = "elsewhere"  # of one index alone: another one takes writes by the same way


@dataclass(frozen=True)
class Verdict:
    """
    A failure's kind, OpenSearch's name for it and its sentence; ``whole`` when it was the request's and not an item's.

    ``suspect``: these are not OpenSearch's own words, so either the way to it has failed or this body on it (`way`);
    ``answered`` says in a few words what came instead.
    """

    kind: Kind
    error_type: str = ""
    reason: str = ""
    whole: bool = False
    cause: Cause | None = None
    suspect: bool = False
    answered: str = ""

    @property
    def is_silence(self) -> bool:
        """Whether nobody answered, or OpenSearch itself that it cannot now; what a gateway says may be about one request alone."""
        gateway = self.suspect and self.error_type != "unreachable"
        return self.kind is Kind.TRANSIENT and not gateway


DONE = Verdict(Kind.DONE)
REFUSALS = frozenset({Kind.PERMANENT, Kind.DOUBTFUL})  # the document's
TOO_OLD, FOREIGN_VERSION, TOO_SLOW = "too_old", "foreign_version", "too_slow"  # types of our own
APART, FOREIGN_INDEX = "apart", "foreign_index"

OVERLOAD = {"rejected_execution_exception", "circuit_breaking_exception", "opensearch_rejected_execution_exception"}
_SHARDS = {"unavailable_shards_exception", "no_shard_available_action_exception", "index_shard_closed_exception",
           "shard_not_in_primary_mode_exception", "primary_shard_closed_exception", "engine_closed_exception",
           "shard_not_found_exception", "illegal_index_shard_state_exception", "already_closed_exception",
           "translog_exception", "i_o_exception", "file_system_exception", "no_such_file_exception"}  # fmt: skip
_CLUSTER = {"process_cluster_event_timeout_exception", "cluster_manager_not_discovered_exception",
            "master_not_discovered_exception", "failed_to_commit_cluster_state_exception", "node_closed_exception",
            "node_not_connected_exception", "node_disconnected_exception", "not_cluster_manager_exception",
            "connect_transport_exception", "receive_timeout_transport_exception", "timeout_exception"}  # fmt: skip
_BLOCKED_TYPES = {
    "index_closed_exception",
    "cluster_block_exception",
    "security_exception",
    "routing_missing_exception",
}
_BLOCKED_REASONS = re.compile(r"no write index is defined for alias|pipeline with id \[.*\] does not exist")
_VERSION = re.compile(r"current version \[(\d+)\]")


def of_item(status: int, error_type: str, reason: str) -> Verdict:
    """Sort one item of a bulk that was answered with 200; *error_type* is "" where the item has no error."""
    if not error_type:
        return DONE  # 200, 201, and 404 of a delete that found nothing
    kind = _item_kind(status, error_type, reason)
    return Verdict(kind, error_type, _storable(reason), cause=_item_cause(kind, status, error_type))


def _storable(reason: str) -> str:
    """Return a sentence that PostgreSQL takes: OpenSearch quotes values, and one may hold a NUL."""
    return reason.replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode()


def _item_kind(status: int, error_type: str, reason: str) -> Kind:
    if error_type == "version_conflict_engine_exception":
        return Kind.SUPERSEDED
    if error_type in {"index_not_found_exception", "no_such_index_exception"}:
        return Kind.GONE
    if error_type == "cluster_block_exception" and status == 503:  # a cluster that is starting: passes by itself
        return Kind.TRANSIENT
    if error_type in _BLOCKED_TYPES or status in {401, 403} or _BLOCKED_REASONS.search(reason):
        return Kind.BLOCKED
    if error_type in OVERLOAD | _SHARDS | _CLUSTER or status in {429, 502, 503, 504}:
        return Kind.TRANSIENT
    return Kind.DOUBTFUL if status >= 500 else Kind.PERMANENT


def _item_cause(kind: Kind, status: int, error_type: str) -> Cause | None:
    if kind is not Kind.TRANSIENT:
        return None
    if error_type in OVERLOAD or status == 429:
        return Cause.OVERLOAD
    return None if error_type in _CLUSTER else Cause.SHARDS


def of_request(error: OpenSearchRefused | OpenSearchUnreachable) -> Verdict:
    """Sort a whole request that failed. Nothing of it was applied for 400, 413 and 429; otherwise that is unknown."""
    if isinstance(error, OpenSearchUnreachable):
        cause = Cause.CUT if error.cut else Cause.SLOW if error.slow else None
        told = error.answered if isinstance(error, OpenSearchUnintelligible) else ""
        answered = f'something answered: "{told}"' if told else error.message  # in quotes: it may hold values
        name = "unintelligible" if told else "unreachable"
        return Verdict(
            Kind.TRANSIENT, name, _storable(error.message), whole=True, cause=cause, suspect=True,
            answered=_storable(answered),
        )  # fmt: skip
    kind, cause = _request(error)
    error_type = error.error_type or f"http_{error.status}"
    reason = _storable(error.reason or error.message)
    if error.error_type or error.status == 413:
        return Verdict(kind, error_type, reason, whole=True, cause=cause)
    return Verdict(kind, error_type, reason, whole=True, cause=cause, suspect=True, answered=_storable(_page(error)))


def _request(error: OpenSearchRefused) -> tuple[Kind, Cause | None]:
    """
    Decide by status and type. A 500 with a type is OpenSearch's own, and one item may be all its cause.

    Without a type it is the word of something on the way (a gateway, a firewall), and tells nothing of the index.
    """
    if error.status == 413:
        return Kind.SPLIT, Cause.TOO_LARGE
    if error.status == 429:
        return _pressure(error)
    if error.status == 404:
        return (Kind.GONE if error.error_type else Kind.TRANSIENT), None
    if error.status == 400:
        return (Kind.SPLIT if error.error_type else Kind.TRANSIENT), None
    if error.status == 500 and error.error_type and error.error_type not in _SHARDS | _CLUSTER | OVERLOAD:
        return Kind.SPLIT, Cause.FAULT
    return (Kind.TRANSIENT, None) if error.status >= 500 or error.status == 408 else (Kind.BLOCKED, None)


def _page(error: OpenSearchRefused) -> str:
    """Return what answered, for people: the status and the first words of its page."""
    words = error.page or error.reason
    return f"something answered with status {error.status}" + (f': "{words}"' if words else " and no words")


_PRESSURE = re.compile(r"coordinating_operation_bytes=(\d+), max_coordinating_and_primary_bytes=(\d+)")


def _pressure(error: OpenSearchRefused) -> tuple[Kind, Cause | None]:
    """Tell a block, a body larger than all the memory that bulks may take, which can never pass, and an overload apart."""
    if error.error_type == "cluster_block_exception":
        return Kind.BLOCKED, None
    found = _PRESSURE.search(error.reason)
    if found and int(found.group(1)) > int(found.group(2)):
        return Kind.SPLIT, Cause.TOO_LARGE
    return Kind.TRANSIENT, Cause.OVERLOAD


def alone(verdict: Verdict, size: int, *, over_limit: bool = False) -> Verdict:
    """
    Return what a failed request means when a single document of *size* bytes was all of it: nothing is left to halve.

    *over_limit*: larger than what this server was seen to refuse; a connection that it closes is then its way to say so.
    """
    if verdict.cause is Cause.CUT and over_limit:
        return replace(verdict, kind=Kind.DOUBTFUL)
    if verdict.kind is not Kind.SPLIT:
        return verdict
    if verdict.cause is Cause.TOO_LARGE:
        reason = (
            f"this document alone is {size / 1e6:.1f} MB, more than OpenSearch takes in one request: {verdict.reason}"
        )
        return replace(verdict, kind=Kind.PERMANENT, reason=reason)
    return replace(verdict, kind=Kind.DOUBTFUL if verdict.cause is Cause.FAULT else Kind.PERMANENT)


def of_the_way(verdict: Verdict) -> Verdict:
    """Return what a request means that goes on failing on its way with one document in it, while others pass: it is doubtful."""
    name = verdict.error_type
    if name == "unreachable":
        name = verdict.cause.value if verdict.cause else "unanswered"
    reason = f"the way to OpenSearch fails on this document, while others pass: {verdict.answered}"
    return replace(verdict, kind=Kind.DOUBTFUL, error_type=f"way_{name}", reason=reason)


_OF_OURS = {
    TOO_OLD: reasons.Kind.OUTDATED,
    FOREIGN_VERSION: reasons.Kind.OUTDATED,
    TOO_SLOW: reasons.Kind.SLOW,
    APART: reasons.Kind.APART,
    FOREIGN_INDEX: reasons.Kind.FOREIGN,
}
_OF_CAUSES = {Cause.OVERLOAD: reasons.Kind.OVERLOADED, Cause.SHARDS: reasons.Kind.SHARDS_AWAY}
_OF_KINDS = {
    Kind.GONE: reasons.Kind.GONE,
    Kind.BLOCKED: reasons.Kind.REFUSED,
    Kind.TRANSIENT: reasons.Kind.UNREACHABLE,
}


def why(verdict: Verdict, *, generation: str = "") -> Reason:
    """Return a verdict as the reason that what met it waits; *generation* where it is that index's trouble."""
    kind = _OF_OURS.get(verdict.error_type)
    if kind is None and verdict.error_type.startswith("sql_"):
        kind = reasons.Kind.UNREADABLE
    if kind is None and verdict.cause is not None:
        kind = _OF_CAUSES.get(verdict.cause)
    if kind is None:
        kind = _OF_KINDS.get(verdict.kind, reasons.Kind.FAILED)
    return Reason(kind, verdict.reason, verdict.error_type, generation)


def fingerprint(verdict: Verdict) -> str:
    """Return what failures of one kind share; a gateway's page may hold a number of its own each time, and is left out."""
    return fingerprints.of_error(verdict.error_type, "" if verdict.suspect else verdict.reason)


def current_version(reason: str) -> int | None:
    """Return the version that a conflict's sentence names; it stands nowhere else (T4)."""
    found = _VERSION.search(reason)
    return None if found is None else int(found.group(1))
