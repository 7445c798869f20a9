"""What the tables of letters and of notes call a document, whatever its id is."""

from __future__ import annotations

import hashlib

from idxctl.core import keys, texts
from idxctl.queue.claim import Task

_SHORT_NAME = 600  # bytes
_SHOWN = 100  # characters of an id in a log


def short_name(document_id: str) -> str:
    """
    Return a name for an id that cannot be kept as it is: the same for the same id, and no other's.

    Longer than any id that is kept as it is, so that none of these can be taken for it. Migration 000004 makes the same.
    """
    try:
        data = document_id.encode(
            "utf-8", "surrogateescape"
        )  # of a database without an encoding: the bytes that it has
    except UnicodeEncodeError:
        data = document_id.encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(data).hexdigest()
    return f"sha256 {digest} ".ljust(_SHORT_NAME, ".")


def kept_name(document_id: str) -> str:
    """Return what the tables of letters and of notes have in document_id for an id: itself, unless an index cannot hold it."""
    return short_name(document_id) if keys.too_long(document_id) else document_id


def name_and_whole(document_id: str) -> tuple[str, str | None]:
    """Return the name of a document in these tables, and its whole id where that is another."""
    if (
        document_id.startswith("sha256 ") and len(document_id) == _SHORT_NAME
    ):  # the last resort's: all that is kept of it
        return document_id, document_id
    name = kept_name(document_id)
    return name, None if name == document_id else document_id


def shown(task: Task) -> str:
    """Return a task's document for a line of a log."""
    name = ascii_only(task.document_id)
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."


def ascii_only(text: str) -> str:
    """Return a text with nothing but ASCII in it, which every database takes."""
    return texts.storable(text, None)
