"""Throw dead letters away, for good and with an audit row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from idxctl.core.errors import UsageError
from idxctl.core.failpoints import reach
from idxctl.dlq.exports import export
from idxctl.dlq.letters import SQL, Selection
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection

_AT_ONCE = 10_000  # letters that one statement deletes


@dataclass(frozen=True)
class Purged:
    """What a purge deleted, or would delete."""

    purged: int
    oldest: datetime | None = None
    newest: datetime | None = None
    dry_run: bool = False
    file: str | None = None  # which holds them
    stayed: int = 0  # in the file, and not deleted: something became of them meanwhile


def plan_purge(conn: Connection, selection: Selection, *, everything: bool) -> Purged:
    """Return what `purge` would delete; without a selection *everything* must say so."""
    if selection.empty and not everything:
        raise UsageError(
            "which letters? a purge takes --older-than, --error, --document, --index or numbers",
            hint="idxctl dlq purge --older-than 7d, or --all --yes for all of them",
        )
    row = conn.one(SQL["count_chosen"], **selection.parameters())
    count, oldest, newest = row
    return Purged(count, oldest, newest, dry_run=True)


def purge(
    conn: Connection,
    selection: Selection,
    *,
    everything: bool = False,
    planned: Purged | None = None,
    file: Path | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> Purged:
    """
    Delete letters for good, and leave an audit row, in one transaction.

    With *planned*, what `plan_purge` found and somebody agreed to: a letter that has come since then stays. With *file*, a new
    one, all that is deleted is on the disk there before; *told* hears how far that is. If the file cannot be written, nothing
    is deleted. It stays when the deletion fails, since a connection that broke does not tell whether it did.
    """
    planned = planned or plan_purge(conn, selection, everything=everything)
    written = export(conn, selection, file, newest=planned.newest, told=told) if file and planned.purged else None
    reach("dlq.exported")
    with conn.transaction():
        if written is None:
            count = conn.run(SQL["purge"], **selection.parameters(), newest=planned.newest).rowcount
        else:
            count = sum(
                conn.run(SQL["purge_exported"], ids=ids, versions=versions).rowcount
                for ids, versions in written.pieces(_AT_ONCE)
            )
        if count:
            audit.record(
                conn,
                action="dlq purge",
                what=selection.index or "all",
                count=count,
                detail={**selection.described(), **({"file": str(file)} if written else {})},
            )
    stayed = len(written.ids) - count if written else 0
    return Purged(count, planned.oldest, planned.newest, file=str(file) if written else None, stayed=stayed)
