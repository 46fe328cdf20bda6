"""What at least one limiter of today gets wrong, each as a test of ours."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from ratekeeper import (
    AsyncLimiter,
    Denied,
    Grant,
    Limiter,
    LimitExceeded,
    MemoryStore,
    NeverPossible,
    StoreUnavailable,
)
from ratekeeper.testing import ManualClock, VirtualLoop, run_virtual
from tests.flows.world import Call, assert_idle, granted, in_turn

if TYPE_CHECKING:
    from tests.flows.world import World


def test_a_request_of_90_percent_is_served_beside_20_small_ones(world: World) -> None:
    """Never served by seven of them: small calls keep the room it needs."""
    limit = 1000
    small = [
        Call(at_s=caller * 1e-3 + turn, cost={"tokens": 10})
        for caller in range(20)
        for turn in range(40)
    ]
    large = Call(at_s=2.5, cost={"tokens": 900})
    ours = granted(world.play([f"{limit} tpm using token-bucket"], [large, *small]))[0]
    before = sum(10 for call in small if call.at_s < large.at_s)
    ideal = max(large.at_s, (before + 900 - limit) * 60 / limit)

    assert ours <= 2 * ideal


def test_a_wall_clock_turned_by_an_hour_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Back, and six of them stop for good; forward, and three give a second quota."""
    wall_ns = time.time_ns()
    limiter = Limiter("2 rpm", "5 rpd resets 00:00")
    limiter.acquire()
    before = limiter.status()
    for hours in (-1, 1, -25, 25):
        turned = wall_ns + hours * 3600 * 10**9
        monkeypatch.setattr(time, "time_ns", lambda turned=turned: turned)
        monkeypatch.setattr(time, "time", lambda turned=turned: turned / 1e9)

        after = limiter.status()

        assert before["2 requests/minute"].used == after["2 requests/minute"].used
        assert before["2 requests/minute"].reset_after_s == pytest.approx(
            after["2 requests/minute"].reset_after_s, abs=5
        )
    limiter.acquire()

    assert not limiter.try_acquire()


def test_a_clock_that_goes_back_locks_nobody_out() -> None:
    clock = ManualClock()
    limiter = Limiter("60 rpm burst 1", store=MemoryStore(clock=clock))
    limiter.acquire()
    clock.advance(-3600)
    denied = limiter.try_acquire()

    assert isinstance(denied, Denied)
    assert 1.0 == denied.retry_after_s

    clock.advance(1)

    assert limiter.try_acquire()


@pytest.mark.parametrize("limit", ["60 rpm", "60 rpm burst 60", "60 rpm using paced"])
def test_a_clock_that_jumps_forward_gives_at_most_one_quota(limit: str) -> None:
    clock = ManualClock()
    limiter = Limiter(limit, store=MemoryStore(clock=clock))
    for jump in (0, 3600, 86400):
        clock.advance(jump)
        burst = sum(isinstance(limiter.try_acquire(), Grant) for _ in range(500))

        assert burst <= 60


def test_a_cancelled_waiter_neither_leaks_nor_swallows_its_cancellation() -> None:
    loop = VirtualLoop()
    limiter = AsyncLimiter("1 rpm", store=MemoryStore(clock=loop.clock))

    async def main() -> None:
        await limiter.acquire()
        for _ in range(100):
            task = asyncio.ensure_future(_acquire(limiter))
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.wait([task])

            assert task.cancelled()
        await limiter.acquire()

        assert 60.0 == loop.time()

    run_virtual(main(), loop)

    assert_idle(limiter._store)


async def _acquire(limiter: AsyncLimiter) -> Grant:
    return await limiter.acquire()


def test_a_request_above_the_limit_is_refused_at_once(world: World) -> None:
    """Four of them hang, three let it through."""
    (outcome,) = world.play(["100 tpm"], [Call(cost={"tokens": 101})])

    assert isinstance(outcome.error, NeverPossible)
    assert 0.0 == outcome.ended_s
    assert 0 == world.status()["100 tokens/minute"].used


def test_8_threads_get_exactly_what_the_limit_holds() -> None:
    """One of them lets 3,039 through for 1,200; another refuses most of them."""
    limiter = Limiter("1200 rpm", store=MemoryStore(clock=ManualClock()))
    counts = []

    def run() -> None:
        answers = [limiter.try_acquire() for _ in range(2000)]
        counts.append(sum(isinstance(answer, Grant) for answer in answers))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1200 == sum(counts)


def test_two_event_loops_in_two_threads_share_one_limiter() -> None:
    limiter = AsyncLimiter("100 requests/second burst 5", "2 concurrent")
    done: list[int] = []

    async def call(mark: int) -> None:
        async with limiter.acquire():
            await asyncio.sleep(0)
            done.append(mark)

    async def main(mark: int) -> None:
        await asyncio.gather(*(call(mark) for _ in range(20)))

    threads = [
        threading.Thread(target=lambda mark=mark: asyncio.run(main(mark)))
        for mark in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert [20, 20] == [done.count(1), done.count(2)]
    assert_idle(limiter._store)


def test_equal_waiters_are_served_first_come_first_served(world: World) -> None:
    times = granted(world.play(["600 rpm burst 1"], in_turn(50)))

    assert sorted(times) == times


def test_a_refused_cost_burns_nothing(world: World) -> None:
    """One of them counts what it refuses against its fixed window."""
    calls = [Call(cost={"tokens": 60})]
    calls += [
        Call(at_s=1 + at, cost={"tokens": 60}, ask={"timeout": 0}) for at in range(10)
    ]
    calls += [Call(at_s=20, cost={"tokens": 40})]
    outcomes = world.play(["100 tpm using fixed-window"], calls)

    assert 10 == sum(isinstance(outcome.error, LimitExceeded) for outcome in outcomes)
    assert 20.0 == granted(outcomes[-1:])[0]


@pytest.mark.parametrize("how", ["", " using token-bucket", " using paced"])
def test_150_million_tokens_a_minute_are_all_usable(how: str) -> None:
    """Where a unit's interval is rounded to a whole tick, 40 % are."""
    clock = ManualClock(auto=True)
    limiter = Limiter(f"150M tpm{how}", store=MemoryStore(clock=clock))
    start_us = clock.now_us()
    calls = 3000
    for _ in range(calls):
        limiter.acquire(tokens=500_000)
    took_minutes = (clock.now_us() - start_us) / 60e6
    quota = 150e6 * took_minutes

    assert 0.995 * quota <= calls * 500_000 <= quota + 150e6


def test_no_key_over_its_limit_is_forgiven_by_others(world: World) -> None:
    world.store._keys._most = 10
    calls = [Call(ask={"key": "spent"})]
    calls += [Call(at_s=1 + at, ask={"key": f"k{at}"}) for at in range(50)]
    calls += [Call(at_s=59, ask={"key": "spent", "timeout": 0})]
    outcomes = world.play(["1 rpm"], calls)

    assert isinstance(outcomes[-1].error, LimitExceeded)
    assert 1.0 == outcomes[-1].error.retry_after_s
    assert any(isinstance(outcome.error, StoreUnavailable) for outcome in outcomes)


@pytest.mark.parametrize(
    "limit", ["3 rpd", "3 rpd using fixed-window", "3 rpd burst 3"]
)
def test_a_daily_limit_does_not_start_anew_after_an_idle_minute(limit: str) -> None:
    clock = ManualClock(1_800_000_000_000_000 // 86_400_000_000 * 86_400_000_000)
    limiter = Limiter(limit, store=MemoryStore(clock=clock))
    for _ in range(3):
        limiter.acquire()
    for _ in range(100):
        clock.advance(61)

        assert not limiter.try_acquire()


@pytest.mark.parametrize("rate", [1, 6, 30, 59])
def test_less_than_one_request_a_second_is_a_limit_as_well(rate: int) -> None:
    """One of them takes it for no limit at all."""
    clock = ManualClock(auto=True)
    limiter = Limiter(f"{rate} rpm", store=MemoryStore(clock=clock))
    start_us = clock.now_us()
    for _ in range(3 * rate):
        limiter.acquire()

    assert 2 * 60e6 <= clock.now_us() - start_us <= 2 * 60e6 * 1.01
