"""What a provider's headers and error texts say about time and limits.

Every form of a wait that providers send is read here, and nowhere else. What is absurd
(negative, not finite, beyond 31 days), malformed or said twice in different ways is
ignored, never guessed at. Waits are rounded up. Pure: `now_us` is epoch microseconds.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import re
import zoneinfo
from collections.abc import Iterable, Mapping

from ratekeeper.core.reading import Reading
from ratekeeper.core.units import DAY, HOUR, MINUTE, SECOND

HeaderSource = Mapping[str, str] | Iterable[tuple[str, str]]

ABSURD_US = 31 * DAY  # no provider's window is longer than a month

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = 1000
_LONGEST_VALUE = 64  # the longest sensible value, an HTTP-date, has 33 characters
_LONGEST_COUNT = 15  # digits
_LONGEST_TEXT = 4096  # of an error message, looked at for a hint
_FIRST_EPOCH_S = 1_000_000_000  # 2001: a smaller number is a duration
_FIRST_EPOCH_MS = 100_000_000_000  # the year 5138 as seconds, 1973 as milliseconds
_SHORTEST_MOMENT = 10  # characters, of an epoch in seconds
_FIRST_ABSURD_EPOCH = 100_000_000_000_000

_NUMBER = re.compile(r"([0-9]{1,15})(?:\.([0-9]{0,20}))?", re.ASCII)
_GO = re.compile(
    r"(?=[0-9])"
    r"(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)h)?"
    r"(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)m(?!s))?"
    r"(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)s)?"
    r"(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)ms)?"
    r"(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)[uµ]s)?"
    r"(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)ns)?",
    re.ASCII,
)
_GO_UNITS_NS = (
    3600 * 10**9,
    60 * 10**9,
    10**9,
    10**6,
    10**3,
    1,
)
_MONTHS = (
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
)
_CLOCK = r"(?P<clock>[0-9]{2}:[0-9]{2}:[0-9]{2})"
_HTTP_DATES = (
    # IMF-fixdate, RFC 850, asctime: RFC 9110 section 5.6.7
    r"[A-Z][a-z]{2}, (?P<day>[0-9]{2}) (?P<month>[A-Z][a-z]{2}) (?P<year>[0-9]{4}) "
    + _CLOCK
    + " GMT",
    r"[A-Z][a-z]{5,8}, (?P<day>[0-9]{2})-(?P<month>[A-Z][a-z]{2})-(?P<year>[0-9]{2}) "
    + _CLOCK
    + " GMT",
    r"[A-Z][a-z]{2} (?P<month>[A-Z][a-z]{2}) (?P<day>[ 0-9][0-9]) "
    + _CLOCK
    + r" (?P<year>[0-9]{4})",
)
_HTTP_DATE = tuple(re.compile(form, re.ASCII) for form in _HTTP_DATES)
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.([0-9]{1,9}))?([Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_WORDS = re.compile(
    r"(?:try again|retry|wait)(?:\s+(?:in|after|for|at least))?\s+"
    r"(?P<wait>[0-9][0-9.]{0,24}\s?(?:milliseconds?|seconds?|minutes?|hours?|days?)\b"
    r"|[0-9][0-9.hmsµun]{0,40}(?<![.0-9]))",
    re.ASCII | re.IGNORECASE,
)
_WORD_UNITS = {
    "millisecond": _MILLISECOND,
    "second": SECOND,
    "minute": MINUTE,
    "hour": HOUR,
    "day": DAY,
}
_REGAIN = re.compile(
    r"regain access on ([0-9]{4}-[0-9]{2}-[0-9]{2}) at ([0-9]{2}:[0-9]{2}) UTC",
    re.ASCII,
)
_LOCAL_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ T]([0-9]{2}:[0-9]{2}:[0-9]{2})", re.ASCII
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HeaderRow:
    """How a provider shows one limit: the names of three headers.

    `period` names one that tells its window in seconds. `rounded_to` is the step its
    `remaining` is rounded to, 1 where it is exact; `repeats` says that it may only show
    again what another row has shown.
    """

    unit: str
    limit: str = ""
    remaining: str = ""
    reset: str = ""
    period: str = ""
    window_us: int | None = None
    rounded_to: int = 1
    repeats: bool = False


def names_of(rows: Iterable[HeaderRow]) -> frozenset[str]:
    """Return the names of all headers that `read_readings` looks at."""
    named = [(row.limit, row.remaining, row.reset, row.period) for row in rows]
    return frozenset(["date"]).union(*named)


def fold(headers: HeaderSource, names: frozenset[str] | None = None) -> dict[str, str]:
    """Return headers by lower-case name; what is said twice, differently, is joined.

    A joined value is no number and no date, so that it is ignored by whoever reads it.
    With `names`, the others are left out.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    folded: dict[str, str] = {}
    for name, value in pairs:
        name = name.lower()  # noqa: PLW2901 - normalised
        if names is not None and name not in names:
            continue
        value = value.strip(" \t")  # noqa: PLW2901 - normalised
        other = folded.setdefault(name, value)
        if other != value:
            folded[name] = f"{other}, {value}"
    return folded


def read_hint(
    fields: Mapping[str, str], text: str, now_us: int, delay: str = ""
) -> int | None:
    """Return how long the provider asks to wait.

    Headers are read first, then the body's own `delay`, then its words.
    """
    hint = _scaled(fields.get("retry-after-ms"), _MILLISECOND)
    if hint is None:
        hint = read_retry_after(fields.get("retry-after"), fields.get("date"), now_us)
    if hint is None:
        hint = read_proto_duration(delay)
    if hint is None:
        hint = read_words(text, now_us)
    return hint


def read_retry_after(value: str | None, date: str | None, now_us: int) -> int | None:
    """Read a Retry-After: seconds, or a date against the answer's own `Date`."""
    seconds = _scaled(value, SECOND)
    if seconds is not None:
        return seconds
    moment = read_http_date(value, now_us)
    if moment is None:
        return None
    answered = read_http_date(date, now_us)
    return _bounded(moment - (now_us if answered is None else answered))


def read_http_date(value: str | None, now_us: int) -> int | None:
    """Read any of the three forms of an HTTP-date, as epoch microseconds."""
    if value is None or len(value) > _LONGEST_VALUE:
        return None
    for form in _HTTP_DATE:
        match = form.fullmatch(value)
        if match is not None:
            return _moment(match, now_us)
    return None


def _moment(match: re.Match[str], now_us: int) -> int | None:
    name = match["month"].lower()
    if name not in _MONTHS:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:  # noqa: PLR2004 - RFC 850 has two digits
        this_year = (_EPOCH + datetime.timedelta(microseconds=now_us)).year
        year += this_year // 100 * 100
        if year > this_year + 50:  # RFC 9110: more than 50 years ahead is the past
            year -= 100
    hour, minute, second = (int(part) for part in match["clock"].split(":"))
    if hour > 23 or minute > 59 or second > 60:  # noqa: PLR2004 - 60: a leap second
        return None
    try:
        day = datetime.datetime(
            year, _MONTHS.index(name) + 1, int(match["day"]), tzinfo=datetime.UTC
        )
    except ValueError:
        return None
    return _micros(day) + hour * HOUR + minute * MINUTE + second * SECOND


def read_rfc3339(value: str) -> int | None:
    """Read a moment such as 2026-11-24T09:30:00Z, as epoch microseconds, rounded up."""
    match = _RFC3339.fullmatch(value)
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone
    try:
        moment = datetime.datetime.fromisoformat(f"{day}T{clock}{zone}")
    except ValueError:
        return None
    return _micros(moment) + _fraction(fraction or "", SECOND)


def read_go_duration(value: str) -> int | None:
    """Read a duration as Go prints it: 12ms, 1.146s, 6m0s, 1h2m3.5s."""
    match = _GO.fullmatch(value)
    if match is None:
        return None
    total_ns = 0
    for part, unit_ns in zip(match.groups(), _GO_UNITS_NS, strict=True):
        if part is not None:
            whole, _, fraction = part.partition(".")
            total_ns += int(whole) * unit_ns + _fraction(fraction, unit_ns)
    return _bounded(-(-total_ns // 1000))


def read_proto_duration(value: str) -> int | None:
    """Read a duration as protobuf writes it in JSON: 25s, 34.4s, 36000s."""
    return _scaled(value[:-1], SECOND) if value.endswith("s") else None


def read_reset(value: str | None, now_us: int) -> int | None:
    """Read when a limit is whole again, however it is said, as a wait.

    A duration in Go's form or in seconds, an RFC 3339 moment, or an epoch in seconds or
    milliseconds, told apart by magnitude. A moment that has passed is no wait.
    """
    if value is None or len(value) > _LONGEST_VALUE:
        return None
    if len(value) < _SHORTEST_MOMENT:
        return _read_short(value)
    number = _NUMBER.fullmatch(value)
    if number is None:
        moment = read_rfc3339(value)
        if moment is None:
            return read_go_duration(value)
        return _bounded(moment - now_us)
    whole = int(number[1])
    if whole < _FIRST_EPOCH_S:
        return _scaled(value, SECOND)
    if whole >= _FIRST_ABSURD_EPOCH:
        return None
    scale = SECOND if whole < _FIRST_EPOCH_MS else _MILLISECOND
    return _bounded(whole * scale + _fraction(number[2] or "", scale) - now_us)


@functools.lru_cache(maxsize=1024)  # the same few, answer after answer
def _read_short(value: str) -> int | None:
    """Read a wait that is too short a text for a moment."""
    if _NUMBER.fullmatch(value):
        return _scaled(value, SECOND)
    return read_go_duration(value)


def read_words(text: str, now_us: int) -> int | None:
    """Find a wait in an error's text: "Please try again in 1m16.752s"."""
    text = text[:_LONGEST_TEXT]
    match = _WORDS.search(text)
    if match is not None:
        return _read_said(match["wait"])
    match = _REGAIN.search(text)
    if match is None:
        return None
    moment = read_rfc3339(f"{match[1]}T{match[2]}:00Z")
    return None if moment is None else _bounded(moment - now_us)


def _read_said(wait: str) -> int | None:
    number = wait.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    word = wait[len(number) :].strip().lower().removesuffix("s")
    scale = _WORD_UNITS.get(word)
    return read_go_duration(wait) if scale is None else _scaled(number, scale)


def read_local_moment(text: str, now_us: int, offset: str) -> int | None:
    """Find a moment such as 2026-11-24 09:30:00 in a text, told in a zone's own time."""
    match = _LOCAL_MOMENT.search(text[:_LONGEST_TEXT])
    if match is None:
        return None
    moment = read_rfc3339(f"{match[1]}T{match[2]}{offset}")
    return None if moment is None else _bounded(moment - now_us)


def read_readings(
    rows: Iterable[HeaderRow],
    fields: Mapping[str, str],
    now_us: int,
    *,
    bare: bool = False,
) -> tuple[Reading, ...]:
    """Return the limits that the headers show; a row they say nothing of is left out.

    A limit of 0 or -1 says that the provider does not know it; more remaining than the
    limit says nothing either. A moment is read against the answer's own `Date`. With
    `bare`, a row that tells its reset alone is there too.
    """
    answered: int | None = None
    readings: list[Reading] = []
    for row in rows:
        limit, remaining = _limit_of(row, fields)
        if limit is None and remaining is None and not (bare and row.reset in fields):
            continue
        if row.repeats and limit in {
            one.limit for one in readings if one.unit != "requests"
        }:
            continue
        period = _count(fields.get(row.period))
        reset = fields.get(row.reset)
        if answered is None and reset is not None and len(reset) >= _SHORTEST_MOMENT:
            date = read_http_date(fields.get("date"), now_us)
            answered = now_us if date is None else date
        readings.append(
            Reading(
                unit=row.unit,
                window_us=period * SECOND if period else row.window_us,
                limit=limit,
                remaining=remaining,
                full_after_us=read_reset(
                    reset, now_us if answered is None else answered
                ),
            )
        )
    return tuple(readings)


def _limit_of(
    row: HeaderRow, fields: Mapping[str, str]
) -> tuple[int | None, int | None]:
    limit = _count(fields.get(row.limit)) or None
    remaining = _count(fields.get(row.remaining))
    if remaining is None or row.limit not in fields:
        return limit, remaining
    if limit is None or remaining > limit:
        return limit, None
    if remaining < limit:
        remaining = max(0, remaining - row.rounded_to // 2)
    return limit, remaining


def day_end_us(now_us: int, zone: str) -> int | None:
    """Return how long until the next midnight somewhere, None if nobody knows where."""
    try:
        there = zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, OSError):  # a system without zone data
        return None
    now = _EPOCH + datetime.timedelta(microseconds=now_us)
    tomorrow = now.astimezone(there).date() + datetime.timedelta(days=1)
    midnight = datetime.datetime.combine(tomorrow, datetime.time(), there)
    return _micros(midnight) - now_us


def month_end_us(now_us: int) -> int:
    """Return how long until the first of next month, 00:00 UTC."""
    now = _EPOCH + datetime.timedelta(microseconds=now_us)
    year, month = divmod(now.year * 12 + now.month, 12)
    return _micros(datetime.datetime(year, month + 1, 1, tzinfo=datetime.UTC)) - now_us


def _count(value: str | None) -> int | None:
    if value is None or not value.isdecimal() or not value.isascii():
        return None
    return int(value) if len(value) <= _LONGEST_COUNT else None


def _scaled(value: str | None, scale: int) -> int | None:
    """Read a plain number of `scale` microseconds, rounded up."""
    match = None if value is None else _NUMBER.fullmatch(value)
    if match is None:
        return None
    return _bounded(int(match[1]) * scale + _fraction(match[2] or "", scale))


def _fraction(digits: str, scale: int) -> int:
    """Return the decimals of a number times `scale`, rounded up."""
    parts: int = 10 ** len(digits)
    return -(-int(digits or "0") * scale // parts)


def _bounded(wait_us: int) -> int | None:
    if wait_us > ABSURD_US:
        return None
    return max(0, wait_us)


def _micros(moment: datetime.datetime) -> int:
    return (moment - _EPOCH) // datetime.timedelta(microseconds=1)
