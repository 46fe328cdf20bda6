"""Paced: even spacing, and never more than the limit in any window."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratekeeper.core.limits import Limit
from ratekeeper.core.meter import NEVER
from ratekeeper.core.paced import Paced
from ratekeeper.core.units import MINUTE, SECOND
from tests.core.oracle import ExactBucket, ExactLog
from tests.core.room import START


def paced(text: str, guard_us: int = 0) -> Paced:
    return Paced(Limit.parse(f"{text} using paced"), guard_us=guard_us)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 20 * SECOND), st.integers(0, 600)), max_size=60)
)
def test_both_a_bucket_and_a_log_would_grant_and_neither_waits_longer(
    calls: list[tuple[int, int]],
) -> None:
    meter = paced("600 tokens/minute")
    bucket, log = ExactBucket(10, 600, MINUTE), ExactLog(600, MINUTE)
    bucket.at_us = now = START
    for gap, cost in calls:
        now += gap
        wait = meter.wait_us(cost, now)
        if wait:
            assert meter.wait_us(cost, now + wait - 1) > 0
            now += wait
        assert 0 == meter.wait_us(cost, now)
        assert bucket.fits(cost, now)
        assert log.fits(cost, now)
        meter.admit(cost, now)
        bucket.take(cost, now)
        log.take(cost, now)

    assert log.worst() <= 600


@pytest.mark.parametrize("cost", [10, 500, 2000, 4000, 100_000])
@pytest.mark.parametrize("guard_us", [0, SECOND, 5 * SECOND])
def test_full_rate_flows_at_any_cost_whatever_the_guard(
    cost: int, guard_us: int
) -> None:
    meter = paced("120k tokens/minute", guard_us)
    now, used = START, 0
    while now < START + 5 * MINUTE:
        now += meter.wait_us(cost, now)
        meter.admit(cost, now)
        used += cost
    # what the log's guard takes, and a call that does not divide the limit
    whole = 120_000 // cost * cost / 120_000
    share = whole * 60 / (60 + guard_us / SECOND)

    assert 5 * 120_000 * share * 0.99 <= used


def test_a_call_above_the_limit_never_goes() -> None:
    meter = paced("600 tokens/minute")

    assert meter.never(601)
    assert NEVER == meter.wait_us(601, START)


def test_a_refund_comes_back_to_both() -> None:
    meter = paced("600 tokens/minute")
    meter.take(600, START)
    assert MINUTE == meter.wait_us(10, START)
    meter.back(600, START, START)

    assert 0 == meter.wait_us(10, START)
    assert 0 == meter.used(START)


def test_the_window_says_what_is_used_and_the_larger_backlog_counts() -> None:
    meter = paced("600 tokens/minute")
    meter.take(20, START)

    assert 20 == meter.used(START)
    assert MINUTE == meter.reset_us(START)
    assert 5 * SECOND == meter.backlog_us(30, 10, START)
    assert 62 * SECOND == meter.backlog_us(600, 10, START)
    meter.take(580, START)
    assert MINUTE == meter.backlog_us(0, 10, START)


def test_a_key_whose_bucket_is_empty_is_not_forgotten() -> None:
    meter = paced("600 tokens/minute")
    assert not meter.is_binding(START)
    meter.take(10, START)

    assert meter.is_binding(START)
    assert not meter.is_binding(START + SECOND)
    meter.take(590, START + SECOND)
    assert meter.is_binding(START + MINUTE - 1)


def test_a_changed_amount_changes_both() -> None:
    meter = paced("600 tokens/minute")
    meter.take(10, START)
    meter.change(Limit.parse("1200 tokens/minute using paced"), START)

    assert 0 == meter.wait_us(10, START)
    assert SECOND // 20 == meter.wait_us(11, START)
    assert 1190 == meter.remaining(START)


def test_a_cold_start_changes_nothing_as_it_is_paced_already() -> None:
    meter = paced("600 tokens/minute")
    meter.start_cold(START, paced("600 tokens/minute"))
    meter.confirm(3, 0, START)

    assert not meter.attention
    assert 0 == meter.wait_us(10, START)


def test_what_was_refused_goes_on_evenly_without_a_burst() -> None:
    """A provider that counts seconds would refuse the burst again and again."""
    meter = paced("300 requests/minute")
    meter.admit(1, START)
    meter.pause(START + SECOND)
    meter.back(1, START, START)
    now = START + SECOND
    gaps = []
    for _ in range(10):
        gaps.append(meter.delay_us(1, now))
        now += gaps[-1]
        meter.admit(1, now)

    assert [0] + 9 * [SECOND // 5] == gaps


def test_a_pause_forgives_no_debt() -> None:
    meter = paced("300 tokens/minute")
    meter.admit(100, START)
    meter.pause(START + SECOND)

    assert 19 * SECOND + SECOND // 5 == meter.delay_us(1, START)

    meter.back(100, START, START)

    assert SECOND == meter.delay_us(1, START)
