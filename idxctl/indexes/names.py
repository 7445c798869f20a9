"""Which index is meant: by its name, or because there is but one."""

from __future__ import annotations

from idxctl.config.settings import Settings
from idxctl.core.errors import UsageError
from idxctl.core.suggest import did_you_mean
from idxctl.indexes import generations
from idxctl.indexes.definitions import SQL
from idxctl.postgres.connect import Connection


def the_index(conn: Connection, settings: Settings, name: str | None) -> str:
    """Return the index meant: the one named, otherwise the only one there is."""
    known = sorted({*settings.indexes, *(one.index for one in generations.all_of_them(conn))})
    if name is None:
        if len(known) == 1:
            return known[0]
        what = "no index is configured" if not known else f"there are several: {', '.join(known)}"
        raise UsageError(f"which index? {what}", hint="--index NAME")
    if name not in known:
        raise UsageError(
            f"there is no index {name}", hint=did_you_mean(name, known) or f"known: {', '.join(known) or 'none'}"
        )
    return name


def check_known(conn: Connection, settings: Settings, name: str | None) -> None:
    """Refuse the name of an index that is neither configured nor built, and of which no task or letter tells."""
    if name is None or name in settings.indexes:
        return
    row = conn.run(SQL["mentioned"], index=name).fetchone()
    if row is None or not row[0]:
        the_index(conn, settings, name)
