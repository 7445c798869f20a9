"""
What separates two definitions of an index, field by field, and what it takes to get from one to the other. Pure.

OpenSearch takes some changes in place: new fields, a few parameters of fields, dynamic settings. All others need a new
index. Which is which stands here; what is not known to work in place needs a rebuild.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from idxctl.config.sums import flattened
from idxctl.indexes.definitions import Definition

Mapped = Mapping[str, Any]

_OF_ROOT = frozenset(
    {"_meta", "date_detection", "dynamic", "dynamic_date_formats", "dynamic_templates", "numeric_detection"}
)
_OF_OBJECT = frozenset({"dynamic"})
_OF_FIELD = frozenset(
    {"eager_global_ordinals", "ignore_above", "meta", "search_analyzer", "search_quote_analyzer", "split_queries_on_whitespace"}
)  # fmt: skip
_WITHIN = ("properties", "fields")
_DYNAMIC = frozenset(
    {
        "analyze.max_token_count", "auto_expand_replicas", "gc_deletes", "hidden", "highlight.max_analyzed_offset",
        "knn.algo_param.ef_search", "mapping.depth.limit", "mapping.field_name_length.limit", "mapping.nested_fields.limit",
        "mapping.nested_objects.limit", "mapping.total_fields.limit", "max_docvalue_fields_search", "max_inner_result_window",
        "max_ngram_diff", "max_refresh_listeners", "max_regex_length", "max_rescore_window", "max_result_window",
        "max_script_fields", "max_shingle_diff", "max_slices_per_scroll", "max_terms_count", "number_of_replicas", "priority",
        "query.default_field", "refresh_interval", "requests.cache.enable", "search.default_pipeline", "search.idle.after",
        "translog.durability", "translog.flush_threshold_size", "translog.sync_interval",
        "unassigned.node_left.delayed_timeout", "write.wait_for_active_shards",
    }
)  # fmt: skip
_DYNAMIC_GROUPS = ("indexing.slowlog.", "merge.policy.", "merge.scheduler.", "routing.", "search.slowlog.")


class How(str, Enum):
    """What it takes."""

    IN_PLACE = "in_place"
    REBUILD = "rebuild"
    LOST = "lost"  # it is on the live index alone: a rebuild drops it


@dataclass(frozen=True)
class Difference:
    """One thing that differs. ``part`` is mapping, settings, document, key, ...; None is not there, or the default."""

    part: str
    name: str  # of a field or setting; "" where the part has no names
    before: Any
    now: Any
    how: How
    note: str = ""


@dataclass(frozen=True)
class Compared:
    """Two definitions compared: all that differs, and what is to be done of it in place."""

    differences: tuple[Difference, ...]
    reached: Definition  # the old one, with all that can be put in place
    mappings: Mapped = field(default_factory=dict)  # the body that puts the mapping's part of it
    settings: frozenset[str] = frozenset()  # names of settings that are to be put, without their prefix

    @property
    def in_place(self) -> bool:
        """Whether anything can be put in place."""
        return any(one.how is How.IN_PLACE for one in self.differences)

    @property
    def rebuild(self) -> bool:
        """Whether something needs a rebuild."""
        return any(one.how is How.REBUILD for one in self.differences)


def compare(live: Definition, now: Definition) -> Compared:
    """Compare what an index was made from with what it is to be made from; *now* is `Definition.beside` the live one."""
    merged = merge(live.mappings, now.mappings)
    of_settings = list(compare_settings(live.settings, now.settings))
    found = [*_of_rest(live, now), *merged.differences, *of_settings]
    put = frozenset(one.name for one in of_settings if one.how is How.IN_PLACE)
    if any(one.how is How.REBUILD for one in found):
        settings = _settings_reached(live, now, put)
        reached = replace(live, mappings=merged.mapping, settings=settings, verify_ignore=now.verify_ignore)
    else:
        reached = replace(now, given=live.given)
        if not found and live.fingerprint != now.fingerprint:
            found.append(
                Difference("definition", "", None, None, How.IN_PLACE, "written otherwise, and means the same")
            )
    return Compared(tuple(found), reached, merged.body, put)


def _of_rest(live: Definition, now: Definition) -> Iterator[Difference]:
    """Yield differences of all that is neither mapping nor settings."""
    for name in ("document", "key", "key_types", "document_type", "routing", "pipeline"):
        before, after = getattr(live, name), getattr(now, name)
        if before != after:
            yield Difference(name, "", before, after, How.REBUILD)
    for name in sorted(live.local.keys() | now.local.keys()):
        if live.local.get(name) != now.local.get(name):
            yield Difference("rendering", name, live.local.get(name), now.local.get(name), How.REBUILD)
    if live.verify_ignore != now.verify_ignore:
        note = "what is compared, and nothing in OpenSearch"
        yield Difference("verify_ignore", "", live.verify_ignore, now.verify_ignore, How.IN_PLACE, note)


# Settings ------------------------------------------------------------------------------------------------------------


def compare_settings(before: Mapped, now: Mapped) -> Iterator[Difference]:
    """Yield settings of the index that differ, by full names without their prefix."""
    old, new = flattened(before), flattened(now)
    for name in sorted(old.keys() | new.keys()):
        if as_text(old.get(name)) != as_text(new.get(name)):
            how = How.IN_PLACE if is_dynamic(name) else How.REBUILD
            yield Difference("settings", name, old.get(name), new.get(name), how)


def is_dynamic(name: str) -> bool:
    """Whether an index takes another value of a setting while it is open, and all its documents with it."""
    return name in _DYNAMIC or name.startswith(_DYNAMIC_GROUPS)


def as_text(value: Any) -> str | None:
    """Return a setting as OpenSearch keeps it: texts alone; None is its default."""
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return ",".join(str(as_text(one)) for one in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _settings_reached(live: Definition, now: Definition, put: frozenset[str]) -> dict[str, Any]:
    old, new = flattened(live.settings), flattened(now.settings)
    return {
        **{name: value for name, value in old.items() if name not in put},
        **{name: new[name] for name in sorted(put) if name in new},
    }


# Mappings ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Merged:
    """A mapping, or one field of it, with all that can be put in place."""

    mapping: dict[str, Any]
    body: dict[str, Any]  # what has to be sent for that; empty where nothing has
    differences: tuple[Difference, ...]


def merge(before: Mapped, now: Mapped) -> Merged:
    """Compare two mappings."""
    return _merge(before, now, "", _OF_ROOT, fixed=False)


def _merge(before: Mapped, now: Mapped, name: str, changeable: frozenset[str], *, fixed: bool) -> Merged:
    """
    Compare one field, or the root, and all within it.

    *changeable* are its parameters that OpenSearch changes in place; with *fixed* nothing can be, since what it is within
    has to be made again.
    """
    found = list(_of_parameters(before, now, name, changeable, fixed=fixed))
    own = _parameters(before)
    if name and found:
        fixed = fixed or found[0].how is How.REBUILD
        own = own if fixed else _parameters(now)
    own.update({one.name: one.now for one in found if not name and one.how is How.IN_PLACE})
    changed = {key: value for key, value in own.items() if before.get(key) != value}
    mapping, body = dict(own), {}
    for part in _WITHIN:
        within = _merge_within(before.get(part) or {}, now.get(part) or {}, name, part, fixed=fixed)
        found += within.differences
        if within.mapping or part in before:
            mapping[part] = within.mapping
        if within.body:
            body[part] = within.body if part == "properties" else within.mapping
    if body or changed or any(one.name == name and one.how is How.IN_PLACE for one in found):
        body = {**(own if name else changed), **body}
    return Merged(mapping, body, tuple(found))


def _of_parameters(
    before: Mapped, now: Mapped, name: str, changeable: frozenset[str], *, fixed: bool
) -> Iterator[Difference]:
    """Yield one difference for all parameters of a field together, or one for each of the root."""
    old, new = _parameters(before), _parameters(now)
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    if not changed:
        return
    gone = changed - new.keys()  # of an object: what is not said stays as it is
    in_place = not fixed and changed <= changeable and not (gone and changeable is not _OF_FIELD)
    how = How.IN_PLACE if in_place else How.REBUILD
    if not name:
        for key in sorted(changed):
            alone = How.IN_PLACE if key in changeable and key in new else How.REBUILD
            yield Difference("mapping", key, old.get(key), new.get(key), alone)
        return
    note = "documents of before stay indexed as they are" if in_place and "ignore_above" in changed else ""
    yield Difference("mapping", name, old, new, how, note)


def _merge_within(before: Mapped, now: Mapped, name: str, part: str, *, fixed: bool) -> Merged:
    mapping: dict[str, Any] = dict(before)
    body: dict[str, Any] = {}
    found: list[Difference] = []
    for key in sorted(before.keys() | now.keys()):
        path = f"{name}.{key}" if name else key
        if key not in now:
            found.append(Difference("mapping", path, shown(before[key]), None, How.REBUILD, "no longer asked for"))
        elif key not in before:
            how = How.REBUILD if fixed else How.IN_PLACE
            note = "documents of before have it once they are written again" if part == "properties" else _MULTI
            found.append(Difference("mapping", path, None, shown(now[key]), how, "" if fixed else note))
            if not fixed:
                mapping[key] = body[key] = now[key]
        else:
            changeable = _OF_OBJECT if is_object(before[key]) else _OF_FIELD
            within = _merge(before[key], now[key], path, changeable, fixed=fixed)
            found += within.differences
            mapping[key] = within.mapping
            if within.body:
                body[key] = within.body
    return Merged(mapping, body, tuple(found))


_MULTI = "searched in documents that are written from now on"


def is_object(one: Mapped) -> bool:
    """Whether a field of a mapping has fields within."""
    return one.get("type", "object") in {"object", "nested"}


def _parameters(one: Mapped) -> dict[str, Any]:
    """Return what a field is, without what is within; that something is an object goes without saying."""
    return {key: value for key, value in one.items() if key not in _WITHIN and (key, value) != ("type", "object")}


def shown(one: Mapped) -> dict[str, Any]:
    """Return what a field is, for people."""
    return _parameters(one) or {"type": "object"}


def all_fields(mapping: Mapped, under: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every field with what it is, those within others and multi-fields too."""
    for part in ("properties", "fields"):
        for name, one in (mapping.get(part) or {}).items():
            if isinstance(one, Mapping):
                yield f"{under}{name}", _parameters(one)
                yield from all_fields(one, f"{under}{name}.")
