"""
Lines on stdout and stderr: what a stream can show, and nothing in them that steers it.

stdout carries what was asked for, stderr the talk around it. Data is never taken for markup, and in a pipe nothing is cut
to the width of a terminal.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from idxctl.core import legible

if TYPE_CHECKING:
    from rich.console import Console

NOTHING = "\N{EN DASH}"  # stands where there is no value

_recording: Console | None = None


def is_terminal(stream: Any) -> bool:
    """Whether *stream* is a terminal; a closed or missing one is not."""
    try:
        return stream is not None and bool(stream.isatty())
    except ValueError:
        return False


def is_recorded() -> bool:
    """Whether what is written goes into a picture."""
    return _recording is not None


@contextlib.contextmanager
def recorded(width: int = 100) -> Iterator[Console]:
    """Collect what would be shown on a terminal in a rich Console, for ``export_svg``; nothing is printed."""
    global _recording  # noqa: PLW0603 - one run, one place to write to
    from rich.console import Console

    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, highlight=False, markup=False)
    _recording = console
    try:
        yield console
    finally:
        _recording = None


def console(stream: Any) -> Console:
    from rich.console import Console

    if _recording is not None:
        return _recording
    width = None if is_terminal(stream) else 100_000  # in a pipe nothing is cut
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=width is not None)


def coloured(stream: Any) -> bool:
    """Whether colour may be used on *stream*: a terminal, and neither NO_COLOR nor TERM=dumb."""
    if _recording is not None:
        return True
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def utf8(stream: Any) -> bool:
    return _recording is not None or (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"


def writes(stream: Any, text: str) -> str:
    """Return *text* with what the stream's encoding lacks spelt in ASCII."""
    if utf8(stream):
        return text
    for symbol, word in (("✓", "ok"), ("✗", "bad"), (NOTHING, "-"), ("→", "->"), ("·", "|"), ("…", "...")):
        text = text.replace(symbol, word)
    return text


def styled(stream: Any, text: str, style: str = "") -> None:
    """Write one line, in *style* where colour may be used: data in it must neither steer the terminal nor end the line."""
    text = writes(stream, legible.line(text))
    if _recording is None and not (style and coloured(stream)):
        for part in wrapped(stream, text):
            stream.write(part + "\n")
        return
    from rich.text import Text

    for part in wrapped(stream, text):
        console(stream).print(Text(part, style=style), soft_wrap=_recording is None)


def wrapped(stream: Any, text: str) -> list[str]:
    """Return *text* in lines that fit a terminal, broken between words and never inside one; a pipe gets it whole."""
    if _recording is not None or not is_terminal(stream) or len(text) <= (width := console(stream).width):
        return [text]

    indent = " " * (len(text) - len(text.lstrip()))
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )


def out(text: str = "") -> None:
    """Write a line of what was asked for."""
    styled(sys.stdout, text)


def script(text: str) -> None:
    """Write lines that are to be run or copied, such as SQL."""
    for line in text.rstrip("\n").split("\n"):
        sys.stdout.write(writes(sys.stdout, legible.escaped(line)) + "\n")


def say(text: str) -> None:
    """Write a line of talk to stderr."""
    styled(sys.stderr, text)


def warn(text: str) -> None:
    """Write a warning to stderr."""
    _labelled("warning: ", text, "yellow")


def error(message: str, *, hint: str | None = None) -> None:
    """Write an error and the way out to stderr; further lines are indented below the first."""
    _labelled("error: ", message, "bold red")
    if hint:
        _labelled("hint:  ", hint, "dim")


def _labelled(label: str, text: str, style: str) -> None:
    first, *rest = legible.escaped(text).split("\n")
    if sys.stderr is None:
        return
    if coloured(sys.stderr):
        from rich.text import Text

        console(sys.stderr).print(Text.assemble((label, style), first))
    else:
        sys.stderr.write(writes(sys.stderr, label + first) + "\n")
    for line in rest:
        styled(sys.stderr, " " * len(label) + line)
