"""``idxctl watch suggest``: the watches that a document query asks for and the configuration lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idxctl.cli import render
from idxctl.cli.state import IndexOption, Output, OutputOption, current
from idxctl.core.durations import format_counted
from idxctl.core.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from idxctl.capture.suggest import Found, Suggested
    from idxctl.config.settings import IndexSettings, WatchSettings
    from idxctl.postgres.connect import Connection


@dataclass(frozen=True)
class Lacking:
    """What one index lacks."""

    index: str
    watches: tuple[Suggested, ...]
    by_hand: tuple[tuple[str, str], ...]  # tables whose watch nobody can derive, and why


def suggest(
    output: OutputOption,
    index: IndexOption = None,
    write: Annotated[
        bool, typer.Option("--write", help="Add them to the end of the configuration; nothing else there is touched.")
    ] = False,
) -> None:
    """
    Derive from each document query the watches that are missing, and print them as TOML.

    The condition that ties a table to the document's own row is turned round. Where that cannot be done, it says so.
    """
    from idxctl.init import files

    state = current()
    path = state.settings.path
    with state.connect() as conn:
        found = [_lacking(conn, one) for one in state.chosen(index)]
    text = "\n".join(files.watch_text(one.index, watch) for one in found for watch in map(_as_written, one.watches))
    count = sum(len(one.watches) for one in found)
    if write and text:
        if path is None:
            raise UsageError(
                "there is no configuration file to write to", hint="idxctl watch suggest prints the watches"
            )
        files.write((files.added(path, text),))
    if output is Output.JSON:
        render.json([_report(one) for one in found])
    elif text and not write:
        render.script(text)
    for one in found:
        for table, why in one.by_hand:
            render.warn(f"{one.index}: {table} is shown, and no watch could be derived: {why}")
    if not count:
        render.headline("ok", "Nothing to suggest: each table that a query reads has its watches", output)
    elif write:
        render.headline("ok", f"{format_counted(count, 'watch', 'watches')} added to {path}", output)
        render.next_step("idxctl config validate && idxctl watch install", output)


def _lacking(conn: Connection, index: IndexSettings) -> Lacking:
    from idxctl.capture import suggest as engine
    from idxctl.indexes.definitions import define

    if not index.document:
        raise ConfigError(f"index {index.name} has no document query", hint="idxctl config validate")
    made = define(conn, index)
    found = engine.suggest(conn, made.document, made.key, local=made.in_force)
    have = engine.tables_of(conn, [one.table for one in index.watches])
    watched = [(oid, one) for oid, one in zip(have, index.watches, strict=True) if oid is not None]
    missing = tuple(_missing(found.watches, watched))
    by_hand = tuple((one.table, one.why) for one in found.unknown if not _by_hand(found, one.oid, watched))
    return Lacking(index.name, missing, by_hand)


def _missing(suggested: tuple[Suggested, ...], watched: list[tuple[int, WatchSettings]]) -> Iterator[Suggested]:
    """Yield the suggestions that nothing configured stands for: a table's watches may lead to the same documents in other words."""
    for one in suggested:
        mine = [watch for oid, watch in watched if oid == one.oid]
        same = [each for each in suggested if each.oid == one.oid]
        if one.key and any(tuple(watch.key) == one.key for watch in mine):
            continue
        others = len(mine) - sum(1 for each in same if each.key and any(tuple(watch.key) == each.key for watch in mine))
        if others < sum(1 for each in same if not any(tuple(watch.key) == each.key for watch in mine)):
            yield one


def _by_hand(found: Found, oid: int, watched: list[tuple[int, WatchSettings]]) -> bool:
    """Whether somebody has written a watch for what could not be derived: one more than could be, or one that descends a tree."""
    mine = [watch for each, watch in watched if each == oid]
    descends = any("recursive" in (watch.keys or "").lower() for watch in mine)
    return descends or len(mine) > sum(1 for one in found.watches if one.oid == oid)


def _as_written(one: Suggested) -> Any:
    from idxctl.init.watches import Watch

    return Watch(one.table, "", one.key, one.keys, one.ignore)


def _report(one: Lacking) -> dict[str, Any]:
    return {
        "index": one.index,
        "watches": [
            {"table": each.table, "key": each.key or None, "keys": each.keys, "ignore": each.ignore}
            for each in one.watches
        ],
        "by_hand": [{"table": table, "why": why} for table, why in one.by_hand],
    }
