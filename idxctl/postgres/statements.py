"""
Statements with names, loaded from ``.sql`` files beside the module that runs them.

A file holds ``-- name: claim`` lines, each followed by one sentence of intent and the statement. The tables of idxctl are
written without a schema; `Statement.qualified` puts the schema in, so that no statement depends on a session's
``search_path`` (PgBouncer in transaction mode hands sessions round).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_OURS = re.compile(r"(?<![\w.\"])(')?(opensearch_indexing_\w+)")


@dataclass(frozen=True)
class Statement:
    """One statement: its name, for errors and logs, and its text."""

    name: str
    text: str

    def qualified(self, schema: str) -> bytes:
        """Return the text with every table and function of idxctl in *schema*, a plain (unquoted) name."""
        return _qualified(self.text, schema)


@lru_cache(maxsize=512)
def _qualified(text: str, schema: str) -> bytes:
    prefix = '"' + schema.replace('"', '""').replace("%", "%%") + '".'

    def qualify(found: re.Match[str]) -> str:
        quote, name = found.groups()  # nextval('opensearch_indexing_token') names a relation inside a string
        return f"'{prefix.replace(chr(39), chr(39) * 2)}{name}" if quote else prefix + name

    return _OURS.sub(qualify, text).encode()


class Statements(Mapping[str, Statement]):
    """The statements of one file, by name; a missing one is a `KeyError` at import, not at 3 a.m."""

    def __init__(self, statements: dict[str, Statement]) -> None:
        self._statements = statements

    def __getitem__(self, name: str) -> Statement:
        return self._statements[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)


def load(package: str, file: str) -> Statements:
    """Read the statements of *file* in *package*."""
    text = (files(package) / file).read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return Statements({name: Statement(name, body.strip()) for name, body in zip(parts[::2], parts[1::2], strict=True)})
