"""What stands before every algorithm: pauses and the cold start."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.gcra import Bucket
from ratekeeper.core.limits import Limit
from ratekeeper.core.meter import Meter
from ratekeeper.core.policy import Account, rules_of
from ratekeeper.core.units import MINUTE, SECOND
from ratekeeper.core.window import SlidingWindow
from tests.core.room import START


def cold(text: str = "600 rpm using sliding-window") -> Meter:
    (rule,) = rules_of([text], Account())
    return rule.meter(START)


def warm(text: str = "600 rpm") -> SlidingWindow:
    return SlidingWindow(Limit.parse(text).resolved())


def test_a_meter_says_nothing_of_its_own() -> None:
    limit = Limit.parse("60 rpm")
    meter = Meter(limit)

    for question in (
        lambda: meter.wait_us(1, START),
        lambda: meter.admit(1, START),
        lambda: meter.back(1, START, START),
        lambda: meter.never(1),
        lambda: meter.backlog_us(1, 1, START),
        lambda: meter.used(START),
        lambda: meter.reset_us(START),
    ):
        with pytest.raises(NotImplementedError):
            question()


def test_nobody_passes_a_pause_and_the_longest_one_counts() -> None:
    meter = warm()
    meter.pause(START + 5 * SECOND)
    meter.pause(START + 2 * SECOND)

    assert meter.attention
    assert 5 * SECOND == meter.delay_us(1, START)
    assert 1 == meter.delay_us(1, START + 5 * SECOND - 1)
    assert 0 == meter.delay_us(1, START + 5 * SECOND)
    assert 5 * SECOND == meter.behind_us(0, 1, START)
    assert meter.is_binding(START)
    meter.settle_attention(START + 5 * SECOND)
    assert not meter.attention


def test_a_cold_window_is_paced_until_a_window_has_passed() -> None:
    meter = cold()
    assert meter.attention
    for _ in range(10):
        assert 0 == meter.delay_us(1, START)
        meter.charge(1, START)

    assert SECOND // 10 == meter.delay_us(1, START)
    assert 11 * SECOND // 10 == meter.behind_us(10, 1, START)
    later = START + MINUTE
    assert 0 == meter.delay_us(500, later)
    assert meter.pace is None
    assert 0 == meter.delay_us(1, later)


@given(st.lists(st.tuples(st.integers(0, 4 * SECOND), st.integers(1, 60)), max_size=40))
def test_a_cold_wait_is_exact(calls: list[tuple[int, int]]) -> None:
    meter = cold("60 tokens/minute using sliding-window")
    now = START
    for gap, cost in calls:
        now += gap
        wait = meter.delay_us(cost, now)
        if wait:
            assert meter.delay_us(cost, now + wait - 1) > 0
            now += wait
        assert 0 == meter.delay_us(cost, now)
        meter.charge(cost, now)


def test_a_changed_amount_changes_the_pace_of_a_cold_start() -> None:
    meter = cold("60 rpm using sliding-window")
    meter.charge(1, START)
    assert SECOND == meter.delay_us(1, START)
    meter.change(Limit.parse("600 rpm using sliding-window"), START)

    assert 0 == meter.delay_us(9, START)
    assert SECOND // 10 == meter.delay_us(10, START)


def test_what_the_provider_confirms_ends_the_cold_start() -> None:
    meter = cold()
    meter.charge(1, START)
    charged = meter.charged
    meter.charge(4, START)
    meter.confirm(500, charged, START)

    assert meter.pace is None
    # 500 left when it answered, 4 taken since
    assert 496 == meter.remaining(START)
    assert 0 == meter.delay_us(496, START)


def test_a_provider_that_says_more_than_is_left_here_is_not_believed() -> None:
    meter = cold()
    meter.charge(5, START)
    meter.confirm(10_000, meter.charged, START)

    assert 595 == meter.remaining(START)


@pytest.mark.parametrize("when", [START + MINUTE, START + 2 * MINUTE])
def test_confirming_after_the_cold_start_changes_nothing(when: int) -> None:
    meter = cold()
    meter.confirm(0, 0, when)

    assert 600 == meter.remaining(when)
    warmed = warm()
    warmed.confirm(0, 0, START)
    assert 600 == warmed.remaining(START)


def test_a_key_at_its_limit_is_not_forgotten_and_one_below_it_may_be() -> None:
    meter = warm("5 rpm")
    assert not meter.is_binding(START)
    meter.take(4, START)
    assert not meter.is_binding(START)
    meter.take(1, START)

    assert meter.is_binding(START)
    assert not meter.is_binding(START + MINUTE)


def test_what_is_charged_is_counted_for_a_later_confirmation() -> None:
    meter = Bucket(Limit.parse("60 rpm burst 5").resolved())
    meter.charge(2, START)
    meter.charge(1, START)

    assert 3 == meter.charged
    assert 7 == meter.weight(7)
