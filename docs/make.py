"""Write the pages that are made from code again: ``make docs``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # `making` lies beside this script

from idxctl.monitoring import pages  # noqa: E402
from making import commands, configuration, errors  # noqa: E402


def made() -> Mapping[Path, str]:
    """Return each page's place and text."""
    return {
        HERE / "commands.md": commands.commands_page(),
        HERE / "configuration.md": configuration.configuration_page(),
        HERE / "errors.md": errors.errors_page(),
        HERE / "metrics.md": pages.metrics_page(),
        HERE / "how-to" / "alerts.md": pages.runbook_page(),
    }


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
