"""Tables as people read them: on a terminal, as plain text, and in markdown."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from idxctl.cli.terminal import NOTHING, coloured, console, is_terminal, styled, utf8, writes
from idxctl.cli.values import Column, field, shown
from idxctl.core import legible

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

SYMBOLS: Mapping[str, str] = {"ok": "✓", "warn": "!", "bad": "✗"}
COLOURS: Mapping[str, str] = {"ok": "green", "warn": "yellow", "bad": "red"}
_NARROWEST = 14  # characters to which a column of words may be squeezed before rows are set out one below the other


def symbol_of(stream: Any, mark: str) -> str:
    """Return a mark as *stream* can show it: a symbol in colour, otherwise a word."""
    return SYMBOLS.get(mark, mark) if coloured(stream) and utf8(stream) else mark


def rich_table(rows: Sequence[Any], columns: Sequence[Column]) -> None:
    """Write a table for a terminal; a row that is too wide for it becomes a few lines."""
    stdout = console(sys.stdout)
    cells = [[writes(sys.stdout, cell) for cell in line] for line in _cells(rows, columns)]
    if is_terminal(sys.stdout) and _narrowest(cells, columns) > stdout.width:
        for row in cells:
            for line in _folded(row, columns, stdout.width):
                styled(sys.stdout, line)
        return
    stdout.print(_laid_out(cells, columns))


def tabulated(rows: Sequence[Any], columns: Sequence[Column], *, markdown: bool) -> None:
    """Write a table as text, or as markdown."""
    from tabulate import tabulate

    cells = _cells(rows, columns)
    if markdown:
        cells = [[_no_markup(cell) for cell in line] for line in cells]
    text = tabulate(
        cells,
        headers=[column.heading for column in columns],
        tablefmt="pipe" if markdown else "plain",
        disable_numparse=True,
        colalign=["right" if column.right else "left" for column in columns],
        preserve_whitespace=True,
    )
    for line in text.splitlines():
        styled(sys.stdout, line.rstrip())


def block(row: Any, columns: Sequence[Column], indent: str = " ") -> None:
    """Write one row, a field a line."""
    width = max(len(column.heading) for column in columns)
    room = max(console(sys.stdout).width - len(indent) - width - 2, _NARROWEST) if is_terminal(sys.stdout) else None
    for column in columns:
        lines = shown(field(row, column.key), column.kind).split("\n")
        if room:
            lines = [part for line in lines for part in textwrap.wrap(line, room, break_on_hyphens=False) or [""]]
        for position, line in enumerate(lines):
            styled(sys.stdout, f"{indent}{'' if position else column.heading:<{width}}  {line}")


def _cells(rows: Sequence[Any], columns: Sequence[Column]) -> list[list[str]]:
    """Return what a table shows, a line a cell: a second one could pass for a row."""
    return [
        [legible.line(shown(field(row, column.key), column.kind).replace("\n", " ")) for column in columns]
        for row in rows
    ]


def _no_markup(cell: str) -> str:
    """Return a cell of a markdown table that ends no cell, and makes no link, image or element."""
    return re.sub(r"([\\|`\[\]!])", r"\\\1", cell).replace("&", "&amp;").replace("<", "&lt;")


def _folded(row: Sequence[str], columns: Sequence[Column], width: int) -> list[str]:
    """
    Return a row that is too wide for a terminal as a few lines: each value behind its heading, what is empty left out.

    Lines break between values, and inside one between words: an id or a command stays whole, however long.
    """
    nothing = writes(sys.stdout, NOTHING)
    values = [
        f"{column.heading} {cell}" if position else cell
        for position, (column, cell) in enumerate(zip(columns, row, strict=True))
        if cell != nothing or not position
    ]
    lines = [""]
    for value in values:
        room = width - (3 if len(lines) > 1 or lines[0] else 1)
        parts = textwrap.wrap(value, room, break_long_words=False, break_on_hyphens=False) or [value]
        if lines[-1] and len(lines[-1]) + len(parts[0]) + 4 <= room:
            lines[-1] += f"  {parts[0]}"
            parts = parts[1:]
        lines += parts
    lines = [line for line in lines if line]
    return [f"{'   ' if position else ' '}{line}" for position, line in enumerate(lines)]


def _narrowest(cells: Sequence[Sequence[str]], columns: Sequence[Column]) -> int:
    """Return the width below which the table would be shreds: words may wrap, figures may not."""
    total = 1
    for position, column in enumerate(columns):
        longest = max(len(column.heading), *(len(row[position]) for row in cells))
        total += 2 + (longest if column.kind != "text" else min(longest, _NARROWEST))
    return total


def _laid_out(cells: Sequence[Sequence[str]], columns: Sequence[Column]) -> Table:
    from rich.table import Table
    from rich.text import Text

    laid = Table(box=None, pad_edge=True, padding=(0, 1), header_style="dim" if coloured(sys.stdout) else "")
    for column in columns:
        words = column.kind == "text"
        laid.add_column(
            Text(column.heading), justify="right" if column.right else "left", no_wrap=not words, overflow="fold"
        )
    for row in cells:
        laid.add_row(*(_cell(cell, column) for cell, column in zip(row, columns, strict=True)))
    return laid


def _cell(cell: str, column: Column) -> Text:
    from rich.text import Text

    if column.kind == "state" and cell in SYMBOLS and coloured(sys.stdout):
        return Text(symbol_of(sys.stdout, cell), style=COLOURS[cell])
    return Text(cell)
