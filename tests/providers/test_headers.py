"""Every form of a wait that providers send, read to the microsecond or rounded up."""

from __future__ import annotations

import datetime
import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.reading import Reading
from ratekeeper.core.units import DAY, HOUR, MINUTE, SECOND
from ratekeeper.providers import headers
from ratekeeper.providers.catalog import find_provider
from tests.providers.malformed import DATE, NOW_US

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
WAITS = st.integers(0, headers.ABSURD_US)


@pytest.mark.parametrize(
    ("value", "wait_us"),
    [
        ("0", 0),
        ("1", SECOND),
        ("007", 7 * SECOND),
        ("1.5", 1_500_000),
        ("5.", 5 * SECOND),
        ("1.146", 1_146_000),
        ("0.0000001", 1),
        ("86400", DAY),
        ("2678400", 31 * DAY),
        ("Wed, 18 Nov 2026 11:06:50 GMT", 10 * SECOND),
        ("Wednesday, 18-Nov-26 11:06:50 GMT", 10 * SECOND),
        ("Wed Nov 18 11:06:50 2026", 10 * SECOND),
        ("Thu Nov 19 11:06:40 2026", DAY),
        ("Tue Dec  1 11:06:40 2026", 13 * DAY),
        ("Wed, 18 Nov 2026 11:06:60 GMT", 20 * SECOND),  # a leap second
        ("Wed, 18 Nov 2026 11:06:40 GMT", 0),
        ("Tue, 17 Nov 2026 11:06:40 GMT", 0),  # it has passed: no wait
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),  # two digits: not 2094
    ],
)
def test_a_retry_after_is_read_in_each_of_its_forms(value: str, wait_us: int) -> None:
    assert wait_us == headers.read_hint({"retry-after": value}, "", NOW_US)


def test_a_date_counts_from_the_answers_own_date_not_from_our_clock() -> None:
    fields = {"retry-after": "Wed, 18 Nov 2026 11:06:50 GMT", "date": DATE}
    an_hour_slow = NOW_US - HOUR

    assert 10 * SECOND == headers.read_hint(fields, "", an_hour_slow)


def test_two_digits_of_a_year_mean_at_most_fifty_years_ahead() -> None:
    now_us = headers.read_http_date("Wed Nov 18 11:06:40 2026", 0)
    assert now_us is not None
    ahead = headers.read_http_date("Wednesday, 18-Nov-76 11:06:40 GMT", now_us)
    behind = headers.read_http_date("Wednesday, 18-Nov-77 11:06:40 GMT", now_us)

    assert ahead == headers.read_http_date("Wed Nov 18 11:06:40 2076", 0)
    assert behind == headers.read_http_date("Wed Nov 18 11:06:40 1977", 0)


@pytest.mark.parametrize(
    ("fields", "text", "wait_us"),
    [
        ({"retry-after-ms": "250", "retry-after": "9"}, "try again in 5s", 250_000),
        ({"retry-after-ms": "0.5"}, "", 500),
        ({"retry-after-ms": "x", "retry-after": "9"}, "try again in 5s", 9 * SECOND),
        ({"retry-after": "x"}, "try again in 5s", 5 * SECOND),
        ({"retry-after": "5, 7"}, "", None),
        ({}, "", None),
    ],
)
def test_the_finest_form_wins_and_a_broken_one_gives_way(
    fields: dict[str, str], text: str, wait_us: int | None
) -> None:
    assert wait_us == headers.read_hint(fields, text, NOW_US)


@pytest.mark.parametrize(
    ("text", "wait_us"),
    [
        ("Please try again in 1.146s. Visit https://x", 1_146_000),
        ("Please try again in 84ms. Visit", 84_000),
        ("Please try again in 1m16.752s.", 76_752_000),
        ("Please try again in 6m0s.", 6 * MINUTE),
        ("Please try again in 1h2m3.5s.", HOUR + 2 * MINUTE + 3_500_000),
        ("Please try again in 7m12s", 7 * MINUTE + 12 * SECOND),
        ("Please try again in 20s", 20 * SECOND),
        ("Please retry in 25.08253442s.", 25_082_535),
        ("Please retry after 6 seconds. Please go here", 6 * SECOND),
        ("retry after 1 second", SECOND),
        ("Retry after 2 minutes", 2 * MINUTE),
        ("Please wait 3 hours", 3 * HOUR),
        ("wait for 500 milliseconds", 500_000),
        ("try again in 1 day", DAY),
        ("You will regain access on 2026-12-01 at 00:00 UTC.", 1_083_200 * SECOND),
        ("You will regain access on 2026-11-01 at 00:00 UTC.", 0),
        ("You will regain access on 2027-11-01 at 00:00 UTC.", None),
        ("You will regain access on 2026-13-01 at 00:00 UTC.", None),
        ("Please try again later.", None),
        ("try again in 5 parsecs", None),
        ("try again in 32 days", None),
        ("Please reduce your message size and try again.", None),
    ],
)
def test_a_wait_is_found_in_an_errors_words(text: str, wait_us: int | None) -> None:
    assert wait_us == headers.read_words(text, NOW_US)


@pytest.mark.parametrize(
    ("value", "wait_us"),
    [
        ("12ms", 12_000),
        ("1s", SECOND),
        ("6m0s", 6 * MINUTE),
        ("1h2m3.5s", HOUR + 2 * MINUTE + 3_500_000),
        ("2m59.56s", 2 * MINUTE + 59_560_000),
        ("1.5h", HOUR + 30 * MINUTE),
        ("1.5m", 90 * SECOND),
        ("1.000001ms", 1_001),
        ("250us", 250),
        ("250µs", 250),
        ("1ns", 1),
        ("0s", 0),
        ("744h", 31 * DAY),
        ("60", MINUTE),
        ("0.5", 500_000),
        ("86400.000001", 86_400_000_001),
        ("1795000010", 10 * SECOND),
        ("1795000010.25", 10_250_000),
        ("1795000010250", 10_250_000),
        ("1794999999", 0),
        ("2026-11-18T11:06:50Z", 10 * SECOND),
        ("2026-11-18T11:06:50.5Z", 10_500_000),
        ("2026-11-18T11:06:50.0000001Z", 10_000_001),
        ("2026-11-18t12:06:50+01:00", 10 * SECOND),
        ("2026-11-18 05:36:50-05:30", 10 * SECOND),
        ("2026-11-18T11:06:30Z", 0),
    ],
)
def test_a_reset_is_read_in_each_of_its_forms(value: str, wait_us: int) -> None:
    assert wait_us == headers.read_reset(value, NOW_US)


def test_no_header_is_no_wait() -> None:
    assert headers.read_reset(None, NOW_US) is None
    assert headers.read_retry_after(None, None, NOW_US) is None
    assert headers.read_http_date(None, NOW_US) is None


@given(WAITS)
def test_milliseconds_are_never_read_as_less_than_they_say(wait_us: int) -> None:
    fields = {"retry-after-ms": f"{wait_us / 1000:.3f}"}

    assert wait_us == headers.read_hint(fields, "", NOW_US)


@given(st.integers(0, 31 * 24 * 3600 - 1), st.integers(0, 10**9 - 1))
def test_nanoseconds_are_rounded_up(seconds: int, nanos: int) -> None:
    value = f"{seconds}.{nanos:09}"

    expected = seconds * SECOND + -(-nanos // 1000)
    assert expected == headers.read_hint({"retry-after": value}, "", NOW_US)
    assert expected == headers.read_reset(value + "s", NOW_US)


@given(st.integers(0, 31 * 24 * 3600 - 1))
def test_every_date_form_of_one_moment_is_one_wait(seconds: int) -> None:
    moment = EPOCH + datetime.timedelta(microseconds=NOW_US, seconds=seconds)
    forms = (
        email.utils.format_datetime(moment, usegmt=True),
        moment.strftime("%A, %d-%b-%y %H:%M:%S GMT"),
        moment.strftime("%a %b ") + f"{moment.day:2}" + moment.strftime(" %H:%M:%S %Y"),
    )
    waits = {headers.read_retry_after(form, None, NOW_US) for form in forms}

    assert {seconds * SECOND} == waits


@given(WAITS, st.sampled_from([-720, -330, 0, 60, 345, 840]))
def test_a_moment_is_the_same_in_every_zone(wait_us: int, offset_min: int) -> None:
    zone = datetime.timezone(datetime.timedelta(minutes=offset_min))
    moment = (EPOCH + datetime.timedelta(microseconds=NOW_US + wait_us)).astimezone(
        zone
    )
    value = moment.isoformat(timespec="microseconds")

    assert wait_us == headers.read_reset(value, NOW_US)


@given(st.text(max_size=80), st.integers(0, 2**51))
def test_no_text_at_all_breaks_a_reader_or_gives_a_wait_beyond_a_month(
    value: str, now_us: int
) -> None:
    waits = (
        headers.read_reset(value, now_us),
        headers.read_retry_after(value, value, now_us),
        headers.read_words(value, now_us),
        headers.read_hint({"retry-after-ms": value, "retry-after": value}, value, 0),
    )

    assert all(wait is None or 0 <= wait <= headers.ABSURD_US for wait in waits)


@given(
    st.from_regex(
        r"\A(?:try again in |retry after )[0-9.]{1,8} ?[hmsun]{0,4}\Z", fullmatch=True
    )
)
def test_no_words_of_waiting_break_the_reader(text: str) -> None:
    wait = headers.read_words(text, NOW_US)

    assert wait is None or 0 <= wait <= headers.ABSURD_US


@given(st.integers(0, 2**51))
def test_the_end_of_the_month_is_within_31_days_and_at_midnight(now_us: int) -> None:
    wait_us = headers.month_end_us(now_us)
    moment = EPOCH + datetime.timedelta(microseconds=now_us + wait_us)

    assert 0 < wait_us <= 31 * DAY
    assert (1, datetime.time()) == (moment.day, moment.time())


def test_headers_are_found_whatever_their_case_and_white_space() -> None:
    assert {"retry-after": "5"} == headers.fold({"Retry-After": " 5\t"})


def test_a_header_said_twice_alike_stands_and_differently_is_no_number() -> None:
    folded = headers.fold([("A", "5"), ("a", "5"), ("b", "5"), ("B", "7"), ("B", "9")])

    assert {"a": "5", "b": "5, 7, 9"} == folded


def test_headers_nobody_asked_for_are_left_out() -> None:
    sent = [("A", "5"), ("B", " 7"), ("b", "9"), ("C", "1")]

    assert {"b": "7, 9"} == headers.fold(sent, frozenset(["b", "d"]))


def test_openai_shows_requests_and_tokens() -> None:
    shown = {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-limit-tokens": "120000",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-remaining-tokens": "119500",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-reset-tokens": "6m0s",
    }

    assert (
        Reading(unit="requests", limit=500, remaining=499, full_after_us=120_000),
        Reading(
            unit="tokens", limit=120_000, remaining=119_500, full_after_us=6 * MINUTE
        ),
    ) == find_provider("openai").readings(shown, NOW_US)


def test_anthropic_shows_a_minute_and_tokens_rounded_against_the_caller() -> None:
    name = "anthropic-ratelimit-input-tokens"
    shown = {
        "Anthropic-RateLimit-Requests-Limit": "1000",
        "Anthropic-RateLimit-Requests-Remaining": "999",
        "Anthropic-RateLimit-Requests-Reset": "2026-11-18T11:06:41Z",
        f"{name}-limit": "2000000",
        f"{name}-remaining": "1998000",
        f"{name}-reset": "2026-11-18T11:06:50Z",
    }

    assert (
        Reading(
            unit="requests",
            window_us=MINUTE,
            limit=1000,
            remaining=999,
            full_after_us=SECOND,
        ),
        Reading(
            unit="input_tokens",
            window_us=MINUTE,
            limit=2_000_000,
            remaining=1_997_500,
            full_after_us=10 * SECOND,
        ),
    ) == find_provider("anthropic").readings(shown, NOW_US)


def test_a_full_limit_is_full_and_an_empty_one_empty_despite_rounding() -> None:
    name = "anthropic-ratelimit-output-tokens"
    provider = find_provider("anthropic")
    full, empty = (
        provider.readings({f"{name}-limit": "4000", f"{name}-remaining": left}, NOW_US)
        for left in ("4000", "0")
    )

    assert [4000, 0] == [full[0].remaining, empty[0].remaining]


def test_anthropics_tightest_limit_is_no_limit_of_its_own() -> None:
    """`tokens` repeats whichever of the two is tighter; a total is told apart."""
    provider = find_provider("anthropic")
    split = {
        "anthropic-ratelimit-input-tokens-limit": "30000",
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-tokens-limit": "8000",
    }
    total = {"anthropic-ratelimit-tokens-limit": "4000"}

    assert ["input_tokens", "output_tokens"] == [
        one.unit for one in provider.readings(split, NOW_US)
    ]
    assert ["tokens"] == [one.unit for one in provider.readings(total, NOW_US)]


def test_holysheeps_reset_is_a_moment_read_against_the_answers_date() -> None:
    shown = {
        "X-RateLimit-Limit": "1000",
        "X-RateLimit-Remaining": "997",
        "X-RateLimit-Reset": "1795000010",
        "Date": DATE,
    }
    provider = find_provider("holysheep")

    assert (
        Reading(unit="requests", limit=1000, remaining=997, full_after_us=10 * SECOND),
    ) == provider.readings(shown, NOW_US - HOUR)


def test_deepseek_shows_nothing() -> None:
    shown = {"x-ratelimit-limit-requests": "5", "x-ratelimit-limit": "5"}

    assert () == find_provider("deepseek").readings(shown, NOW_US)


@pytest.mark.parametrize(
    ("limit", "remaining", "reading"),
    [
        ("0", "0", None),  # as Azure's Responses API does
        ("-1", "-1", None),
        ("0", "-1", None),
        ("500", "501", Reading(unit="requests", limit=500)),
        ("500", "-1", Reading(unit="requests", limit=500)),
        ("-1", "7", None),
        ("", "7", None),
        (None, "7", Reading(unit="requests", remaining=7)),
    ],
)
def test_a_limit_of_nothing_and_more_than_all_of_it_say_nothing(
    limit: str | None, remaining: str, reading: Reading | None
) -> None:
    shown = {"x-ratelimit-remaining-requests": remaining}
    if limit is not None:
        shown["x-ratelimit-limit-requests"] = limit
    expected = () if reading is None else (reading,)

    assert expected == find_provider("openai").readings(shown, NOW_US)
