"""Every rule against a naive account of what it should have let through."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratekeeper.simulator.reset import EveryDay
from ratekeeper.simulator.rules import (
    MINUTE_US,
    SECOND_US,
    Concurrency,
    FixedWindow,
    QuantizedBucket,
    Rule,
    SlidingLog,
    TokenBucket,
)

if TYPE_CHECKING:
    from collections.abc import Callable

START = 1_800_000_000 * SECOND_US

MAKERS: dict[str, Callable[[int, int], Rule]] = {
    "token bucket": TokenBucket,
    "small bucket": lambda n, w: TokenBucket(n, w, capacity=max(1, n // 3)),
    "ticking bucket": lambda n, w: TokenBucket(n, w, tick_us=250_000),
    "quantized bucket": QuantizedBucket,
    "ticking quantized bucket": lambda n, w: QuantizedBucket(n, w, tick_us=SECOND_US),
    "sliding log": SlidingLog,
    "short sliding log": lambda n, w: SlidingLog(n, w, longest=3),
    "fixed window": FixedWindow,
}
makers = st.sampled_from(sorted(MAKERS)).map(MAKERS.__getitem__)
amounts = st.integers(1, 5_000)
windows = st.sampled_from([SECOND_US, 7 * SECOND_US, MINUTE_US, 3600 * SECOND_US])
gaps = st.one_of(st.integers(0, 2_000), st.integers(0, 90 * SECOND_US))
steps = st.lists(st.tuples(gaps, st.floats(0, 1)), max_size=60)

thorough = settings(deadline=None, max_examples=300)


@dataclasses.dataclass
class Admission:
    at: int
    cost: int


def play(rule: Rule, arrivals: list[tuple[int, float]]) -> list[Admission]:
    """Let calls arrive; return those that were admitted."""
    now, admitted = START, []
    for gap, share in arrivals:
        now += gap
        cost = round(share * rule.capacity)
        ready = rule.ready_at(cost, now)
        if ready is not None and ready <= now:
            rule.take(cost, now)
            admitted.append(Admission(now, cost))
    return admitted


@thorough
@given(makers, amounts, windows, steps, st.floats(0, 1))
def test_a_call_is_refused_a_microsecond_before_the_moment_named_and_granted_at_it(
    make: Callable[[int, int], Rule],
    amount: int,
    window: int,
    arrivals: list[tuple[int, float]],
    share: float,
) -> None:
    rule = make(amount, window)
    play(rule, arrivals)
    now = START + sum(gap for gap, _ in arrivals)
    cost = round(share * rule.capacity)
    ready = rule.ready_at(cost, now)
    assert ready is not None

    if ready > now:
        assert ready == rule.ready_at(cost, ready - 1)
    assert ready == rule.ready_at(cost, max(ready, now))


@thorough
@given(makers, amounts, windows, steps)
def test_a_rule_is_whole_at_the_moment_it_names_and_not_before(
    make: Callable[[int, int], Rule],
    amount: int,
    window: int,
    arrivals: list[tuple[int, float]],
) -> None:
    rule = make(amount, window)
    play(rule, arrivals)
    full_at = rule.full_at(START + sum(gap for gap, _ in arrivals))
    before = rule.used(full_at - 1)

    assert 0 == rule.used(full_at)
    assert before > 0 or full_at <= START + sum(gap for gap, _ in arrivals)


@thorough
@given(amounts, windows, steps)
def test_a_sliding_log_admits_exactly_what_fits_into_the_window_that_ends_now(
    amount: int, window: int, arrivals: list[tuple[int, float]]
) -> None:
    admitted = play(SlidingLog(amount, window), arrivals)
    naive: list[Admission] = []
    now = START
    for gap, share in arrivals:
        now += gap
        cost = round(share * amount)
        counted = sum(one.cost for one in naive if now - window < one.at)
        if counted + cost <= amount:
            naive.append(Admission(now, cost))

    assert naive == admitted


@thorough
@given(amounts, windows, steps)
def test_a_sliding_log_that_forgets_order_never_admits_more_in_any_window(
    amount: int, window: int, arrivals: list[tuple[int, float]]
) -> None:
    admitted = play(SlidingLog(amount, window, longest=3), arrivals)

    for last in admitted:
        inside = [a.cost for a in admitted if last.at - window < a.at <= last.at]
        assert sum(inside) <= amount


@thorough
@given(amounts, windows, st.integers(1, 5_000), steps)
def test_a_token_bucket_agrees_with_rational_arithmetic(
    amount: int, window: int, capacity: int, arrivals: list[tuple[int, float]]
) -> None:
    admitted = play(TokenBucket(amount, window, capacity=capacity), arrivals)
    level, now = Fraction(capacity), START
    naive: list[Admission] = []
    for gap, share in arrivals:
        now += gap
        level = min(Fraction(capacity), level + Fraction(gap * amount, window))
        cost = round(share * capacity)
        if cost <= level:
            level -= cost
            naive.append(Admission(now, cost))

    assert naive == admitted


@thorough
@given(amounts, windows, steps)
def test_a_fixed_window_never_holds_more_than_its_amount(
    amount: int, window: int, arrivals: list[tuple[int, float]]
) -> None:
    sums: dict[int, int] = {}
    for one in play(FixedWindow(amount, window), arrivals):
        sums[one.at // window] = sums.get(one.at // window, 0) + one.cost

    assert all(total <= amount for total in sums.values())


@thorough
@given(steps)
def test_sixty_a_minute_quantized_never_lets_two_through_within_a_second(
    arrivals: list[tuple[int, float]],
) -> None:
    admitted = play(QuantizedBucket(60), [(gap, 1.0) for gap, _ in arrivals])
    times = [one.at for one in admitted]

    assert all(b - a >= SECOND_US for a, b in itertools.pairwise(times))


def test_six_hundred_a_minute_quantized_lets_ten_through_at_once_and_no_more() -> None:
    rule = QuantizedBucket(600)
    granted = len(play(rule, [(0, 0.1)] * 30))

    assert 10 == granted
    assert START + SECOND_US // 10 == rule.ready_at(1, START)


@thorough
@given(makers, amounts, amounts, windows, steps, st.floats(0, 1))
def test_a_rule_whose_amount_changes_is_as_exact_as_before(
    make: Callable[[int, int], Rule],
    amount: int,
    other: int,
    window: int,
    arrivals: list[tuple[int, float]],
    share: float,
) -> None:
    rule = make(amount, window)
    play(rule, arrivals)
    now = START + sum(gap for gap, _ in arrivals)
    rule.change(other, now)
    cost = round(share * rule.capacity)
    ready = rule.ready_at(cost, now)
    assert ready is not None
    early = None if ready <= now else rule.ready_at(cost, ready - 1)

    assert other == rule.amount
    assert 1 <= rule.capacity <= max(1, other)
    assert early in {None, ready}
    assert ready == rule.ready_at(cost, max(ready, now))


@pytest.mark.parametrize(
    ("rule", "ready_s"),
    [
        (TokenBucket(60), 2),  # empty, and half as quick as before
        (SlidingLog(60), 60),
        (FixedWindow(60), 60),
    ],
    ids=["token bucket", "sliding log", "fixed window"],
)
def test_what_was_counted_before_a_limit_is_lowered_still_counts(
    rule: Rule, ready_s: int
) -> None:
    for _ in range(60):
        rule.take(1, START)
    rule.change(30, START)

    assert START + ready_s * SECOND_US == rule.ready_at(1, START)


def test_a_slot_limit_that_is_lowered_keeps_the_calls_in_flight() -> None:
    rule = Concurrency(2)
    marks = [rule.take(1, START), rule.take(1, START)]
    rule.change(1, START)
    full = rule.ready_at(1, START)
    for mark in marks:
        rule.release(mark)

    assert full is None
    assert START == rule.ready_at(1, START)


def test_a_ticking_bucket_fills_by_whole_ticks() -> None:
    rule = TokenBucket(60, capacity=1, tick_us=10 * SECOND_US)
    now = START - START % (10 * SECOND_US) + 3 * SECOND_US
    rule.take(1, now)

    assert rule.ready_at(1, now) == now + 7 * SECOND_US


@thorough
@given(makers, amounts, windows, steps, st.integers(1, 3600 * SECOND_US))
def test_time_that_runs_backwards_counts_as_standing_still(
    make: Callable[[int, int], Rule],
    amount: int,
    window: int,
    arrivals: list[tuple[int, float]],
    back: int,
) -> None:
    rule = make(amount, window)
    play(rule, arrivals)
    now = START + sum(gap for gap, _ in arrivals)
    used = rule.used(now)
    free = rule.ready_at(1, now)
    assert free is not None

    assert used == rule.used(now - back)
    if free <= now:
        assert rule.ready_at(1, now - back) == now - back
    else:
        assert free == rule.ready_at(1, now - back)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_what_is_larger_than_the_limit_is_never_ready(name: str) -> None:
    rule = MAKERS[name](60, MINUTE_US)

    assert START == rule.ready_at(rule.capacity, START)
    assert rule.ready_at(rule.capacity + 1, START) is None


def test_a_bucket_in_debt_keeps_out_even_what_costs_nothing() -> None:
    rule = TokenBucket(60)
    rule.take(60, START)
    rule.charge(30, START)

    assert START + 30 * SECOND_US == rule.ready_at(0, START)
    assert START + 31 * SECOND_US == rule.ready_at(1, START)


def test_what_comes_back_never_fills_a_bucket_past_its_capacity() -> None:
    rule = TokenBucket(60)
    mark = rule.take(10, START)
    rule.give_back(mark, 10, START + 30 * SECOND_US)

    assert 0 == rule.used(START + 30 * SECOND_US)
    assert START + 30 * SECOND_US == rule.ready_at(60, START + 30 * SECOND_US)
    assert rule.ready_at(61, START + 30 * SECOND_US) is None


def test_a_refund_to_a_log_counts_only_within_its_window() -> None:
    rule = SlidingLog(10)
    early = rule.take(4, START)
    late = rule.take(6, START + 30 * SECOND_US)
    rule.give_back(late, 5, START + 31 * SECOND_US)
    used_after_refund = rule.used(START + 31 * SECOND_US)
    rule.give_back(early, 4, START + MINUTE_US)

    assert 5 == used_after_refund
    assert 1 == rule.used(START + MINUTE_US)


def test_a_refund_for_a_fixed_window_that_has_gone_changes_nothing() -> None:
    rule = FixedWindow(10)
    start = START - START % MINUTE_US
    mark = rule.take(8, start)
    rule.take(3, start + MINUTE_US)
    rule.give_back(mark, 8, start + MINUTE_US)

    assert 3 == rule.used(start + MINUTE_US)


def test_a_log_of_bounded_length_stays_bounded_and_on_the_strict_side() -> None:
    rule = SlidingLog(1_000_000, longest=100)
    for number in range(5_000):
        rule.take(1, START + number)

    assert len(rule._entries) <= 100
    assert 5_000 == rule.used(START + 5_000)


def test_a_call_merged_into_a_later_one_has_nothing_left_to_give_back() -> None:
    rule = SlidingLog(100, longest=2)
    merged = rule.take(10, START)
    for second in (1, 2):
        rule.take(10, START + second * SECOND_US)
    rule.give_back(merged, 10, START + 3 * SECOND_US)

    assert 30 == rule.used(START + 3 * SECOND_US)


def test_a_concurrency_limit_frees_a_slot_only_when_a_call_ends() -> None:
    rule = Concurrency(2)
    first = rule.take(1, START)
    rule.take(1, START)
    while_full = rule.ready_at(1, START + MINUTE_US)
    rule.release(first)

    assert while_full is None
    assert START + MINUTE_US == rule.ready_at(1, START + MINUTE_US)


def test_a_day_of_a_zone_starts_anew_at_its_own_midnight() -> None:
    rule = FixedWindow(
        5, 24 * 3600 * SECOND_US, calendar=EveryDay(0, "America/Los_Angeles")
    )
    seven_utc = 1_782_889_200 * SECOND_US  # 2026-07-01 07:00 UTC: midnight there
    rule.take(5, seven_utc - 1)

    assert rule.ready_at(1, seven_utc - 1) == seven_utc
