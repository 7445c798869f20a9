"""Create: the index of a new generation, as it is best filled and with no alias on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from idxctl.core.errors import DocumentError, OpenSearchRefused
from idxctl.core.failpoints import reach
from idxctl.opensearch import aliases
from idxctl.opensearch.client import Client
from idxctl.rebuild.preflight import Plan


def create(client: Client, plan: Plan) -> None:
    """Create the index that *plan* names. Raises where OpenSearch takes no such index, or what is to come along does not fit it."""
    building = plan.lifetime.building
    try:
        aliases.create(client, plan.name, settings={"index": building}, mappings=plan.definition.mappings)
    except OpenSearchRefused as error:
        if error.status != 400:
            raise
        raise DocumentError(
            f"index {plan.index}: OpenSearch refuses the mapping or settings: {error.reason or error.message}",
            hint=f"see mapping under [indexes.{plan.index}] in the configuration; nothing was changed",
        ) from error
    reach("reindex.created")
    require_bare(client, plan)


def require_bare(client: Client, plan: Plan) -> None:
    """G5: nobody may search an index before it is whole, and what is to come along must fit it."""
    name = plan.name
    if unasked := aliases.standing(client, name):
        aliases.take_off(client, name, unasked)
        if not set(unasked) <= set(plan.given.aliases):  # those were said before, and gone on with
            raise DocumentError(
                f"{name} was given aliases as it was made: {', '.join(sorted(unasked))}; they were taken off it at once, and nothing else was changed",
                hint="take them out of the index template; aliases that stand on the live index come along with a swap",
            )
    for alias, more in _to_carry(client, plan).items():
        if (query := more.get("filter")) is not None and not aliases.fits(client, name, query):
            raise DocumentError(
                f"index {plan.index}: the filter of alias {alias} cannot be one on the new mapping, so it could not come along; nothing was changed",
                hint="change the filter, or keep the fields that it names in the mapping",
            )


def _to_carry(client: Client, plan: Plan) -> Mapping[str, Mapping[str, Any]]:
    behind = plan.behind
    held = (aliases.standing(client, behind) if behind else None) or {}
    return {name: more for name, more in held.items() if not plan.foreign or name == plan.index}
