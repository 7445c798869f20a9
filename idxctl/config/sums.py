"""
The sums of settings that rules of the protocol rest on: whether a configuration keeps them, and what to change if not.

T3: OpenSearch forgets a deletion after ``index.gc_deletes``; a write that was read before the deletion and arrives later
would bring the document back. So bytes must be gone by then, the last request that carries them included. C3 and G3 wait
that long too, for the same reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from idxctl.core.durations import format_duration

GC_DELETES = "5m"  # what an index that idxctl creates gets unless its mapping names another
_TIME = re.compile(r"(\d+)(nanos|micros|ms|s|m|h|d)", re.IGNORECASE)
_UNITS = {"nanos": 1e-9, "micros": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Broken(NamedTuple):
    """A sum that does not hold. ``setting`` is the one to name the source of."""

    setting: str
    what: str
    fix: str


def bytes_gone_after(age_limit_seconds: float, request_timeout_seconds: float) -> float:
    """Return how long after its token a document's bytes may still arrive: sent at the last moment, with all the time a request has."""
    return age_limit_seconds + request_timeout_seconds


def lease_too_short(lease_seconds: float, request_timeout_seconds: float) -> Broken | None:
    """A request that was begun while the lease was held must be over when it lapses and others take the batch."""
    if request_timeout_seconds <= lease_seconds:
        return None
    return Broken(
        "worker.lease",
        f"lease {format_duration(lease_seconds)} is shorter than request_timeout {format_duration(request_timeout_seconds)}, "
        "so a batch could be taken over while a request of it is still under way",
        "raise [worker] lease, or lower [opensearch] request_timeout",
    )


def forgotten_too_soon(place: str, gc_deletes: str, settings_seconds: tuple[float, float]) -> Broken | None:
    """T3 for one index: *settings_seconds* are age limit and request timeout, *place* says where the third figure stands."""
    age_limit, timeout = settings_seconds
    held = seconds_of(gc_deletes)
    if held is None:
        return Broken(place, f"gc_deletes {gc_deletes!r} is not a time that OpenSearch reads", 'write "5m" or "300s"')
    total = bytes_gone_after(age_limit, timeout)
    if total < held:
        return None
    return Broken(
        place,
        f"age_limit {format_duration(age_limit)} + request_timeout {format_duration(timeout)} = {format_duration(total)} "
        f"is not below gc_deletes {format_duration(held)} of {place}: OpenSearch would forget a deletion while an older "
        "write may still arrive, and the document would come back",
        f"raise index.gc_deletes above {format_duration(total)}, or lower [worker] age_limit or [opensearch] request_timeout",
    )


def gc_deletes(index_settings: Mapping[str, Any]) -> str:
    """Return ``gc_deletes`` as index settings give it, in any of the spellings that OpenSearch takes; else our default."""
    flat = flattened(index_settings)
    return str(flat.get("gc_deletes", GC_DELETES))


def flattened(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return index settings by their full names, in whichever way they are nested, without the optional ``index.`` prefix."""
    return {name.removeprefix("index."): value for name, value in _leaves(settings)}


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def seconds_of(text: str) -> float | None:
    """Read a time as OpenSearch writes it ("60s", "5m"); "0" and "-1" keep nothing. None for what is no time."""
    given = text.strip()
    if given in {"0", "-1"}:
        return 0.0
    found = _TIME.fullmatch(given)
    return int(found[1]) * _UNITS[found[2].lower()] if found else None
