"""The steps of something long, as they come: a bar while one lasts, a line once it is done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from idxctl.cli import render


class Shown:
    """What `steps` yields: tell it what begins, how far it is, and what came of it."""

    def __init__(self, bars: contextlib.ExitStack) -> None:
        self._bars = bars
        self._label = ""
        self._bar: render.Progress | None = None
        self._began = 0.0

    def begin(self, step: str, total: int | None) -> None:
        """Begin a step; *total* is how much there is to do, if known."""
        self._label, self._began = step, time.monotonic()
        self._bar = self._bars.enter_context(render.progress(step, total)) if total else None

    def move(self, done: int, note: str) -> None:
        """Say how far it is. Waiting for what differs does not undo it."""
        if self._bar is not None:
            self._bar.update(max(done, self._bar.done), note=note)

    def end(self, text: str) -> None:
        """Say what came of it."""
        self._bars.close()
        seconds = time.monotonic() - self._began
        moved = self._bar.done if self._bar is not None else 0
        rate = f", {render.shown(moved / seconds, 'rate')}" if moved and seconds > 1 else ""
        render.say(f"{self._label:<10} {text}{rate}")


@contextlib.contextmanager
def steps() -> Iterator[Shown]:
    """Show steps on stderr."""
    with contextlib.ExitStack() as bars:
        yield Shown(bars)
