"""When an entry of a crontab runs."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from crontab import CronSlices

from idxctl.core.errors import UsageError

DEFAULT = "*/5 * * * *"

_SPECIALS = ("@reboot", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_FIELD = re.compile(r"[0-9A-Za-z*,/-]+")
_HORIZON = timedelta(days=366 * 9)  # 29 February may be eight years off
_ANY_DAY = datetime(2024, 1, 1, tzinfo=timezone.utc)


class Schedule:
    """When an entry runs: five fields of crontab(5), or one of its ``@`` words."""

    def __init__(self, text: str) -> None:
        """Check *text* as cron would; `UsageError` says what is wrong with it."""
        words = text.split()
        hint = f'five fields, minute hour day month weekday: "{DEFAULT}"; or {", ".join(_SPECIALS)}'
        if len(words) == 1 and words[0].startswith("@"):
            if words[0].lower() not in _SPECIALS:
                raise UsageError(f'schedule "{text}": cron knows no {words[0]}', hint=hint)
        elif len(words) != 5:
            raise UsageError(f'schedule "{text}": {len(words)} fields, five wanted', hint=hint)
        elif bad := [word for word in words if not _FIELD.fullmatch(word)]:
            raise UsageError(f'schedule "{text}": {bad[0]} is no field of a crontab', hint=hint)
        try:
            self._slices = CronSlices(" ".join(words))
        except (ValueError, KeyError, TypeError) as err:
            reason = str(err.args[0]) if err.args else str(err)
            raise UsageError(f'schedule "{text}": {reason[:1].lower()}{reason[1:]}', hint=hint) from err
        self.text: str = self._slices.special or self._slices.clean_render()
        if not self.at_boot and self.next_run(_ANY_DAY) is None:
            raise UsageError(f'schedule "{text}": no such day ever comes', hint=hint)

    @property
    def at_boot(self) -> bool:
        """Whether it runs when the machine starts, and at no time of day."""
        return self.text == "@reboot"

    def next_run(self, now: datetime) -> datetime | None:
        """Return the first minute after *now* that matches, in local time, or None for ``@reboot``."""
        if self.at_boot:
            return None
        minutes, hours, days, months, weekdays = (frozenset(part) for part in self._slices)
        # crontab(5): with both day fields restricted either suffices; a field that begins with * is not a restriction.
        _, _, day_field, _, weekday_field = self._slices.clean_render().split(" ")
        either = not (day_field.startswith("*") or weekday_field.startswith("*"))
        start = now.astimezone().replace(tzinfo=None, second=0, microsecond=0) + timedelta(minutes=1)
        today = start.replace(hour=0, minute=0)
        for offset in range(_HORIZON.days):
            date = today + timedelta(days=offset)
            by_day, by_weekday = date.day in days, date.isoweekday() % 7 in weekdays
            if date.month not in months or not (by_day or by_weekday if either else by_day and by_weekday):
                continue
            for hour in sorted(hours):
                for minute in sorted(minutes):
                    if (found := date.replace(hour=hour, minute=minute)) >= start:
                        return found.astimezone()
        return None
