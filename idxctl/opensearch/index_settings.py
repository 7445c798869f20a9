"""What indexes are set to, asked of OpenSearch."""

from __future__ import annotations

from collections.abc import Sequence

from idxctl.opensearch import answers
from idxctl.opensearch.client import Client, segment

_ASK_SECONDS = 5.0
_GC_DELETES = "index.gc_deletes"


def gc_deletes(client: Client, names: Sequence[str]) -> dict[str, str]:
    """
    Return ``index.gc_deletes`` of each of *names*, the default where it is not set.

    An index that is not there, or of which the answer does not speak, is left out.
    """
    found = client.ask(
        "GET",
        f"/{segment(','.join(names))}/_settings/{_GC_DELETES}",
        answers.settings,
        params={"include_defaults": "true", "flat_settings": "true", "ignore_unavailable": "true"},
        timeout_seconds=_ASK_SECONDS,
    )
    return {name: found[name][_GC_DELETES] for name in names if _GC_DELETES in found.get(name, {})}


def held(client: Client, name: str) -> dict[str, str]:
    """Return what is set on an index, by full names without the prefix; defaults are left out."""
    found = client.ask("GET", f"/{segment(name)}/_settings", answers.settings, params={"flat_settings": "true"})
    return {key.removeprefix("index."): value for key, value in found.get(name, {}).items()}
