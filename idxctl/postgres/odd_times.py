"""
Times that Python has none for: infinity, before Christ, beyond the year 9999.

Whoever may write a table of ours can leave one, and a list must show it. It compares as the nearest time that Python has, and
shows as PostgreSQL writes it.
"""

from __future__ import annotations

from datetime import date, datetime, time, timezone, tzinfo
from typing import Any

import psycopg
from psycopg import adapt
from psycopg.pq import Format


class OddTime(datetime):
    """The nearest time that there is, with the text of the one that was meant."""

    text: str

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:  # noqa: ARG002 - the base's parameters
        """Return what PostgreSQL writes."""
        return self.text

    def strftime(self, format: str) -> str:  # noqa: A002, ARG002 - the base's parameter
        """Return the same: no format has a place for it."""
        return self.text

    def astimezone(self, tz: tzinfo | None = None) -> OddTime:  # noqa: ARG002 - the base's parameter
        """Return it as it is: beyond it there is no other."""
        return self

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, text: str) -> OddTime:
        """Make it from what PostgreSQL writes."""
        before = text.startswith("-infinity") or text.endswith("BC")
        made = (
            cls.combine(date.min, time.min, timezone.utc) if before else cls.combine(date.max, time.max, timezone.utc)
        )
        made.text = text
        return made


def shown_by(raw: psycopg.Connection[Any]) -> None:
    """Have a connection read and write such times."""
    usual = raw.adapters.get_loader(raw.adapters.types["timestamptz"].oid, Format.TEXT)
    assert usual is not None
    make = usual

    class _Loader(adapt.Loader):
        format = Format.TEXT

        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            # The driver looks at the session's DateStyle as it was last told of; what we read is ISO, by the pins of the
            # statement (see `idxctl.postgres.pinned`), and a statement that is alone tells of none.
            said = self.connection.info.parameter_status("DateStyle") if self.connection else None
            told = said is None or said.startswith("ISO")
            self._usual = make(oid, context if told else None)
            self._zone = None if told or self.connection is None else self.connection.info.timezone

        def load(self, data: Any) -> datetime:
            try:
                found: datetime = self._usual.load(data)
            except psycopg.DataError:
                return OddTime.of(bytes(data).decode())
            return found if self._zone is None else found.astimezone(self._zone)

    raw.adapters.register_loader("timestamptz", _Loader)
    raw.adapters.register_dumper(OddTime, _Dumper)


class _Dumper(adapt.Dumper):
    format = Format.TEXT
    oid = psycopg.adapters.types["timestamptz"].oid

    def dump(self, obj: OddTime) -> bytes:
        return obj.text.encode()
