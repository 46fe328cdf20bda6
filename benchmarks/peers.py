"""Peers: other limiters, each used as its own documentation says.

A library with one kind of limit is given one limiter for requests and one for tokens,
asked in that order. The call inside is an official SDK with its own two retries, as in
their examples. Refunds are handed on where the provider gives them too.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import sys
import time
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from benchmarks.provider import Answer
    from benchmarks.workload import Call, Case
    from ratekeeper.testing import ManualClock

_FOREVER_S = 1e9


class Peer:
    """What all of them share: asked once a call, and told of the answer."""

    package: ClassVar[str]
    module: ClassVar[str]
    takes: ClassVar[str]  # how it was set up, for the table of versions
    each_attempt = False
    slow = False  # whether one draw of the calls must do

    def __init__(self, case: Case, clock: ManualClock) -> None:
        del clock
        self.name = self.package
        self.case = case
        self.lib: Any = importlib.import_module(self.module)
        self.set_up()

    def set_up(self) -> None:
        """Build the limiter."""
        raise NotImplementedError

    async def admit(self, call: Call) -> Any:
        """Wait for leave to call."""
        raise NotImplementedError

    async def answered(self, ticket: Any, call: Call, answer: Answer) -> None:
        """Most have nothing to settle."""

    async def refused(self, ticket: Any, call: Call, answer: Answer) -> None:
        """Most have nothing to learn."""

    def used(self, call: Call) -> int:
        """Say what to settle at: what came back counts only where it does."""
        return call.used if self.case.refunds else call.reserved


class AioLimiter(Peer):
    """aiolimiter: a leaky bucket that holds a minute's worth."""

    package, module = "aiolimiter", "aiolimiter"
    takes = "AsyncLimiter(limit, 60)"

    def set_up(self) -> None:
        self.requests = self.lib.AsyncLimiter(self.case.rpm, 60)
        self.tokens = self.case.tpm and self.lib.AsyncLimiter(self.case.tpm, 60)

    async def admit(self, call: Call) -> None:
        await self.requests.acquire()
        if self.tokens:
            await self.tokens.acquire(call.reserved)


class PyrateLimiter(Peer):
    """pyrate-limiter: its default, a sliding log, wrapped for asyncio."""

    package, module = "pyrate-limiter", "pyrate_limiter"
    takes = "BucketAsyncWrapper(InMemoryBucket([Rate(limit, MINUTE)]))"

    def set_up(self) -> None:
        self.requests = self._limiter(self.case.rpm)
        self.tokens = self.case.tpm and self._limiter(self.case.tpm)

    def _limiter(self, amount: int) -> Any:
        rate = self.lib.Rate(amount, self.lib.Duration.MINUTE)
        bucket = self.lib.BucketAsyncWrapper(self.lib.InMemoryBucket([rate]))
        return self.lib.Limiter(bucket)

    async def admit(self, call: Call) -> None:
        await self.requests.try_acquire_async("api")
        if self.tokens:
            await self.tokens.try_acquire_async("api", weight=call.reserved)


class Throttled(Peer):
    """throttled-py: its default, a token bucket, with wait-and-retry."""

    package, module = "throttled-py", "throttled.asyncio"
    takes = 'Throttled(quota="limit/m", timeout=...)'

    def set_up(self) -> None:
        self.requests = self._limiter(self.case.rpm)
        self.tokens = self.case.tpm and self._limiter(self.case.tpm)

    def _limiter(self, amount: int) -> Any:
        store = importlib.import_module("throttled.asyncio.store").MemoryStore()
        return self.lib.Throttled(
            quota=f"{amount}/m", timeout=_FOREVER_S, store=store, key="api"
        )

    async def admit(self, call: Call) -> None:
        await _until(self.requests.limit)
        if self.tokens:
            await _until(lambda: self.tokens.limit(cost=call.reserved))


async def _until(ask: Any) -> None:
    """Ask until it is not limited: others may have been quicker."""
    while (await ask()).limited:
        pass


class Limits(Peer):
    """limits: a moving window; sleeps until the reset time it names, then asks again."""

    package, module = "limits", "limits.aio"
    slow = True
    takes = "MovingWindowRateLimiter, sleep until reset_time"

    def set_up(self) -> None:
        storage = importlib.import_module("limits.aio.storage").MemoryStorage()
        strategies = importlib.import_module("limits.aio.strategies")
        per_minute = importlib.import_module("limits").RateLimitItemPerMinute
        self.limiter = strategies.MovingWindowRateLimiter(storage)
        self.requests = per_minute(self.case.rpm, namespace="requests")
        self.tokens = self.case.tpm and per_minute(self.case.tpm, namespace="tokens")

    async def admit(self, call: Call) -> None:
        await self._wait(self.requests, 1)
        if self.tokens:
            await self._wait(self.tokens, call.reserved)

    async def _wait(self, item: Any, cost: int) -> None:
        while not await self.limiter.hit(item, "api", cost=cost):
            window = await self.limiter.get_window_stats(item, "api")
            left_s = window.reset_time - time.time()  # noqa: TID251 - as their page does
            await asyncio.sleep(max(0.001, left_s))


class LangChain(Peer):
    """LangChain's InMemoryRateLimiter: requests alone, polled every 100 ms."""

    package, module = "langchain-core", "langchain_core.rate_limiters"
    slow = True
    takes = "InMemoryRateLimiter(rpm / 60, bucket of a second's worth); requests alone"

    def set_up(self) -> None:
        self.requests = self.lib.InMemoryRateLimiter(
            requests_per_second=self.case.rpm / 60,
            check_every_n_seconds=0.1,
            max_bucket_size=max(1, self.case.rpm / 60),
        )

    async def admit(self, call: Call) -> None:
        del call
        await self.requests.aacquire()


class InferMesh(Peer):
    """infermesh: both limits in one call, refunds."""

    package, module = "infermesh", "infermesh"
    takes = "RateLimiter(requests_per_minute, tokens_per_minute), adjust()"

    def set_up(self) -> None:
        self.limiter = self.lib.RateLimiter(
            requests_per_minute=self.case.rpm, tokens_per_minute=self.case.tpm
        )

    async def admit(self, call: Call) -> Any:
        ticket = await self.limiter.acquire(call.reserved if self.case.tpm else 0)
        if ticket is None:  # it swallows the cancellation and returns nothing
            raise asyncio.CancelledError
        return ticket

    async def answered(self, ticket: Any, call: Call, answer: Answer) -> None:
        del answer
        if self.case.tpm:
            await self.limiter.adjust(ticket, actual_tokens=self.used(call))

    async def refused(self, ticket: Any, call: Call, answer: Answer) -> None:
        del call, answer
        await self.limiter.adjust(ticket, actual_tokens=0)


class TokenThrottle(Peer):
    """token-throttle: both limits in one call, refunds."""

    package, module = "token-throttle", "token_throttle"
    slow = True
    takes = "RateLimiter(UsageQuotas), MemoryBackendBuilder, refund_capacity()"

    def set_up(self) -> None:
        lib = self.lib
        quotas = [lib.Quota(metric="requests", limit=self.case.rpm, per_seconds=60)]
        if self.case.tpm:
            quotas.append(
                lib.Quota(metric="tokens", limit=self.case.tpm, per_seconds=60)
            )
        config = lib.PerModelConfig(quotas=lib.UsageQuotas(quotas))
        self.limiter = lib.RateLimiter(config, backend=lib.MemoryBackendBuilder())

    def _usage(self, tokens: int) -> dict[str, int]:
        return {"requests": 1, "tokens": tokens} if self.case.tpm else {"requests": 1}

    async def admit(self, call: Call) -> Any:
        usage = self._usage(call.reserved)
        return await self.limiter.acquire_capacity(model="m", usage=usage)

    async def answered(self, ticket: Any, call: Call, answer: Answer) -> None:
        del answer
        await self._settle(ticket, self.used(call))

    async def refused(self, ticket: Any, call: Call, answer: Answer) -> None:
        del call, answer
        await self._settle(ticket, 0)

    def _settle(self, ticket: Any, tokens: int) -> Awaitable[None]:
        return self.limiter.refund_capacity(  # type: ignore[no-any-return]
            actual_usage=self._usage(tokens), reservation=ticket
        )


ALL: tuple[type[Peer], ...] = (
    TokenThrottle,
    AioLimiter,
    PyrateLimiter,
    Throttled,
    Limits,
    InferMesh,
    LangChain,
)


def present() -> tuple[list[type[Peer]], list[str]]:
    """Return the peers that can be imported, and a line for each that cannot."""
    found, missing = [], []
    for peer in ALL:
        try:
            importlib.import_module(peer.module)
        except ImportError as error:
            python = ".".join(map(str, sys.version_info[:2]))
            missing.append(f"{peer.package}: not here (Python {python}: {error})")
        else:
            found.append(peer)
    return found, missing


def versions(peers: list[type[Peer]]) -> list[str]:
    """Say which version of each was measured, and how it was set up."""
    return [
        f"{peer.package} {importlib.metadata.version(peer.package)}: {peer.takes}"
        for peer in peers
    ]
