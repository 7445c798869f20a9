"""
The only writer to stdout. Commands hand results over; how they look is decided here.

stdout carries what was asked for, stderr the talk around it. Data is never taken for markup, colour marks state alone,
and in a pipe nothing is cut to the width of a terminal.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal

from idxctl.cli.state import Output, is_terminal
from idxctl.core import durations, legible
from idxctl.core.to_json import as_json
from idxctl.core.to_json import plain_value as plain_value  # noqa: PLC0414 - commands take it from here

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

Kind = Literal["text", "name", "count", "age", "since", "seconds", "bytes", "rate", "time", "state"]
Mark = Literal["ok", "warn", "bad"]

_SYMBOLS: Mapping[str, str] = {"ok": "✓", "warn": "!", "bad": "✗"}
_COLOURS: Mapping[str, str] = {"ok": "green", "warn": "yellow", "bad": "red"}
_NOTHING = "\N{EN DASH}"
_RIGHT: frozenset[str] = frozenset({"count", "age", "since", "seconds", "bytes", "rate"})
_PIECE_BYTES = 65_536  # of a stream, written at a time
_NARROWEST = 14  # characters to which a column of words may be squeezed before rows are set out one below the other


@dataclass(frozen=True)
class Column:
    """
    A column: the key of its value, its heading and how the value reads.

    Kinds: ``text``, which may wrap; ``name``, which never does; ``count`` 12,408; ``age`` (seconds) 3 min; ``since`` (a datetime) 3 min; ``seconds`` 2 min 7 s; ``bytes``;
    ``rate`` 212/s; ``time`` 2026-11-02 14:20:03; ``state`` ok, warn or bad. CSV and JSON have the value itself.
    """

    key: str
    title: str | None = None
    kind: Kind = "text"

    @property
    def heading(self) -> str:
        """What stands above it."""
        return self.title if self.title is not None else self.key.replace("_", " ")

    @property
    def right(self) -> bool:
        """Whether it is aligned to the right."""
        return self.kind in _RIGHT


# --- where it goes -----------------------------------------------------------------------------------------------------

_recording: Console | None = None


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


def _console(stream: Any) -> Console:
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


def _utf8(stream: Any) -> bool:
    return _recording is not None or (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"


def _writes(stream: Any, text: str) -> str:
    """Return *text* with what the stream's encoding lacks spelt in ASCII."""
    if _utf8(stream):
        return text
    for symbol, word in (("✓", "ok"), ("✗", "bad"), (_NOTHING, "-"), ("→", "->"), ("·", "|"), ("…", "...")):
        text = text.replace(symbol, word)
    return text


def _styled(stream: Any, text: str, style: str = "") -> None:
    """Write one line, in *style* where colour may be used: data in it must neither steer the terminal nor end the line."""
    text = _writes(stream, legible.line(text))
    if _recording is None and not (style and coloured(stream)):
        for part in _wrapped(stream, text):
            stream.write(part + "\n")
        return
    from rich.text import Text

    _console(stream).print(Text(text, style=style))


def _wrapped(stream: Any, text: str) -> list[str]:
    """Return *text* in lines that fit a terminal, broken between words; a pipe gets it whole."""
    if not is_terminal(stream) or len(text) <= (width := _console(stream).width):
        return [text]
    import textwrap

    indent = " " * (len(text) - len(text.lstrip()))
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )


def out(text: str = "") -> None:
    """Write a line of what was asked for."""
    _styled(sys.stdout, text)


def script(text: str) -> None:
    """Write lines that are to be run or copied, such as SQL."""
    for line in text.rstrip("\n").split("\n"):
        sys.stdout.write(_writes(sys.stdout, legible.escaped(line)) + "\n")


def say(text: str) -> None:
    """Write a line of talk to stderr."""
    _styled(sys.stderr, text)


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

        _console(sys.stderr).print(Text.assemble((label, style), first))
    else:
        sys.stderr.write(_writes(sys.stderr, label + first) + "\n")
    for line in rest:
        _styled(sys.stderr, " " * len(label) + line)


def headline(mark: Mark | None, text: str, output: Output = Output.TABLE) -> None:
    """Write the line that answers the question, with its mark; not among data for programs."""
    if is_data(output):
        return
    if mark is None:
        _styled(sys.stdout, text)
        return
    symbol = _mark(sys.stdout, mark)
    if not coloured(sys.stdout):
        _styled(sys.stdout, f"{symbol} {text}")
        return
    from rich.text import Text

    told = _writes(sys.stdout, legible.line(text))
    _console(sys.stdout).print(Text.assemble((symbol, _COLOURS[mark]), " ", told))


def _mark(stream: Any, mark: str) -> str:
    """Return a mark as *stream* can show it: a symbol in colour, otherwise a word."""
    return _SYMBOLS.get(mark, mark) if coloured(stream) and _utf8(stream) else mark


def heading(text: str) -> None:
    """Write a blank line and the heading of what follows."""
    out()
    _styled(sys.stdout, text, "bold")


def typed(text: str, prompt: str = "$") -> None:
    """Write a command as somebody would type it, dim."""
    _styled(sys.stdout, f"{prompt} {text}", "dim")


def next_step(text: str, output: Output = Output.TABLE) -> None:
    """Write what to do next, dim, to stderr; only for somebody who looks, and only below a table."""
    if _recording is not None:
        out()
        _styled(sys.stdout, text, "dim")
    elif output is Output.TABLE and is_terminal(sys.stderr):
        _styled(sys.stderr, "")
        _styled(sys.stderr, text, "dim")


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


# --- values ------------------------------------------------------------------------------------------------------------


def _field(row: Any, key: str) -> Any:
    return row.get(key) if isinstance(row, Mapping) else getattr(row, key)


def _seconds_since(value: datetime) -> float:
    return (datetime.now(timezone.utc) - value.astimezone(timezone.utc)).total_seconds()


def _number(value: Any) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


_READS: Mapping[str, Callable[[Any], str]] = {
    "count": durations.format_count,
    "age": lambda value: durations.format_age(_number(value)),
    "since": lambda value: durations.format_age(_seconds_since(value)),
    "seconds": lambda value: durations.format_duration(_number(value)),
    "bytes": durations.format_bytes,
    "rate": durations.format_rate,
    "time": lambda value: (
        value.astimezone().strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, datetime) else legible.line(str(value))
    ),
    "state": lambda value: legible.line(str(value)),
}


def shown(value: Any, kind: Kind = "text") -> str:
    """Return *value* as people read it."""
    if value is None or value in ("", (), []):
        return _NOTHING
    if kind in _READS:
        return _READS[kind](value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, timedelta):
        return durations.format_duration(value.total_seconds())
    if isinstance(value, datetime):
        return _READS["time"](value)
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(item) for item in value)
    text = str(plain_value(value))
    return legible.escaped(text) if kind == "text" else legible.line(text)


# --- data --------------------------------------------------------------------------------------------------------------


def _bytes_out(data: bytes) -> None:
    """Write bytes as they are: JSON is UTF-8 whatever the terminal speaks."""
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:
        sys.stdout.write(data.decode())
        return
    sys.stdout.flush()
    binary.write(data)
    binary.flush()


def json(value: Any) -> None:
    """Write one JSON document, indented on a terminal."""
    _bytes_out(as_json(value, indent=is_terminal(sys.stdout)))


def ndjson(rows: Iterable[Any]) -> None:
    """Write one JSON document a line, as the rows come."""
    _in_pieces(as_json(row) for row in rows)


def _json_list(rows: Iterable[Any]) -> None:
    """Write one JSON list: in a pipe as the rows come, for people indented."""
    if is_terminal(sys.stdout):
        json(list(rows))
        return
    _in_pieces(_list_pieces(rows))


def _list_pieces(rows: Iterable[Any]) -> Iterator[bytes]:
    yield b"["
    for position, row in enumerate(rows):
        yield (b"," if position else b"") + as_json(row).rstrip(b"\n")
    yield b"]\n"


def _in_pieces(parts: Iterable[bytes]) -> None:
    """Write what is not held in memory as a whole, some of it at a time."""
    held: list[bytes] = []
    size = 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size >= _PIECE_BYTES:
            _bytes_out(b"".join(held))
            held, size = [], 0
    _bytes_out(b"".join(held))


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
        _json_list(rows)
        return
    if output is Output.NDJSON:
        ndjson(rows)
        return
    if output is Output.CSV:
        _csv(rows, chosen)
        return
    rows = list(rows)
    if not rows:
        out(empty)
    elif output is Output.TABLE:
        _rich_table(rows, chosen)
    else:
        _tabulated(rows, chosen, output)


def record(value: Any, fields: Sequence[Column | str], output: Output = Output.TABLE) -> None:
    """Write one thing, a field a line; JSON has all that it holds."""
    chosen = [Column(column) if isinstance(column, str) else column for column in fields]
    if output in {Output.JSON, Output.NDJSON}:
        json(value) if output is Output.JSON else ndjson([value])
    elif output is Output.CSV:
        _csv([value], chosen)
    elif output is Output.MARKDOWN:
        pairs = [{"field": column.heading, "value": shown(_field(value, column.key), column.kind)} for column in chosen]
        _tabulated(pairs, [Column("field"), Column("value")], output)
    else:
        _block(value, chosen)


def _block(row: Any, columns: Sequence[Column], indent: str = " ") -> None:
    import textwrap

    width = max(len(column.heading) for column in columns)
    room = max(_console(sys.stdout).width - len(indent) - width - 2, _NARROWEST) if is_terminal(sys.stdout) else None
    for column in columns:
        lines = shown(_field(row, column.key), column.kind).split("\n")
        if room:
            lines = [part for line in lines for part in textwrap.wrap(line, room, break_on_hyphens=False) or [""]]
        for position, line in enumerate(lines):
            _styled(sys.stdout, f"{indent}{'' if position else column.heading:<{width}}  {line}")


def _csv(rows: Iterable[Any], columns: Sequence[Column]) -> None:
    _in_pieces(_csv_lines(rows, columns))


def _csv_lines(rows: Iterable[Any], columns: Sequence[Column]) -> Iterator[bytes]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for row in rows:
        yield _taken(buffer)
        writer.writerow([_csv_value(plain_value(_field(row, column.key))) for column in columns])
    yield _taken(buffer)


def _taken(buffer: io.StringIO) -> bytes:
    """Return what stands in the buffer, and empty it."""
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode("utf-8", "surrogatepass")


def _csv_value(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return as_json(value).decode().rstrip("\n")
    return _no_formula(value) if isinstance(value, str) else value


_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")  # as spreadsheets take them, full width too
_A_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def _no_formula(text: str) -> str:
    """Return a cell that a spreadsheet shows and does not run: an apostrophe stands before what begins like a formula."""
    begins = _FORMULA.match(text) is not None and _A_NUMBER.fullmatch(text) is None
    return ("'" if begins else "") + legible.escaped(text)


def _cells(rows: Sequence[Any], columns: Sequence[Column]) -> list[list[str]]:
    """Return what a table shows, a line a cell: a second one could pass for a row."""
    return [
        [legible.line(shown(_field(row, column.key), column.kind).replace("\n", " ")) for column in columns]
        for row in rows
    ]


def _tabulated(rows: Sequence[Any], columns: Sequence[Column], output: Output) -> None:
    from tabulate import tabulate

    markdown = output is Output.MARKDOWN
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
        _styled(sys.stdout, line.rstrip())


def _no_markup(cell: str) -> str:
    """Return a cell of a markdown table that ends no cell, and makes no link, image or element."""
    return re.sub(r"([\\|`\[\]!])", r"\\\1", cell).replace("&", "&amp;").replace("<", "&lt;")


def _rich_table(rows: Sequence[Any], columns: Sequence[Column]) -> None:
    console = _console(sys.stdout)
    cells = [[_writes(sys.stdout, cell) for cell in line] for line in _cells(rows, columns)]
    if is_terminal(sys.stdout) and _narrowest(cells, columns) > console.width:
        for row in cells:
            for line in _folded(row, columns, console.width):
                _styled(sys.stdout, line)
        return
    console.print(_laid_out(cells, columns))


def _folded(row: Sequence[str], columns: Sequence[Column], width: int) -> list[str]:
    """
    Return a row that is too wide for a terminal as a few lines: each value behind its heading, what is empty left out.

    Lines break between values, and inside one between words: an id or a command stays whole, however long.
    """
    import textwrap

    nothing = _writes(sys.stdout, _NOTHING)
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

    if column.kind == "state" and cell in _SYMBOLS and coloured(sys.stdout):
        return Text(_mark(sys.stdout, cell), style=_COLOURS[cell])
    return Text(cell)


# --- progress ----------------------------------------------------------------------------------------------------------

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
    if quiet or sys.stderr is None or _recording is not None:  # a picture stands still
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
    text = TextColumn("{task.fields[told]}", markup=False)
    with Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=34),
        text,
        console=_console(sys.stderr),
        transient=True,  # the line that sums up the step takes its place
    ) as bar:
        task = bar.add_task(label, total=total, told="")

        def show(done: int, total: int | None, note: str) -> None:
            told = progress_line("", done, total, time.monotonic() - started, note).strip()
            bar.update(task, completed=done, total=total, told=Text(told).plain)

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

    with Status(Text(text), console=_console(sys.stderr)) as line:
        yield lambda changed: line.update(Text(changed))
