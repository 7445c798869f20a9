"""The indexers of this process: begun again in a child after a fork, and shut down when the process ends."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Protocol

_EXIT_SECONDS = 5.0


class Living(Protocol):
    """What has threads and connections."""

    def after_fork(self) -> None:
        """Begin again in a child process."""

    def leave(self, timeout: float) -> None:
        """Shut down if anything runs, within *timeout* seconds."""


_LIVING: weakref.WeakSet[Living] = weakref.WeakSet()
_ABANDONED: list[object] = []


def joined(one: Living) -> None:
    """Look after it for as long as it lives."""
    _LIVING.add(one)


def abandoned(things: object) -> None:
    """Keep what a parent process owns: closing it would end the parent's sessions."""
    _ABANDONED.append(things)


def _forked() -> None:
    for one in list(_LIVING):
        one.after_fork()


def _leave() -> None:
    """Settle what is in flight, rather than leave it to its lease."""
    for one in list(_LIVING):
        one.leave(_EXIT_SECONDS)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
atexit.register(_leave)
