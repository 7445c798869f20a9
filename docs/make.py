"""Write the pages that are made from code again: ``make docs``."""  # noqa: INP001 - a script

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from idxctl.monitoring import pages

HERE = Path(__file__).parent


def made() -> Mapping[Path, str]:
    """Return each page's place and text."""
    return {
        HERE / "metrics.md": pages.metrics_page(),
        HERE / "how-to" / "alerts.md": pages.runbook_page(),
    }


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
