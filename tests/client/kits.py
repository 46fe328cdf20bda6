"""One way to drive the transports of both HTTP libraries, sync and async alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol, Self

import httpx
import httpx2

from ratekeeper.client import legacy, transport
from ratekeeper.limiter import AsyncLimiter, Limiter

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 90}
LIMITS = ("100 rpm", "100k tpm", "5 concurrent")


class Kit(Protocol):
    """A client over a limited transport, its limiter, and what they did."""

    lib: Any
    limiter: Any

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def post(self, url: str, **options: Any) -> Any: ...
    def read(self, url: str, parts: int, **options: Any) -> list[bytes]: ...
    def used(self) -> dict[str, int]: ...
    def acquire(self, **cost: Any) -> Any: ...


def _used(status: dict[str, Any]) -> dict[str, int]:
    return {name.split()[1].split("/")[0]: row.used for name, row in status.items()}


class SyncKit:
    def __init__(
        self, lib: Any, *limits: str, wrap: Any = None, limiter: Any = None, **more: Any
    ) -> None:
        home = transport if lib is httpx2 else legacy
        self.lib = lib
        self.limiter = limiter or Limiter(*limits or LIMITS)
        self.transport = home.LimitedTransport(self.limiter, wrap=wrap, **more)
        self.client = lib.Client(transport=self.transport, timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def post(self, url: str, **options: Any) -> Any:
        options.setdefault("json", CHAT)
        return self.client.post(url, **options)

    def read(self, url: str, parts: int, **options: Any) -> list[bytes]:
        """Read so many parts of an answer, then leave."""
        options.setdefault("json", CHAT)
        found: list[bytes] = []
        with self.client.stream("POST", url, **options) as response:
            for part in response.iter_raw():
                found.append(part)
                if len(found) == parts:
                    break
        return found

    def used(self) -> dict[str, int]:
        return _used(self.limiter.status())

    def acquire(self, **cost: Any) -> Any:
        return self.limiter.acquire(**cost)


class AsyncKit:
    def __init__(
        self, lib: Any, *limits: str, wrap: Any = None, limiter: Any = None, **more: Any
    ) -> None:
        home = transport if lib is httpx2 else legacy
        self.lib = lib
        self._runner = asyncio.Runner()
        self.limiter = limiter or AsyncLimiter(*limits or LIMITS)
        self.transport = home.AsyncLimitedTransport(self.limiter, wrap=wrap, **more)
        self.client = lib.AsyncClient(transport=self.transport, timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self.client.aclose())
        self._runner.close()

    def run(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine)

    def post(self, url: str, **options: Any) -> Any:
        options.setdefault("json", CHAT)
        return self.run(self.client.post(url, **options))

    def read(self, url: str, parts: int, **options: Any) -> list[bytes]:
        options.setdefault("json", CHAT)

        async def read() -> list[bytes]:
            found: list[bytes] = []
            async with self.client.stream("POST", url, **options) as response:
                async for part in response.aiter_raw():
                    found.append(part)
                    if len(found) == parts:
                        break
            return found

        return self.run(read())  # type: ignore[no-any-return]

    def used(self) -> dict[str, int]:
        async def status() -> dict[str, int]:
            return _used(await self.limiter.status())

        return self.run(status())  # type: ignore[no-any-return]

    def acquire(self, **cost: Any) -> Any:
        async def acquire() -> Any:
            return await self.limiter.acquire(**cost)

        return self.run(acquire())


KITS: dict[str, Any] = {
    "httpx2-sync": lambda *a, **k: SyncKit(httpx2, *a, **k),
    "httpx2-async": lambda *a, **k: AsyncKit(httpx2, *a, **k),
    "httpx-sync": lambda *a, **k: SyncKit(httpx, *a, **k),
    "httpx-async": lambda *a, **k: AsyncKit(httpx, *a, **k),
}


def eventually(check: Callable[[], bool], within_s: float = 2.0) -> float:
    """Wait for something another thread does; returns how long it took."""
    began = time.perf_counter()
    while not check():
        assert time.perf_counter() - began < within_s
        time.sleep(0.002)
    return time.perf_counter() - began


async def in_line(limiter: AsyncLimiter, calls: int = 1) -> None:
    """Wait until so many calls stand in line."""
    while all(row.waiting < calls for row in (await limiter.status()).values()):  # noqa: ASYNC110 - a status is asked for
        await asyncio.sleep(0)
