"""Days and months as a wall clock has them, against the calendar itself."""

from __future__ import annotations

import datetime
import zoneinfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratekeeper.simulator.reset import EveryDay, EveryPeriod

HOUR_US = 3600 * 1_000_000
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
ZONES = ["UTC", "America/Los_Angeles", "Europe/Berlin", "Asia/Shanghai", "Asia/Kolkata"]

moments = st.integers(1_700_000_000 * 1_000_000, 2_000_000_000 * 1_000_000)


def local(moment_us: int, zone: str) -> datetime.datetime:
    moment = EPOCH + datetime.timedelta(microseconds=moment_us)
    return moment.astimezone(zoneinfo.ZoneInfo(zone))


@settings(deadline=None)
@given(moments, st.integers(0, 1439), st.sampled_from(ZONES), st.booleans())
def test_a_calendar_window_holds_its_moment_and_meets_its_neighbors(
    now: int, minute: int, zone: str, months: bool
) -> None:
    calendar = EveryDay(minute, zone, months=months)
    start, end = calendar.window(now)

    assert start <= now < end
    assert (start, end) == calendar.window(start)
    assert (start, end) == calendar.window(end - 1)
    assert end == calendar.window(end)[0]


@settings(deadline=None)
@given(moments, st.integers(6 * 60, 1439), st.sampled_from(ZONES))
def test_a_day_begins_at_its_time_of_day_by_the_wall_clock(
    now: int, minute: int, zone: str
) -> None:
    start, _ = EveryDay(minute, zone).window(now)
    shown = local(start, zone)

    assert (minute // 60, minute % 60) == (shown.hour, shown.minute)


@pytest.mark.parametrize(
    ("day", "hours"),
    [
        (datetime.date(2027, 3, 14), 23),
        (datetime.date(2027, 11, 7), 25),
        (datetime.date(2027, 7, 1), 24),
    ],
)
def test_a_day_has_the_hours_daylight_saving_gives_it(
    day: datetime.date, hours: int
) -> None:
    zone = zoneinfo.ZoneInfo("America/Los_Angeles")
    noon = datetime.datetime.combine(day, datetime.time(12), tzinfo=zone)
    start, end = EveryDay(0, zone.key).window(int(noon.timestamp()) * 1_000_000)

    assert hours * HOUR_US == end - start


def test_a_month_ends_where_the_calendar_ends_it() -> None:
    february = datetime.datetime(2028, 2, 10, tzinfo=datetime.UTC)
    start, end = EveryDay(months=True).window(int(february.timestamp()) * 1_000_000)

    assert 29 * 24 * HOUR_US == end - start
    assert 1 == local(start, "UTC").day


@given(moments, st.integers(1, 10**10), st.integers(0, 10**10))
def test_a_period_is_aligned_and_holds_its_moment(
    now: int, window: int, offset: int
) -> None:
    start, end = EveryPeriod(window, offset).window(now)

    assert start <= now < end
    assert window == end - start
    assert 0 == (start - offset) % window
