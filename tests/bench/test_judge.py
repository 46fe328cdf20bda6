"""The judge of the 2 a.m. table: a wrong one would praise or blame anybody."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gateways.judge import WINDOW_US, allowed, most

TIMES = st.lists(st.integers(0, 4 * WINDOW_US), max_size=40)
SECOND = 1_000_000


def test_calls_a_window_apart_are_not_in_one_window() -> None:
    assert 1 == most([0, WINDOW_US])


def test_calls_a_microsecond_less_apart_are() -> None:
    assert 2 == most([0, WINDOW_US - 1])


def test_a_boundary_of_minutes_is_no_boundary() -> None:
    last = [WINDOW_US - SECOND + n for n in range(60)]
    first = [WINDOW_US + n for n in range(60)]

    assert 120 == most([*last, *first])


def test_nobody_asked_is_nobody_let_through() -> None:
    assert 0 == most([])
    assert 0 == allowed([], 60, 0)


def test_of_two_hundred_at_once_a_minute_lets_sixty_through() -> None:
    assert 60 == allowed([0] * 200, 60, 0)


def test_who_waits_a_minute_comes_in_the_next_window() -> None:
    assert 120 == allowed([0] * 200, 60, WINDOW_US)


def test_who_waits_a_microsecond_less_does_not() -> None:
    assert 60 == allowed([0] * 200, 60, WINDOW_US - 1)


@given(TIMES, st.integers(1, 5))
def test_what_is_allowed_without_waiting_keeps_the_limit(
    times: list[int], calls: int
) -> None:
    """The two halves of the judge check each other, one call at a time."""
    let_in: list[int] = []
    for at in sorted(times):
        if most([*let_in, at]) <= calls:
            let_in.append(at)

    assert len(let_in) == allowed(times, calls, 0)


@given(TIMES, st.integers(1, 5), st.integers(0, WINDOW_US))
def test_patience_never_lets_fewer_through(
    times: list[int], calls: int, wait_us: int
) -> None:
    assert allowed(times, calls, 0) <= allowed(times, calls, wait_us)
