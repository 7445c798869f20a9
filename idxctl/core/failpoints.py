"""
Named points in the protocol where a test may stop, step or kill the program.

`reach` costs one comparison while nothing is installed. The names are part of what tests rely on; each is the name of the
module and of the step that has just been taken.
"""

from __future__ import annotations

from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def reach(name: str) -> None:
    """Tell whoever listens that the program is at *name*."""
    if _hook is not None:
        _hook(name)


def install(hook: Callable[[str], None] | None) -> None:
    """Call *hook* with each name reached, in whichever thread reaches it; None stops that."""
    global _hook  # noqa: PLW0603 - one process, one protocol
    _hook = hook
