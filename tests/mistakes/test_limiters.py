"""Mistakes of homemade limiters, and what happens here instead.

Each docstring names the row of docs/from-a-homemade-limiter.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ratekeeper import (
    AsyncLimiter,
    ConfigError,
    Denied,
    Grant,
    Limiter,
    LimitExceeded,
    MemoryStore,
    NeverPossible,
)
from ratekeeper.runtime import aio
from ratekeeper.testing import ManualClock, VirtualLoop, run_virtual
from tests.flows.world import assert_idle

if TYPE_CHECKING:
    from ratekeeper.core.line import Waiter

DAY_S = 86_400.0


def limited(*limits: str, auto: bool = True) -> tuple[Limiter, ManualClock]:
    clock = ManualClock(auto=auto)
    return Limiter(*limits, store=MemoryStore(clock=clock)), clock


def refusal(limiter: Limiter, **cost: int) -> Denied:
    answer = limiter.try_acquire(**cost)  # type: ignore[arg-type]  # costs alone
    assert isinstance(answer, Denied)
    return answer


def grants(limiter: Limiter, calls: int, **cost: int) -> int:
    answers = [
        limiter.try_acquire(**cost)  # type: ignore[arg-type]  # costs alone
        for _ in range(calls)
    ]
    return sum(isinstance(answer, Grant) for answer in answers)


def test_a_burst_of_ten_lets_ten_go_at_once_and_the_eleventh_a_second_later() -> None:
    """Row 1: a sliding log called a token bucket, its burst never used."""
    limiter, clock = limited("60 rpm burst 10")

    assert 10 == grants(limiter, 60)

    clock.advance(1, us=-1)

    assert not limiter.try_acquire()

    clock.advance(us=1)

    assert 1 == grants(limiter, 60)


def test_a_full_bucket_grants_and_an_empty_one_refuses() -> None:
    """Row 2: the other way round."""
    limiter, _ = limited("60 rpm burst 1")

    assert limiter.try_acquire()
    assert not limiter.try_acquire()


def test_a_hundred_calls_of_500_tokens_get_two_through_a_thousand_a_minute() -> None:
    """Row 3: token counts in a deque that is purged by time."""
    limiter, _ = limited("1000 tpm")

    assert 2 == grants(limiter, 100, tokens=500)


def test_what_was_used_is_told_and_reading_it_changes_nothing() -> None:
    """Row 4: tokens used are reported as 0 for ever."""
    limiter, _ = limited("1000 tpm")
    limiter.acquire(tokens=500)
    reads = [limiter.status()["1000 tokens/minute"] for _ in range(100)]

    assert {500} == {read.used for read in reads}
    assert {500} == {read.remaining for read in reads}


def test_a_call_above_the_limit_is_refused_at_once() -> None:
    """Row 5: it polls until its time-out, or for ever."""
    limiter, clock = limited("1000 tpm")
    start_us = clock.now_us()
    with pytest.raises(NeverPossible, match="more than the limit"):
        limiter.acquire(tokens=1001)

    assert start_us == clock.now_us()


def test_a_call_that_two_limits_hold_up_wakes_once_when_the_later_one_lets_it() -> None:
    """Row 6: waits the shortest of the waits, or a flat second."""
    limiter, clock = limited("30 rpm burst 1", "100 tpm", auto=False)
    looks: list[int] = []
    look_again = limiter._store.look_again

    def counted(waiter: Waiter) -> None:
        looks.append(clock.now_us())
        look_again(waiter)

    limiter._store.look_again = counted  # type: ignore[method-assign]
    start_us = clock.now_us()
    limiter.acquire(tokens=100)
    clock.advance(58)
    limiter.acquire(tokens=0)  # requests are free again in 2 s, tokens too
    clock.run(lambda: limiter.acquire(tokens=50))

    assert [start_us + 60_000_000] == looks

    clock.advance(20)
    limiter.acquire(tokens=50)  # requests in 2 s, tokens in 40 s
    looks.clear()
    clock.run(lambda: limiter.acquire(tokens=50))

    assert [start_us + 120_000_000] == looks


def test_a_call_waits_until_exactly_enough_has_left_the_window() -> None:
    """Row 7: the release time is computed and thrown away."""
    limiter, clock = limited("1000 tpm")
    start_us = clock.now_us()
    limiter.acquire(tokens=600)
    clock.advance(10)
    limiter.acquire(tokens=300)
    limiter.acquire(tokens=500)

    assert 60_000_000 == clock.now_us() - start_us


def test_an_entry_exactly_a_window_old_counts_no_more() -> None:
    """Row 8: it still counts, and the wait becomes a busy loop."""
    limiter, clock = limited("1 rpm")
    limiter.acquire()
    clock.advance(60, us=-1)

    assert 1 == refusal(limiter).retry_after_us

    clock.advance(us=1)

    assert limiter.try_acquire()


@pytest.mark.parametrize("timeout", [-1, -0.0, -1e9, 1e-9])
def test_a_deadline_that_has_passed_is_a_denial(timeout: float) -> None:
    """Row 9: a negative sleep at the deadline is a ValueError."""
    limiter, _ = limited("1 rpm")
    limiter.acquire()
    with pytest.raises(LimitExceeded) as caught:
        limiter.acquire(timeout=timeout)

    assert 60.0 == caught.value.retry_after_s


def test_a_timeout_of_nought_grants_where_the_quota_is_there() -> None:
    """Row 10: it refuses with the full quota there."""
    limiter, _ = limited("1 rpm")

    assert limiter.acquire(timeout=0)


@pytest.mark.parametrize("limit", ["0 rpm", "0 concurrent", "$0/day", "0k tpm"])
def test_a_limit_of_nought_is_a_mistake_of_configuration(limit: str) -> None:
    """Row 11: an IndexError at the first call."""
    with pytest.raises(ConfigError):
        Limiter(limit)
    with pytest.raises(ConfigError):
        Limiter()


@pytest.mark.parametrize("tokens", [-1, 0.5, 1.0, float("nan"), True, "5", None])
def test_a_cost_that_is_no_whole_number_is_refused_and_changes_nothing(
    tokens: Any,
) -> None:
    """Row 12: negative, NaN, fractional and boolean costs are accepted."""
    limiter, _ = limited("10 rpm", "1000 tpm")
    before = limiter.status()
    with pytest.raises((TypeError, ConfigError)):
        limiter.acquire(tokens=tokens)
    with pytest.raises((TypeError, ConfigError)):
        limiter.try_acquire(tokens=tokens)

    assert before == limiter.status()


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wall_clock_turned_by_an_hour_is_not_noticed(
    monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Row 13: the wall clock is used."""
    limiter = Limiter("2 rpm")
    limiter.acquire()
    turned = time.time_ns() + hours * 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: turned)
    monkeypatch.setattr(time, "time", lambda: turned / 1e9)

    assert 1 == grants(limiter, 5)
    assert 55 < refusal(limiter).retry_after_s <= 60


def test_a_call_of_90_percent_of_the_limit_is_served_among_small_ones() -> None:
    """Row 14: there is no line, and a large request starves."""
    loop = VirtualLoop()
    limiter = AsyncLimiter(
        "1000 tpm using token-bucket", store=MemoryStore(clock=loop.clock)
    )
    served_s: list[float] = []

    async def small() -> None:
        while not served_s:
            async with limiter.acquire(tokens=10):
                await asyncio.sleep(0.1)

    async def large() -> None:
        await asyncio.sleep(5)
        async with limiter.acquire(tokens=900):
            served_s.append(loop.time())

    async def main() -> None:
        await asyncio.gather(large(), *(small() for _ in range(20)))

    run_virtual(main(), loop)

    # 1000 in the first seconds and 20 that wait ahead: 11 s and 54 s of refill.
    assert served_s[0] <= 5 + 2 * (20 * 10 + 900) * 60 / 1000


def test_a_call_that_was_never_sent_costs_nothing_and_usage_is_settled() -> None:
    """Row 15: failed calls stay charged, usage is never settled."""
    limiter, _ = limited("10 rpm", "1000 tpm")
    grant = limiter.acquire(tokens=500)
    with contextlib.suppress(ConnectionRefusedError), grant:
        try:
            raise ConnectionRefusedError
        except ConnectionRefusedError:
            grant.cancel()
            raise

    assert 0 == limiter.status()["10 requests/minute"].used
    assert 0 == limiter.status()["1000 tokens/minute"].used

    limiter.acquire(tokens=500).settle(tokens=180)

    assert 1 == limiter.status()["10 requests/minute"].used
    assert 180 == limiter.status()["1000 tokens/minute"].used


def test_the_constructor_takes_limits_and_the_repr_shows_no_secret() -> None:
    """Row 16: locks and deques are constructor arguments."""
    for kind in (Limiter, AsyncLimiter):
        names = list(inspect.signature(kind).parameters)

        assert ["limits", "name", "store", "account"] == names

    limiter = Limiter("10 rpm")
    grant = limiter.acquire(key="sk-secret")

    assert "sk-secret" not in repr(limiter) + repr(grant) + str(limiter.limits)


def test_a_key_takes_as_many_bytes_at_a_million_a_minute_as_at_sixty() -> None:
    """Row 18: the whole log is rebuilt on every call."""
    sizes = []
    for rate, calls, apart_us in ((60, 200, 1_000_000), (1_000_000, 20_000, 6_000)):
        limiter, clock = limited(f"{rate} rpm")
        for _ in range(calls):
            limiter.acquire(requests=rate // 1000 + 1)
            clock.advance(us=apart_us)
        (meter,) = limiter._scope.rows[""]
        sizes.append(_size_of(meter))

    assert sizes[0] == sizes[1]
    assert sizes[1] < 16_384


def _size_of(thing: object) -> int:
    kinds = type(thing).__mro__
    slots = [name for kind in kinds for name in getattr(kind, "__slots__", ())]
    parts = [getattr(thing, name) for name in slots]
    return sys.getsizeof(thing) + sum(
        sys.getsizeof(part) for part in parts if hasattr(part, "__len__")
    )


def test_one_place_among_a_hundred_waiters_wakes_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 19: all waiters wake together."""
    loop = VirtualLoop()
    limiter = AsyncLimiter("1 concurrent", store=MemoryStore(clock=loop.clock))
    woken: list[Waiter] = []
    resolve = aio.TaskSeat.resolve

    def counted(seat: aio.TaskSeat, waiter: Waiter) -> None:
        woken.append(waiter)
        resolve(seat, waiter)

    monkeypatch.setattr(aio.TaskSeat, "resolve", counted)

    async def main() -> None:
        holder = await limiter.acquire()
        tasks = [asyncio.ensure_future(_acquire(limiter)) for _ in range(100)]
        await asyncio.sleep(1)

        assert not woken

        holder.settle()
        await asyncio.sleep(1)

        assert 1 == len(woken)
        assert 1 == sum(task.done() for task in tasks)

        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run_virtual(main(), loop)


async def _acquire(limiter: AsyncLimiter) -> Grant:
    return await limiter.acquire()


def test_a_limit_of_tokens_counts_tokens_beside_one_of_requests() -> None:
    """Row 20: the tokens-a-minute limiter counts requests."""
    limiter, _ = limited("60 rpm", "1000 tpm")

    assert 2 == grants(limiter, 100, tokens=500)
    assert 2 == limiter.status()["60 requests/minute"].used
    assert 1000 == limiter.status()["1000 tokens/minute"].used


def test_sixty_a_minute_lets_exactly_sixty_go() -> None:
    """Row 21: each grant is recorded twice, so thirty go."""
    limiter, clock = limited("60 rpm")

    assert 60 == grants(limiter, 200)

    clock.advance(60)

    assert 60 == grants(limiter, 200)


def test_a_call_refused_for_its_tokens_burns_no_request() -> None:
    """Row 22: it burns a request each time."""
    limiter, _ = limited("60 rpm", "1000 tpm")
    limiter.acquire(tokens=900)
    before = limiter.status()
    for _ in range(100):
        assert "1000 tokens/minute" == refusal(limiter, tokens=200).limit
        with pytest.raises(LimitExceeded):
            limiter.acquire(tokens=200, timeout=0)

    assert before == limiter.status()


def test_a_caller_that_waits_does_not_delay_the_answer_to_another() -> None:
    """Row 23: sleeps under the lock."""
    limiter = Limiter("1 concurrent")
    holder = limiter.acquire()
    waiter = threading.Thread(target=lambda: limiter.acquire().settle())
    waiter.start()
    while limiter._store._waiting == 0:
        pass
    took_s = []
    for _ in range(50):
        begin = time.perf_counter()
        with contextlib.suppress(LimitExceeded):
            limiter.acquire(timeout=0)
        took_s.append(time.perf_counter() - begin)
    holder.settle()
    waiter.join()

    assert min(took_s) < 0.001


def test_64_threads_get_the_burst_and_no_more() -> None:
    """Row 24: inner state is touched without its lock."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(20):
            limiter, _ = limited("60 rpm burst 5")
            start = threading.Barrier(64)
            won: list[int] = []

            def run(limiter: Limiter = limiter, start: Any = start) -> None:
                start.wait()
                won.extend([1] * grants(limiter, 1))  # noqa: B023 - joined below

            threads = [threading.Thread(target=run) for _ in range(64)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

            assert 5 == len(won)
    finally:
        sys.setswitchinterval(interval)


def test_a_refusal_names_the_limit_and_the_exact_wait_at_once() -> None:
    """Row 25: the reason is always "timeout"."""
    limiter, clock = limited("60 rpm", "1000 tpm")
    limiter.acquire(tokens=900)
    clock.advance(20)
    start_us = clock.now_us()
    with pytest.raises(LimitExceeded, match=r"1000 tokens/minute.* 40 s") as caught:
        limiter.acquire(tokens=200, timeout=30)

    assert "1000 tokens/minute" == caught.value.limit
    assert 40.0 == caught.value.retry_after_s
    assert start_us == clock.now_us()


def test_the_second_call_over_quota_is_granted_when_the_window_frees() -> None:
    """Row 33: recursion under an asyncio lock is a deadlock."""
    loop = VirtualLoop()
    limiter = AsyncLimiter("1 rpm", store=MemoryStore(clock=loop.clock))

    async def main() -> None:
        for expected_s in (0.0, 60.0, 120.0):
            await limiter.acquire()

            assert expected_s == loop.time()

    run_virtual(main(), loop)


def test_another_key_is_served_while_one_waits() -> None:
    """Row 34: every task stalls, and a cancelled waiter stays."""
    loop = VirtualLoop()
    limiter = AsyncLimiter("1 rpm", store=MemoryStore(clock=loop.clock))

    async def main() -> None:
        await limiter.acquire(key="a")
        waiter = asyncio.ensure_future(_keyed(limiter, "a"))
        await asyncio.sleep(1)
        await limiter.acquire(key="b")

        assert 1.0 == loop.time()

        waiter.cancel()
        await asyncio.wait([waiter])

        assert 0 == (await limiter.status("a"))["1 requests/minute"].waiting

        await limiter.acquire(key="a")

        assert 60.0 == loop.time()

    run_virtual(main(), loop)

    assert_idle(limiter._store)


async def _keyed(limiter: AsyncLimiter, key: str) -> Grant:
    return await limiter.acquire(key=key)


def test_a_thousand_tokens_a_day_grants_a_thousand() -> None:
    """Row 35: the daily deque of counts is purged by time."""
    limiter, clock = limited("1000 tpd")

    assert 2 == grants(limiter, 100, tokens=500)

    clock.advance(DAY_S, us=-1)

    assert 0 == grants(limiter, 1, tokens=500)

    clock.advance(us=1)

    assert 2 == grants(limiter, 100, tokens=500)


@pytest.mark.parametrize(
    ("limit", "wait_s"),
    [("1000 tpd", DAY_S - 3600), ("1000 tokens/day resets 12:00", 11 * 3600.0)],
)
def test_a_spent_day_says_which_limit_and_when_it_frees(
    limit: str, wait_s: float
) -> None:
    """Row 36: a bare Exception, "try tomorrow"."""
    midnight_us = 1_800_000_000_000_000 // 86_400_000_000 * 86_400_000_000
    clock = ManualClock(midnight_us)
    limiter = Limiter(limit, store=MemoryStore(clock=clock))
    limiter.acquire(tokens=1000)
    clock.advance(3600)
    with pytest.raises(LimitExceeded) as caught:
        limiter.acquire(tokens=1, timeout=60)

    assert str(limiter.limits[0]).startswith("1000 tokens/day")
    assert caught.value.limit in limiter.status()
    assert wait_s == caught.value.retry_after_s

    clock.advance(wait_s)

    assert limiter.acquire(tokens=1, timeout=0)
