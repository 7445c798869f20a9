"""
What counts as an answer: with `bulk_answers` and `error_answers` the one place that reads what came back.

Anything may stand between here and OpenSearch, and anything may come from there: a gateway's JSON, a login page, half of the
items. Each function takes the bytes of one kind of answer and returns what they say, or raises `NoAnswer` when they do not
account for what was asked; the client makes `OpenSearchUnintelligible` of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from idxctl.core.errors import OpenSearchUnintelligible
from idxctl.opensearch.answer_parts import NoAnswer, counted, natural, number, object_of, parsed, shown
from idxctl.opensearch.error_answers import error_of


class Info(NamedTuple):
    """Who answers: ("opensearch", (2, 19, 5))."""

    distribution: str
    version: tuple[int, ...]


@dataclass(frozen=True)
class Hit:
    """A document that a search found: its id, and the routing that it was written under, if it had one."""

    document_id: str
    routing: str | None = None


@dataclass(frozen=True)
class Page:
    """A page of a scroll: its documents, how many all pages hold together, and how to ask for the next."""

    scroll: str
    total: int
    hits: list[Hit]


@dataclass(frozen=True)
class Source:
    """
    A document of an ``_mget``; without a source there is none.

    ``place`` is what a write names that is to meet this very copy and no later one: its sequence number and primary term.
    """

    document_id: str
    source: dict[str, Any] | None
    version: int | None
    routing: str | None = None
    place: tuple[int, int] | None = None


@dataclass(frozen=True)
class Sources:
    """An ``_mget``'s answer, not parsed."""

    text: bytes

    def read(self, wanted: Sequence[str]) -> list[Source]:
        """Return the documents in the order in which they were *wanted*; raises `OpenSearchUnintelligible` for less."""
        try:
            return sources(self.text, wanted)
        except NoAnswer as error:
            raise OpenSearchUnintelligible(
                f"what answers an _mget is not an answer of OpenSearch's: {error}", answered=str(error)
            ) from error


@dataclass(frozen=True)
class Shard:
    """How many copies of one shard there are."""

    number: int
    primary: bool  # whether its primary is active
    active: int
    initializing: int
    unassigned: int


@dataclass(frozen=True)
class IndexHealth:
    """How the shards of one index are, and how many nodes could hold them."""

    nodes: int
    primaries: int
    replicas: int
    shards: tuple[Shard, ...]


def info(text: bytes) -> Info:
    """Read what a cluster says of itself."""
    version = object_of(parsed(text)).get("version")
    number = version.get("number") if isinstance(version, dict) else None
    parts = str(number).partition("-")[0].split(".") if isinstance(number, str) else []
    if not isinstance(version, dict) or not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise NoAnswer("it names no version, so what answers there is not OpenSearch")
    return Info(str(version.get("distribution") or "elasticsearch"), tuple(int(part[:9]) for part in parts))


def acknowledged(text: bytes) -> None:
    """Read the answer to a change of the cluster's state; one that was not acknowledged in time may or may not come."""
    if object_of(parsed(text)).get("acknowledged") is not True:
        raise NoAnswer("it does not acknowledge the change")


def indexes(text: bytes) -> dict[str, dict[str, Any]]:
    """Read indexes by name, each with its ``aliases`` and whatever else was asked for."""
    answer = object_of(parsed(text))
    for name, one in answer.items():
        if type(one) is not dict or type(one.get("aliases")) is not dict:
            raise NoAnswer(f"of {shown(name)} it does not name the aliases")
    return answer


def valid(text: bytes) -> bool:
    """Read whether a query is one that an index can answer."""
    found = object_of(parsed(text)).get("valid")
    if type(found) is not bool:
        raise NoAnswer(f"valid is {shown(found)}")
    return found


def template(text: bytes) -> dict[str, Any]:
    """Read what a template would give to an index; nothing where none matches."""
    answer = object_of(parsed(text))
    return {} if answer.get("template") is None else object_of(answer["template"])


def named(text: bytes) -> dict[str, dict[str, Any]]:
    """Read objects by name."""
    answer = object_of(parsed(text))
    if not all(type(one) is dict for one in answer.values()):
        raise NoAnswer("what it names are not all objects")
    return answer


def listed(text: bytes, name: str) -> list[dict[str, Any]]:
    """Read the list of objects that stands under *name*."""
    found = object_of(parsed(text)).get(name)
    if type(found) is not list or not all(type(one) is dict for one in found):
        raise NoAnswer(f"its {name} is {shown(found)}")
    return found


def settings(text: bytes) -> dict[str, dict[str, str]]:
    """Read flat settings by index: what is set, and where it is not set the default; texts alone."""
    found: dict[str, dict[str, str]] = {}
    for name, one in object_of(parsed(text)).items():
        kinds = [one.get(kind, {}) if type(one) is dict else None for kind in ("defaults", "settings")]
        if not all(type(kind) is dict for kind in kinds):
            raise NoAnswer(f"of {shown(name)} it does not name the settings")
        found[name] = {key: value for kind in kinds if kind for key, value in kind.items() if isinstance(value, str)}
    return found


def cluster_settings(text: bytes) -> dict[str, str]:
    """Read the cluster's flat settings as they hold: transient before persistent before default; texts alone."""
    answer, found = object_of(parsed(text)), {}
    for kind in ("defaults", "persistent", "transient"):
        held = object_of(answer.get(kind, {}))
        found.update({key: value for key, value in held.items() if isinstance(value, str)})
    return found


def cluster_size(text: bytes) -> tuple[int, int]:
    """Read how many data nodes there are, and how many shards, whether they have a place or not."""
    answer = object_of(parsed(text))
    counts = [natural(answer.get(f"{kind}_shards"), kind) for kind in ("active", "initializing", "unassigned")]
    return natural(answer.get("number_of_data_nodes"), "number_of_data_nodes"), sum(counts)


def disks(text: bytes) -> list[tuple[int, int]]:
    """Read of each node how many bytes of its disk are free, and how many there are."""
    answer = parsed(text)
    if type(answer) is not list:
        raise NoAnswer(f"it is {shown(answer)}")
    pairs = [(object_of(one).get("disk.avail"), object_of(one).get("disk.total")) for one in answer]
    read = [(number(free), number(total)) for free, total in pairs]
    return [(free, total) for free, total in read if free is not None and total is not None]


def stored(text: bytes) -> int:
    """Read how many bytes the primary shards of an index hold."""
    found = object_of(parsed(text))
    for name in ("_all", "primaries", "store"):
        found = object_of(found.get(name))
    return natural(found.get("size_in_bytes"), "size_in_bytes")


def refreshed(text: bytes) -> None:
    """Read the answer to a refresh: of every shard that there is."""
    shards = _shards(object_of(parsed(text)))
    if shards["total"] and not shards["successful"]:
        raise NoAnswer("not one shard was refreshed")


def count(text: bytes) -> int:
    """Read how many documents an index holds, all of its shards asked."""
    answer = object_of(parsed(text))
    shards = _shards(answer)
    if shards["successful"] != shards["total"]:
        raise NoAnswer(f"{shards['successful']} of {shards['total']} shards were counted")
    return natural(answer.get("count"), "count")


def health(text: bytes) -> str:
    """Read the colour of a cluster or an index."""
    status = object_of(parsed(text)).get("status")
    if status not in ("green", "yellow", "red"):
        raise NoAnswer(f"its status is {shown(status)}")
    return str(status)


def index_health(text: bytes, name: str) -> IndexHealth:
    """Read how the shards of one index are."""
    answer = object_of(parsed(text))
    index = object_of(object_of(answer.get("indices")).get(name))
    shards = tuple(_shard(one, shard) for one, shard in sorted(object_of(index.get("shards")).items()))
    return IndexHealth(
        natural(answer.get("number_of_data_nodes"), "number_of_data_nodes"),
        natural(index.get("number_of_shards"), "number_of_shards"),
        natural(index.get("number_of_replicas"), "number_of_replicas"),
        shards,
    )


def _shard(name: str, found: Any) -> Shard:
    one = object_of(found)
    place = number(name)
    if place is None or type(one.get("primary_active")) is not bool:
        raise NoAnswer(f"of shard {shown(name)} it has {shown(one)}")
    return Shard(
        place,
        one["primary_active"],
        natural(one.get("active_shards"), "active_shards"),
        natural(one.get("initializing_shards"), "initializing_shards"),
        natural(one.get("unassigned_shards"), "unassigned_shards"),
    )


def explanation(text: bytes) -> dict[str, Any]:
    """Read why a shard is where it is, or nowhere."""
    answer = object_of(parsed(text))
    if type(answer.get("current_state")) is not str:
        raise NoAnswer("it names no current_state")
    return answer


def page(text: bytes) -> Page:
    """Read a page of a scroll."""
    answer = object_of(parsed(text))
    found, scroll = _hits(answer), answer.get("_scroll_id")
    total = answer["hits"].get("total")
    if type(total) is not dict or total.get("relation") != "eq" or type(scroll) is not str:
        raise NoAnswer("it does not say how many documents there are")
    return Page(scroll, natural(total.get("value"), "total"), found)


def hits(text: bytes) -> list[Hit]:
    """Read what a search found."""
    return _hits(object_of(parsed(text)))


def _hits(answer: dict[str, Any]) -> list[Hit]:
    """
    Return the documents of a search's answer.

    A search that ran out of time, or that a shard did not answer, has part of the documents: half an index is not the index.
    """
    shards = _shards(answer)
    if answer.get("timed_out") is not False or shards["successful"] != shards["total"]:
        raise NoAnswer(f"{shards['successful']} of {shards['total']} shards answered in time")
    held = answer.get("hits")
    if type(held) is not dict:
        raise NoAnswer("it does not say how many documents there are")
    found = held.get("hits", [])  # an empty list is left out where fields are chosen
    if type(found) is not list:
        raise NoAnswer(f"its hits are {shown(found)}")
    hits = [Hit(hit["_id"], hit.get("_routing")) for hit in found if type(hit) is dict and type(hit.get("_id")) is str]
    if len(hits) != len(found) or any(type(hit.routing) not in {str, type(None)} for hit in hits):
        raise NoAnswer("a hit has no id, or a routing that is no text")
    return hits


def unread(text: bytes) -> Sources:
    """Keep the answer of an ``_mget`` as it came: equal documents are seen equal without parsing it."""
    return Sources(text)


def sources(text: bytes, wanted: Sequence[str]) -> list[Source]:
    """Read the documents of an ``_mget``, each in the place in which it was asked for."""
    docs = object_of(parsed(text)).get("docs")
    if type(docs) is not list or len(docs) != len(wanted):
        raise NoAnswer(f"it has {counted(docs)} for {len(wanted)} documents")
    return [_source(document_id, doc) for document_id, doc in zip(wanted, docs, strict=True)]


def _source(document_id: str, doc: Any) -> Source:
    if type(doc) is not dict or doc.get("_id") != document_id:
        raise NoAnswer(f"in the place of document {shown(document_id)} is {shown(doc)}")
    if "error" in doc:
        kind, reason = error_of(doc)
        raise NoAnswer(f"document {shown(document_id)} cannot be read: {kind}: {reason}")
    found, source, version = doc.get("found"), doc.get("_source"), doc.get("_version")
    if found is False and source is None:
        return Source(document_id, None, None)
    if found is not True or type(source) is not dict or type(version) is not int:
        raise NoAnswer(f"of document {shown(document_id)} it has {shown(doc)}")
    routing, number, term = doc.get("_routing"), doc.get("_seq_no"), doc.get("_primary_term")
    place = (number, term) if type(number) is int and type(term) is int else None
    return Source(document_id, source, version, routing if type(routing) is str else None, place)


def _shards(answer: dict[str, Any]) -> dict[str, int]:
    shards = answer.get("_shards")
    if type(shards) is not dict:
        raise NoAnswer("it says nothing of the shards")
    counted = {name: natural(shards.get(name), f"_shards.{name}") for name in ("total", "successful", "failed")}
    if counted["failed"]:
        raise NoAnswer(f"{counted['failed']} of {counted['total']} shards failed")
    return counted
