"""
idxctl keeps OpenSearch in step with PostgreSQL.

For applications: `Indexer`, and the errors that it raises. They are imported when first asked for, so that the command line's
``--help`` loads no driver. `idxctl.testing` is for the application's own tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idxctl.core.errors import (
        ConfigError,
        IdxctlError,
        PostgresRefused,
        PostgresUnreachable,
        SchemaError,
        UsageError,
        WaitTimeout,
        WrongType,
    )
    from idxctl.library.documents import DocumentId
    from idxctl.library.indexer import Indexer
    from idxctl.library.types import AnyConnection, Disabled, Enabled, Status

__version__ = "0.1.0"

__all__ = [
    "AnyConnection",
    "ConfigError",
    "Disabled",
    "DocumentId",
    "Enabled",
    "IdxctlError",
    "Indexer",
    "PostgresRefused",
    "PostgresUnreachable",
    "SchemaError",
    "Status",
    "UsageError",
    "WaitTimeout",
    "WrongType",
    "__version__",
]

_PLACES = {
    "Indexer": "idxctl.library.indexer",
    **dict.fromkeys(("AnyConnection", "Disabled", "Enabled", "Status"), "idxctl.library.types"),
    "DocumentId": "idxctl.library.documents",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_PLACES.get(name, "idxctl.core.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
