"""
Which kind of connection a caller brings.

SQLAlchemy and Django are looked at only where the caller brings an object of theirs.
"""

from __future__ import annotations

from typing import Any

import psycopg

from idxctl.core.errors import WrongType
from idxctl.library import with_psycopg
from idxctl.library.appending import Caller, Pending


def of(connection: Any, pending: Pending) -> Caller:
    """Return how to speak with *connection*; raises `WrongType` for what is no connection that can be used here."""
    if isinstance(connection, psycopg.Connection):
        return with_psycopg.PsycopgCaller(connection, pending)
    roots = {kind.__module__.partition(".")[0] for kind in type(connection).__mro__}
    if "sqlalchemy" in roots:
        from idxctl.library import with_sqlalchemy

        return with_sqlalchemy.caller(connection, pending)
    if "django" in roots:
        from idxctl.library import with_django

        return with_django.caller(connection, pending)
    if isinstance(connection, psycopg.AsyncConnection):
        raise WrongType(
            "connection is asynchronous, and the library is not",
            hint="SELECT opensearch_indexing_enqueue(index, document_id) in the transaction does the same",
        )
    raise WrongType(
        "connection is one of psycopg, a Session or Connection of SQLAlchemy, or a connection of Django, "
        f"not {type(connection).__module__}.{type(connection).__qualname__}"
    )
