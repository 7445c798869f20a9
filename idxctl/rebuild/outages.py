"""Which errors of a rebuild's steps pass by themselves: a server is away, overloaded or full, and the step is taken again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from idxctl.core import backoff
from idxctl.core.errors import IdxctlError, OpenSearchRefused, PostgresRefused, Unreachable
from idxctl.worker import outcomes
from idxctl.worker.outcomes import Kind

T = TypeVar("T")
BLOCK = "cluster_block_exception"  # a full disk, a cluster without a manager, an index made read-only meanwhile


def passing(error: IdxctlError) -> str | None:
    """Return what is waited for, or None where waiting does not help."""
    if isinstance(error, Unreachable):
        return error.message
    if isinstance(error, PostgresRefused) and error.passing:
        return error.message
    if isinstance(error, OpenSearchRefused) and (
        error.error_type == BLOCK or outcomes.of_request(error).kind is Kind.TRANSIENT
    ):
        return error.message
    return None


def patiently(act: Callable[[], T], *, say: Callable[[str], None]) -> T:
    """Return what *act* returns, done again for as long as it fails for what passes; *say* is told once what that is."""
    failed = 0
    while True:
        try:
            return act()
        except IdxctlError as error:
            why = passing(error)
            if why is None:
                raise
            if failed == 0:
                say(why)
            time.sleep(backoff.before_probe(failed))
            failed += 1
