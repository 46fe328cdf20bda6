"""The Anthropic middleware: what only it has to care for; the rest is in test_sdk."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

import anthropic
import httpx2
import pytest

import ratekeeper
from ratekeeper.limiter import AsyncLimiter, Limiter
from tests.client.sdks import ASK
from tests.client.wire import Script, Wire, http, message

JSON = "content-type: application/json"
LIMITS = ("2 requests/200 s", "100k otpm", "5 concurrent")


def claude(wire: Wire, limiter: Limiter, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=wire.url,
        api_key="sk-x",
        max_retries=0,
        middleware=[ratekeeper.anthropic_middleware(limiter, **options)],
    )


def used(limiter: Limiter, key: str = "") -> list[Any]:
    return [row.used for row in limiter.status(key).values()]


def test_a_request_without_a_body_counts_as_a_request() -> None:
    limiter = Limiter(*LIMITS)
    with Wire(http(200, b'{"data": []}', JSON)) as wire, claude(wire, limiter) as ai:
        ai.models.list()

        assert [1, 0, 0] == used(limiter)


def test_calls_are_held_to_the_key_they_are_given() -> None:
    limiter = Limiter(*LIMITS)
    with Wire(http(200, message(), JSON)) as wire:
        with claude(wire, limiter, key="search", timeout=0) as ai:
            ai.messages.create(**ASK)

        assert [1, 5, 0] == used(limiter, "search")
        assert [0, 0, 0] == used(limiter)


@pytest.mark.parametrize("timeout", [0.3, httpx2.Timeout(0.3)])
def test_a_requests_own_timeout_bounds_its_wait(timeout: Any) -> None:
    limiter = Limiter("1 requests/minute")
    with Wire(http(200, message(), JSON)) as wire, claude(wire, limiter) as ai:
        ai.messages.create(**ASK)
        began = time.perf_counter()
        with pytest.raises(anthropic.RateLimitError) as caught:
            ai.messages.create(**ASK, timeout=timeout)

        assert time.perf_counter() - began < 5  # not a minute
        assert "rate_limit_error" == caught.value.type
        assert 1 == len(wire.requests)


def test_the_middlewares_timeout_bounds_the_wait_of_the_rest() -> None:
    limiter = Limiter("1 requests/200 s")
    with Wire(http(200, message(), JSON)) as wire:
        with claude(wire, limiter, timeout=100) as ai:
            ai.messages.create(**ASK)
            with pytest.raises(anthropic.RateLimitError, match="1 requests/200"):
                ai.messages.create(**ASK)

        assert 1 == len(wire.requests)


def test_an_answer_that_does_not_come_counts_in_full() -> None:
    limiter = Limiter(*LIMITS)
    with Wire(Script(4.0)) as wire, claude(wire, limiter) as ai:
        with pytest.raises(anthropic.APITimeoutError):
            ai.messages.create(**ASK, timeout=httpx2.Timeout(5, read=0.1))

        assert [1, 90, 0] == used(limiter)


def test_an_answer_from_other_middleware_costs_nothing() -> None:
    cached = anthropic.types.Message.model_validate_json(message())
    limiter = Limiter(*LIMITS)
    ai = anthropic.Anthropic(
        api_key="sk-x",
        middleware=[
            ratekeeper.anthropic_middleware(limiter),
            lambda request, call_next: cached,  # type: ignore[list-item]
        ],
    )
    with ai:
        assert cached is ai.messages.create(**ASK)

    assert [0, 0, 0] == used(limiter)


def test_a_limiter_of_the_other_kind_is_refused_by_the_sdk() -> None:
    middleware: Any = ratekeeper.anthropic_middleware(Limiter("1 rpm"))
    with pytest.raises(TypeError, match="not an async function"):
        anthropic.AsyncAnthropic(api_key="sk-x", middleware=[middleware])
    middleware = ratekeeper.anthropic_middleware(AsyncLimiter("1 rpm"))
    with pytest.raises(TypeError, match="is an async function"):
        anthropic.Anthropic(api_key="sk-x", middleware=[middleware])


def test_a_task_cancelled_while_it_is_answered_frees_its_slot() -> None:
    async def run(wire: Wire) -> list[Any]:
        limiter = AsyncLimiter(*LIMITS)
        async with anthropic.AsyncAnthropic(
            base_url=wire.url,
            api_key="sk-x",
            middleware=[ratekeeper.anthropic_middleware(limiter)],
        ) as ai:
            task = asyncio.ensure_future(ai.messages.create(**ASK))
            while not wire.requests:  # noqa: ASYNC110 - the server is a thread
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return [row.used for row in (await limiter.status()).values()]

    with Wire(Script(4.0)) as wire:
        assert [1, 90, 0] == asyncio.run(run(wire))


def test_its_name_is_there_where_the_sdk_is_not() -> None:
    script = (
        "import sys; sys.modules['anthropic'] = None; import ratekeeper; "
        "ratekeeper.anthropic_middleware(ratekeeper.Limiter('1 rpm'))"
    )

    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert 0 == done.returncode
