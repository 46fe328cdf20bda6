"""When an aligned window starts and ends: by the epoch, or by a clock on a wall.

A day or a month that resets at a time of day in a zone is 23, 24 or 25 hours long, or
28 to 31 days. Everything is integer microseconds; a window is half-open, `[start, end)`.
"""

from __future__ import annotations

import datetime
import zoneinfo
from typing import Protocol

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


class Calendar(Protocol):
    """Knows the window a moment falls into."""

    def window(self, now: int) -> tuple[int, int]:
        """Return start and end of the window that holds `now`."""


class EveryPeriod:
    """Windows of one length, aligned to the epoch (moved by `offset_us`)."""

    def __init__(self, window_us: int, offset_us: int = 0) -> None:
        self._window_us = window_us
        self._offset_us = offset_us

    def window(self, now: int) -> tuple[int, int]:
        """Return start and end of the window that holds `now`."""
        start = now - (now - self._offset_us) % self._window_us
        return start, start + self._window_us


class EveryDay:
    """Days (or calendar months) that begin at a time of day in a time zone."""

    def __init__(
        self, minute_of_day: int = 0, zone: str = "UTC", *, months: bool = False
    ) -> None:
        hour, minute = divmod(minute_of_day, 60)
        self._time = datetime.time(hour, minute)
        self._zone = zoneinfo.ZoneInfo(zone)
        self._months = months

    def window(self, now: int) -> tuple[int, int]:
        """Return start and end of the window that holds `now`."""
        moment = _EPOCH + now * _MICROSECOND
        today = moment.astimezone(self._zone).date()
        # The neighbors on both sides: the reset may lie before or after `now` today.
        starts = [self._start(today, step) for step in (-1, 0, 1, 2)]
        later = next(i for i, start in enumerate(starts) if start > now)
        return starts[later - 1], starts[later]

    def _start(self, today: datetime.date, step: int) -> int:
        if self._months:
            months = today.year * 12 + today.month - 1 + step
            day = datetime.date(months // 12, months % 12 + 1, 1)
        else:
            day = today + datetime.timedelta(days=step)
        local = datetime.datetime.combine(day, self._time, tzinfo=self._zone)
        return (local - _EPOCH) // _MICROSECOND
