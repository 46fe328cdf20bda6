"""The test kit itself: time that tests own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ratekeeper import ConfigError
from ratekeeper.testing import ManualClock, VirtualLoop, run_virtual


def test_threads_sleep_by_the_clock_and_in_no_time() -> None:
    clock = ManualClock()
    start_us = clock.now_us()
    woke: list[tuple[int, int]] = []

    def sleep(seconds: int) -> None:
        clock.sleep(seconds)
        woke.append((seconds, (clock.now_us() - start_us) // 1_000_000))

    clock.run(*[lambda at=at: sleep(at) for at in (3, 86_400, 1, 0)])

    assert [(0, 0), (1, 1), (3, 3), (86_400, 86_400)] == woke


def test_what_a_thread_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        ManualClock().run(lambda: 1 // 0)


def test_a_thread_that_waits_for_something_else_is_reported() -> None:
    stuck = threading.Event()
    with pytest.raises(TimeoutError, match="0 of 1 threads"):
        ManualClock().run(stuck.wait, patience_s=0.05)
    stuck.set()


def test_a_loop_plays_a_day_in_no_time() -> None:
    loop = VirtualLoop()

    async def main() -> float:
        await asyncio.sleep(86_400)
        return loop.time()

    assert 86_400.0 == run_virtual(main(), loop)


def test_a_loop_where_nothing_can_happen_any_more_is_reported() -> None:
    loop = VirtualLoop()

    async def main() -> None:
        await loop.create_future()

    with pytest.raises(ConfigError, match="hang for ever"):
        loop.run_until_complete(main())
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
