"""
What each role may do with idxctl's own tables, sequences and functions: one table, from which `idxctl grants` makes GRANTs
and errors say what is missing.

- *application*: nothing for capture, whose triggers run with the owner's rights; one function to enqueue by.
- *worker*: claims, writes, settles, and marks generations; it cannot change what a generation is made from, nor the audit.
- *operator*: all that a worker may, for commands that index without one, and what people do by hand: retry, purge, pause, reindex.
- *viewer*: reads, but for values of documents.
- *installer*: the owner, or a member of it, and TRIGGER on the application's tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

PREFIX = "opensearch_indexing_"
KINDS = ("application", "worker", "operator", "viewer", "installer")


@dataclass(frozen=True)
class Right:
    """Privileges on one table; ``columns`` are those that UPDATE is confined to, ``but`` those that SELECT leaves out."""

    privileges: tuple[str, ...]
    why: str
    columns: tuple[str, ...] = ()
    but: tuple[str, ...] = ()


_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
_READ = ("SELECT",)
_MARKS = ("state", "live_at", "standby_until", "behind_since", "retired_at", "deleted_at")

_WORKER: Mapping[str, tuple[Right, ...]] = {
    "queue": (Right(_ALL, "tasks are taken, and put back"),),
    "inflight": (Right(_ALL, "batches under a lease"),),
    "dlq": (Right(_ALL, "letters are written, and cleared by a success"),),
    "generations": (
        Right(_READ, "where and how to write"),
        Right(("UPDATE",), "their states alone: what they are made from stays", columns=_MARKS),
    ),
    "generation_failures": (Right(_ALL, "what a generation that is not live refused"),),
    "watches": (
        Right(_READ, "lookups to run after the commit"),
        Right(("UPDATE",), "how far time has been looked at, and no more", columns=("at_watermark",)),
    ),
    "barrier": (Right(("SELECT", "UPDATE"), "claims lock it, and who changes the set of generations"),),
    "workers": (Right(_ALL, "heartbeats"),),
    "pauses": (Right(_ALL, "an index that refuses everything is paused, and resumed"),),
    "token_jumps": (Right(_READ, "whether the sequence was moved in this run of the server"),),
    "reindex_runs": (Right(_READ, "the progress of a reindex, for metrics"),),
    "reindex_chunks": (Right(_READ, "which versions of documents are ours, for a scrub"),),
    "verify_runs": (Right(_ALL, "a comparison and how far it is"),),
    "verify_ranges": (Right(_ALL, "ranges of a comparison"),),
    "verify_differences": (Right(_ALL, "what it found"),),
    "settings": (Right(_READ, "settings of the database"),),
    "migrations": (Right(_READ, "the version of the tables, which every command checks"),),
}
_OPERATOR: Mapping[str, tuple[Right, ...]] = {
    **_WORKER,
    "dlq": (Right((*_ALL, "TRUNCATE"), "letters are retried and purged"),),
    "generations": (
        Right(("SELECT", "INSERT"), "a reindex adds one"),
        Right(("UPDATE",), "their states alone: index apply is for the owner", columns=(*_MARKS, "intent")),
    ),
    "reindex_runs": (Right(("SELECT", "INSERT", "UPDATE"), "a reindex and its progress"),),
    "reindex_chunks": (Right(_ALL, "ranges of a reindex"),),
    "reindex_digests": (Right(("SELECT", "INSERT", "DELETE"), "what a reindex has sent, to check it"),),
    "audit": (Right(_READ, "who did what"),),
}
_VIEWER: Mapping[str, tuple[Right, ...]] = {
    "queue": (Right(_READ, "what waits, without the values that fan-outs carry", but=("payload",)),),
    "inflight": (Right(_READ, "what is under way, likewise", but=("payloads",)),),
    "dlq": (Right(_READ, "letters, without the documents' data and their past", but=("data", "history")),),
    "generations": (Right(_READ, "indexes and their states"),),
    "watches": (Right(_READ, "what is captured"),),
    "workers": (Right(_READ, "who works"),),
    "pauses": (Right(_READ, "what stands still, and why"),),
    "token_jumps": (Right(_READ, "moves of the sequence"),),
    "reindex_runs": (Right(_READ, "reindexes and their progress"),),
    "reindex_chunks": (Right(_READ, "their ranges"),),
    "verify_runs": (Right(_READ, "comparisons and what they found"),),
    "verify_ranges": (Right(_READ, "their ranges"),),
    "verify_differences": (Right(_READ, "documents that differ"),),
    "settings": (Right(_READ, "settings of the database"),),
    "migrations": (Right(_READ, "the version of the tables, which every command checks"),),
    "audit": (Right(_READ, "who did what"),),
}
TABLES: Mapping[str, Mapping[str, tuple[Right, ...]]] = {
    "application": {},
    "worker": _WORKER,
    "operator": _OPERATOR,
    "viewer": _VIEWER,
    "installer": {},
}

_GAP = {"gap": ("SELECT", "changes that capture could leave no task for are counted")}
_DRAWS = {
    "token": ("USAGE, SELECT", "tokens are drawn, and their place is read"),
    "dlq_id_seq": ("USAGE", "numbers of letters"),
    **_GAP,
}
SEQUENCES: Mapping[str, Mapping[str, tuple[str, str]]] = {"worker": _DRAWS, "operator": _DRAWS, "viewer": _GAP}

_WORKS = {
    "advance_token": "the token sequence is moved forward, never back",
    "server": "a restored or restarted server is distinguished from the one before",
    "audit_write": "acts are noted; nothing noted can be changed by it",
    "gap_seen": "gaps that capture marked are seen to once",
    "waiting": "what waits is counted",
}
FUNCTIONS: Mapping[str, Mapping[str, str]] = {
    "application": {"enqueue": "tasks are added in the application's own transactions"},
    "worker": _WORKS,
    "operator": _WORKS,
    "viewer": {"waiting": "what waits is counted, without the values in it"},
}
# Called by our triggers alone, with the owner's rights.
OURS_ALONE = frozenset({"dlq_group", "dlq_number", "queue_look", "queue_as_made"})

_DENIED = re.compile(r"permission denied for (?P<what>\w+(?: \w+)??) (?P<name>\S+)$")
_BEFORE = (
    ("INSERT", re.compile(r"INSERT\s+INTO\s+$")),
    ("UPDATE", re.compile(r"\bUPDATE\s+$")),
    ("DELETE", re.compile(r"DELETE\s+FROM\s+$")),
)


def needed(statement: str, table: str) -> tuple[str, ...]:
    """Return the privileges that *statement*, one of ours, takes on *table*."""
    found: set[str] = set()
    for each in re.finditer(rf"\b{re.escape(table)}\b", statement):
        before = statement[: each.start()].rstrip('".') + " "
        before = re.sub(r'"[^"]*" $', "", before)
        found.update(name for name, pattern in _BEFORE if pattern.search(before))
    if "FOR UPDATE" in statement or "ON CONFLICT" in statement:
        found.add("UPDATE")
    return (*[one for one in _ALL if one in found or one == "SELECT"],)


def kinds_with(table: str, privileges: tuple[str, ...]) -> Iterator[str]:
    """Name the kinds of roles that hold all of *privileges* on *table*, those who may least first."""
    for kind in ("viewer", "worker", "operator"):
        held = {one for right in TABLES[kind].get(table.removeprefix(PREFIX), ()) for one in right.privileges}
        if set(privileges) <= held:
            yield kind


def hint(sentence: str, statement: str = "") -> str | None:
    """Return the way out of PostgreSQL's *sentence* that a right is missing; None for another sentence."""
    found = _DENIED.match(sentence)
    if found is None:
        return None
    what, name = found["what"], found["name"].strip('"')
    if what == "function":
        kinds = [kind for kind, held in FUNCTIONS.items() if name.removeprefix(PREFIX) in held]
        return f"this role needs EXECUTE on it: idxctl grants {_flags(kinds)}"
    if what == "schema":
        return f"this role needs USAGE on it: idxctl grants {_flags(KINDS[:4])}"
    if what == "sequence":
        return f"this role needs USAGE on it: idxctl grants {_flags(['worker', 'operator'])}"
    if not name.startswith(PREFIX):
        return f"this role needs SELECT on it: idxctl grants {_flags(['worker', 'operator'])}"
    privileges = needed(statement, name)
    return f"this role needs {', '.join(privileges)} on it: idxctl grants {_flags(list(kinds_with(name, privileges)))}"


def _flags(kinds: Sequence[str]) -> str:
    return ", or ".join(f"--{kind} ROLE" for kind in kinds) or "prints what each role needs"
