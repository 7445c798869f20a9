"""
The settings that an index is built with, and those that it is to live with.

What the mapping file says holds; where that is silent a template of the site; where both are, what is best for us.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from idxctl.config import sums
from idxctl.core.errors import IdxctlError
from idxctl.core.failpoints import reach
from idxctl.opensearch import aliases, copies, index_settings
from idxctl.opensearch.client import Client
from idxctl.opensearch.copies import Copies
from idxctl.rebuild.steps import Steps

_WAIT = "write.wait_for_active_shards"
_EXPAND = "auto_expand_replicas"


@dataclass(frozen=True)
class Lifetime:
    """The settings of one new index. Names are full ones, without their prefix."""

    asked: Mapping[str, Any]  # by the mapping file
    given: Mapping[str, Any]  # by templates
    default_replicas: int = 1

    @property
    def effective(self) -> dict[str, Any]:
        """All that is asked for by others than us."""
        return {**self.given, **self.asked}

    @property
    def primaries(self) -> int:
        """How many shards it has."""
        return _number(self.effective.get("number_of_shards"), 1)

    @property
    def replicas(self) -> int:
        """How many replicas of each it is to have; those of `auto_expand_replicas` are the cluster's affair."""
        return 0 if self._expands else _number(self.effective.get("number_of_replicas"), self.default_replicas)

    @property
    def building(self) -> dict[str, Any]:
        """Fast to fill: no replicas, no refreshes, and no write that waits for copies which are not there."""
        made = {**self.asked, "refresh_interval": "-1", "number_of_replicas": 0, "gc_deletes": self._gc_deletes}
        if _EXPAND in self.effective:
            made[_EXPAND] = "false"
        if _WAIT in self.effective:
            made[_WAIT] = "1"
        return made

    @property
    def living(self) -> dict[str, Any]:
        """What is put in place of that once it is filled; None takes a setting back to its default."""
        wanted = {"refresh_interval": self.effective.get("refresh_interval")}
        if _EXPAND in self.effective:
            wanted[_EXPAND] = self.effective[_EXPAND]
        if not self._expands:
            wanted["number_of_replicas"] = self.effective.get("number_of_replicas", self.default_replicas)
        return wanted

    @property
    def last(self) -> dict[str, Any]:
        """What is put in place once the copies have started: before that, every write would wait for them."""
        return {_WAIT: self.effective[_WAIT]} if _WAIT in self.effective else {}

    @property
    def served(self) -> dict[str, Any]:
        """All that is set on it once it is in service; None, and what is not here, is at its default."""
        return {**self.effective, **self.living, **self.last, "gc_deletes": self._gc_deletes}

    def copies_needed(self, wanted: int) -> int:
        """Return how many of *wanted* copies of a shard a write waits for."""
        needed = str(self.effective.get(_WAIT, 1))
        return wanted if needed == "all" else _number(needed, 1)

    @property
    def _expands(self) -> bool:
        return str(self.effective.get(_EXPAND, "false")).lower() != "false"

    @property
    def _gc_deletes(self) -> str:
        """A template's may be longer than ours, never shorter (T3); that of the file was checked when it was read."""
        theirs = str(self.given.get("gc_deletes", sums.GC_DELETES))
        longer = (sums.seconds_of(theirs) or 0.0) > (sums.seconds_of(sums.GC_DELETES) or 0.0)
        return str(self.asked.get("gc_deletes", theirs if longer else sums.GC_DELETES))


def restore(client: Client, name: str, lifetime: Lifetime, *, wait_for_copies: timedelta, steps: Steps) -> None:
    """Give an index the settings it is to live with, and wait until its copies have started. Raises where too few can."""
    put(client, name, lifetime.living)
    reach("reindex.restored")
    aliases.refresh(client, name)
    found = _wait(client, name, wait_for_copies, steps)
    needed = lifetime.copies_needed(found.of_each)
    if found.fewest < needed:
        raise IdxctlError(
            f"each write to {name} waits for {needed} copies (write.wait_for_active_shards), and of a shard there are {found.fewest}: "
            f"{found.homeless}; nothing was swapped",
            hint="lower write.wait_for_active_shards in the mapping file or the template, or add a data node",
        )
    put(client, name, lifetime.last)
    reach("reindex.copied")


def _wait(client: Client, name: str, longest: timedelta, steps: Steps) -> Copies:
    """Wait for copies; it is shown as a step of its own only where there is something to wait for."""
    shown = False

    def tick(found: Copies, why: str) -> None:
        nonlocal shown
        if not shown:
            steps.begin("copies", found.wanted or None)
            shown = True
        steps.move(found.started, why)

    found = copies.wait(client, name, seconds=longest.total_seconds(), tick=tick)
    if shown:
        homeless = f"; no node takes the others: {found.homeless}" if found.homeless else ""
        steps.end(f"{found.started} of {found.wanted} have started{homeless}")
    return found


def put(client: Client, name: str, wanted: Mapping[str, Any]) -> None:
    """Change settings of an index, and read them back: some servers and plugins take a change and do another."""
    if not wanted:
        return
    aliases.put_settings(client, name, wanted)
    held = index_settings.held(client, name)
    for key, value in wanted.items():
        if _text(value) != held.get(key):
            raise IdxctlError(
                f"{name} was given {key} = {_text(value) or 'the default'} and has {held.get(key, 'the default')}; nothing was swapped",
                hint="does a policy or a plugin change it? then set it so in the mapping file too",
            )


def _number(value: Any, otherwise: int) -> int:
    """Read a number as OpenSearch takes it; what is none is refused there, with its reason."""
    text = str(value).strip()
    return int(text) if text.isdecimal() and text.isascii() else otherwise


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)
