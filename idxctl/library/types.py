"""The types of what an application gives and gets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, Protocol, Union

if sys.version_info >= (3, 12):
    from typing import TypedDict
else:
    from typing_extensions import TypedDict  # the one that pydantic takes

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy
    import sqlalchemy.orm


class DjangoConnection(Protocol):
    """One of ``django.db.connections``."""

    alias: str

    def ensure_connection(self) -> None:
        """Connect, if it is not connected."""


AnyConnection = Union[
    "psycopg.Connection[Any]",
    "sqlalchemy.Connection",
    "sqlalchemy.orm.Session",
    "sqlalchemy.orm.scoped_session[Any]",
    DjangoConnection,
]


class Enabled(TypedDict):
    """The status while indexing is asynchronous."""

    status: Literal["enabled"]
    mode: Literal["asynchronous"]
    healthy: bool
    queue_size: int


class Disabled(TypedDict):
    """The status while indexing is synchronous."""

    status: Literal["disabled"]
    mode: Literal["synchronous"]


Status = Enabled | Disabled
