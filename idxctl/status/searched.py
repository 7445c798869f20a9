"""What is searched: whether each alias stands on its live index, and on nothing else, as OpenSearch has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from idxctl.core.conditions import Condition, Kind
from idxctl.core.errors import IdxctlError, OpenSearchRefused
from idxctl.opensearch import aliases
from idxctl.opensearch.client import Client
from idxctl.status.conditions import Made

_AT_ONCE = 40  # indexes of one request; the line of a request has its limits


def look(client: Client, made: Sequence[Made], *, timeout_seconds: float) -> list[Condition]:
    """
    Ask OpenSearch for the indexes and aliases of these generations, and return what is wrong with them.

    A server that does not answer is a condition too. Of a role that may not ask, nothing is known.
    """
    names = sorted({one.index for one in made})
    found: list[Condition] = []
    try:
        for start in range(0, len(names), _AT_ONCE):
            some = set(names[start : start + _AT_ONCE])
            mine = [one for one in made if one.index in some]
            found += _of(mine, _asked(client, mine, timeout_seconds))
    except OpenSearchRefused as error:
        return [] if error.status in {401, 403} else [_away(error)]
    except IdxctlError as error:
        return [_away(error)]
    return found


def _away(error: IdxctlError) -> Condition:
    return Condition(Kind.UNREACHABLE, facts={"reason": error.message})


def _asked(client: Client, made: Sequence[Made], timeout_seconds: float) -> Mapping[str, Mapping[str, Any]]:
    wanted = {one.name for one in made} | {one.index for one in made}
    return aliases.around(client, wanted, timeout_seconds=timeout_seconds)


def _of(made: Sequence[Made], there: Mapping[str, Mapping[str, Any]]) -> Iterator[Condition]:
    for live in (one for one in made if one.state == "live"):
        stands = sorted(name for name, one in there.items() if live.index in one["aliases"])
        facts = {"name": live.name, "found": ", ".join(stands)}
        if live.name not in there:
            yield Condition(Kind.INDEX_GONE, live.index, facts)
        elif live.name not in stands and "mappings" not in there[live.name]:
            yield Condition(Kind.INDEX_FOREIGN, live.index, facts)
        if stands == [live.name] or (live.name not in there and not stands):
            continue
        if not stands:
            yield Condition(Kind.ALIAS_MISSING, live.index, facts)
        elif len(stands) > 1:
            yield Condition(Kind.ALIAS_SEVERAL, live.index, facts)
        else:
            yield Condition(Kind.ALIAS_FOREIGN, live.index, facts)
    for one in made:
        held = sorted(there[one.name]["aliases"]) if one.state == "retired" and one.name in there else []
        if held:
            stand = f"alias {held[0]} is" if len(held) == 1 else f"aliases {', '.join(held)} are"
            yield Condition(Kind.RETIRED_SEARCHED, one.index, {"name": one.name, "aliases": stand})
