"""The line on uvloop, whose handles differ from asyncio's own."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from ratekeeper import AsyncLimiter

uvloop = pytest.importorskip("uvloop")


def test_a_timer_that_is_due_already_can_be_set_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A loop that was held up finds timers whose moment has gone by."""

    async def play() -> int:
        limiter = AsyncLimiter("100 requests/s burst 1")

        async def call(at: int) -> None:
            async with limiter.acquire(timeout=20):
                if at % 7 == 0:
                    time.sleep(0.03)  # noqa: ASYNC251 - the loop stands still

        await asyncio.gather(*(call(at) for at in range(60)))
        return 60

    with caplog.at_level(logging.ERROR, "asyncio"):
        done = uvloop.run(play())

    assert 60 == done
    assert [] == caplog.records
