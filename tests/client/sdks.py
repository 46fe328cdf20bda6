"""The official SDKs over every HTTP library they ride on, behind one small face."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar, Self

import anthropic
import httpx
import openai
import pytest

from ratekeeper.client import hooks, legacy, transport
from ratekeeper.limiter import AsyncLimiter, Limiter

if TYPE_CHECKING:
    from collections.abc import Callable

ASK: dict[str, Any] = {
    "model": "m",
    "max_tokens": 90,
    "messages": [{"role": "user", "content": "Hi"}],
}
CANARY_KEY = "sk-ant-canary-4f1d6f0c9b7e2a8855aa41c6"


class Face:
    """An SDK client, its limiter (None: unlimited), and the calls that tests make."""

    provider = ""
    limits: tuple[str, ...] = ()
    stream_options: ClassVar[dict[str, Any]] = {}
    error: Any
    unreachable: Any

    def __init__(self, url: str, limiter: Any, retries: int, **options: Any) -> None:
        self.limiter = limiter
        self.sdk = self.build(url, retries, **options)

    def build(self, url: str, retries: int, **options: Any) -> Any:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.sdk.close())

    def run(self, result: Any) -> Any:
        """Return a result; an async face awaits it."""
        return result

    @property
    def calls(self) -> Any:
        return self.sdk.messages

    def plain(self, **options: Any) -> Any:
        return self.run(self.calls.create(**ASK, **options))

    def raw(self, **options: Any) -> Any:
        return self.run(self.calls.with_raw_response.create(**ASK, **options))

    def stream(self, most: int = 1000, **options: Any) -> list[Any]:
        """Read at most so many events, then close the stream."""
        options = {**self.stream_options, **options}
        found: list[Any] = []
        with self.calls.create(**ASK, stream=True, **options) as events:
            for event in events:
                found.append(event)
                if len(found) == most:
                    break
        return found

    def streaming(self, **options: Any) -> bytes:
        """Read a whole answer through `with_streaming_response`."""
        create = self.calls.with_streaming_response.create
        with create(**ASK, **options) as response:
            return b"".join(response.iter_bytes())

    def used(self) -> dict[str, int]:
        status = self.run(self.limiter.status())
        return {n.split()[1].split("/")[0]: row.used for n, row in status.items()}


class AsyncFace(Face):
    def __init__(self, *args: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        super().__init__(*args, **options)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._runner.close()

    def run(self, result: Any) -> Any:
        async def awaited() -> Any:
            return await result

        return self._runner.run(awaited())

    def stream(self, most: int = 1000, **options: Any) -> list[Any]:
        async def read() -> list[Any]:
            found: list[Any] = []
            more = {**self.stream_options, **options}
            async with await self.calls.create(**ASK, stream=True, **more) as events:
                async for event in events:
                    found.append(event)
                    if len(found) == most:
                        break
            return found

        return self.run(read())  # type: ignore[no-any-return]

    def streaming(self, **options: Any) -> bytes:
        async def read() -> bytes:
            create = self.calls.with_streaming_response.create
            async with create(**ASK, **options) as response:
                return b"".join([part async for part in response.iter_bytes()])

        return self.run(read())  # type: ignore[no-any-return]


class OpenAIFace(Face):
    provider = "openai"
    limits = ("1000 rpm", "100k tpm", "5 concurrent")
    stream_options: ClassVar[dict[str, Any]] = {
        "stream_options": {"include_usage": True}
    }
    error = openai.RateLimitError
    unreachable = openai.APIConnectionError

    @property
    def calls(self) -> Any:
        return self.sdk.chat.completions


class AnthropicFace(Face):
    provider = "anthropic"
    limits = ("1000 rpm", "100k itpm", "100k otpm", "5 concurrent")
    error = anthropic.RateLimitError
    unreachable = anthropic.APIConnectionError


class OpenAIHttpx2(OpenAIFace):
    def build(self, url: str, retries: int, **options: Any) -> Any:
        http = None
        if self.limiter is not None:
            limited = transport.LimitedTransport(self.limiter, self.provider)
            http = openai.DefaultHttpxClient(transport=limited)
        return openai.OpenAI(
            base_url=url,
            api_key=CANARY_KEY,
            http_client=http,
            max_retries=retries,
            **options,
        )


class AsyncOpenAIHttpx2(AsyncFace, OpenAIFace):
    def build(self, url: str, retries: int, **options: Any) -> Any:
        http = None
        if self.limiter is not None:
            limited = transport.AsyncLimitedTransport(self.limiter, self.provider)
            http = openai.DefaultAsyncHttpxClient(transport=limited)
        return openai.AsyncOpenAI(
            base_url=url,
            api_key=CANARY_KEY,
            http_client=http,
            max_retries=retries,
            **options,
        )


class OpenAIHttpx(OpenAIFace):
    def build(self, url: str, retries: int, **options: Any) -> Any:
        wrap: Any = None
        if self.limiter is not None:
            wrap = legacy.LimitedTransport(self.limiter, self.provider)
        http: Any = httpx.Client(transport=wrap, timeout=600)
        return openai.OpenAI(
            base_url=url,
            api_key=CANARY_KEY,
            http_client=http,
            max_retries=retries,
            **options,
        )


class AsyncOpenAIHttpx(AsyncFace, OpenAIFace):
    def build(self, url: str, retries: int, **options: Any) -> Any:
        wrap: Any = None
        if self.limiter is not None:
            wrap = legacy.AsyncLimitedTransport(self.limiter, self.provider)
        http: Any = httpx.AsyncClient(transport=wrap, timeout=600)
        return openai.AsyncOpenAI(
            base_url=url,
            api_key=CANARY_KEY,
            http_client=http,
            max_retries=retries,
            **options,
        )


class AsyncOpenAIAiohttp(AsyncFace, OpenAIFace):
    def build(self, url: str, retries: int, **options: Any) -> Any:
        from openai._vendor.httpx_aiohttp import AiohttpTransport

        wrap: Any = AiohttpTransport()
        if self.limiter is not None:
            wrap = transport.AsyncLimitedTransport(
                self.limiter, self.provider, wrap=wrap
            )
        return openai.AsyncOpenAI(
            base_url=url,
            api_key=CANARY_KEY,
            http_client=openai.DefaultAsyncHttpxClient(transport=wrap),
            max_retries=retries,
            **options,
        )


class AnthropicHttpx2(AnthropicFace):
    def build(self, url: str, retries: int, **options: Any) -> Any:
        http = None
        if self.limiter is not None:
            limited = transport.LimitedTransport(self.limiter, self.provider)
            http = anthropic.DefaultHttpxClient(transport=limited)
        return anthropic.Anthropic(
            base_url=url,
            api_key=CANARY_KEY,
            http_client=http,
            max_retries=retries,
            **options,
        )


class AsyncAnthropicHttpx2(AsyncFace, AnthropicFace):
    def build(self, url: str, retries: int, **options: Any) -> Any:
        http = None
        if self.limiter is not None:
            limited = transport.AsyncLimitedTransport(self.limiter, self.provider)
            http = anthropic.DefaultAsyncHttpxClient(transport=limited)
        return anthropic.AsyncAnthropic(
            base_url=url,
            api_key=CANARY_KEY,
            http_client=http,
            max_retries=retries,
            **options,
        )


def _pass_on(request: Any, call_next: Any) -> Any:
    return call_next(request)


async def _pass_on_async(request: Any, call_next: Any) -> Any:
    return await call_next(request)


class AnthropicMiddleware(AnthropicFace):
    def build(self, url: str, retries: int, **options: Any) -> Any:
        between: Any = [_pass_on]
        if self.limiter is not None:
            between = [hooks.anthropic_middleware(self.limiter)]
        return anthropic.Anthropic(
            base_url=url,
            api_key=CANARY_KEY,
            middleware=between,
            max_retries=retries,
            **options,
        )


class AsyncAnthropicMiddleware(AsyncFace, AnthropicFace):
    def build(self, url: str, retries: int, **options: Any) -> Any:
        between: Any = [_pass_on_async]
        if self.limiter is not None:
            between = [hooks.anthropic_middleware(self.limiter)]
        return anthropic.AsyncAnthropic(
            base_url=url,
            api_key=CANARY_KEY,
            middleware=between,
            max_retries=retries,
            **options,
        )


_AIOHTTP = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp") is None, reason="aiohttp is not installed"
)
FACES: list[Any] = [
    OpenAIHttpx2,
    AsyncOpenAIHttpx2,
    OpenAIHttpx,
    AsyncOpenAIHttpx,
    pytest.param(AsyncOpenAIAiohttp, marks=_AIOHTTP),
    AnthropicHttpx2,
    AsyncAnthropicHttpx2,
    AnthropicMiddleware,
    AsyncAnthropicMiddleware,
]


def limited(
    face: Callable[..., Face], url: str, *limits: str, retries: int = 0, **options: Any
) -> Face:
    """Build a face with a limiter of its own kind."""
    kind: Any = face
    said = limits or kind.limits
    make = AsyncLimiter if issubclass(kind, AsyncFace) else Limiter
    return face(url, make(*said), retries, **options)
