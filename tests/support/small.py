"""Small chunks of a reindex: CHUNK in the environment says of how many documents, so that few rows make several."""

from __future__ import annotations

import os

from idxctl.rebuild import backfill


def chunks_as_asked() -> None:
    """Have this process make chunks as the environment says, if it does."""
    if chunk := os.environ.get("CHUNK"):
        backfill._FIRST_CHUNK = backfill._LARGEST_CHUNK = int(chunk)
