"""
Why something waits, stands still or was left out: kinds with fields.

What decides looks at these. A sentence is made of them where people read it, is never read back, and may be reworded. An
`error_type` is a server's own name for an error (``sql_<SQLSTATE>`` for PostgreSQL's), and so it is data; what the server
says beside it is for people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any


class Kind(str, Enum):
    """What kind of reason it is. The values are stored: they stay, whatever becomes of the names."""

    # of an index, or of all that was sent to it
    UNREADABLE = "unreadable"  # PostgreSQL refuses the document query
    REFUSED = "refused"  # OpenSearch refuses writes to the index
    GONE = "gone"  # the index does not exist
    FOREIGN = "foreign"  # it is not the index that idxctl made
    SHARDS_AWAY = "shards_away"  # nothing can be written where the documents belong
    REFUSED_ALIKE = "refused_alike"  # nearly every document meets one and the same error
    OPERATOR = "operator"  # a person said so
    # of the cluster, or the way there
    UNREACHABLE = "unreachable"  # no answer, or none of OpenSearch's own
    OVERLOADED = "overloaded"  # too much at once
    # of a task that is tried again
    OUTDATED = "outdated"  # its bytes were too old to be sent, or a version from elsewhere stood in the way
    SLOW = "slow"  # there was no time to read it
    APART = "apart"  # it is sent without its neighbours next time
    FAILED = "failed"  # its own failure: an attempt was spent
    MISSED = "missed"  # a generation that was not live then does not have it
    UNSETTLED = "unsettled"  # its outcome could not be recorded
    UNCLAIMED = "unclaimed"  # the answer to its claim was lost
    RELEASED = "released"  # its worker ended before the outcome was known
    LOST = "lost"  # its worker was lost
    STUCK = "stuck"  # PostgreSQL refuses that it be put back
    UNWRITABLE = "unwritable"  # PostgreSQL refuses what is to be written of it
    # of a task that stands for many
    WAITS_FOR_BATCHES = "waits_for_batches"
    WAITS_FOR_DOCUMENTS = "waits_for_documents"
    WAITS_FOR_TRANSACTIONS = "waits_for_transactions"
    NO_LOOKUP = "no_lookup"  # the query that finds its documents cannot be run
    # of a run
    DIED = "died"  # the process that ran it is gone
    CANCELLED = "cancelled"
    ENDED = "ended"  # by an error that is no more than its sentence
    # of none of them
    UNTOLD = "untold"  # by a program that stored a sentence alone, or a kind that this one does not know


@dataclass(frozen=True)
class Reason:
    """A kind, and what it is about. ``said`` is for people: a server's own words, or those of an older program."""

    kind: Kind
    said: str = ""
    error_type: str = ""
    generation: str = ""  # the physical index
    fingerprint: str = ""  # of an error that documents share
    about: str = ""  # the worker, query or number that this kind is about

    @property
    def sentence(self) -> str:
        """Say it to people."""
        told = _TOLD.get(self.kind)
        if told is not None:
            return told(self)
        return ": ".join(part for part in (self.generation, self.error_type, self.said) if part)

    @property
    def sqlstate(self) -> str:
        """PostgreSQL's code, where the error is one of its own."""
        return self.error_type.removeprefix("sql_") if self.error_type.startswith("sql_") else ""

    def __str__(self) -> str:
        return self.sentence

    def stored(self) -> dict[str, str]:
        """Return it as JSON holds it; `of` reads that."""
        fields = {name: getattr(self, name) for name in ("error_type", "generation", "fingerprint", "about", "said")}
        given = {name: value for name, value in fields.items() if value}
        return {"kind": self.kind.value, "sentence": self.sentence, **given}

    def saying(self, said: str) -> Reason:
        """Return it with other words: such as may be kept, for one."""
        return replace(self, said=said)


def of(stored: Mapping[str, Any] | None, sentence: str = "") -> Reason:
    """
    Return what was stored; *sentence* is all there is of one by a program that stored no more, or knows more kinds.

    A program of before rewrites the sentence and leaves the rest: then that is of another reason.
    """
    if stored is not None and stored.get("sentence", sentence) != sentence:
        stored = None
    known = {one.value for one in Kind}
    if stored is None or stored.get("kind") not in known:
        return Reason(Kind.UNTOLD, sentence)
    fields = {name: str(stored.get(name, "")) for name in ("error_type", "generation", "fingerprint", "about", "said")}
    return Reason(Kind(stored["kind"]), **fields)


def _said_with_state(why: Reason) -> str:
    """Return PostgreSQL's words with the state, as its own messages are cited."""
    return f"{why.said} [{why.sqlstate}]" if why.sqlstate else why.said


_TOLD: dict[Kind, Callable[[Reason], str]] = {
    Kind.REFUSED_ALIKE: lambda why: (
        f"nearly every document is refused with the same error ({why.fingerprint}), {why.error_type}: {why.said}; "
        "fix the mapping or the query, and it goes on by itself"
    ),
    Kind.OPERATOR: lambda why: why.said,
    Kind.FAILED: lambda why: why.said,
    Kind.UNWRITABLE: lambda why: why.said,
    Kind.ENDED: lambda why: why.said,
    Kind.UNSETTLED: lambda _: "its outcome could not be settled",
    Kind.UNCLAIMED: lambda _: "the answer to its claim was lost",
    Kind.RELEASED: lambda _: "its worker ended before the outcome was known",
    Kind.LOST: lambda why: f"the worker that held it ({why.about}) was lost",
    Kind.STUCK: _said_with_state,
    Kind.NO_LOOKUP: lambda why: ": ".join(part for part in (why.about, _said_with_state(why)) if part),
    Kind.WAITS_FOR_BATCHES: lambda _: "waits for batches in flight",
    Kind.WAITS_FOR_DOCUMENTS: lambda _: "waits for the documents of the last one",
    Kind.WAITS_FOR_TRANSACTIONS: lambda _: "waits for transactions that began before it",
    Kind.DIED: lambda _: "the process that ran it is gone",
    Kind.CANCELLED: lambda why: why.said or "cancelled",
}
