"""What takes a look at queries and functions: coverage (C7), and whether installed capture still fits its tables (C6)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from idxctl.capture import coverage, introspect
from idxctl.capture import status as capture
from idxctl.capture.plan import survey
from idxctl.capture.watches import Watch, installed_watches
from idxctl.config.settings import IndexSettings
from idxctl.core import fingerprints
from idxctl.core.conditions import Condition, Kind
from idxctl.core.errors import DocumentError, PostgresRefused
from idxctl.indexes.definitions import define
from idxctl.postgres.connect import Connection
from idxctl.status.conditions import Made

_KINDS = {
    capture.POWERLESS: Kind.TRIGGERS_POWERLESS,
    capture.FAILING: Kind.WRITES_FAIL,
    capture.COARSE: Kind.COARSE_WATCH,
    capture.OUTDATED: Kind.TRIGGERS_OUTDATED,
}


def look(
    conn: Connection, made: Sequence[Made], *, within_seconds: float, clock: Callable[[], float] = time.monotonic
) -> list[Condition]:
    """
    Look at every live generation's own query and at every installed watch; outside of a transaction, nothing is left of it.

    What this role may not look at, or a migration holds locked, or there is no time for *within_seconds*, is not said to be
    wrong.
    """
    until = clock() + within_seconds
    watches = installed_watches(conn)
    found: list[Condition] = []
    try:
        installed = capture.of_installed(conn, watches)
    except PostgresRefused:  # a role that only looks may have no right on the application's schemas
        installed = []
    found += [Condition(_KINDS[state], index, {"what": what}) for index, state, what in installed if state in _KINDS]
    for one in made:
        if one.definition is None or clock() > until:
            continue
        mine = {watch.position: watch.definition for watch in watches if watch.index == one.index}
        try:
            holes = coverage.uncovered(conn, one.definition.document, mine, local=one.definition.in_force)
        except PostgresRefused:
            continue
        found += coverage.conditions(one.index, holes)
    return found


def of_files(conn: Connection, indexes: Mapping[str, IndexSettings]) -> list[Condition]:
    """
    Return what documents as configured would show and watches as configured would not capture; nothing is changed.

    Raises `introspect.CannotLook` where this role may make no view; what cannot be defined is passed over, others say why.
    """
    planned = survey(conn, indexes).watches
    found: list[Condition] = []
    for name, index in indexes.items():
        mine = {one.position: one.definition for one in planned if one.index == name}
        if not mine or not index.document:
            continue
        try:
            made = define(conn, index)
            holes = coverage.uncovered(conn, made.document, mine, local=made.in_force)
        except introspect.CannotLook:
            raise
        except (DocumentError, PostgresRefused):
            continue
        found += coverage.conditions(name, (one for one in holes if one.watch is None))
    return found


def key(made: Sequence[Made], watches: Sequence[Watch]) -> str:
    """Return what the same look would be about: one that was made of something else says nothing of this."""
    live = sorted((one.index, one.name) for one in made if one.state == "live")
    return fingerprints.of_content({"live": live, "watches": sorted(one.id for one in watches)})
