"""What indexes are set to, asked of OpenSearch."""

from __future__ import annotations

from collections.abc import Sequence

from idxctl.opensearch.client import Client, segment

_ASK_SECONDS = 5.0
_GC_DELETES = "index.gc_deletes"


def gc_deletes(client: Client, names: Sequence[str]) -> dict[str, str]:
    """
    Return ``index.gc_deletes`` of each of *names*, the default where it is not set.

    An index that is not there, or of which the answer does not speak, is left out.
    """
    answer = client.request(
        "GET",
        f"/{segment(','.join(names))}/_settings/{_GC_DELETES}",
        params={"include_defaults": "true", "flat_settings": "true", "ignore_unavailable": "true"},
        timeout_seconds=_ASK_SECONDS,
    )
    found = {}
    for name in names:
        told = answer.get(name) if isinstance(answer, dict) else None
        for kind in ("settings", "defaults"):
            values = told.get(kind) if isinstance(told, dict) else None
            value = values.get(_GC_DELETES) if isinstance(values, dict) else None
            if isinstance(value, str) and name not in found:
                found[name] = value
    return found
