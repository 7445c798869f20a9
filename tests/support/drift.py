"""What no idxctl does to an index."""

from __future__ import annotations

from support.rig import ITEMS_MAPPING, Rig


def behind_our_back(rig: Rig, *, deleted=(), altered=(), added=()) -> None:
    """Delete, alter and add documents by hand."""
    name = rig.generation().name
    for ident in deleted:
        rig.ask("DELETE", f"/{name}/_doc/{ident}?refresh=true")
    for ident in altered:
        rig.ask("POST", f"/{name}/_update/{ident}?refresh=true", {"doc": {"name": "altered"}})
    for ident in added:
        rig.ask("PUT", f"/{name}/_doc/{ident}?refresh=true", {"name": "added"})


def in_five_shards(rig: Rig, *, routing: str | None = None) -> None:
    """Rebuild the index in five shards."""
    mapping = {**ITEMS_MAPPING, "settings": {"number_of_shards": 5, "number_of_replicas": 0}}
    if routing is not None:
        toml = rig.config.read_text().replace('document = "', f'routing = "{routing}"\ndocument = "', 1)
        rig.configure(toml=toml)
    rig.configure(mapping=mapping)
    rig.reindex(force=True)


def copy_under(rig: Rig, ident: object, routing: str) -> None:
    way = f"&routing={routing}" if routing else ""
    rig.ask("PUT", f"/{rig.generation().name}/_doc/{ident}?refresh=true{way}", {"name": "a copy"})
