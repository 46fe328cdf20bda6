"""The public types of the clients: mypy reads them, and running them agrees."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, assert_type

import pytest

from ratekeeper import AsyncClient, Client
from ratekeeper.client.check import KeyCheck
from ratekeeper.client.stream import AsyncStream, Stream
from ratekeeper.simulator.server import Simulator, serving

KEY = "sk-simulated-" + "0123456789abcdef" * 3
LIMITS = ["500 rpm", "1M tpm"]
HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(Simulator("openai", LIMITS, latency_s=0, jitter_s=0)) as url:
        yield url


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_is_typed(url: str, stream: bool) -> None:
    with Client("openai", api_key=KEY, base_url=url, limits=LIMITS) as ai:
        answer = ai.chat_completion(model="m", messages=HELLO, max_tokens=5)
        assert_type(answer, dict[str, Any])
        either = ai.chat_completion(
            model="m", messages=HELLO, stream=stream, max_tokens=5
        )
        assert_type(either, dict[str, Any] | Stream)
        with ai.chat_completion(model="m", messages=HELLO, stream=True) as chunks:
            assert_type(chunks, Stream)
            for chunk in chunks:
                assert_type(chunk, dict[str, Any])
        many = ai.batch_chat([{"model": "m", "messages": HELLO}], concurrency=2)
        assert_type(many, list[dict[str, Any] | Exception])
        assert_type(ai.validate_key(), KeyCheck)

    assert "choices" in answer
    assert stream is isinstance(either, Stream)


@pytest.mark.parametrize("stream", [True, False])
def test_an_async_client_is_typed(url: str, stream: bool) -> None:
    async def main() -> None:
        async with AsyncClient(
            "openai", api_key=KEY, base_url=url, limits=LIMITS
        ) as ai:
            answer = await ai.chat_completion(model="m", messages=HELLO, max_tokens=5)
            assert_type(answer, dict[str, Any])
            either = await ai.chat_completion(
                model="m", messages=HELLO, stream=stream, max_tokens=5
            )
            assert_type(either, dict[str, Any] | AsyncStream)

            assert "choices" in answer
            assert stream is isinstance(either, AsyncStream)
            if isinstance(either, AsyncStream):
                async for chunk in either:
                    assert_type(chunk, dict[str, Any])

    asyncio.run(main())
