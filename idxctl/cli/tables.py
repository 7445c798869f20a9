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
    narrowest = _narrowest(cells, columns)
    if is_terminal(sys.stdout) and _taken(narrowest) > stdout.width:
        for row in cells:
            for line in _folded(row, columns, stdout.width):
                styled(sys.stdout, line)
        return
    stdout.print(_laid_out(cells, columns, _widths(cells, columns, narrowest, stdout.width)))


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


def _narrowest(cells: Sequence[Sequence[str]], columns: Sequence[Column]) -> list[int]:
    """Return for each column the width below which it would be shreds: lines break between words, and figures nowhere."""
    from rich.cells import cell_len

    widths: list[int] = []
    for position, column in enumerate(columns):
        texts = [column.heading, *(row[position] for row in cells)]
        longest = max(map(cell_len, texts))
        words = max(cell_len(word) for text in texts for word in text.split() or [""])
        widths.append(longest if column.kind != "text" else max(words, min(longest, _NARROWEST)))
    return widths


def _widths(cells: Sequence[Sequence[str]], columns: Sequence[Column], narrowest: list[int], room: int) -> list[int]:
    """Return the columns' widths within *room*: what is left over goes to words, a character at a time to the most squeezed."""
    from rich.cells import cell_len

    widths = list(narrowest)
    longest = [
        max(cell_len(text) for text in (column.heading, *(row[position] for row in cells)))
        for position, column in enumerate(columns)
    ]
    left = room - _taken(widths)
    while left > 0:
        lines, position = max((longest[one] / widths[one], one) for one in range(len(widths)))
        if lines <= 1:
            break
        widths[position] += 1
        left -= 1
    return widths


def _taken(widths: Sequence[int]) -> int:
    """Return how wide a table of such columns is, with the space around each."""
    return sum(widths) + 2 * len(widths)


def _laid_out(cells: Sequence[Sequence[str]], columns: Sequence[Column], widths: Sequence[int]) -> Table:
    from rich.table import Table
    from rich.text import Text

    laid = Table(box=None, pad_edge=True, padding=(0, 1), header_style="dim" if coloured(sys.stdout) else "")
    for column, width in zip(columns, widths, strict=True):
        laid.add_column(Text(column.heading), justify="right" if column.right else "left", width=width, overflow="fold")
    for row in cells:
        laid.add_row(*(_cell(cell, column) for cell, column in zip(row, columns, strict=True)))
    return laid


def _cell(cell: str, column: Column) -> Text:
    from rich.text import Text

    if column.kind == "state" and cell in SYMBOLS and coloured(sys.stdout):
        return Text(symbol_of(sys.stdout, cell), style=COLOURS[cell])
    return Text(cell)
