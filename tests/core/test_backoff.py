"""The retry schedule: full jitter, the hint as the floor, a budget for all of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.backoff import (
    BUDGET,
    COST,
    COST_THROTTLED,
    Backoff,
    RetryBudget,
)
from ratekeeper.core.units import SECOND
from ratekeeper.errors import ConfigError

attempts = st.integers(1, 200)


def ceiling(backoff: Backoff, attempt: int) -> int:
    return min(backoff.cap_us, backoff.base_us << (attempt - 1))


@given(attempts, st.integers(0, 2**32))
def test_without_a_hint_the_wait_is_drawn_from_all_up_to_the_doubling_cap(
    attempt: int, seed: int
) -> None:
    backoff = Backoff(attempts=1000)
    wait = backoff.wait_us(attempt, None, random.Random(seed))

    assert wait is not None
    assert 0 <= wait <= ceiling(backoff, attempt)


@given(attempts, st.integers(1, 10**12), st.integers(0, 2**32))
def test_a_hint_is_the_floor_and_is_not_multiplied(
    attempt: int, hint: int, seed: int
) -> None:
    backoff = Backoff(attempts=1000)
    wait = backoff.wait_us(attempt, hint, random.Random(seed))

    assert wait is not None
    assert hint <= wait <= hint + ceiling(backoff, attempt)


@given(attempts, st.integers(0, 2**32))
def test_a_hint_of_nothing_leaves_the_back_off_as_the_floor(
    attempt: int, seed: int
) -> None:
    backoff = Backoff(attempts=1000)
    wait = backoff.wait_us(attempt, 0, random.Random(seed))

    assert wait is not None
    assert ceiling(backoff, attempt) // 2 <= wait <= ceiling(backoff, attempt)


def test_a_hundred_retries_are_spread() -> None:
    backoff = Backoff()
    draw = random.Random(1)
    waits = [backoff.wait_us(1, 5 * SECOND, draw) or 0 for _ in range(100)]

    assert len(set(waits)) > 95
    quarters = [
        sum(q <= 4 * (w - 5 * SECOND) / SECOND < q + 1 for w in waits) for q in range(4)
    ]
    assert min(quarters) > 10


@pytest.mark.parametrize("attempt", [3, 4, 100])
def test_there_is_no_wait_after_the_last_attempt(attempt: int) -> None:
    assert Backoff().wait_us(attempt, SECOND, random.Random(1)) is None


def test_one_attempt_is_never_repeated() -> None:
    assert Backoff(attempts=1).wait_us(1, None, random.Random(1)) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"base_us": -1},
        {"base_us": 2, "cap_us": 1},
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Backoff(**fields)


def test_a_retry_budget_runs_out_and_is_filled_by_successes() -> None:
    budget = RetryBudget()
    faults = 0
    while budget.spend(throttled=False):
        faults += 1

    assert BUDGET // COST == faults
    assert budget.spend(throttled=True) is (BUDGET % COST >= COST_THROTTLED)
    left = budget.left
    for _ in range(COST):
        budget.succeeded()
    assert left + COST == budget.left
    assert budget.spend(throttled=False)


def test_a_retry_budget_never_grows_past_its_size() -> None:
    budget = RetryBudget()
    budget.succeeded()

    assert BUDGET == budget.left


def test_the_figures_are_those_of_the_sources_named() -> None:
    assert (500, 14, 5) == (BUDGET, COST, COST_THROTTLED)
    assert Backoff(attempts=3, base_us=SECOND, cap_us=20 * SECOND) == Backoff()


def test_a_budget_is_spent_to_the_last() -> None:
    budget = RetryBudget(COST)

    assert budget.spend(throttled=False)
    assert 0 == budget.left
    assert not budget.spend(throttled=True)


def test_the_wait_may_be_nothing_at_all() -> None:
    draw = random.Random(1)
    waits = {Backoff(base_us=1, cap_us=1).wait_us(1, None, draw) for _ in range(50)}

    assert {0, 1} == waits
    assert 0 == Backoff(base_us=0).wait_us(1, None, draw)
