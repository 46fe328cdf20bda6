"""Scenarios over the arithmetic alone: long runs, exact waits, clocks that jump."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from ratekeeper.core.limits import Limit
from ratekeeper.core.meter import NEVER
from ratekeeper.core.policy import rules_of
from ratekeeper.core.units import DAY, HOUR, MINUTE, SECOND
from tests.core.room import START

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratekeeper.core.meter import Meter

ALGORITHMS = ["token-bucket", "sliding-window", "fixed-window", "leaky-bucket", "paced"]
CALENDARS = [
    "UTC",
    "America/Los_Angeles",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "America/Havana",
]


def a_limit(rng: random.Random, using: str) -> Limit:
    """Draw a limit of an algorithm, or a calendar limit."""
    if using == "calendar":
        zone = rng.choice(CALENDARS)
        minute = f"{rng.randrange(24):02}:{rng.randrange(60):02}"
        period = rng.choice(["day", "month"])
        return Limit.parse(
            f"{rng.randint(1, 1000)} tokens/{period} resets {minute} {zone}"
        )
    text = f"{rng.randint(1, 10 ** rng.randint(1, 6))} tokens/"
    text += rng.choice(["second", "minute", "7 seconds", "hour", "0.37 seconds"])
    text += f" using {using}"
    if using in {"token-bucket", "paced"} and rng.random() < 0.5:
        text += f" burst {rng.randint(1, 1000)}"
    return Limit.parse(text)


def a_meter(rng: random.Random, using: str) -> Meter:
    (rule,) = rules_of([a_limit(rng, using)])
    meter = rule.meter(START)
    if rng.random() < 0.3 and using != "calendar":
        (rule,) = rules_of([rule.limit])
        meter = type(meter)(rule.limit, guard_us=rng.randint(1, 2 * SECOND))
    return meter


class Windows:
    """Holds the grants of a run to a rate: never more than `burst + rate x T`."""

    def __init__(self, burst: int, limit: Limit) -> None:
        self.amount, self.window_us = limit.amount, limit.window_us
        self.burst = burst
        # The most that any interval ending now has above the rate, times the window.
        self.above = 0
        self.at_us = START

    def grant(self, cost: int, now: int) -> None:
        flowed = (now - self.at_us) * self.amount
        self.above = max(0, self.above - flowed) + cost * self.window_us
        self.at_us = now

        assert self.above <= self.burst * self.window_us


class Log:
    """Holds the grants of a run to a window: never more than the limit in any."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.entries: list[tuple[int, int]] = []
        self.first = 0
        self.held = 0

    def grant(self, cost: int, now: int) -> None:
        self.entries.append((now, cost))
        self.held += cost
        while self.entries[self.first][0] <= now - self.limit.window_us:
            self.held -= self.entries[self.first][1]
            self.first += 1

        assert self.held <= self.limit.amount


def arrivals(rng: random.Random, limit: Limit, many: int) -> Iterator[tuple[int, int]]:
    """Draw gaps and costs: bursts, floods and pauses."""
    each = max(1, limit.window_us // limit.amount)
    most = max(1, min(limit.amount, 20))
    for _ in range(many):
        kind = rng.random()
        gap = 0 if kind < 0.7 else rng.randint(0, each * (1 if kind < 0.95 else 50))
        yield gap, rng.randint(1, most)


@pytest.mark.slow
@pytest.mark.parametrize("using", ALGORITHMS)
@pytest.mark.parametrize("part", range(4))
def test_a_million_operations_pass_no_window_and_waste_no_thousandth(
    using: str, part: int
) -> None:
    """50,000 operations in each of twenty parts; a guard is left out here."""
    rng = random.Random(f"{using}{part}")
    for _ in range(5):
        limit = a_limit(rng, using).resolved()
        (rule,) = rules_of([limit])
        meter = rule.meter(START)
        judges: list[Windows | Log] = []
        most = min(limit.amount, 20)
        if using in {"token-bucket", "leaky-bucket"}:
            burst = 1 if using == "leaky-bucket" else limit.burst or limit.amount
            judges.append(Windows(max(burst, most), limit))
        if using in {"sliding-window", "paced"}:
            judges.append(Log(limit))
        now, end, used = START, 0, 0
        for gap, asked in arrivals(rng, limit, 5_000):
            now += gap
            cost = min(asked, limit.amount)
            if meter.wait_us(cost, now) == 0:
                meter.admit(cost, now)
                for judge in judges:
                    judge.grant(cost, now)
        # saturated: from here on a call always waits, and the share is measured
        meter = rule.meter(now)
        begin = now
        for _ in range(5_000):
            wait = meter.wait_us(1, now)
            now += wait
            meter.take(1, now)
            used += 1
            end = now
        if end - begin >= 20 * limit.window_us:
            share = used * limit.window_us / (limit.amount * (end - begin))
            assert share >= 0.999


@pytest.mark.parametrize("using", [*ALGORITHMS, "calendar"])
def test_denied_before_the_wait_is_over_and_granted_when_it_is(using: str) -> None:
    """Twenty thousand cases of each algorithm: 100,000 and the calendar's."""
    rng = random.Random(using)
    cases = 0
    while cases < (2_000 if using == "calendar" else 20_000):
        meter = a_meter(rng, using)
        now = START + rng.randint(0, 400 * DAY)
        each = max(1, meter.limit.window_us // meter.limit.amount)
        for _ in range(40):
            now += rng.choice([0, rng.randint(0, 3 * each)])
            cost = rng.randint(1, rng.choice([2, 10, meter.limit.amount]))
            overrun = rng.random()
            if overrun < 0.05:
                meter.take(rng.randint(1, 2 * meter.limit.amount), now)
            elif overrun < 0.15:
                meter.back(rng.randint(0, cost), now - rng.randint(0, each), now)
            wait = meter.wait_us(cost, now)
            if wait == NEVER:
                assert meter.never(cost)
                continue
            if wait:
                cases += 1
                before = rng.choice([1, 1, rng.randint(1, wait)])
                assert meter.wait_us(cost, now + wait - before) > 0
                now += wait
            assert 0 == meter.wait_us(cost, now)
            meter.admit(cost, now)


@pytest.mark.parametrize("using", [*ALGORITHMS, "calendar"])
def test_a_combination_is_granted_exactly_when_its_longest_wait_is_over(
    using: str,
) -> None:
    rng = random.Random(using)
    cases = 0
    while cases < 500:
        meters = [a_meter(rng, using), a_meter(rng, rng.choice(ALGORITHMS))]
        now = START
        for _ in range(20):
            now += rng.choice([0, rng.randint(0, SECOND)])
            costs = [rng.randint(1, min(20, m.limit.amount)) for m in meters]
            waits = [m.wait_us(c, now) for m, c in zip(meters, costs, strict=True)]
            wait = max(waits)
            if wait:
                cases += 1
                early = [
                    m.wait_us(c, now + wait - 1)
                    for m, c in zip(meters, costs, strict=True)
                ]
                assert max(early) > 0
                now += wait
            for meter, cost in zip(meters, costs, strict=True):
                assert 0 == meter.wait_us(cost, now)
                meter.admit(cost, now)


@pytest.mark.parametrize("using", ALGORITHMS)
@pytest.mark.parametrize("jump", [HOUR, DAY, 30 * 365 * DAY])
def test_a_clock_that_jumps_forward_gives_at_most_one_burst(
    using: str, jump: int
) -> None:
    limit = Limit.parse(f"60 tokens/minute using {using}").resolved()
    (rule,) = rules_of([limit])
    meter = rule.meter(START)
    now = START
    for _ in range(200):
        now += meter.wait_us(1, now)
        meter.take(1, now)
    now += jump
    at_once = 0
    while meter.wait_us(1, now) == 0:
        meter.admit(1, now)
        at_once += 1

    assert {"leaky-bucket": 1, "paced": 1}.get(using, 60) == at_once
    assert 0 < meter.wait_us(1, now) <= MINUTE


@pytest.mark.parametrize("using", ALGORITHMS)
def test_a_frozen_clock_grants_one_burst_and_locks_nobody_out_when_it_goes_on(
    using: str,
) -> None:
    limit = Limit.parse(f"60 tokens/minute using {using}").resolved()
    (rule,) = rules_of([limit])
    meter = rule.meter(START)
    for _ in range(1000):
        if meter.wait_us(1, START) == 0:
            meter.admit(1, START)
    wait = meter.wait_us(1, START)

    assert 0 < wait <= MINUTE
    assert 0 == meter.wait_us(1, START + wait)


@pytest.mark.parametrize("using", ALGORITHMS)
@pytest.mark.parametrize("drift", [-500, 500])
def test_a_clock_that_drifts_shifts_the_rate_by_no_more(using: str, drift: int) -> None:
    limit = Limit.parse(f"600 tokens/minute using {using}").resolved()
    (rule,) = rules_of([limit])
    meter = rule.meter(START)
    true_us, used = START, 0
    while true_us < START + 20 * MINUTE:
        seen = true_us + (true_us - START) * drift // 10**6
        wait = meter.wait_us(1, seen)
        assert wait >= 0
        true_us += wait + wait // 1000 + (wait > 0)
        if wait == 0:
            meter.admit(1, seen)
            used += 1

    assert 20 * 600 * 0.99 <= used <= 20 * 600 * 1.001 + 600
