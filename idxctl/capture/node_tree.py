"""
PostgreSQL's own parse of a query, as the rule of a view keeps it (`pg_rewrite.ev_action`), read into Python.

The text is what nodeToString of src/backend/nodes/outfuncs.c writes: ``{NODE :field value ...}``, lists in brackets, ``<>`` for
nothing, strings with backslashes. Names of fields have been stable from PostgreSQL 14 to 18 for all that is read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_WORD = re.compile(r"[(){}\[\]]|(?:\\.|[^\s(){}\[\]\\])+", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass
class Node:
    """A node: its name, and its fields as nodes, lists, texts, or None."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)

    def node(self, name: str) -> Node | None:
        """Return a field that is a node."""
        found = self.fields.get(name)
        return found if isinstance(found, Node) else None

    def list(self, name: str) -> list[Any]:
        """Return a field that is a list; nothing where it is not."""
        found = self.fields.get(name)
        return found if isinstance(found, list) else []

    def text(self, name: str) -> str:
        """Return a field that is a plain value."""
        found = self.fields.get(name)
        return found if isinstance(found, str) else ""

    def number(self, name: str) -> int:
        """Return a field that is a whole number; 0 where it is not."""
        text = self.text(name)
        return int(text) if text.lstrip("-").isdigit() else 0

    def children(self) -> Iterator[Node]:
        """Yield the nodes right below it, those in lists too."""
        for value in self.fields.values():
            yield from _nodes(value)


def _nodes(value: Any) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _nodes(one)


def parse(text: str) -> Any:
    """Read a tree; returns a node, a list, a text or None. Raises ValueError for what is none."""
    words = _WORD.findall(text)
    value, end = _value(words, 0)
    if end != len(words):
        raise ValueError("more than one value in a node tree")
    return value


def _value(words: list[str], place: int) -> tuple[Any, int]:
    if place >= len(words):
        raise ValueError("a node tree ends in the middle")
    word = words[place]
    if word == "{":
        return _node(words, place + 1)
    if word in "([":
        end = ")" if word == "(" else "]"
        items, place = [], place + 1
        while words[place] != end:
            one, place = _value(words, place)
            items.append(one)
        return items, place + 1
    return (None if word == "<>" else _ESCAPE.sub(r"\1", word)), place + 1


def _node(words: list[str], place: int) -> tuple[Node, int]:
    node, place = Node(words[place]), place + 1
    while words[place] != "}":
        name, place = words[place].removeprefix(":"), place + 1
        values: list[Any] = []
        while words[place] != "}" and not (words[place].startswith(":") and len(words[place]) > 1):
            one, place = _value(words, place)
            values.append(one)
        node.fields[name] = values[0] if len(values) == 1 else values  # a Const's value is several
    return node, place + 1
