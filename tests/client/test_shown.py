"""What the headers of one answer say of limits, and nothing that they do not say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.client.shown import ShownLimit, shown, window_of
from ratekeeper.core import units
from ratekeeper.core.limits import Limit
from ratekeeper.core.reading import Reading
from ratekeeper.providers.catalog import find_provider

NOW = 1_800_000_000 * units.SECOND
WINDOWS = [units.SECOND, units.MINUTE, units.HOUR, units.DAY]


def _openai(
    limit: str, remaining: str, reset: str, unit: str = "requests"
) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{unit}": limit,
        f"x-ratelimit-remaining-{unit}": remaining,
        f"x-ratelimit-reset-{unit}": reset,
    }


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "text"),
    [
        ("500", "499", "120ms", "500 requests/minute"),
        ("3500", "3499", "17ms", "3500 requests/minute"),
        ("200", "199", "7m12s", "200 requests/day"),
        ("10000", "9999", "8.64s", "10k requests/day"),
        ("500", "500", "0s", None),
        ("500", "499", "39ms", None),
    ],
)
def test_openais_reset_tells_the_window_where_something_is_used(
    limit: str, remaining: str, reset: str, text: str | None
) -> None:
    (found,) = shown(find_provider("openai"), _openai(limit, remaining, reset), NOW)

    assert (text, int(limit)) == (found.limit, found.amount)


def test_a_reset_that_may_be_a_window_s_end_tells_no_window() -> None:
    # 60 requests, one used, whole again in 60 s: a fresh minute or one of an hour.
    headers = {
        "x-ratelimit-limit": "60",
        "x-ratelimit-remaining": "59",
        "x-ratelimit-reset": "60",
    }
    (found,) = shown(find_provider("holysheep"), headers, NOW)

    assert (
        ShownLimit(unit="requests", amount=60, remaining=59, full_after_s=60.0) == found
    )


def test_a_provider_that_names_the_window_is_believed() -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "50",
        "anthropic-ratelimit-input-tokens-limit": "30000",
        "anthropic-ratelimit-input-tokens-remaining": "30000",
    }
    found = shown(find_provider("anthropic"), headers, NOW)

    assert ["50 requests/minute", "30k input_tokens/minute"] == [
        one.limit for one in found
    ]
    assert [60.0, 60.0] == [one.window_s for one in found]


def test_no_headers_show_no_limits() -> None:
    assert () == shown(find_provider("openai"), {"date": "now"}, NOW)


@given(
    st.sampled_from(WINDOWS),
    st.integers(1, 10**9),
    st.data(),
)
def test_the_window_of_a_bucket_is_found_or_left_open_but_never_another(
    window_us: int, limit: int, data: st.DataObject
) -> None:
    taken = data.draw(st.integers(0, limit))
    exact_us = taken * window_us // limit
    reading = Reading(
        unit="requests",
        limit=limit,
        remaining=limit - taken,
        full_after_us=exact_us // 1000 * 1000,  # as "17ms" is written
    )

    assert window_of(reading) in {None, window_us}


@given(st.sampled_from(WINDOWS), st.integers(1, 2000))
def test_the_window_of_a_bucket_that_refills_slowly_is_found(
    window_us: int, limit: int
) -> None:
    taken = -(-limit // 2)
    reading = Reading(
        unit="requests",
        limit=limit,
        remaining=limit - taken,
        full_after_us=-(-taken * window_us // limit),
    )

    assert window_us == window_of(reading)


@given(st.integers(1, 10**15 - 1))
def test_what_is_shown_as_a_limit_is_one(limit: int) -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": str(limit),
        "anthropic-ratelimit-requests-remaining": "0",
    }
    (found,) = shown(find_provider("anthropic"), headers, NOW)

    assert found.limit is not None
    assert found.amount == Limit.parse(found.limit).amount
