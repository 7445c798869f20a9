"""Names: of fields, of an index, and the short ones by which a query calls its tables."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_SUFFIX = re.compile(r"(_?(id|uuid|guid|fk|key|code|no|num|ref)|Id|ID|Uuid|Fk)$")
_NO_PLURAL = (
    "ed",
    "ing",
    "data",
    "info",
    "media",
    "stock",
    "inventory",
    "equipment",
    "metadata",
    "content",
    "children",
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")

# Short words that SQL keeps for itself (reserved, or not to be taken for an alias), and the names that triggers and lookups use.
_TAKEN = frozenset(
    {"as", "at", "by", "do", "in", "is", "if", "no", "of", "on", "or", "to", "all", "and", "any", "asc", "end", "for", "not", "new",
     "old", "up", "row", "set", "out", "add", "use", "key", "case", "cast", "both", "desc", "else", "from", "then", "user", "when",
     "with", "some", "only", "into", "full", "join", "left", "like", "e", "r", "changed", "below"}
)  # fmt: skip


def plural(word: str) -> str:
    """Return the plural of an English noun, as tables are named; of others a fair guess."""
    low = word.lower()
    if (low.endswith("s") and not low.endswith("ss")) or low.endswith(_NO_PLURAL):
        return word
    if low.endswith("y") and low[-2:-1] not in set("aeiou"):
        return word[:-1] + "ies"
    return word + ("es" if low.endswith(("ss", "x", "ch", "sh", "z")) else "s")


def singular(word: str) -> str:
    """Return the singular of a table's name."""
    low = word.lower()
    if low.endswith("ies") and len(low) > 4:
        return word[:-3] + "y"
    if low.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if low.endswith("s") and not low.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def field_of_lookup(columns: Sequence[str], table: str, *, own: bool = False) -> str:
    """
    Return the field of a row that a foreign key over *columns* points at: ``category_id`` → ``category``.

    *own*: it is a row of the same table, so that the table's name would say nothing.
    """
    bare = _SUFFIX.sub("", columns[-1]) if len(columns) == 1 or own else ""
    return bare.strip("_") or singular(table)


def field_of_children(child: str, parent: str, *, single: bool) -> str:
    """Return the field of the rows that belong to one of *parent*: ``listing_images`` of ``listings`` → ``images``."""
    for prefix in (parent, singular(parent)):
        for start in (f"{prefix}_", prefix):
            rest = child[len(start) :]
            if child.lower().startswith(start.lower()) and len(rest) > 2:
                child = rest if start.endswith("_") or rest[0].isupper() else child
                break
    return singular(child) if single else plural(child)


def free(name: str, taken: Collection[str], *fallbacks: str) -> str:
    """Return the first of *name* and *fallbacks* that is not taken, else *name* with a number."""
    for one in (name, *fallbacks):
        if one not in taken:
            return one
    number = 2
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def alias(table: str, taken: Collection[str]) -> str:
    """Return the letters by which a query calls a table: ``listing_images`` → ``li``."""
    letters = (
        "".join(word[0] for word in _WORDS.findall(table) if word[0].isascii() and word[0].isalpha()).lower() or "t"
    )
    if letters not in taken and letters not in _TAKEN:
        return letters
    number = 2
    while f"{letters}{number}" in taken:
        number += 1
    return f"{letters}{number}"


def index_name(table: str) -> str:
    """Return a name for the index of a table that OpenSearch takes."""
    words = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", table).lower()).strip("_-+.")
    return words[:200] or "documents"
