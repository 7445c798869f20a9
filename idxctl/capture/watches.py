"""A watch as it is stored: all that the trigger functions and the workers need, so that neither reads a configuration file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from idxctl.capture.catalog import SQL
from idxctl.core import fingerprints
from idxctl.postgres.connect import Connection, Row

PRIORITIES: Mapping[str, int] = {"low": -1, "normal": 0, "high": 1}


@dataclass(frozen=True)
class Definition:
    """What a watch does, in the words of the catalog. Stored as JSON; a stored one is never changed."""

    table_schema: str  # names, not numbers: a restored database has others
    table_name: str
    key: tuple[str, ...] = ()  # columns that hold the document's key ...
    key_types: tuple[str, ...] = ()  # ... and the types of its parts, whichever way it is found
    key_sql: str | None = None  # as configured
    key_expression: str | None = None  # the same with every name resolved, over an alias of the table's bare name
    keys: str | None = None  # a query over `changed`, run after commit (C1)
    columns: tuple[str, ...] = ()  # those of `changed` that it reads, as they stand in a task's payload
    types: tuple[str, ...] = ()
    as_text: tuple[bool, ...] = ()  # columns that stand there as their text: JSON would spoil or refuse the value
    read_as: tuple[str, ...] = ()  # what a worker casts each to; empty in watches stored by an older idxctl
    guarded: bool = False  # what is taken from a row may not come to be: an expression that fails, a value too large
    reads: tuple[tuple[str, str], ...] = ()  # other tables that it reads, for the check of the join path
    row: tuple[str, ...] = ()  # columns that the key, or what a lookup stores, is taken from
    virtual: tuple[tuple[str, str], ...] = ()  # computed when read, so transition tables lack them: name, expression
    ignore: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()  # with ignore: the columns that count ...
    table_columns: tuple[str, ...] = ()  # ... of all that there were
    primary_key: tuple[str, ...] = ()
    matched_by: tuple[
        str, ...
    ] = ()  # how to compare its columns: value, bytes (text), image (types not PostgreSQL's own)
    by_stored_types: bool = False  # a NOT NULL domain in the table: its row type does not take what a task leaves out
    priority: str = "normal"
    deferred: bool = False  # documents that a lookup finds are low, whatever the priority of the lookup itself
    at: str | None = None
    search_path: tuple[str, ...] = ()  # in force at installation; `keys` runs under it
    user_code: bool = False  # key_sql uses what is not PostgreSQL's own: a worker evaluates it, as a lookup
    shape: tuple[tuple[str, str], ...] = ()  # C6: the columns that capture looks at, and what names their types
    strict: bool = False  # capture that cannot be as it should fails the writer
    # Columns by the names of all the above, the names that they may still have, and their types.
    was: tuple[tuple[str, str, str], ...] = ()
    written: tuple[tuple[str, str], ...] = ()  # settings under which triggers make its key: those of the document's id

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Definition:
        """Read a stored one; members that a newer program added are passed over."""
        known: dict[str, Any] = {
            name: _frozen(value) for name, value in stored.items() if name in cls.__dataclass_fields__
        }
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        """Return what is stored; what came to be later is there where it is used, so that other watches stay the same."""
        return {name: value for name, value in asdict(self).items() if value or name not in _CAME_LATER}

    @property
    def table(self) -> tuple[str, str]:
        """Its table: schema and name."""
        return (self.table_schema, self.table_name)

    @property
    def by_primary_key(self) -> bool:
        """Whether its key is the table's primary key, so that no two rows of a statement share one."""
        return bool(self.key) and set(self.key) == set(self.primary_key)

    @property
    def old_names(self) -> dict[str, str]:
        """The names that columns may still have, by their new ones."""
        return {name: old for name, old, _ in self.was}

    @property
    def fingerprint(self) -> str:
        """The same for watches that do the same."""
        return fingerprints.of_content(self.to_json())


_CAME_LATER = frozenset({"written", "was"})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Watch:
    """A watch with its number; tasks name it by that."""

    id: int
    index: str
    position: int
    definition: Definition
    fingerprint: str = ""
    at_watermark: datetime | None = None
    installed_at: datetime | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """Say which one it is, as people count."""
        return f"watch {self.position + 1} of index {self.index}"


def _watch(row: Row) -> Watch:
    number, index, position, _, _, stored, fingerprint, watermark, installed_at = row
    return Watch(number, index, position, Definition.from_json(stored), fingerprint, watermark, installed_at)


def installed_watches(conn: Connection) -> tuple[Watch, ...]:
    """Return the watches in force."""
    return tuple(_watch(row) for row in conn.run(SQL["watches"]))


def watch_by_id(conn: Connection, watch_id: int) -> Watch | None:
    """Return one watch, a removed one too: tasks may name it."""
    row = conn.run(SQL["watch"], id=watch_id).fetchone()
    return _watch(row) if row else None


def serving(watches: Iterable[Watch], table: tuple[str, str]) -> tuple[Watch, ...]:
    """Return the watches on one table, in the order of their numbers."""
    return tuple(sorted((watch for watch in watches if watch.definition.table == table), key=lambda watch: watch.id))
