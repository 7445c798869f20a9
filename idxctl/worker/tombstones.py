"""
T3, asked of the indexes that are there: OpenSearch must remember a deletion for longer than an older write may take.

The configuration was checked when it was read, against the index that it would create. An index may have been created
with other settings, or by another configuration, and ``index.gc_deletes`` can be changed at any time.
"""

from __future__ import annotations

from collections.abc import Sequence

from idxctl.config import sums
from idxctl.core.errors import ConfigError
from idxctl.indexes.generations import Generation
from idxctl.opensearch import aliases, index_settings
from idxctl.opensearch.client import Client


class ForgetsTooSoon(ConfigError):  # noqa: N818 - reads as the state it is
    """An index forgets deletions while older writes may still arrive."""


def require(
    client: Client,
    generations: Sequence[Generation],
    *,
    age_limit_seconds: float,
    request_timeout_seconds: float,
) -> None:
    """
    Raise `ForgetsTooSoon` with both figures for the first index that forgets too soon; what the client raises passes.

    An index that is not the one which idxctl made is left to `identity`, which pauses it and says so.
    """
    indexes = {one.name: one.index for one in generations if one.active}
    if not indexes:
        return
    for name, held in index_settings.gc_deletes(client, list(indexes)).items():
        broken = sums.forgotten_too_soon(name, held, (age_limit_seconds, request_timeout_seconds))
        if broken is not None and aliases.ours(client, name, indexes[name]):
            raise ForgetsTooSoon(
                broken.what, hint=f"{broken.fix}: PUT /{name}/_settings changes it while the index is in use"
            )
