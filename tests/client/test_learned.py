"""Limits that nobody tells, learned through the door from a provider that enforces."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

import ratekeeper
from ratekeeper import AsyncLimitedTransport, AsyncLimiter, ConfigError, MemoryStore
from ratekeeper.simulator.server import Simulator
from ratekeeper.testing import VirtualLoop, run_virtual
from tests.client.clients import KEY, MESSAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

HEADERS = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
LIMITS = ["60 rpm", "40k itpm", "16k otpm"]
URL = "http://simulated/v1/messages"


def ask(http: httpx2.AsyncClient, model: str = "m") -> Coroutine[Any, Any, Any]:
    """Send a small call."""
    body = {"model": model, "messages": MESSAGES, "max_tokens": 40}
    return http.post(URL, json=body, headers=HEADERS)


def play(
    simulator: Simulator,
    loop: VirtualLoop,
    limiter: AsyncLimiter,
    act: Callable[[httpx2.AsyncClient], Coroutine[Any, Any, None]],
    provider: str = "anthropic",
) -> None:
    """Let a client do something at the simulator, in virtual time."""

    async def main() -> None:
        wire = AsyncLimitedTransport(
            limiter, provider, wrap=httpx2.ASGITransport(simulator)
        )
        async with httpx2.AsyncClient(transport=wire, timeout=None) as http:
            await act(http)

    run_virtual(main(), loop)


def learner(
    loop: VirtualLoop, *limits: str, account: str = "anthropic"
) -> AsyncLimiter:
    store = MemoryStore(clock=loop.clock)
    return AsyncLimiter(*limits or ("learned",), store=store, account=account)


def refused(simulator: Simulator) -> int:
    return sum(simulator.stats["refused_by_limit"].values())


def test_a_client_without_limits_learns_them_and_keeps_them() -> None:
    loop = VirtualLoop()
    simulator = Simulator(
        "anthropic", LIMITS, latency_s=0.3, jitter_s=0.5, clock=loop.clock
    )

    async def main() -> list[int]:
        async with ratekeeper.async_http_client(
            "anthropic",
            store=MemoryStore(clock=loop.clock),
            transport=httpx2.ASGITransport(simulator),
            timeout=None,
        ) as http:
            answers = await asyncio.gather(*(ask(http) for _ in range(240)))
        return [answer.status_code for answer in answers]

    statuses = run_virtual(main(), loop)

    assert [200] * 240 == statuses
    assert 0 == refused(simulator)
    # 60 at once are a bucket's; the others come at its rate, or not much slower
    assert 180 <= loop.time() <= 270


def test_each_model_has_limits_of_its_own() -> None:
    loop = VirtualLoop()
    limiter = learner(loop)
    simulator = Simulator("anthropic", LIMITS, clock=loop.clock)

    async def act(http: httpx2.AsyncClient) -> None:
        await ask(http, "claude-a")
        known = await limiter.status("claude-a")
        unknown = await limiter.status("claude-b")

        assert "60 requests/minute (learned)" in known
        assert "40k input_tokens/minute (learned)" in known
        assert 1 == known["60 requests/minute (learned)"].used
        assert "60 requests/minute (learned)" not in unknown

    play(simulator, loop, limiter, act)


@pytest.mark.parametrize(("before", "after"), [(60, 30), (60, 120)])
def test_limits_that_change_in_mid_run_are_followed(before: int, after: int) -> None:
    loop = VirtualLoop()
    limiter = learner(loop)
    simulator = Simulator(
        "anthropic", [f"{before} rpm"], latency_s=0.3, clock=loop.clock
    )
    counts: list[int] = []

    async def act(http: httpx2.AsyncClient) -> None:
        calls = [asyncio.ensure_future(ask(http)) for _ in range(1200)]
        await asyncio.sleep(120)
        (rule,) = simulator._account.enforcer.rules
        rule.change(after, loop.clock.now_us())
        await asyncio.sleep(60)
        since = sum(call.done() for call in calls)
        await asyncio.sleep(240)
        counts.append(sum(call.done() for call in calls) - since)
        known = await limiter.status("m")

        assert f"{after} requests/minute (learned)" in known

        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    play(simulator, loop, limiter, act)

    assert 4 * after * 0.9 <= counts[0] <= 5 * after
    assert refused(simulator) <= 3


def test_a_provider_that_shows_no_limits_wants_them_told_or_felt_for() -> None:
    with pytest.raises(ConfigError, match="learned from refusals"):
        ratekeeper.async_http_client("gemini")


def test_calls_at_once_are_felt_for_where_no_header_shows_a_limit() -> None:
    """Its 429s are the price, and few."""
    loop = VirtualLoop()
    limiter = learner(loop, "learned from refusals", account="gemini")
    simulator = Simulator("gemini", ["12 concurrent"], latency_s=2.0, clock=loop.clock)
    statuses: list[int] = []
    body = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}

    async def act(http: httpx2.AsyncClient) -> None:
        url = "http://simulated/v1beta/models/g:generateContent"
        headers = {"x-goog-api-key": KEY}
        answers = await asyncio.gather(
            *(http.post(url, json=body, headers=headers) for _ in range(500))
        )
        statuses.extend(answer.status_code for answer in answers)

    play(simulator, loop, limiter, act, "gemini")

    assert {200, 429} >= set(statuses)
    assert statuses.count(429) <= 25
    # with twelve at once it would be 84 s, with four 250 s
    assert loop.time() <= 170


def test_a_budget_beside_learned_limits_holds_for_all_models_together() -> None:
    loop = VirtualLoop()
    simulator = Simulator("anthropic", LIMITS, clock=loop.clock)
    limiter = learner(loop, "learned", "2 requests/day")
    codes: list[int] = []

    async def act(http: httpx2.AsyncClient) -> None:
        for model in ("one", "two", "three"):
            options = {"ratekeeper": {"timeout": 1}}
            body = {"model": model, "messages": MESSAGES, "max_tokens": 40}
            answer = await http.post(
                URL, json=body, headers=HEADERS, extensions=options
            )
            codes.append(answer.status_code)

    play(simulator, loop, limiter, act)

    assert [200, 200, 429] == codes
    assert any("2 requests/day" in str(limit) for limit in limiter.limits)


def test_one_answer_that_never_comes_does_not_keep_the_others_waiting() -> None:
    loop = VirtualLoop()
    limiter = learner(loop)
    waited: list[float] = []

    async def main() -> None:
        first = await limiter.acquire(input_tokens=1, output_tokens=1)
        second = await limiter.acquire(input_tokens=1, output_tokens=1)
        waited.append(second.waited_s)
        first.cancel()
        second.cancel()

    run_virtual(main(), loop)

    assert [30.0] == waited
