"""Mistakes of limiters that look at their own count alone, and what happens here.

Each docstring names the row of docs/from-a-homemade-limiter.md.
"""

from __future__ import annotations

from ratekeeper import Denied, Grant, Limiter, MemoryStore, Reading
from ratekeeper.testing import ManualClock

MINUTE_S = 60.0


def rested(*limits: str) -> tuple[Limiter, ManualClock]:
    """Return the limits of an account that was used a little, and then not at all."""
    clock = ManualClock(auto=True)
    limiter = Limiter(*limits, store=MemoryStore(clock=clock), account="openai")
    limiter.acquire().settle()
    clock.advance(2 * MINUTE_S)
    return limiter, clock


def shown(remaining: int, limit: int = 60) -> list[Reading]:
    return [Reading(unit="requests", limit=limit, remaining=remaining)]


def in_a_minute(limiter: Limiter, clock: ManualClock, says: list[Reading]) -> int:
    """Count the calls of a minute whose answers all show the same."""
    end_us = clock.now_us() + 60_000_000
    calls = 0
    while True:
        grant = limiter.acquire()
        if clock.now_us() >= end_us:
            return calls
        calls += 1
        grant.answered(says)


def test_less_left_than_the_own_count_says_slows_the_pace() -> None:
    """Row 69: believes its own count alone."""
    limiter, clock = rested("60 rpm")

    alone = in_a_minute(limiter, clock, shown(59))
    shared = in_a_minute(limiter, clock, shown(0))

    assert alone >= 59
    assert shared <= 6


def test_a_429_is_heard_by_every_caller() -> None:
    """Row 70: each caller finds out for itself."""
    limiter, _ = rested("600 rpm")
    limiter.acquire().refused(retry_after_s=3.0)

    others = [limiter.try_acquire() for _ in range(50)]

    assert {3.0} == {x.retry_after_s for x in others if isinstance(x, Denied)}
    assert 50 == sum(isinstance(x, Denied) for x in others)


def test_a_burst_is_tried_by_a_single_call() -> None:
    """Row 71: a window's worth at once after a rest."""
    limiter, _ = rested("60 rpm")

    answers = [limiter.try_acquire() for _ in range(60)]

    assert 2 == sum(isinstance(answer, Grant) for answer in answers)


def test_a_lowered_limit_is_kept_from_the_next_answer_on() -> None:
    """Row 72: limits are numbers in the code."""
    limiter, clock = rested("60 rpm")
    lower = shown(5, limit=6)
    limiter.acquire().answered(lower)
    clock.advance(2 * MINUTE_S)

    calls = in_a_minute(limiter, clock, lower)

    assert 6 == calls
