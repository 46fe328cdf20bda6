"""Threads and event loops at one limiter, everything at random, in real time."""

from __future__ import annotations

import asyncio
import queue
import random
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from ratekeeper import AsyncLimiter, Grant, Limiter, LimitExceeded, MemoryStore
from ratekeeper.testing import ManualClock
from tests.flows.world import assert_idle

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = ("5 concurrent", "1M tpm")
LASTS_S = 2.0


class Room:
    """Counts who is inside, and the most there ever were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inside = self.most = self.served = 0

    def enter(self) -> None:
        with self._lock:
            self.inside += 1
            self.served += 1
            self.most = max(self.most, self.inside)

    def leave(self) -> None:
        with self._lock:
            self.inside -= 1


@pytest.fixture
def _hurried() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def _call(limiter: Limiter, room: Room, draw: random.Random, until: float) -> None:
    while time.monotonic() < until:
        try:
            grant = limiter.acquire(
                tokens=draw.randint(0, 50),
                timeout=draw.choice([None, 0, 0.001, 0.01]),
                priority=draw.choice(["batch", "normal", "interactive"]),
            )
        except LimitExceeded:
            continue
        room.enter()
        time.sleep(draw.random() * 0.001)
        room.leave()
        draw.choice([grant.settle, grant.release, grant.cancel])()


async def _task(
    limiter: AsyncLimiter, room: Room, draw: random.Random, until: float
) -> None:
    while time.monotonic() < until:
        try:
            async with asyncio.timeout(draw.choice([0.001, 0.005, 1])):
                async with limiter.acquire(tokens=draw.randint(0, 50)) as grant:
                    room.enter()
                    try:
                        await asyncio.sleep(draw.random() * 0.002)
                    finally:
                        room.leave()
                    grant.settle(tokens=draw.randint(0, 60))
        except TimeoutError:
            await asyncio.sleep(0)


async def _tasks(limiter: AsyncLimiter, room: Room, seed: int, until: float) -> None:
    async with asyncio.TaskGroup() as group:
        for at in range(20):
            draw = random.Random(seed * 100 + at)
            group.create_task(_task(limiter, room, draw, until))


@pytest.mark.slow
@pytest.mark.usefixtures("_hurried")
def test_threads_and_loops_at_random_never_pass_the_limit_and_leave_no_trace() -> None:
    store, room = MemoryStore(), Room()
    sync = Limiter(*LIMITS, store=store, name="stress")
    tasks = AsyncLimiter(*LIMITS, store=store, name="stress")
    until = time.monotonic() + LASTS_S
    threads = [
        threading.Thread(target=_call, args=(sync, room, random.Random(seed), until))
        for seed in range(8)
    ]
    threads += [
        threading.Thread(
            target=lambda seed=seed: asyncio.run(_tasks(tasks, room, seed, until))
        )
        for seed in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)

    assert not any(thread.is_alive() for thread in threads)
    assert 5 == room.most
    assert room.served > 100
    assert 0 == sync.status()["5 concurrent"].used
    assert_idle(store)


@pytest.mark.slow
@pytest.mark.usefixtures("_hurried")
def test_slots_are_renewed_while_other_threads_give_theirs_back() -> None:
    """The timer goes over the open grants of its loop as they come and go."""
    limiter = AsyncLimiter("1M concurrent")
    done: queue.SimpleQueue[Grant | None] = queue.SimpleQueue()
    faults: list[dict[str, object]] = []

    def give_back() -> None:
        while (grant := done.get()) is not None:
            grant.release()

    async def main() -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, fault: faults.append(fault))
        kept = await limiter.acquire(hold=0.5)
        until = loop.time() + LASTS_S
        while loop.time() < until and not faults:
            for _ in range(50):
                done.put(await limiter.acquire(hold=0.002))
            await asyncio.sleep(0)
        still = (await limiter.status())["1M concurrent"].used
        kept.release()
        return int(still)

    threads = [threading.Thread(target=give_back) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        still = asyncio.run(main())
    finally:
        for _ in threads:
            done.put(None)
        for thread in threads:
            thread.join(15)

    assert [] == faults
    assert still >= 1


def test_whoever_finds_the_store_at_work_waits_for_it() -> None:
    """However long it takes: first by giving way, then on the lock itself."""
    clock = _Halting()
    limiter = Limiter("10 rpm", store=MemoryStore(clock=clock))
    limiter.try_acquire()
    clock.halted.clear()
    held = threading.Thread(target=limiter.try_acquire)
    held.start()
    assert clock.inside.wait(5)
    others = [threading.Thread(target=limiter.try_acquire) for _ in range(8)]
    for thread in others:
        thread.start()
    time.sleep(0.05)  # real time: they have given up giving way

    assert all(thread.is_alive() for thread in others)

    clock.halted.set()
    for thread in [held, *others]:
        thread.join(5)

    assert 10 == limiter.status()["10 requests/minute"].used


class _Halting(ManualClock):
    """A clock that stops whoever reads it, under the store's lock, until told."""

    def __init__(self) -> None:
        super().__init__()
        self.halted, self.inside = threading.Event(), threading.Event()
        self.halted.set()

    def now_us(self) -> int:
        if not self.halted.is_set():
            self.inside.set()
            self.halted.wait(5)
        return super().now_us()
