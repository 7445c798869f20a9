"""What the configuration of an index says otherwise than what its live generation was made from (G1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from idxctl.config.settings import IndexSettings
from idxctl.config.sums import flattened
from idxctl.core.queries import bare
from idxctl.indexes import differences
from idxctl.indexes.definitions import Definition


def since(live: Definition, index: IndexSettings) -> list[str]:
    """Return the differences, in words; the database is not asked, and what only one session was given makes none."""
    return list(_differences(live, index))


def _differences(live: Definition, index: IndexSettings) -> Iterator[str]:
    if bare(index.document) != live.document or (index.key or ("document_id",)) != live.key:
        yield "the document query changed"
    yield from _of_mapping(live.mappings, index.mapping.get("mappings", {}))
    if flattened(live.settings) != flattened(index.mapping.get("settings", {})):
        yield "settings of the index changed"
    for name in ("routing", "pipeline", "verify_ignore"):
        if getattr(live, name) != getattr(index, name):
            yield f"{name} changed"
    local = {name.lower(): value for name, value in live.local.items()}
    for name, value in index.pinned.items():
        if local.get(name.lower()) != value:
            yield f"setting {name} changed"
    if index.search_path and live.local.get("search_path") != _path(index.search_path):
        yield "search_path changed"


def _path(names: tuple[str, ...]) -> str:
    return ", ".join('"' + name.replace('"', '""') + '"' for name in names)


def _of_mapping(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if before == now:
        return
    old, new = dict(differences.all_fields(before)), dict(differences.all_fields(now))
    added, gone = len(new.keys() - old.keys()), len(old.keys() - new.keys())
    other = sum(old[name] != new[name] for name in old.keys() & new.keys())
    counts = ((added, "added"), (gone, "removed"), (other, "changed"))
    yield (
        ", ".join(f"{count} field{'' if count == 1 else 's'} {verb}" for count, verb in counts if count)
        or "the mapping changed"
    )
