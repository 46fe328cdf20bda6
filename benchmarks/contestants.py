"""Contestants: one tight loop for each way of asking a limiter for leave.

Every loop holds what a program would write, with nothing around it, so what is timed is
the limiter. The limits are far above what the loops use: the price of a grant, not of
waiting. Each is built anew for a round.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
from typing import Any

from ratekeeper import AsyncLimiter, Limiter

RPM, TPM = 100_000_000, 100_000_000_000  # never reached
RESERVED, USED = 500, 320

# Both limits together, with a refund.


def floor() -> Any:
    """Two pairs of lock and clock read: what any acquire and settle must do."""
    lock, clock = threading.Lock(), time.monotonic_ns

    def loop(n: int) -> None:
        for _ in range(n):
            with lock:
                clock()
            with lock:
                clock()

    return loop


def ratekeeper_both() -> Any:
    limiter = Limiter(f"{RPM} rpm", f"{TPM} tpm")

    def loop(n: int) -> None:
        for _ in range(n):
            grant = limiter.acquire(tokens=RESERVED)
            grant.settle(tokens=USED)

    return loop


def token_throttle_both() -> Any:
    lib: Any = importlib.import_module("token_throttle")
    limiter = lib.SyncRateLimiter(_quotas(lib), backend=lib.SyncMemoryBackendBuilder())

    def loop(n: int) -> None:
        for _ in range(n):
            held = limiter.acquire_capacity(
                model="m", usage={"requests": 1, "tokens": RESERVED}
            )
            limiter.refund_capacity(
                actual_usage={"requests": 1, "tokens": USED}, reservation=held
            )

    return loop


def _quotas(lib: Any) -> Any:
    quotas = [
        lib.Quota(metric="requests", limit=RPM, per_seconds=60),
        lib.Quota(metric="tokens", limit=TPM, per_seconds=60),
    ]
    return lib.PerModelConfig(quotas=lib.UsageQuotas(quotas))


def floor_async() -> Any:
    """The same floor in a task."""
    lock, clock = threading.Lock(), time.monotonic_ns

    async def loop(n: int, *, pause: bool) -> None:
        for _ in range(n):
            with lock:
                clock()
            if pause:
                await asyncio.sleep(0)
            with lock:
                clock()

    return loop


def ratekeeper_both_async() -> Any:
    limiter = AsyncLimiter(f"{RPM} rpm", f"{TPM} tpm")

    async def loop(n: int, *, pause: bool) -> None:
        for _ in range(n):
            grant = await limiter.acquire(tokens=RESERVED)
            if pause:
                await asyncio.sleep(0)
            grant.settle(tokens=USED)

    return loop


def token_throttle_both_async() -> Any:
    lib: Any = importlib.import_module("token_throttle")
    limiter = lib.RateLimiter(_quotas(lib), backend=lib.MemoryBackendBuilder())

    async def loop(n: int, *, pause: bool) -> None:
        for _ in range(n):
            held = await limiter.acquire_capacity(
                model="m", usage={"requests": 1, "tokens": RESERVED}
            )
            if pause:
                await asyncio.sleep(0)
            await limiter.refund_capacity(
                actual_usage={"requests": 1, "tokens": USED}, reservation=held
            )

    return loop


def infermesh_both_async() -> Any:
    lib: Any = importlib.import_module("infermesh")
    limiter = lib.RateLimiter(requests_per_minute=RPM, tokens_per_minute=TPM)

    async def loop(n: int, *, pause: bool) -> None:
        for _ in range(n):
            held = await limiter.acquire(RESERVED)
            if pause:
                await asyncio.sleep(0)
            await limiter.adjust(held, actual_tokens=USED)

    return loop


# One limit, nothing to settle.


def _ratekeeper_one(algorithm: str) -> Any:
    limiter = Limiter(f"{RPM} rpm using {algorithm}")

    def loop(n: int) -> None:
        for _ in range(n):
            limiter.acquire()

    return loop


def ratekeeper_sliding() -> Any:
    return _ratekeeper_one("sliding-window")


def ratekeeper_fixed() -> Any:
    return _ratekeeper_one("fixed-window")


def ratekeeper_bucket() -> Any:
    return _ratekeeper_one("token-bucket")


def _limits(kind: str) -> Any:
    storage = importlib.import_module("limits.storage").MemoryStorage()
    limiter = getattr(importlib.import_module("limits.strategies"), kind)(storage)
    item = importlib.import_module("limits").RateLimitItemPerMinute(RPM)

    def loop(n: int) -> None:
        for _ in range(n):
            limiter.hit(item, "api")

    return loop


def limits_moving() -> Any:
    return _limits("MovingWindowRateLimiter")


def limits_fixed() -> Any:
    return _limits("FixedWindowRateLimiter")


def _pyrate_bucket(lib: Any, *, log: bool) -> Any:
    rates = [lib.Rate(RPM, lib.Duration.MINUTE)]
    if log:
        return lib.InMemoryBucket(rates)
    return lib.StateBucket(rates, algorithm=lib.TokenBucket())


def _pyrate(*, log: bool) -> Any:
    lib: Any = importlib.import_module("pyrate_limiter")
    limiter = lib.Limiter(_pyrate_bucket(lib, log=log))

    def loop(n: int) -> None:
        for _ in range(n):
            limiter.try_acquire("api")

    return loop


def pyrate_log() -> Any:
    return _pyrate(log=True)


def pyrate_bucket() -> Any:
    return _pyrate(log=False)


def throttled_bucket() -> Any:
    lib: Any = importlib.import_module("throttled")
    store = importlib.import_module("throttled.store").MemoryStore()
    limiter = lib.Throttled(quota=f"{RPM}/m", store=store, key="api")

    def loop(n: int) -> None:
        for _ in range(n):
            limiter.limit()

    return loop


def langchain() -> Any:
    lib: Any = importlib.import_module("langchain_core.rate_limiters")
    limiter = lib.InMemoryRateLimiter(
        requests_per_second=RPM, max_bucket_size=RPM, check_every_n_seconds=0.000001
    )

    def loop(n: int) -> None:
        for _ in range(n):
            limiter.acquire()

    return loop


def ratekeeper_sliding_async() -> Any:
    limiter = AsyncLimiter(f"{RPM} rpm")

    async def loop(n: int, *, pause: bool) -> None:
        for _ in range(n):
            await limiter.acquire()
            if pause:
                await asyncio.sleep(0)

    return loop


def aiolimiter_async() -> Any:
    limiter = importlib.import_module("aiolimiter").AsyncLimiter(RPM, 60)

    async def loop(n: int, *, pause: bool) -> None:
        for _ in range(n):
            await limiter.acquire()
            if pause:
                await asyncio.sleep(0)

    return loop


def _limits_async(kind: str) -> Any:
    storage = importlib.import_module("limits.aio.storage").MemoryStorage()
    limiter = getattr(importlib.import_module("limits.aio.strategies"), kind)(storage)
    item = importlib.import_module("limits").RateLimitItemPerMinute(RPM)

    async def loop(n: int, *, pause: bool) -> None:
        for _ in range(n):
            await limiter.hit(item, "api")
            if pause:
                await asyncio.sleep(0)

    return loop


def limits_moving_async() -> Any:
    return _limits_async("MovingWindowRateLimiter")


def limits_fixed_async() -> Any:
    return _limits_async("FixedWindowRateLimiter")


def _pyrate_async(*, log: bool) -> Any:
    lib: Any = importlib.import_module("pyrate_limiter")
    limiter = lib.Limiter(lib.BucketAsyncWrapper(_pyrate_bucket(lib, log=log)))

    async def loop(n: int, *, pause: bool) -> None:
        for _ in range(n):
            await limiter.try_acquire_async("api")
            if pause:
                await asyncio.sleep(0)

    return loop


def pyrate_log_async() -> Any:
    return _pyrate_async(log=True)


def pyrate_bucket_async() -> Any:
    return _pyrate_async(log=False)


def throttled_bucket_async() -> Any:
    lib: Any = importlib.import_module("throttled.asyncio")
    store = importlib.import_module("throttled.asyncio.store").MemoryStore()
    limiter = lib.Throttled(quota=f"{RPM}/m", store=store, key="api")

    async def loop(n: int, *, pause: bool) -> None:
        for _ in range(n):
            await limiter.limit()
            if pause:
                await asyncio.sleep(0)

    return loop


# (name, package, threads' loop, tasks' loop)
BOTH: tuple[tuple[str, str, Any, Any], ...] = (
    ("floor: 2 x (lock, clock)", "", floor, floor_async),
    ("ratekeeper", "", ratekeeper_both, ratekeeper_both_async),
    ("infermesh", "infermesh", None, infermesh_both_async),
    (
        "token-throttle",
        "token_throttle",
        token_throttle_both,
        token_throttle_both_async,
    ),
)
ONE: tuple[tuple[str, str, Any, Any], ...] = (
    ("ratekeeper, sliding window", "", ratekeeper_sliding, ratekeeper_sliding_async),
    ("ratekeeper, fixed window", "", ratekeeper_fixed, None),
    ("ratekeeper, token bucket", "", ratekeeper_bucket, None),
    ("limits, moving window", "limits", limits_moving, limits_moving_async),
    ("limits, fixed window", "limits", limits_fixed, limits_fixed_async),
    ("pyrate-limiter, log", "pyrate_limiter", pyrate_log, pyrate_log_async),
    ("pyrate-limiter, bucket", "pyrate_limiter", pyrate_bucket, pyrate_bucket_async),
    ("throttled-py, bucket", "throttled", throttled_bucket, throttled_bucket_async),
    ("aiolimiter", "aiolimiter", None, aiolimiter_async),
    ("langchain-core", "langchain_core", langchain, None),
)
