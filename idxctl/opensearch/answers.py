"""
What counts as an answer: the one place that reads what came back.

Anything may stand between here and OpenSearch, and anything may come from there: a gateway's JSON, a login page, half of the
items. Each function takes the bytes of one kind of answer and returns what they say, or raises `NoAnswer` when they do not
account for what was asked; the client makes `OpenSearchUnintelligible` of that. Texts that are kept are cut to what a person
reads, and hold nothing that PostgreSQL or UTF-8 could not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, overload

import orjson

from idxctl.core.errors import OpenSearchUnintelligible

LONGEST_SENTENCE = 1_000  # characters kept of one reason; an error has up to four, from the outside in
_SENTENCES = 4
_TAIL = 200  # of these, from its end: the closing quote of a value, what follows it
_SHOWN = 60
_NUMBER = re.compile("[0-9]{1,18}")


class NoAnswer(ValueError):  # noqa: N818 - it is what came
    """The bytes are not an answer to what was asked."""


@dataclass(frozen=True)
class Refusal:
    """One item of a bulk that OpenSearch refused."""

    document_id: str
    status: int
    error_type: str
    reason: str


# --- bulk ------------------------------------------------------------------------------------------------------------


def bulk(text: bytes, sent: Sequence[str], deleted: Collection[str] = ()) -> list[Refusal]:
    """
    Return the items of a bulk that were refused; all others were done.

    Every document *sent* must have its item in its place: its id, its operation (*deleted* are the ids of deletes), and a
    status that fits whether there is an error. Only a delete may find nothing.
    """
    if not deleted and _all_written(text, sent):
        return []
    answer = _object(parsed(text))
    errors, items = answer.get("errors"), answer.get("items")
    if type(errors) is not bool:
        raise NoAnswer("it has no boolean errors")
    if type(items) is not list or len(items) != len(sent):
        raise NoAnswer(f"it has {_count(items)} for {len(sent)} documents")
    _each_key_once(text, len(sent))
    refusals: list[Refusal] = []
    for document_id, item in zip(sent, items, strict=True):
        if type(item) is not dict or len(item) != 1:
            raise NoAnswer(f"an item is {_shown(item)}")
        ((operation, result),) = item.items()
        if (
            type(result) is not dict
            or result.get("_id") != document_id
            or operation != ("delete" if document_id in deleted else "index")
        ):
            raise NoAnswer(f"the item of document {_shown(document_id)} is {_shown(item)}")
        status = result.get("status")
        if "error" in result:
            refusals.append(_refusal(document_id, status, result["error"]))
        elif not (
            type(status) is int
            and (
                status in (200, 201)
                or (status == 404 and operation == "delete" and result.get("result") == "not_found")
            )
        ):
            raise NoAnswer(f"document {_shown(document_id)} has status {_shown(status)} without an error")
    if errors is not bool(refusals):
        raise NoAnswer(f"errors is {str(errors).lower()}, and {len(refusals)} items have one")
    return refusals


def _all_written(text: bytes, sent: Sequence[str]) -> bool:
    """
    Tell whether *text* is, byte for byte, the answer that OpenSearch gives when every document was written.

    That is most answers, and comparing costs a quarter of parsing. No text within JSON holds a bare quote, so what is put
    between the ids stands nowhere in them.
    """
    ids = orjson.dumps(sent)[1:-1].replace(b'","', b'","status":200}},{"index":{"_id":"')
    wanted = b'{"errors":false,"items":[{"index":{"_id":%b,"status":200}}]}' % ids
    return bool(sent) and text.replace(b'"status":201}', b'"status":200}') == wanted


def _refusal(document_id: str, status: Any, error: Any) -> Refusal:
    kind = error.get("type") if type(error) is dict else None
    if type(status) is not int or not 400 <= status <= 599 or type(kind) is not str or not kind:
        raise NoAnswer(f"document {_shown(document_id)} has status {_shown(status)} with the error {_shown(error)}")
    return Refusal(document_id, status, plain(kind, 200), reason_of(error))


def _each_key_once(text: bytes, items: int) -> None:
    """
    Refuse an object that has a key twice: which of the two is meant, nobody knows.

    A key's bytes occur nowhere else in JSON, since a quote within a text is escaped: counting them is enough where there are
    as many as there should be.
    """
    if (
        text.count(b'"_id":') == items == text.count(b'"status":')
        and text.count(b'"errors":') == text.count(b'"items":') == 1
    ):
        return
    _loads(text, object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NoAnswer("a key of it occurs twice")
    return found


# --- what else is asked ----------------------------------------------------------------------------------------------


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
    version = _object(parsed(text)).get("version")
    number = version.get("number") if isinstance(version, dict) else None
    parts = str(number).partition("-")[0].split(".") if isinstance(number, str) else []
    if not isinstance(version, dict) or not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise NoAnswer("it names no version, so what answers there is not OpenSearch")
    return Info(str(version.get("distribution") or "elasticsearch"), tuple(int(part[:9]) for part in parts))


def acknowledged(text: bytes) -> None:
    """Read the answer to a change of the cluster's state; one that was not acknowledged in time may or may not come."""
    if _object(parsed(text)).get("acknowledged") is not True:
        raise NoAnswer("it does not acknowledge the change")


def indexes(text: bytes) -> dict[str, dict[str, Any]]:
    """Read indexes by name, each with its ``aliases`` and whatever else was asked for."""
    answer = _object(parsed(text))
    for name, one in answer.items():
        if type(one) is not dict or type(one.get("aliases")) is not dict:
            raise NoAnswer(f"of {_shown(name)} it does not name the aliases")
    return answer


def valid(text: bytes) -> bool:
    """Read whether a query is one that an index can answer."""
    found = _object(parsed(text)).get("valid")
    if type(found) is not bool:
        raise NoAnswer(f"valid is {_shown(found)}")
    return found


def template(text: bytes) -> dict[str, Any]:
    """Read what a template would give to an index; nothing where none matches."""
    answer = _object(parsed(text))
    return {} if answer.get("template") is None else _object(answer["template"])


def named(text: bytes) -> dict[str, dict[str, Any]]:
    """Read objects by name."""
    answer = _object(parsed(text))
    if not all(type(one) is dict for one in answer.values()):
        raise NoAnswer("what it names are not all objects")
    return answer


def listed(text: bytes, name: str) -> list[dict[str, Any]]:
    """Read the list of objects that stands under *name*."""
    found = _object(parsed(text)).get(name)
    if type(found) is not list or not all(type(one) is dict for one in found):
        raise NoAnswer(f"its {name} is {_shown(found)}")
    return found


def settings(text: bytes) -> dict[str, dict[str, str]]:
    """Read flat settings by index: what is set, and where it is not set the default; texts alone."""
    found: dict[str, dict[str, str]] = {}
    for name, one in _object(parsed(text)).items():
        kinds = [one.get(kind, {}) if type(one) is dict else None for kind in ("defaults", "settings")]
        if not all(type(kind) is dict for kind in kinds):
            raise NoAnswer(f"of {_shown(name)} it does not name the settings")
        found[name] = {key: value for kind in kinds if kind for key, value in kind.items() if isinstance(value, str)}
    return found


def cluster_settings(text: bytes) -> dict[str, str]:
    """Read the cluster's flat settings as they hold: transient before persistent before default; texts alone."""
    answer, found = _object(parsed(text)), {}
    for kind in ("defaults", "persistent", "transient"):
        held = _object(answer.get(kind, {}))
        found.update({key: value for key, value in held.items() if isinstance(value, str)})
    return found


def cluster_size(text: bytes) -> tuple[int, int]:
    """Read how many data nodes there are, and how many shards, whether they have a place or not."""
    answer = _object(parsed(text))
    counts = [_natural(answer.get(f"{kind}_shards"), kind) for kind in ("active", "initializing", "unassigned")]
    return _natural(answer.get("number_of_data_nodes"), "number_of_data_nodes"), sum(counts)


def disks(text: bytes) -> list[tuple[int, int]]:
    """Read of each node how many bytes of its disk are free, and how many there are."""
    answer = parsed(text)
    if type(answer) is not list:
        raise NoAnswer(f"it is {_shown(answer)}")
    pairs = [(_object(one).get("disk.avail"), _object(one).get("disk.total")) for one in answer]
    read = [(number(free), number(total)) for free, total in pairs]
    return [(free, total) for free, total in read if free is not None and total is not None]


def stored(text: bytes) -> int:
    """Read how many bytes the primary shards of an index hold."""
    found = _object(parsed(text))
    for name in ("_all", "primaries", "store"):
        found = _object(found.get(name))
    return _natural(found.get("size_in_bytes"), "size_in_bytes")


def refreshed(text: bytes) -> None:
    """Read the answer to a refresh: of every shard that there is."""
    shards = _shards(_object(parsed(text)))
    if shards["total"] and not shards["successful"]:
        raise NoAnswer("not one shard was refreshed")


def count(text: bytes) -> int:
    """Read how many documents an index holds, all of its shards asked."""
    answer = _object(parsed(text))
    shards = _shards(answer)
    if shards["successful"] != shards["total"]:
        raise NoAnswer(f"{shards['successful']} of {shards['total']} shards were counted")
    return _natural(answer.get("count"), "count")


def health(text: bytes) -> str:
    """Read the colour of a cluster or an index."""
    status = _object(parsed(text)).get("status")
    if status not in ("green", "yellow", "red"):
        raise NoAnswer(f"its status is {_shown(status)}")
    return str(status)


def index_health(text: bytes, name: str) -> IndexHealth:
    """Read how the shards of one index are."""
    answer = _object(parsed(text))
    index = _object(_object(answer.get("indices")).get(name))
    shards = tuple(_shard(one, shard) for one, shard in sorted(_object(index.get("shards")).items()))
    return IndexHealth(
        _natural(answer.get("number_of_data_nodes"), "number_of_data_nodes"),
        _natural(index.get("number_of_shards"), "number_of_shards"),
        _natural(index.get("number_of_replicas"), "number_of_replicas"),
        shards,
    )


def _shard(name: str, found: Any) -> Shard:
    one = _object(found)
    place = number(name)
    if place is None or type(one.get("primary_active")) is not bool:
        raise NoAnswer(f"of shard {_shown(name)} it has {_shown(one)}")
    return Shard(
        place,
        one["primary_active"],
        _natural(one.get("active_shards"), "active_shards"),
        _natural(one.get("initializing_shards"), "initializing_shards"),
        _natural(one.get("unassigned_shards"), "unassigned_shards"),
    )


def explanation(text: bytes) -> dict[str, Any]:
    """Read why a shard is where it is, or nowhere."""
    answer = _object(parsed(text))
    if type(answer.get("current_state")) is not str:
        raise NoAnswer("it names no current_state")
    return answer


def page(text: bytes) -> Page:
    """Read a page of a scroll."""
    answer = _object(parsed(text))
    found, scroll = _hits(answer), answer.get("_scroll_id")
    total = answer["hits"].get("total")
    if type(total) is not dict or total.get("relation") != "eq" or type(scroll) is not str:
        raise NoAnswer("it does not say how many documents there are")
    return Page(scroll, _natural(total.get("value"), "total"), found)


def hits(text: bytes) -> list[Hit]:
    """Read what a search found."""
    return _hits(_object(parsed(text)))


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
        raise NoAnswer(f"its hits are {_shown(found)}")
    hits = [Hit(hit["_id"], hit.get("_routing")) for hit in found if type(hit) is dict and type(hit.get("_id")) is str]
    if len(hits) != len(found) or any(type(hit.routing) not in {str, type(None)} for hit in hits):
        raise NoAnswer("a hit has no id, or a routing that is no text")
    return hits


def unread(text: bytes) -> Sources:
    """Keep the answer of an ``_mget`` as it came: equal documents are seen equal without parsing it."""
    return Sources(text)


def sources(text: bytes, wanted: Sequence[str]) -> list[Source]:
    """Read the documents of an ``_mget``, each in the place in which it was asked for."""
    docs = _object(parsed(text)).get("docs")
    if type(docs) is not list or len(docs) != len(wanted):
        raise NoAnswer(f"it has {_count(docs)} for {len(wanted)} documents")
    return [_source(document_id, doc) for document_id, doc in zip(wanted, docs, strict=True)]


def _source(document_id: str, doc: Any) -> Source:
    if type(doc) is not dict or doc.get("_id") != document_id:
        raise NoAnswer(f"in the place of document {_shown(document_id)} is {_shown(doc)}")
    if "error" in doc:
        kind, reason = error_of(doc)
        raise NoAnswer(f"document {_shown(document_id)} cannot be read: {kind}: {reason}")
    found, source, version = doc.get("found"), doc.get("_source"), doc.get("_version")
    if found is False and source is None:
        return Source(document_id, None, None)
    if found is not True or type(source) is not dict or type(version) is not int:
        raise NoAnswer(f"of document {_shown(document_id)} it has {_shown(doc)}")
    routing, number, term = doc.get("_routing"), doc.get("_seq_no"), doc.get("_primary_term")
    place = (number, term) if type(number) is int and type(term) is int else None
    return Source(document_id, source, version, routing if type(routing) is str else None, place)


def _shards(answer: dict[str, Any]) -> dict[str, int]:
    shards = answer.get("_shards")
    if type(shards) is not dict:
        raise NoAnswer("it says nothing of the shards")
    counted = {name: _natural(shards.get(name), f"_shards.{name}") for name in ("total", "successful", "failed")}
    if counted["failed"]:
        raise NoAnswer(f"{counted['failed']} of {counted['total']} shards failed")
    return counted


@overload
def number(text: object) -> int | None: ...
@overload
def number(text: object, *, default: int) -> int: ...
def number(text: object, *, default: int | None = None) -> int | None:
    """Read a number that is written as text; *default* where it is none, or one that nothing here could count to."""
    return int(text) if isinstance(text, str) and _NUMBER.fullmatch(text) else default


def _natural(value: Any, name: str) -> int:
    if type(value) is not int or value < 0:
        raise NoAnswer(f"its {name} is {_shown(value)}")
    return int(value)


# --- errors ----------------------------------------------------------------------------------------------------------


def reason_of(error: dict[str, Any]) -> str:
    """Return an error's sentence with those of its causes, outermost first: the cause names the field's value."""
    sentences: list[str] = []
    cause: object = error
    for _ in range(_SENTENCES * 4):
        if not isinstance(cause, dict) or len(sentences) == _SENTENCES:
            break
        reason = cause.get("reason")
        sentence = plain(reason) if isinstance(reason, str) else ""
        if sentence and not any(sentence in said for said in sentences):
            sentences.append(sentence)
        cause = cause.get("caused_by")
    return ": ".join(sentences)


_DEEPEST = 20  # causes of an error


def error_of(body: Any) -> tuple[str, str]:
    """Return OpenSearch's type and reason of an error, whichever of its shapes the answer has; empty where it has none."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        kind, reason = error.get("type"), error.get("reason")
        return plain(kind, 200) if isinstance(kind, str) else "", plain(reason) if isinstance(reason, str) else ""
    if isinstance(error, str):
        return "", plain(error)
    if isinstance(body, dict):
        said = body.get("message") or body.get("Message")
        return "", plain(said) if isinstance(said, str) else ""
    return "", ""


def innermost(body: Any) -> str:
    """Return the reason at the bottom of an error's causes, which is what it is about; "" where it has none."""
    error = body.get("error") if isinstance(body, dict) else None
    said = ""
    for _ in range(_DEEPEST):
        if not isinstance(error, dict):
            break
        said = error["reason"] if isinstance(error.get("reason"), str) else said
        beside = error.get("suppressed")
        error = error.get("caused_by") or (beside[0] if isinstance(beside, list) and beside else None)
    return plain(said)


def plain(text: str, most: int = LONGEST_SENTENCE) -> str:
    """
    Return *text* as it can be kept: cut in its middle where it is long, with NULs and halves of surrogate pairs escaped.

    OpenSearch quotes what documents hold, of any length. A cut leaves both ends, so that what depends on them (a quoted value
    that is closed, the version in a conflict) is still found.
    """
    if len(text) > most:
        text = f"{text[: most - _TAIL - 3]} … {text[-_TAIL:]}" if most > 2 * _TAIL else text[:most]
    if "\0" in text:
        text = text.replace("\0", "\\u0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


# --- JSON ------------------------------------------------------------------------------------------------------------


def parsed(text: bytes) -> Any:
    """Parse an answer; raises `NoAnswer` for what is no JSON, whatever is wrong with it."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _loads(text)


def _loads(text: bytes, **options: Any) -> Any:
    """Parse what is JSON all the same to those who wrote it: half of a surrogate pair, a number beyond a double."""
    try:
        return json.loads(text.decode(), parse_constant=_constant, **options)
    except (ValueError, RecursionError) as error:
        if isinstance(error, NoAnswer):
            raise
        raise NoAnswer("it is not JSON" if text else "it is empty") from error


def _constant(name: str) -> NoReturn:
    raise NoAnswer(f"it holds {name}, which is no number")


def _object(answer: Any) -> dict[str, Any]:
    if type(answer) is not dict:
        raise NoAnswer(f"it is {_shown(answer)}")
    return answer


def _count(items: Any) -> str:
    return f"{len(items)} items" if type(items) is list else "no items"


def _shown(value: Any) -> str:
    """Return the beginning of a value, for a sentence; never more of it than that."""
    if isinstance(value, dict):
        return "an object with " + (", ".join(plain(str(key), 30) for key in list(value)[:4]) or "nothing")
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f'"{plain(value, _SHOWN)}"'
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**15:
        return "a very large number"
    return "null" if value is None else str(value).lower()
