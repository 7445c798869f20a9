"""What is shown on stderr while something long goes on."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

from idxctl.cli.terminal import console, is_recorded, is_terminal, say
from idxctl.core import durations

LINE_EVERY_SECONDS = 5.0


class Progress:
    """What `progress` yields: tell it how much is done."""

    def __init__(self, show: Callable[[int, int | None, str], None], total: int | None) -> None:
        self._show = show
        self.total = total
        self.done = 0

    def update(self, done: int, *, total: int | None = None, note: str = "") -> None:
        """Show that *done* of *total* is done; *note* stands behind it."""
        self.done = done
        self.total = total if total is not None else self.total
        self._show(done, self.total, note)

    def advance(self, by: int = 1, *, note: str = "") -> None:
        """Show that *by* more is done."""
        self.update(self.done + by, note=note)


@contextlib.contextmanager
def progress(
    label: str, total: int | None = None, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """Show progress on stderr: a bar on a terminal, elsewhere a line every few seconds."""
    if quiet or sys.stderr is None or is_recorded():  # a picture stands still
        yield Progress(lambda *_: None, total)
    elif is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb":
        with _bar(label, total) as bar:
            yield bar
    else:
        yield Progress(_line_now_and_then(label, clock), total)


def _line_now_and_then(label: str, clock: Callable[[], float]) -> Callable[[int, int | None, str], None]:
    started = shown_at = clock()

    def show(done: int, total: int | None, note: str) -> None:
        nonlocal shown_at
        now = clock()
        if now - shown_at < LINE_EVERY_SECONDS:
            return
        shown_at = now
        say(progress_line(label, done, total, now - started, note))

    return show


def progress_line(label: str, done: int, total: int | None, seconds: float, note: str = "") -> str:
    """Return progress as one line: share, count, rate and time left."""
    rate = done / seconds if seconds > 0 else 0.0
    words = [durations.format_count(done)]
    if total:
        words = [
            f"{min(100 * done // total, 100)} %",
            f"{durations.format_count(done)}/{durations.format_count(total)}",
        ]
    words.append(durations.format_rate(rate))
    if total and rate > 0 and done < total:
        words.append(f"{durations.format_duration((total - done) / rate)} left")
    return "  ".join([label, *words, *([note] if note else [])])


@contextlib.contextmanager
def _bar(label: str, total: int | None) -> Iterator[Progress]:
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    started = time.monotonic()
    text = TextColumn("{task.fields[now]}", markup=False)
    with Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=34),
        text,
        console=console(sys.stderr),
        transient=True,  # the line that sums up the step takes its place
    ) as bar:
        task = bar.add_task(label, total=total, now="")

        def show(done: int, total: int | None, note: str) -> None:
            line = progress_line("", done, total, time.monotonic() - started, note).strip()
            bar.update(task, completed=done, total=total, now=Text(line).plain)

        yield Progress(show, total)


@contextlib.contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """Show a line on stderr while something is waited for; call what it yields to change the line."""
    if sys.stderr is None or not is_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
        say(text)
        yield say
        return
    from rich.status import Status
    from rich.text import Text

    with Status(Text(text), console=console(sys.stderr)) as line:
        yield lambda changed: line.update(Text(changed))
