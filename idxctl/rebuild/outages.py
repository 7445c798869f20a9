"""Which errors of a rebuild's steps pass by themselves: a server is away, overloaded or full, and the step is taken again."""

from __future__ import annotations

from idxctl.core.errors import IdxctlError, OpenSearchRefused, PostgresRefused, Unreachable
from idxctl.worker import outcomes
from idxctl.worker.outcomes import Kind

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
