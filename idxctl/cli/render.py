"""
What commands write with: they hand results over, and how those look is decided here and in the modules that this one names.

No other module writes to stdout. Colour marks state alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from idxctl.cli.data import csv, document, json, json_list, lines, ndjson
from idxctl.cli.progress import Progress, progress, progress_line, status
from idxctl.cli.state import Output
from idxctl.cli.tables import COLOURS, block, rich_table, symbol_of, tabulated
from idxctl.cli.terminal import (
    coloured,
    console,
    error,
    is_recorded,
    is_terminal,
    out,
    recorded,
    say,
    script,
    styled,
    warn,
    wrapped,
    writes,
)
from idxctl.cli.values import Column, Kind, field, shown
from idxctl.core import legible
from idxctl.core.to_json import plain_value

__all__ = [
    "Column",
    "Kind",
    "Mark",
    "Progress",
    "blank",
    "coloured",
    "cut",
    "document",
    "error",
    "heading",
    "headline",
    "is_data",
    "is_terminal",
    "json",
    "lines",
    "ndjson",
    "next_step",
    "out",
    "plain_value",
    "progress",
    "progress_line",
    "record",
    "recorded",
    "say",
    "script",
    "shown",
    "status",
    "table",
    "typed",
    "warn",
]

Mark = Literal["ok", "warn", "bad"]


def headline(mark: Mark | None, text: str, output: Output = Output.TABLE) -> None:
    """Write the line that answers the question, with its mark; not among data for programs."""
    if is_data(output):
        return
    if mark is None:
        styled(sys.stdout, text)
        return
    symbol = symbol_of(sys.stdout, mark)
    if not coloured(sys.stdout):
        styled(sys.stdout, f"{symbol} {text}")
        return
    from rich.text import Text

    first, *rest = wrapped(sys.stdout, f"{symbol} {writes(sys.stdout, legible.line(text))}")
    beginning = Text.assemble((symbol, COLOURS[mark]), first.removeprefix(symbol))
    for line in (beginning, *map(Text, rest)):
        console(sys.stdout).print(line, soft_wrap=not is_recorded())


def heading(text: str) -> None:
    """Write a blank line and the heading of what follows."""
    out()
    styled(sys.stdout, text, "bold")


def typed(text: str, prompt: str = "$") -> None:
    """Write a command as it is typed, dim."""
    styled(sys.stdout, f"{prompt} {text}", "dim")


def next_step(text: str, output: Output = Output.TABLE) -> None:
    """Write what to do next, dim, to stderr; only for someone who looks, and only below a table."""
    if is_recorded():
        out()
        styled(sys.stdout, text, "dim")
    elif output is Output.TABLE and is_terminal(sys.stderr):
        styled(sys.stderr, "")
        styled(sys.stderr, text, "dim")


def cut(shown: int, total: int, what: str) -> None:
    """Say on stderr that a list is not the whole of it, and how to see that."""
    if shown < total:
        say(f"{shown:,} of {total:,} {what}; --limit {total} shows all, -o json, ndjson and csv have all of them")


def blank(output: Output = Output.TABLE) -> None:
    """Write the line between two blocks."""
    if not is_data(output):
        out()


def is_data(output: Output) -> bool:
    """Whether a program is going to read it: no headline, no units, every field."""
    return output in {Output.JSON, Output.NDJSON, Output.CSV}


def table(
    rows: Iterable[Any],
    columns: Sequence[Column | str],
    output: Output = Output.TABLE,
    *,
    empty: str = "Nothing to show.",
) -> None:
    """
    Write *rows* (dataclasses or mappings) in the shape asked for.

    People see *columns*; JSON has all that a row holds. *empty* is what people read where there is no row.
    """
    chosen = [Column(column) if isinstance(column, str) else column for column in columns]
    if output is Output.JSON:
        json_list(rows)
        return
    if output is Output.NDJSON:
        ndjson(rows)
        return
    if output is Output.CSV:
        csv(rows, chosen)
        return
    rows = list(rows)
    if not rows:
        out(empty)
    elif output is Output.TABLE:
        rich_table(rows, chosen)
    else:
        tabulated(rows, chosen, markdown=output is Output.MARKDOWN)


def record(value: Any, fields: Sequence[Column | str], output: Output = Output.TABLE) -> None:
    """Write one thing, a field a line; JSON has all that it holds."""
    chosen = [Column(column) if isinstance(column, str) else column for column in fields]
    if output in {Output.JSON, Output.NDJSON}:
        json(value) if output is Output.JSON else ndjson([value])
    elif output is Output.CSV:
        csv([value], chosen)
    elif output is Output.MARKDOWN:
        pairs = [{"field": column.heading, "value": shown(field(value, column.key), column.kind)} for column in chosen]
        tabulated(pairs, [Column("field"), Column("value")], markdown=True)
    else:
        block(value, chosen)
