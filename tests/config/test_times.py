"""Durations, sizes and moments are read as written, or refused by the wrong word."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.config.times import duration_us, instant_us, size_of
from ratekeeper.core.units import DAY, HOUR, MINUTE, SECOND
from ratekeeper.errors import ConfigError

UTC_TIMES = st.datetimes(
    min_value=datetime.datetime(1970, 1, 1),  # noqa: DTZ001 - the strategy adds it
    max_value=datetime.datetime(9998, 12, 31),  # noqa: DTZ001
    timezones=st.integers(-1439, 1439).map(
        lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes))
    ),
)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("20s", 20 * SECOND),
        ("500ms", 500_000),
        ("10m", 10 * MINUTE),
        ("10 min", 10 * MINUTE),
        ("1h", HOUR),
        ("1.5h", 90 * MINUTE),
        ("1 day", DAY),
        (" 2 Days ", 2 * DAY),
        ("0s", 0),
        ("0", 0),
        ("0.000001s", 1),
        ("366d", 366 * DAY),
    ],
)
def test_a_duration_is_read_as_microseconds(text: str, us: int) -> None:
    assert us == duration_us(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'': expected a duration such as 500ms"),
        ("20", "'20': expected ms, s, m, h or days"),
        ("soon", "'soon': expected a duration"),
        ("-1s", "'-1s': expected a duration"),
        ("20 sekunds", "'20 sekunds': 'sekunds': expected ms, s, m, h or days"),
        ("20 hurs", "(did you mean 'hours'?)"),
        ("1h30m", "'1h30m': expected a duration"),
        ("0.5us", "'us': expected ms"),
        ("0.0001ms", "'0.0001': expected whole microseconds"),
        ("367d", "'367': expected whole microseconds, and at most 366 days"),
        ("9" * 16 + "s", "expected a duration"),
        ("２0s", "expected a duration"),
    ],
)
def test_what_is_no_duration_is_refused_by_its_wrong_word(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        duration_us(text)

    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("32MiB", 32 << 20),
        ("256 MiB", 256 << 20),
        ("1GB", 10**9),
        ("1.5 kB", 1500),
        ("64kib", 64 << 10),
        ("65536", 65536),
        ("7B", 7),
        ("1024GiB", 1 << 40),
    ],
)
def test_a_size_is_read_as_bytes(text: str, size: int) -> None:
    assert size == size_of(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a size such as 32MiB"),
        ("big", "'big': expected a size"),
        ("32Mib/s", "expected a size"),
        ("32MeB", "'32MeB': 'MeB': expected B, kB, MB, GB, KiB, MiB, GiB (did you"),
        ("32M", "'M': expected B, kB"),
        ("0", "'0': expected whole bytes, from 1 to 1024GiB"),
        ("0.5", "'0.5': expected whole bytes"),
        ("1025GiB", "'1025': expected whole bytes"),
    ],
)
def test_what_is_no_size_is_refused_by_its_wrong_word(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        size_of(text)

    assert says in str(caught.value)


def test_a_date_lasts_to_its_end_in_utc() -> None:
    next_day = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)

    assert next_day.timestamp() * SECOND == instant_us("2026-12-31")


@pytest.mark.parametrize(
    "text",
    [
        "2026-12-31T18:00:00+08:00",
        "2026-12-31T10:00:00Z",
        "2026-12-31 10:00",
        "2026-12-31T10:00:00.000000",
    ],
)
def test_a_time_is_in_its_zone_or_in_utc(text: str) -> None:
    then = datetime.datetime(2026, 12, 31, 10, tzinfo=datetime.UTC)

    assert then.timestamp() * SECOND == instant_us(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'': expected a date such as 2026-12-31"),
        ("soon", "'soon': expected a date"),
        ("31.12.2026", "'31.12.2026': expected a date"),
        ("2026-13-01", "'2026-13-01': month must be in 1..12"),
        ("2026-02-30", "'2026-02-30': day "),
        ("2026-12-31T25:00", "hour must be in 0..23"),
        ("x" * 999, "x" * 40 + "': expected a date"),
    ],
)
def test_what_is_no_moment_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        instant_us(text)

    assert says in str(caught.value)


@given(st.integers(0, 366 * DAY))
def test_a_duration_comes_back_as_written(us: int) -> None:
    seconds, rest = divmod(us, SECOND)

    assert us == duration_us(f"{seconds}.{rest:06}s")
    assert us == duration_us(f"{us // 1000}.{us % 1000:03}ms")


@given(st.integers(1, 1 << 40))
def test_a_size_comes_back_as_written(size: int) -> None:
    kilobytes, rest = divmod(size, 1000)

    assert size == size_of(str(size)) == size_of(f"{kilobytes}.{rest:03} kB")


@given(UTC_TIMES)
def test_a_moment_comes_back_as_written(moment: datetime.datetime) -> None:
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    us = (moment - epoch) // datetime.timedelta(microseconds=1)

    assert us == instant_us(moment.isoformat())


@given(st.text(max_size=50), st.sampled_from([duration_us, size_of, instant_us]))
def test_any_text_is_read_or_refused_in_one_line(text: str, read: object) -> None:
    assert callable(read)
    try:
        said = str(read(text))
    except ConfigError as error:
        said = str(error)

    assert [said] == said.splitlines()
