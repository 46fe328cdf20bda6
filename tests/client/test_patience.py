"""Calls that stand in line keep the time that their answer takes: in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from benchmarks.inside import KEY, Inside
from ratekeeper import AsyncClient, LimitExceeded, MemoryStore, RatekeeperError
from ratekeeper.simulator.server import Simulator
from ratekeeper.testing import VirtualLoop, run_virtual
from tests.client.clients import CHAT, OK, Told, virtual

TIMEOUT_S = 10.0


def answered(*, demand: float, seconds: int, latency_s: float) -> int:
    """Return how many calls of a minute's overload are answered in its second half."""
    loop = VirtualLoop()
    limit = "120 rpm"
    simulator = Simulator("openai", [limit], latency_s=latency_s, clock=loop.clock)
    provider = Inside(loop, simulator)
    late = 0

    async def main() -> None:
        ai = AsyncClient(
            "openai",
            api_key=KEY,
            limits=[limit],
            timeout=TIMEOUT_S,
            store=MemoryStore(clock=loop.clock),
            transport=provider,
        )

        async def call() -> None:
            nonlocal late
            try:
                await ai.chat_completion(**CHAT)
            except RatekeeperError:
                return
            late += loop.time() > seconds / 2

        async with ai, asyncio.TaskGroup() as group:
            for _ in range(int(seconds * demand)):
                group.create_task(call())
                await asyncio.sleep(1 / demand)

    run_virtual(main(), loop)
    return late


@pytest.mark.parametrize("latency_s", [0.2, 2.0, 6.0])
def test_a_line_that_never_ends_costs_none_of_the_quota(latency_s: float) -> None:
    """In order of arrival every call would be granted too late to be answered."""
    assert 0.95 * 2 * 60 <= answered(demand=4, seconds=120, latency_s=latency_s)


def test_who_is_refused_for_the_answers_sake_is_told() -> None:
    told = Told(OK)
    limit = "6 requests/minute using leaky-bucket"
    with virtual("async", told, limits=[limit]) as ai:

        async def slow(client: Any) -> None:
            client._terms.patience.took(4_000_000)
            await client.chat_completion(**CHAT)
            with pytest.raises(LimitExceeded) as refused:
                await client.chat_completion(**CHAT, timeout=12)

            assert 10 == refused.value.retry_after_s
            assert ["9 s of the time-out are kept for the answer itself"] == (
                refused.value.__notes__
            )

        ai.do(slow)
