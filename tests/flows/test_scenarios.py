"""Scenarios that a good limiter must pass, at size."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from ratekeeper import AsyncLimiter, Grant, Limiter, MemoryStore, NeverPossible
from ratekeeper.core.units import MINUTE
from ratekeeper.testing import ManualClock, VirtualLoop, run_virtual
from tests.flows.world import Call, Tasks, assert_idle, granted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.flows.world import World


@pytest.fixture
def _hurried() -> Iterator[None]:
    """Switch threads a hundred times as often as usual."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_hurried")
@pytest.mark.parametrize(
    "rounds", [300, pytest.param(10_000, marks=[pytest.mark.slow])]
)
@pytest.mark.timeout(120)
def test_64_threads_get_exactly_the_burst_in_every_round(rounds: int) -> None:
    """A round is a key; the threads run through all of them side by side."""
    store = MemoryStore(clock=ManualClock())
    limiter = Limiter("60 rpm burst 5", store=store)
    won: list[list[int]] = []

    def run() -> None:
        mine = [
            at
            for at in range(rounds)
            if isinstance(limiter.try_acquire(key=str(at)), Grant)
        ]
        won.append(mine)

    threads = [threading.Thread(target=run) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = [0] * rounds
    for mine in won:
        for at in mine:
            counts[at] += 1

    assert {5} == set(counts)


@pytest.mark.parametrize(
    "rounds", [500, pytest.param(10_000, marks=[pytest.mark.slow])]
)
@pytest.mark.timeout(120)
def test_1000_tasks_get_exactly_the_burst_in_every_round(rounds: int) -> None:
    """Each round is fought over by thirty-odd of a thousand tasks."""
    loop = VirtualLoop()
    limiter = AsyncLimiter("60 rpm burst 5", store=MemoryStore(clock=loop.clock))
    counts = [0] * rounds

    async def run(task: int) -> None:
        for at in range(task % 32, rounds, 32):
            if await limiter.try_acquire(key=str(at)):
                counts[at] += 1
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(run(task) for task in range(1000)))

    run_virtual(main(), loop)

    assert {5} == set(counts)


@pytest.mark.parametrize("seed", range(3))
def test_wrong_estimates_settle_into_the_limit(world: World, seed: int) -> None:
    """Estimates between a tenth and ten times of what is used, under full demand."""
    draw = random.Random(seed)
    limit = 6000
    calls = []
    actual = [draw.randint(20, 600) for _ in range(240)]
    for at, used in enumerate(actual):
        estimate = min(limit, max(1, round(used * 10 ** draw.uniform(-1, 1))))
        calls.append(
            Call(
                at_s=at * 1e-6,
                cost={"tokens": estimate},
                lasts_s=1.0 + at * 1e-4,  # no two end at one instant
                ends=partial(_settle, tokens=used),
            )
        )
    outcomes = world.play([f"{limit} tpm"], calls)
    log = [
        (round(start_s * 1e6), round(outcome.ended_s * 1e6), call.cost["tokens"], used)
        for start_s, outcome, call, used in zip(
            granted(outcomes), outcomes, calls, actual, strict=True
        )
    ]
    for now, _, _, _ in log:
        known = sum(
            used if end <= now else estimate
            for start, end, estimate, used in log
            if now - MINUTE < start <= now
        )

        assert known <= limit

    took = max(start for start, _, _, _ in log)
    settled = sum(used for _, end, _, used in log if end <= took)

    assert settled <= limit * (took / MINUTE + 1)
    assert_idle(world.store)


def test_wrong_estimates_waste_next_to_nothing() -> None:
    """What was reserved in vain is back before it is missed."""
    draw = random.Random(7)
    limit = 6000
    actual = [draw.randint(5, 60) for _ in range(3000)]
    calls = [
        Call(
            at_s=at * 1e-6,
            cost={"tokens": max(1, round(used * 10 ** draw.uniform(-1, 1)))},
            lasts_s=1.0,
            ends=partial(_settle, tokens=used),
        )
        for at, used in enumerate(actual)
    ]
    took_s = max(granted(Tasks().play([f"{limit} tpm"], calls)))

    assert 0.95 * limit * took_s / 60 <= sum(actual) <= limit * (took_s / 60 + 1)


def _settle(grant: Grant, *, tokens: int) -> None:
    grant.settle(tokens=tokens)


def test_five_calls_at_once_that_use_more_than_they_said_pay_for_it(
    world: World,
) -> None:
    """100 tokens a minute, five concurrent calls, 663 tokens: litellm #18730."""
    calls = [
        Call(
            at_s=at * 1e-6,
            cost={"tokens": 20},
            lasts_s=2.0,
            ends=partial(_settle, tokens=used),
        )
        for at, used in enumerate([133, 133, 133, 132, 132])
    ]
    later = Call(at_s=3.0, cost={"tokens": 20})
    outcomes = world.play(["100 tpm"], [*calls, later])

    assert [0.0] * 5 == pytest.approx(granted(outcomes)[:5], abs=1e-5)
    # 663 used: six minutes pay for 600 of them, and the call waits for its share.
    assert 360.0 <= granted(outcomes)[5] <= 424.0


def test_a_single_call_above_capacity_fails_at_once(world: World) -> None:
    (outcome,) = world.play(["100 tpm"], [Call(cost={"tokens": 663})])

    assert isinstance(outcome.error, NeverPossible)
    assert 0.0 == outcome.ended_s


@pytest.mark.parametrize("seed", range(3))
def test_a_large_call_among_a_crowd_is_served_in_its_turn(
    world: World, seed: int
) -> None:
    draw = random.Random(seed)
    crowd = [
        Call(at_s=draw.random() * 20, cost={"tokens": 10}) for _ in range(world.many)
    ]
    large = Call(at_s=10.0, cost={"tokens": 900})
    outcomes = world.play(["1000 tpm using token-bucket"], [large, *crowd])
    before = sum(10 for call in crowd if call.at_s < 10.0)
    ideal_s = max(10.0, (before + 900 - 1000) * 60 / 1000)

    assert granted(outcomes)[0] <= 2 * ideal_s
    assert_idle(world.store)

    world.clock.advance(60)

    (row,) = world.status().values()
    assert (0, 0) == (row.used, row.waiting)
