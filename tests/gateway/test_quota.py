"""A caller's own limits, in the headers of its answers."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.meter import Meter
from ratekeeper.core.policy import HOLD, rules_of
from ratekeeper.core.units import DAY, MINUTE, SECOND
from ratekeeper.gateway.quota import QuotaHeaders
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.facts import Dialect

NOW = 1_764_000_000 * SECOND  # 2025-11-24T16:00:00Z


def written(
    limits: list[str],
    used: list[int],
    dialect: Dialect = Dialect.OPENAI,
    *,
    at_us: int = NOW,
    **options: Any,
) -> dict[str, str]:
    rules = rules_of(limits) if limits else ()
    meters: list[Meter] = [rule.meter(NOW) for rule in rules]
    for meter, cost in zip(meters, used, strict=True):
        meter.take(cost, NOW)
    fields = QuotaHeaders(rules).write(meters, at_us, dialect, **options)
    found = {name.decode(): value.decode() for name, value in fields}

    assert len(fields) == len(found)
    return found


def test_openai_sdks_see_the_callers_requests_and_tokens() -> None:
    found = written(
        ["60 rpm", "10k tpm", "5 concurrent", "$50/day"],
        [3, 4000, HOLD, 7],
        at_us=NOW + 10 * SECOND,
    )

    assert {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "57",
        "x-ratelimit-reset-requests": "50s",
        "x-ratelimit-limit-tokens": "10000",
        "x-ratelimit-remaining-tokens": "6000",
        "x-ratelimit-reset-tokens": "50s",
        "ratelimit-policy": '"60 requests/minute";q=60;w=60;qu="requests", '
        '"10k tokens/minute";q=10000;w=60;qu="tokens", '
        '"5 concurrent";q=5;qu="concurrent-requests"',
        "ratelimit": '"60 requests/minute";r=57;t=50, '
        '"10k tokens/minute";r=6000;t=50, "5 concurrent";r=4',
    } == found


def test_anthropic_sdks_see_them_in_anthropics_names() -> None:
    found = written(
        ["60 rpm", "10k itpm", "2k otpm", "1M tpd"],
        [1, 250, 0, 250],
        Dialect.ANTHROPIC,
        at_us=NOW + 1,
    )

    start = "anthropic-ratelimit-"
    assert {
        "requests-limit": "60",
        "requests-remaining": "59",
        "requests-reset": "2025-11-24T16:01:00Z",
        "tokens-limit": "1000000",
        "tokens-remaining": "999750",
        "tokens-reset": "2025-11-25T16:00:00Z",
        "input-tokens-limit": "10000",
        "input-tokens-remaining": "9750",
        "input-tokens-reset": "2025-11-24T16:01:00Z",
        "output-tokens-limit": "2000",
        "output-tokens-remaining": "2000",
        "output-tokens-reset": "2025-11-24T16:00:01Z",
    } == {k.removeprefix(start): v for k, v in found.items() if k.startswith(start)}


@pytest.mark.parametrize(("used", "shown"), [(5, "60"), (90, "100")])
def test_the_window_that_would_refuse_first_stands_for_its_unit(
    used: int, shown: str
) -> None:
    rules = rules_of(["60 rpm", "100 requests/day"])
    minute, day = (rule.meter(NOW) for rule in rules)
    day.take(used, NOW)
    later = NOW + 2 * MINUTE
    minute.take(5, later)

    found = dict(QuotaHeaders(rules).write([minute, day], later, Dialect.OPENAI))

    assert shown.encode() == found[b"x-ratelimit-limit-requests"]
    assert 2 == found[b"ratelimit"].count(b";r=")


def test_limits_that_read_the_same_have_names_of_their_own() -> None:
    rules = (*rules_of(["60 rpm"]), *rules_of(["60 rpm"]), *rules_of(["60 rpm"]))
    meters = [rule.meter(NOW) for rule in rules]
    thrice = dict(QuotaHeaders(rules).write(meters, NOW, Dialect.OPENAI))

    assert (
        b'"60 requests/minute";r=60;t=0, "60 requests/minute #2";r=60;t=0, '
        b'"60 requests/minute #3";r=60;t=0'
    ) == thrice[b"ratelimit"]


def test_a_refusal_says_what_is_left_and_leaves_the_time_to_its_retry_after() -> None:
    found = written(["60 rpm"], [60], refused=True)

    assert '"60 requests/minute";r=0' == found["ratelimit"]
    assert "0" == found["x-ratelimit-remaining-requests"]


def test_a_limit_that_is_only_watched_is_not_shown() -> None:
    rules = rules_of(["60 rpm", "10 requests/day"], shadow=[1])
    meters = [rule.meter(NOW) for rule in rules]
    meters[1].take(9, NOW)

    found = dict(QuotaHeaders(rules).write(meters, NOW, Dialect.OPENAI))

    assert b"60" == found[b"x-ratelimit-remaining-requests"]
    assert b'"60 requests/minute";r=60;t=0' == found[b"ratelimit"]


@pytest.mark.parametrize("limits", [[], ["$50/day", "350 cny/month"]])
def test_nothing_is_written_where_there_is_nothing_to_show(limits: list[str]) -> None:
    assert {} == written(limits, [0] * len(limits))


@given(after_us=st.integers(0, 2 * DAY), used=st.integers(1, 100))
def test_our_own_reader_of_headers_reads_what_is_meant(
    after_us: int, used: int
) -> None:
    rules = rules_of(["100 requests/day"])
    (meter,) = (rule.meter(NOW) for rule in rules)
    meter.take(used, NOW)
    now = NOW + after_us
    fields = QuotaHeaders(rules).write([meter], now, Dialect.OPENAI)
    text = {name.decode(): value.decode() for name, value in fields}

    (reading,) = find_provider("openai").readings(text, now)

    left_us = meter.reset_us(now)
    assert (100, meter.remaining(now)) == (reading.limit, reading.remaining)
    assert reading.full_after_us is not None
    assert left_us <= reading.full_after_us < left_us + 1000


@given(after_us=st.integers(0, 2 * DAY))
def test_a_moment_is_never_before_the_limit_is_whole(after_us: int) -> None:
    now = NOW + after_us
    found = written(["100 requests/day"], [7], Dialect.ANTHROPIC, at_us=now)

    said = datetime.datetime.fromisoformat(
        found["anthropic-ratelimit-requests-reset"]
    ).timestamp()
    whole_us = max(NOW + DAY, now)
    assert whole_us <= said * SECOND < whole_us + SECOND + DAY // 200


_ITEM = re.compile(r'"[ !#-\[\]-~]*"(?:;[a-z]+=(?:\d{1,15}|"[ !#-\[\]-~]*"))*')


@given(
    limits=st.lists(
        st.sampled_from(
            [
                "60 rpm",
                "1 rps",
                "10 tokens/5 hours",
                "9 x_1/day",
                "3 concurrent",
                "7 requests/day resets 06:00 Asia/Shanghai",
                "60 rpm burst 5",
            ]
        ),
        min_size=1,
        unique=True,
    )
)
def test_every_limit_is_a_structured_field_of_the_drafts(limits: list[str]) -> None:
    found = written(limits, [0] * len(limits))

    for name in ("ratelimit", "ratelimit-policy"):
        items = found[name].split(", ")
        assert len(limits) == len(items)
        assert all(_ITEM.fullmatch(item) for item in items)
