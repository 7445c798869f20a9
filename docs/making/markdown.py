"""The few forms of Markdown that generated pages use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MADE = "<!-- Written by `make docs` from the code: edit it there. -->"


def cell(text: str) -> str:
    """Return *text* as it may stand in a table."""
    return plain(" ".join(text.split())).replace("|", "\\|")


def plain(text: str) -> str:
    """Return *text* so that its stars stay stars."""
    return text.replace("*", "\\*")


def code_cell(text: str) -> str:
    """Return *text* as code in a table."""
    return f"`{text}`".replace("|", "\\|") if text else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; its cells are Markdown already."""
    return [_row(head), "|" + "---|" * len(head), *(_row(row) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {one} " if one else " " for one in cells) + "|"


def page(*parts: str | Sequence[str]) -> str:
    """Return a page of paragraphs and tables, a blank line between them."""
    return "\n\n".join(part if isinstance(part, str) else "\n".join(part) for part in parts) + "\n"
