"""
Draw the README's pictures from a real run: the demo, with two of its commands recorded.

    python docs/pictures/make.py
"""  # noqa: INP001 - a script

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT

from idxctl.cli import render
from idxctl.cli.demo import Signals, Terminal, take

HERE = Path(__file__).parent
WIDTH = 88
LISTINGS = 20_000
# No fonts from elsewhere: whoever shows the picture has a monospaced one, and the letters are put in their places.
FORMAT = re.sub(r"\s*@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code, monospace", "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
)

CELL = 12.2  # the width of a character in rich's pictures
TEXT = re.compile(r' x="([\d.]+)"([^>]*) textLength="[\d.]+"([^>]*)>((?:&#160;)*)([^<]*?)(?:&#160;)*</text>')


def without_padding(svg: str) -> str:
    """Put each text where its first letter stands: some programs drop the spaces that lead there."""

    def moved(found: re.Match[str]) -> str:
        x, before, after, spaces, text = found.groups()
        place = float(x) + CELL * spaces.count("&#160;")
        length = CELL * len(html.unescape(text))
        return f' x="{place:g}"{before} textLength="{length:g}"{after}>{text}</text>' if text else f' x="{x}"/>'

    return TEXT.sub(moved, svg)


class Recorder(Terminal):
    """Runs the demo's commands as the demo does, and draws the last of each kind that is wanted."""

    wanted = {("dlq", "stats"): "dlq-stats", ("reindex",): "reindex"}  # noqa: RUF012 - never changed

    def idxctl(self, *arguments: str) -> int:
        """Run a command; record it if there is something to see in it."""
        name = self.wanted.get(arguments)
        if name is None:
            return super().idxctl(*arguments)
        with render.recorded(WIDTH) as console:
            render.typed("idxctl " + " ".join(arguments))
            status = super().idxctl(*arguments, "-o", "table")
            render.out()  # or the last line's descenders are cut off
        text = console.export_text(clear=False)
        render.out(text.rstrip())
        if "No dead letters" not in text:
            svg = console.export_svg(title="", code_format=FORMAT, unique_id=f"idxctl-{name}")
            lines = (line.rstrip() for line in without_padding(svg).splitlines())
            (HERE / f"{name}.svg").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return status


if __name__ == "__main__":
    sys.exit(Signals().run(lambda signals: take(Recorder(signals), None, LISTINGS, keep=False)))
