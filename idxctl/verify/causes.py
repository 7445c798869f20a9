"""Why a document differs from its row, as far as that can be known from the two of them."""

from __future__ import annotations

import re
from enum import Enum

from idxctl.verify.judge import Judged, Kind

# What stands between the first field's name and its value. PostgreSQL writes `": ` (jsonb) or `" : ` (json), and OpenSearch
# keeps a document as the bytes that it was sent; most other programs, and its own update API, write `":`.
_FIRST = re.compile(rb'^\{"(?:[^"\\]|\\.)*"( ?: ?)')


class Cause(str, Enum):
    """What is known of why a document differs."""

    REFUSED = "refused"
    FOREIGN = "foreign"
    ELSEWHERE = "elsewhere"
    REWRITTEN = "rewritten"
    NOT_WRITTEN = "not_written"
    NOT_CURRENT = "not_current"
    NOT_DELETED = "not_deleted"

    @property
    def sentence(self) -> str:
        """What it says to people."""
        return _SENTENCES[self]


_SENTENCES = {
    Cause.REFUSED: "it is a dead letter",
    Cause.FOREIGN: "its version is none that idxctl gave: something else wrote it",
    Cause.ELSEWHERE: "it stands under another routing than its id has: something else wrote it",
    Cause.REWRITTEN: "its source is not written as PostgreSQL writes it: something else changed it",
    Cause.NOT_WRITTEN: "its row was not captured, or something else deleted it",
    Cause.NOT_CURRENT: "a change of its row was not captured, or something else wrote it under a version like idxctl's",
    Cause.NOT_DELETED: "the end of its row was not captured, or an old write came after OpenSearch had forgotten the deletion",
}


def of(said: Judged, *, dead: bool = False, row: bytes = b"", held: bytes = b"", pipeline: bool = False) -> Cause:
    """
    Return the cause as far as it is known; *dead*: there is a dead letter.

    *row* is the document as PostgreSQL renders it now, *held* the source as the index has it; with a *pipeline* OpenSearch
    writes each source itself.
    """
    if dead:
        return Cause.REFUSED
    if said.routing is not None:
        return Cause.ELSEWHERE
    if said.foreign:
        return Cause.FOREIGN
    if said.kind is Kind.MISSING:
        return Cause.NOT_WRITTEN
    if said.kind is Kind.ORPHAN:
        return Cause.NOT_DELETED
    return Cause.REWRITTEN if not pipeline and _rewritten(row, held) else Cause.NOT_CURRENT


def _rewritten(row: bytes, held: bytes) -> bool:
    ours, found = _FIRST.match(row), _FIRST.match(held)
    return ours is not None and found is not None and ours[1] != found[1]
