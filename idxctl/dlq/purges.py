"""Throw dead letters away, for good and with an audit row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from idxctl.core.errors import UsageError
from idxctl.dlq.letters import SQL, Selection
from idxctl.postgres import audit
from idxctl.postgres.connect import Connection


@dataclass(frozen=True)
class Purged:
    """What a purge deleted, or would delete."""

    purged: int
    oldest: datetime | None = None
    newest: datetime | None = None
    dry_run: bool = False


def plan_purge(conn: Connection, selection: Selection, *, everything: bool) -> Purged:
    """Return what `purge` would delete; without a selection *everything* must say so."""
    if selection.empty and not everything:
        raise UsageError(
            "which letters? a purge takes --older-than, --error, --document, --index or numbers",
            hint="idxctl dlq purge --older-than 7d, or --all --yes for all of them",
        )
    row = conn.run(SQL["count_chosen"], **selection.parameters()).fetchone()
    assert row is not None
    count, oldest, newest = row
    return Purged(count, oldest, newest, dry_run=True)


def purge(
    conn: Connection,
    selection: Selection,
    *,
    everything: bool = False,
    planned: Purged | None = None,
) -> Purged:
    """
    Delete letters for good, and leave an audit row, in one transaction.

    With *planned*, what `plan_purge` found and somebody agreed to: a letter that has come since then stays.
    """
    planned = planned or plan_purge(conn, selection, everything=everything)
    with conn.transaction():
        count = conn.run(SQL["purge"], **selection.parameters(), newest=planned.newest).rowcount
        if count:
            audit.record(
                conn,
                action="dlq purge",
                what=selection.index or "all",
                count=count,
                detail=selection.described(),
            )
    return Purged(count, planned.oldest, planned.newest)
