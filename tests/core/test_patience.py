"""How much of a call's time is kept for its answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.patience import Patience
from ratekeeper.core.units import SECOND

times = st.integers(0, 3600 * SECOND)


def test_before_the_first_answer_all_of_the_time_may_be_spent_in_line() -> None:
    assert 10 * SECOND == Patience().in_line_us(10 * SECOND)


def test_after_the_first_answer_three_times_as_much_is_kept() -> None:
    patience = Patience()
    patience.took(SECOND)

    assert 97 * SECOND == patience.in_line_us(100 * SECOND)


def test_of_answers_that_take_the_same_time_an_eighth_more_is_kept() -> None:
    patience = Patience()
    for _ in range(40):
        patience.took(SECOND)
    kept = 100 * SECOND - patience.in_line_us(100 * SECOND)

    assert 1.125 * SECOND == kept


@given(st.lists(times, max_size=20), times)
def test_a_quarter_of_the_time_may_always_be_spent_in_line(
    answers: list[int], left: int
) -> None:
    patience = Patience()
    for us in answers:
        patience.took(us)

    assert left // 4 <= patience.in_line_us(left) <= left


@given(st.lists(times, min_size=200, max_size=200, unique=True))
def test_what_is_kept_is_within_what_answers_take(
    answers: list[int],
) -> None:
    patience = Patience()
    for us in answers:
        patience.took(us)
    kept = 40 * 3600 * SECOND - patience.in_line_us(40 * 3600 * SECOND)

    assert min(answers) <= kept
    assert kept <= max(max(answers) * 9 // 8, 5 * max(answers) - 4 * min(answers)) + 16


@pytest.mark.parametrize("slow", [5, 20])
def test_answers_that_become_slower_are_soon_allowed_for(slow: int) -> None:
    patience = Patience()
    for _ in range(50):
        patience.took(SECOND)
    for _ in range(3):
        patience.took(slow * SECOND)

    assert 100 * SECOND - patience.in_line_us(100 * SECOND) >= slow * SECOND


def test_slow_answers_are_forgotten() -> None:
    patience = Patience()
    for _ in range(50):
        patience.took(30 * SECOND)
    for _ in range(60):
        patience.took(SECOND)

    assert 100 * SECOND - patience.in_line_us(100 * SECOND) < 1.2 * SECOND
