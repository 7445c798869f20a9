"""What a caller names: an index of the configuration and keys of its documents, checked without asking a server."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from numbers import Integral

from idxctl.config.settings import IndexSettings
from idxctl.core import keys
from idxctl.core.errors import UsageError, WrongType
from idxctl.core.suggest import did_you_mean

Part = int | str | uuid.UUID | date
DocumentId = Part | tuple[Part, ...]


def known_index(indexes: Mapping[str, IndexSettings], name: str) -> IndexSettings:
    """Return the index of that *name*; raises `UsageError` with the nearest known name."""
    if not isinstance(name, str):
        raise WrongType(f"the index is named by a str, not {_kind(name)}")
    found = indexes.get(name)
    if found is None:
        raise UsageError(f"there is no index {name!r} in the configuration", hint=did_you_mean(name, indexes))
    return found


def texts(index: IndexSettings, ids: Iterable[DocumentId]) -> list[str]:
    """Return the ids of documents as the queue holds them, each once."""
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise WrongType(f"document ids are an iterable of them, not {_kind(ids)}")
    return list(dict.fromkeys(text(index, one) for one in ids))


def text(index: IndexSettings, document_id: DocumentId) -> str:
    """
    Return the id of one document as the queue holds it.

    A tuple has the values of a composite key in the order of the configuration; a str of such an index is the id itself.
    """
    wanted = max(len(index.key), 1)
    if isinstance(document_id, tuple):
        if len(document_id) != wanted:
            raise UsageError(
                f"the key of {index.name} has {_columns(index)}, document id {document_id!r} has {len(document_id)}"
            )
        made = keys.document_id([_part(index, one, alone=False) for one in document_id])
    else:
        made = _part(index, document_id, alone=True)
        if wanted > 1:
            _check_composite(index, document_id, made, wanted)
    if not made:
        raise UsageError(f"a document id of {index.name} must not be empty")
    if "\0" in made or not _encodable(made):
        raise UsageError(f"document id {made[:80]!r} of {index.name} is no text that PostgreSQL can hold")
    return made


def seconds(name: str, value: float) -> None:
    """Raise `WrongType` or `UsageError` for what is no number of seconds; less than none is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WrongType(f"{name} is a number of seconds, not {_kind(value)}")
    if math.isnan(value):
        raise UsageError(f"{name} is not a number")


def _check_composite(index: IndexSettings, given: DocumentId, made: str, wanted: int) -> None:
    if not isinstance(given, str):
        raise WrongType(
            f"the key of {index.name} has {_columns(index)}: its document ids are tuples, not {_kind(given)}"
        )
    try:
        keys.key_parts(made, wanted)
    except ValueError as error:
        raise UsageError(str(error), hint=f"a tuple of {_columns(index)} spares you the escaping") from error


def _part(index: IndexSettings, part: Part, *, alone: bool) -> str:
    if isinstance(part, str):
        return str(part)
    if isinstance(part, bool):
        if not alone:
            return "true" if part else "false"
    elif isinstance(part, Integral):
        return str(int(part))
    elif isinstance(part, uuid.UUID) or (isinstance(part, date) and not isinstance(part, datetime)):
        return str(part)
    raise WrongType(
        f"a document id of {index.name} is an int, str, UUID or date, or a tuple of them, not {_kind(part)}"
    )


def _columns(index: IndexSettings) -> str:
    return "one column" if len(index.key) < 2 else f"{len(index.key)} columns ({', '.join(index.key)})"


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _encodable(made: str) -> bool:
    try:
        made.encode()
    except UnicodeEncodeError:
        return False
    return True


def count(name: str, value: object) -> None:
    """Raise `WrongType` or `UsageError` unless *value* is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise WrongType(f"{name} is a whole number, not {type(value).__name__}")
    if value < 1:
        raise UsageError(f"{name} is {value}, wanted 1 or more")


def pairs(
    ids: Iterable[DocumentId] | Iterable[tuple[str, DocumentId]], index: str | None
) -> Iterator[tuple[str, DocumentId]]:
    """Yield each document with its index: *index*, where that is given, otherwise as the pairs name it."""
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise WrongType(f"ids are an iterable of them, not {type(ids).__name__}")
    for one in ids:
        if index is not None:
            yield index, one  # type: ignore[misc]
        elif isinstance(one, tuple) and len(one) == 2:
            name, document_id = one
            yield name, document_id  # type: ignore[misc]
        else:
            raise WrongType("without index=... ids are pairs of an index and a document id")
