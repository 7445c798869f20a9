"""What programs read: JSON, a document a line, and CSV, all of them written as the rows come."""

from __future__ import annotations

import csv as csv_module
import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from idxctl.cli.terminal import is_terminal
from idxctl.cli.values import Column, field
from idxctl.core import legible
from idxctl.core.to_json import as_json, plain_value

_PIECE_BYTES = 65_536  # written at a time
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")  # as spreadsheets take them, full width too
_A_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def json(value: Any) -> None:
    """Write one JSON document, indented on a terminal."""
    _bytes_out(as_json(value, indent=is_terminal(sys.stdout)))


def document(text: bytes) -> None:
    """Write a JSON document's very bytes and a line's end; on a terminal without what steers it, which means the same."""
    _bytes_out((legible.in_json(text) if is_terminal(sys.stdout) else text) + b"\n")


def json_list(rows: Iterable[Any]) -> None:
    """Write one JSON list: in a pipe as the rows come, for people indented."""
    if is_terminal(sys.stdout):
        json(list(rows))
        return
    _in_pieces(_list_pieces(rows))


def ndjson(rows: Iterable[Any]) -> None:
    """Write one JSON document a line, as the rows come."""
    _in_pieces(as_json(row) for row in rows)


def lines(ready: Iterable[bytes]) -> None:
    """Write lines that are JSON documents already, as they come."""
    _in_pieces(ready)


def csv(rows: Iterable[Any], columns: Sequence[Column]) -> None:
    """Write a line of keys and a line a row."""
    _in_pieces(_csv_lines(rows, columns))


def _list_pieces(rows: Iterable[Any]) -> Iterator[bytes]:
    yield b"["
    for position, row in enumerate(rows):
        yield (b"," if position else b"") + as_json(row).rstrip(b"\n")
    yield b"]\n"


def _csv_lines(rows: Iterable[Any], columns: Sequence[Column]) -> Iterator[bytes]:
    buffer = io.StringIO()
    writer = csv_module.writer(buffer, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for row in rows:
        yield _taken(buffer)
        writer.writerow([_csv_value(plain_value(field(row, column.key))) for column in columns])
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


def _no_formula(text: str) -> str:
    """Return a cell that a spreadsheet shows and does not run: an apostrophe stands before what begins like a formula."""
    begins = _FORMULA.match(text) is not None and _A_NUMBER.fullmatch(text) is None
    return ("'" if begins else "") + legible.escaped(text)


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


def _bytes_out(data: bytes) -> None:
    """Write bytes as they are: JSON is UTF-8 whatever the terminal speaks."""
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:
        sys.stdout.write(data.decode())
        return
    sys.stdout.flush()
    binary.write(data)
    binary.flush()
