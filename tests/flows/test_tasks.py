"""What is peculiar to tasks: cancellation, event loops that end, slots kept alive."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ratekeeper import AsyncLimiter, Denied, Grant, Limiter, LimitExceeded, MemoryStore
from ratekeeper.runtime import aio
from ratekeeper.testing import ManualClock, VirtualLoop, run_virtual
from tests.flows.world import assert_idle

if TYPE_CHECKING:
    from collections.abc import Coroutine


def virtual(*limits: str, **options: Any) -> tuple[AsyncLimiter, VirtualLoop]:
    loop = VirtualLoop()
    store = MemoryStore(clock=loop.clock, **options)
    return AsyncLimiter(*limits, store=store), loop


def test_a_cancelled_waiter_leaves_no_trace() -> None:
    limiter, loop = virtual("60 rpm burst 1", "2 concurrent")

    async def main() -> None:
        first = await limiter.acquire()
        first.settle()
        before = await limiter.status()
        waiter = asyncio.ensure_future(_held(limiter))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter

        assert before == await limiter.status()
        assert 1 == len(asyncio.all_tasks())

    run_virtual(main(), loop)

    assert_idle(limiter._store)


async def _held(limiter: AsyncLimiter, seconds: float = 0.0, **ask: Any) -> None:
    async with limiter.acquire(**ask):
        await asyncio.sleep(seconds)


def test_a_waiter_cancelled_at_the_moment_of_its_grant_gives_it_back() -> None:
    limiter, loop = virtual("1 concurrent", "10 rpm")

    async def main() -> None:
        holder = await limiter.acquire()
        waiter = asyncio.ensure_future(_held(limiter, 5))
        behind = asyncio.ensure_future(_held(limiter, 5))
        await asyncio.sleep(1)
        holder.settle()  # grants the waiter's call; its task has not run yet
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        status = await limiter.status()

        assert 2 == status["10 requests/minute"].used  # the holder's, and behind's

        await behind

    run_virtual(main(), loop)

    assert_idle(limiter._store)


def test_waiters_time_out_by_the_loop_as_well() -> None:
    limiter, loop = virtual("1 rpm")

    async def main() -> None:
        await limiter.acquire()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await limiter.acquire()

        assert 5.0 == loop.time()
        assert 1 == (await limiter.status())["1 requests/minute"].used

    run_virtual(main(), loop)

    assert_idle(limiter._store)


@pytest.mark.parametrize("seed", range(5))
def test_half_of_a_crowd_cancelled_at_random_leaves_no_trace(seed: int) -> None:
    limiter, loop = virtual("6000 tpm using token-bucket", "50 concurrent")
    draw = random.Random(seed)
    large_s: list[float] = []

    async def large() -> None:
        await asyncio.sleep(0.5)
        async with limiter.acquire(tokens=5000):
            large_s.append(loop.time())

    async def small() -> None:
        await asyncio.sleep(draw.random())
        async with limiter.acquire(tokens=10):
            await asyncio.sleep(draw.random())

    async def main() -> None:
        crowd = [asyncio.ensure_future(small()) for _ in range(1000)]
        doomed = draw.sample(crowd, 500)
        for task in doomed:
            loop.call_later(draw.random() * 60, task.cancel)
        await asyncio.gather(large(), *crowd, return_exceptions=True)

        assert 1 == len(asyncio.all_tasks())

        await asyncio.sleep(60)
        for status in (await limiter.status()).values():
            assert (0, 0) == (status.used, status.waiting)

    run_virtual(main(), loop)

    assert_idle(limiter._store)
    assert large_s[0] <= 2 * (500 * 10 + 5000 - 6000) / 100


def test_waiters_of_a_loop_that_was_closed_are_dropped() -> None:
    store = MemoryStore()
    sync = Limiter("1 concurrent", store=store, name="both")
    tasks = AsyncLimiter("1 concurrent", store=store, name="both")
    holder = sync.acquire()
    dead = asyncio.new_event_loop()
    _ABANDONED.extend(dead.create_task(_held(tasks)) for _ in range(3000))
    dead.run_until_complete(asyncio.sleep(0))

    assert 3000 == store._waiting

    _abandon(dead)
    holder.settle()

    assert_idle(store)
    assert dead not in aio._TIMERS
    assert sync.try_acquire()

    _ABANDONED.clear()


def _abandon(loop: asyncio.AbstractEventLoop) -> None:
    """Close a loop with its tasks pending, as a careless program does."""
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()


_ABANDONED: list[asyncio.Task[Any]] = []


def test_two_loops_in_two_threads_share_one_limiter() -> None:
    limiter = AsyncLimiter("1 concurrent", "100 requests/minute")
    order: list[int] = []

    async def main(mark: int) -> None:
        for _ in range(50):
            async with limiter.acquire():
                order.append(mark)
                await asyncio.sleep(0)

    threads = [
        threading.Thread(target=lambda m=m: asyncio.run(main(m))) for m in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [50, 50] == [order.count(1), order.count(2)]
    assert_idle(limiter._store)


def test_threads_and_loops_of_one_name_stand_in_one_line() -> None:
    store = MemoryStore()
    sync = Limiter("1 concurrent", store=store, name="both")
    tasks = AsyncLimiter("1 concurrent", store=store, name="both")
    order: list[str] = []
    holder = sync.acquire()

    def thread(mark: str) -> None:
        with sync.acquire():
            order.append(mark)

    async def task(mark: str) -> None:
        async with tasks.acquire():
            order.append(mark)

    callers = []
    for at in range(6):
        mark = str(at)
        target: Any = thread if at % 2 else lambda m: asyncio.run(task(m))
        callers.append(threading.Thread(target=target, args=(mark,)))
        callers[-1].start()
        _until(lambda at=at: store._waiting == at + 1)
    holder.settle()
    for caller in callers:
        caller.join()

    assert [str(at) for at in range(6)] == order
    assert_idle(store)


def _until(condition: Any) -> None:
    """Wait in real time for what another thread is about to do."""
    event = threading.Event()
    for _ in range(5000):
        if condition():
            return
        event.wait(0.001)
    raise TimeoutError


def test_a_refund_in_a_thread_wakes_a_task_at_once() -> None:
    store = MemoryStore()
    sync = Limiter("100 tpd", store=store, name="both")
    tasks = AsyncLimiter("100 tpd", store=store, name="both")
    grant = sync.acquire(tokens=100)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        refund = threading.Timer(0.05, grant.settle, kwargs={"tokens": 10})
        refund.start()
        await tasks.acquire(tokens=50)
        return loop.time()

    asyncio.run(asyncio.wait_for(main(), 10))

    assert 60 == sync.status()["100 tokens/day"].used


def test_each_loop_keeps_one_timer() -> None:
    limiter, loop = virtual("60 rpm burst 1")

    async def main() -> None:
        await limiter.acquire()
        tasks = [asyncio.ensure_future(_held(limiter)) for _ in range(100)]
        await asyncio.sleep(0)
        live = [h for h in loop._scheduled if not h.cancelled()]  # type: ignore[attr-defined]

        assert 1 == len(live)

        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert not [h for h in loop._scheduled if not h.cancelled()]  # type: ignore[attr-defined]

    run_virtual(main(), loop)


def test_a_task_keeps_its_slot_for_as_long_as_its_grant_is_open() -> None:
    limiter, loop = virtual("1 concurrent")

    async def main() -> None:
        async with limiter.acquire(hold=10):
            await asyncio.sleep(1000)

            assert not await limiter.try_acquire()

        assert await limiter.try_acquire()

    run_virtual(main(), loop)


def test_slots_taken_without_waiting_or_from_another_limiter_are_kept_as_well() -> None:
    limiter, loop = virtual("1 concurrent")
    team = AsyncLimiter("5 concurrent", store=limiter._store)

    async def main() -> None:
        one = await limiter.try_acquire(hold=10)
        assert isinstance(one, Grant)
        await asyncio.sleep(100)

        assert not await limiter.try_acquire()

        one.release()
        rates = AsyncLimiter("100 rpm", store=limiter._store)
        both = await rates.acquire(also=[(limiter, ""), (team, "t")], hold=10)
        await asyncio.sleep(100)

        assert not await limiter.try_acquire()
        assert 1 == (await team.status("t"))["5 concurrent"].used

        both.settle()
        await asyncio.sleep(100)

        assert await limiter.try_acquire()
        assert 0 == (await team.status("t"))["5 concurrent"].used

    run_virtual(main(), loop)


def test_one_timer_renews_all_slots_of_a_loop_and_ends_with_them() -> None:
    limiter, loop = virtual("100 concurrent")

    async def main() -> None:
        grants = [await limiter.acquire(hold=10) for _ in range(50)]
        await asyncio.sleep(3)
        grants += [await limiter.acquire(hold=10) for _ in range(50)]

        assert 1 == len(loop._scheduled)  # type: ignore[attr-defined]

        await asyncio.sleep(100)

        assert 100 == (await limiter.status())["100 concurrent"].used

        for grant in grants:
            grant.settle()
        await asyncio.sleep(10)

        assert not loop._scheduled  # type: ignore[attr-defined]
        assert not aio._RENEWALS[loop]

    run_virtual(main(), loop)


def test_a_forgotten_grant_keeps_its_slot_no_longer_than_its_hold() -> None:
    limiter, loop = virtual("1 concurrent")

    async def main() -> None:
        await limiter.acquire(hold=10)  # nobody keeps what it gave
        gc.collect()
        grant = await limiter.acquire()

        assert 10.0 == loop.time()
        assert 10.0 == grant.waited_s

    run_virtual(main(), loop)


def test_an_acquire_that_is_never_awaited_is_warned_of() -> None:
    limiter = AsyncLimiter("1 rpm")
    with pytest.warns(RuntimeWarning, match="never awaited"):
        limiter.acquire()


def test_an_acquire_is_awaited_once() -> None:
    limiter, loop = virtual("1 rpm")

    async def main() -> None:
        asked = limiter.acquire()
        await asked
        with pytest.raises(RuntimeError, match="awaited already"):
            await asked

    run_virtual(main(), loop)


def test_an_acquire_may_be_made_a_task_and_cancelled() -> None:
    limiter, loop = virtual("1 rpm")

    async def main() -> None:
        first = await asyncio.create_task(limiter.acquire())
        second = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(1)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(limiter.acquire(), 1)
        limiter.acquire().close()
        unstarted = asyncio.create_task(limiter.acquire())
        unstarted.cancel()
        await asyncio.wait([unstarted])

        assert unstarted.cancelled()
        assert first.is_open
        assert 1 == (await limiter.status())["1 requests/minute"].used

    run_virtual(main(), loop)

    assert_idle(limiter._store)


def test_the_verbs_are_awaited() -> None:
    limiter, loop = virtual("1 rpm")

    async def main() -> None:
        grant = await limiter.try_acquire()
        assert isinstance(grant, Grant)
        denied = await limiter.try_acquire()

        assert isinstance(denied, Denied)
        assert 60.0 == denied.retry_after_s

        await limiter.update("2 rpm")

        assert 1 == (await limiter.status())["2 requests/minute"].remaining
        with pytest.raises(LimitExceeded):
            await limiter.acquire(requests=2, timeout=0)

    run_virtual(main(), loop)


def test_a_task_that_is_destroyed_leaves_the_line() -> None:
    limiter, loop = virtual("1 concurrent")

    async def main() -> None:
        holder = await limiter.acquire()
        coroutine: Coroutine[Any, Any, None] = _held(limiter)
        with contextlib.suppress(StopIteration):
            coroutine.send(None)
        coroutine.close()

        assert 0 == (await limiter.status())["1 concurrent"].waiting

        holder.settle()

    run_virtual(main(), loop)

    assert_idle(limiter._store)


def test_a_wait_is_told_in_one_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limiter, loop = virtual("60 rpm burst 1")

    async def main() -> None:
        await limiter.acquire()
        await limiter.acquire()

    with caplog.at_level(logging.INFO, "ratekeeper"):
        run_virtual(main(), loop)

    assert ["waited 1 s for the limit '60 requests/minute burst 1'"] == caplog.messages


def test_those_whose_loop_has_closed_hold_up_nobody() -> None:
    """The tasks of a closed loop never run again: whoever comes next does not wait."""
    clock = ManualClock(auto=True)
    store = MemoryStore(clock=clock)
    limit = "600 rpm using leaky-bucket"
    sync = Limiter(limit, store=store, name="both")
    tasks = AsyncLimiter(limit, store=store, name="both")
    sync.acquire()
    dead = asyncio.new_event_loop()
    _ABANDONED.extend(dead.create_task(_held(tasks)) for _ in range(30))
    dead.run_until_complete(asyncio.sleep(0))
    _abandon(dead)
    began = clock.now_us()
    sync.acquire(timeout=1)

    assert 100_000 == clock.now_us() - began
    assert_idle(store)
    _ABANDONED.clear()
