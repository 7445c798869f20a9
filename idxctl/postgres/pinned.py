"""
The settings that SQL runs under, in one place.

A database, a role or a connection string may set any of some hundred; several change what our own statements mean, or fail
them. Ours run under `OURS`, set locally in every transaction and in the message of every single statement. The application's
SQL (document queries, lookups) does not: what it means may rest on these, so it gets them as they are stored with it, or as
the session was given them (`THEIRS`).
"""

from __future__ import annotations

from collections.abc import Mapping

PINNED = "pg_catalog, pg_temp"  # temporary objects last: the path would have them first if it did not name them
# What values and SQL look like, in and out.
_MEANING = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "array_nulls": "on",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
}
# Limits meant for the application's statements. We give a server up by ourselves (`patient`), a reader of documents has a
# limit of its own, and whoever else sets one does so after this.
_LIMITS = {"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "1h"}
_TRANSACTIONS_END = 170000  # the release from which a whole transaction may be limited
OURS: Mapping[str, str] = {"search_path": PINNED, **_MEANING, **_LIMITS}
THEIRS: Mapping[str, str | None] = dict.fromkeys(_MEANING)  # None: as the session was given it

# What the text of a document may depend on: stored with a generation, whoever renders it. Settings of the application's own
# are added where a query names them, by `current_setting('…')`, or the configuration does.
RENDERED = (
    "TimeZone", "DateStyle", "IntervalStyle", "extra_float_digits", "bytea_output", "default_text_search_config", "lc_monetary",
    "lc_numeric", "lc_time", "standard_conforming_strings", "backslash_quote", "transform_null_equals", "array_nulls",
    "quote_all_identifiers", "xmloption", "xmlbinary", "gin_fuzzy_search_limit",
)  # fmt: skip

# Of those, what values look like as text: a key that SQL makes is to read as the document's id does, whoever makes it.
WRITTEN = (
    "TimeZone", "DateStyle", "IntervalStyle", "extra_float_digits", "bytea_output", "lc_monetary", "lc_numeric", "lc_time", "xmlbinary",
)  # fmt: skip


def _set(name: str, value: str) -> str:
    return f"SET LOCAL {name} = {value if name == 'search_path' else repr(value)}"


_SETS = tuple(_set(name, value) for name, value in OURS.items())
_SINGLE = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
_WRITES = "SET TRANSACTION READ WRITE"


def pin(server_version: int) -> tuple[str, ...]:
    """Return the statements that pin an open transaction."""
    return (*_SETS, "SET LOCAL transaction_timeout = 0") if server_version >= _TRANSACTIONS_END else _SETS


def pin_single(server_version: int, *, writes: bool) -> tuple[str, ...]:
    """
    Return the statements that pin the one that follows them in the same message.

    *writes*: the session's default would have it read only. A standby refuses to end that, so it is said only where needed.
    """
    return (_SINGLE, *((_WRITES,) if writes else ()), *pin(server_version))
