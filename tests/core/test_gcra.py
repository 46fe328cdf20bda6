"""The token bucket and the leaky bucket against a level kept as a fraction."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.gcra import Bucket, second_of
from ratekeeper.core.limits import Limit
from ratekeeper.core.meter import NEVER
from ratekeeper.core.units import MINUTE, SECOND
from tests.core.oracle import ExactBucket, limit_of

START = 1_800_000_000_000_000

amounts = st.integers(1, 10**6)
windows = st.one_of(st.integers(1, 10_000), st.sampled_from([SECOND, MINUTE]))
steps = st.lists(
    st.tuples(st.integers(0, 200_000), st.integers(0, 3 * 10**6)), max_size=60
)


def bucket(text: str, guard_us: int = 0) -> Bucket:
    return Bucket(Limit.parse(text).resolved(), guard_us=guard_us)


def paced(text: str, guard_us: int = 0) -> Bucket:
    return Bucket(Limit.parse(text).resolved(), paced=True, guard_us=guard_us)


@given(amounts, windows, st.integers(1, 10**6), steps)
def test_a_bucket_answers_as_a_level_kept_as_a_fraction(
    amount: int, window_us: int, burst: int, calls: list[tuple[int, int]]
) -> None:
    limit = dataclasses.replace(
        limit_of(amount, window_us, "token-bucket"), burst=burst
    )
    ours, oracle = Bucket(limit), ExactBucket(burst, amount, window_us)
    now = START
    oracle.at_us = now
    for gap, cost in calls:
        now += gap
        if ours.never(cost):
            assert NEVER == ours.wait_us(cost, now)
            continue
        wait = ours.wait_us(cost, now)

        assert oracle.fits(cost, now) == (wait == 0)
        if wait == 0:
            ours.admit(cost, now)
            oracle.take(cost, now)
        else:
            assert 1 == ours.wait_us(cost, now + wait - 1)
            assert 0 == ours.wait_us(cost, now + wait)


@given(
    st.integers(1, 1000),
    st.integers(1, 10_000),
    st.integers(1, 50),
    st.integers(0, 20_000),
    st.integers(1, 100),
    st.lists(st.integers(0, 3000), max_size=40),
)
def test_a_guard_costs_none_of_the_rate_at_any_cost(
    amount: int,
    window_us: int,
    burst: int,
    guard_us: int,
    cost: int,
    idles: list[int],
) -> None:
    limit = dataclasses.replace(
        limit_of(amount, window_us, "token-bucket"), burst=burst
    )
    cost = min(cost, max(burst, amount))
    meter = Bucket(limit, guard_us=guard_us)
    now = START
    for idle in idles:
        now += idle
        now += meter.wait_us(cost, now)
        meter.admit(cost, now)
    start = now
    for _ in range(50):
        now += meter.wait_us(cost, now)
        meter.admit(cost, now)

    # 50 calls at the limit's rate, and the wait for the first of them
    rate_us = -(-51 * cost * window_us // amount)
    assert rate_us + 51 >= now - start


def test_a_guard_takes_what_arrives_bunched_off_the_burst() -> None:
    meter = bucket("60 rpm burst 10", guard_us=3 * SECOND)
    for _ in range(7):
        assert 0 == meter.wait_us(1, START)
        meter.admit(1, START)

    assert SECOND == meter.wait_us(1, START)


@pytest.mark.parametrize(
    "text", ["60 rpm burst 1", "60 rpm using leaky-bucket", "10 rps burst 10"]
)
def test_a_guard_longer_than_the_burst_leaves_one_call_at_once(text: str) -> None:
    limit = Limit.parse(text).resolved()
    meter = bucket(text, guard_us=5 * SECOND)
    assert 0 == meter.wait_us(1, START)
    meter.admit(1, START)

    assert meter.wait_us(1, START) == limit.window_us // limit.amount


def test_ten_at_once_then_one_a_second() -> None:
    meter = bucket("60 requests/minute burst 10")
    for _ in range(10):
        assert 0 == meter.wait_us(1, START)
        meter.admit(1, START)

    assert SECOND == meter.wait_us(1, START)


def test_a_leaky_bucket_spaces_calls_evenly() -> None:
    meter = bucket("60 rpm using leaky-bucket")
    now, waits = START, []
    for _ in range(5):
        wait = meter.wait_us(1, now)
        waits.append(wait)
        now += wait
        meter.admit(1, now)

    assert [0, SECOND, SECOND, SECOND, SECOND] == waits


def test_a_call_above_the_burst_goes_when_the_bucket_is_full() -> None:
    meter = bucket("60 rpm burst 5")
    assert not meter.never(60)
    assert 0 == meter.wait_us(60, START)
    meter.admit(60, START)

    assert 56 * SECOND == meter.wait_us(1, START)
    assert 60 * SECOND == meter.wait_us(60, START)
    assert 0 == meter.remaining(START)
    assert 60 * SECOND == meter.reset_us(START)


def test_a_call_above_burst_and_limit_never_goes() -> None:
    meter = bucket("60 rpm burst 5")

    assert meter.never(61)
    assert NEVER == meter.wait_us(61, START)
    assert not bucket("60 rpm burst 100").never(100)


def test_a_cost_of_nothing_passes_a_bucket_in_debt() -> None:
    meter = bucket("60 rpm burst 5")
    meter.take(50, START)

    assert 0 == meter.wait_us(0, START)


def test_a_refund_is_there_at_once_and_fills_no_further_than_full() -> None:
    meter = bucket("60 rpm")
    meter.admit(60, START)
    meter.back(40, START, START + SECOND)

    assert 41 == meter.remaining(START + SECOND)
    meter.back(20, START, START + SECOND)
    assert 60 == meter.remaining(START + SECOND)
    meter.admit(60, START + SECOND)
    assert SECOND == meter.wait_us(1, START + SECOND)


def test_a_refund_from_before_the_bucket_was_full_changes_nothing() -> None:
    meter = bucket("60 rpm")
    meter.admit(10, START)
    later = START + 20 * SECOND
    meter.admit(30, later)
    meter.back(10, START, later)

    assert 30 == meter.remaining(later)


def test_an_overrun_is_debt_that_delays_later_calls() -> None:
    meter = bucket("60 rpm burst 5")
    meter.admit(5, START)
    meter.take(10, START)

    assert 11 * SECOND == meter.wait_us(1, START)
    assert 15 == meter.used(START)
    assert 0 == meter.remaining(START)


@given(st.integers(1, 1000), st.integers(0, 2000), st.integers(0, 2 * MINUTE))
def test_a_bucket_is_full_at_its_reset_and_not_before(
    amount: int, used: int, passed: int
) -> None:
    meter = bucket(f"{amount} rpm")
    meter.take(used, START)
    now = START + passed
    reset = meter.reset_us(now)

    assert 0 == meter.wait_us(amount, now + reset)
    if reset:
        assert 1 == meter.wait_us(amount, now + reset - 1)


@given(st.integers(1, 100), st.integers(0, 60), st.integers(1, 600))
def test_a_changed_amount_keeps_what_was_used(
    before: int, used: int, amount: int
) -> None:
    meter = bucket(f"{before} rpm")
    meter.take(used, START)
    meter.change(Limit.parse(f"{amount} rpm").resolved(), START)

    assert used == meter.used(START)
    assert max(0, amount - used) == meter.remaining(START)


def test_a_changed_burst_is_in_force_at_once() -> None:
    meter = bucket("60 rpm burst 5")
    meter.admit(5, START)
    meter.change(Limit.parse("120 rpm burst 10").resolved(), START)

    assert 5 == meter.remaining(START)
    assert SECOND // 2 == meter.wait_us(6, START)


@pytest.mark.parametrize(
    ("before", "after", "at_once"),
    [("1 rpm", "600 rpm", 10), ("600 rpm", "1 rpm", 1), ("5 rps", "50 rps", 50)],
)
def test_a_paced_bucket_holds_a_second_of_whatever_limit_is_in_force(
    before: str, after: str, at_once: int
) -> None:
    meter = paced(before)
    meter.change(Limit.parse(after).resolved(), START)

    assert at_once == meter.remaining(START)


def test_a_second_of_a_slow_limit_is_one() -> None:
    assert 1 == second_of(Limit.parse("5 requests/hour"))
    assert 2000 == second_of(Limit.parse("120k tpm"))


def test_a_cold_bucket_starts_with_one_second_and_is_full_a_window_later() -> None:
    meter = bucket("600 rpm burst 100")
    meter.start_cold(START, paced("600 rpm"))

    assert 10 == meter.remaining(START)
    assert meter.attention
    assert 100 == meter.remaining(START + MINUTE)
    meter.settle_attention(START + MINUTE)
    assert not meter.attention


def test_a_cold_bucket_smaller_than_a_second_starts_full() -> None:
    meter = bucket("600 rpm burst 3")
    meter.start_cold(START, paced("600 rpm"))

    assert 3 == meter.remaining(START)


@pytest.mark.parametrize(("says", "level"), [(99, 94), (500, 100), (7, 2), (0, 0)])
def test_confirming_holds_what_the_provider_says_less_what_came_since(
    says: int, level: int
) -> None:
    meter = bucket("600 rpm burst 100")
    meter.start_cold(START, paced("600 rpm"))
    meter.charge(1, START)
    charged = meter.charged
    meter.charge(5, START)
    meter.confirm(says, charged, START)

    assert level == meter.remaining(START)


def test_confirming_a_bucket_that_is_not_cold_changes_nothing() -> None:
    meter = bucket("600 rpm burst 100")
    meter.confirm(3, 0, START)

    assert 100 == meter.remaining(START)
    meter.start_cold(START, paced("600 rpm"))
    meter.confirm(3, 0, START + MINUTE)
    assert 100 == meter.remaining(START + MINUTE)


def test_the_backlog_is_when_a_call_fits_behind_those_ahead() -> None:
    meter = bucket("60 rpm burst 5")

    assert 0 == meter.backlog_us(0, 5, START)
    assert SECOND == meter.backlog_us(5, 1, START)
    assert 10 * SECOND == meter.backlog_us(10, 60, START)
    meter.take(5, START)
    assert 2 * SECOND == meter.backlog_us(0, 2, START)
    assert 5 * SECOND == meter.backlog_us(3, 2, START)


def test_an_empty_bucket_is_not_forgotten() -> None:
    meter = bucket("60 rpm burst 5")
    assert not meter.is_binding(START)
    meter.admit(5, START)

    assert meter.is_binding(START)
    assert not meter.is_binding(START + SECOND)
