"""Memory of a key: what each library keeps after a minute at its limit.

Each key makes a minute's worth of calls: 60, or a million as a thousand calls of a
thousand. What `tracemalloc` finds after a number of keys, over that number, is the
price of one. A library without keys is given a limiter for each.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import importlib.util
import tracemalloc
from typing import Any

from ratekeeper import Limiter, MemoryStore
from ratekeeper.testing import ManualClock

SLOW, FAST = 60, 1_000_000
_CALLS = 1_000  # into which a million is divided
SLACK = 128  # bytes: a few integers of two digits inside instead of one


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Bytes a key at both rates."""

    name: str
    slow: float
    fast: float


def _shape(rate: int) -> tuple[int, int]:
    """Return how many calls of which size make a minute's worth."""
    return (rate, 1) if rate <= _CALLS else (_CALLS, rate // _CALLS)


def _ratekeeper(algorithm: str) -> Any:
    def build(rate: int) -> Any:
        clock = ManualClock()
        limiter = Limiter(
            f"{rate} units/minute using {algorithm}", store=MemoryStore(clock=clock)
        )
        calls, size = _shape(rate)

        def fill(key: str) -> Any:
            for _ in range(calls):
                clock.advance(us=60_000_000 // calls)
                limiter.acquire(key=key, timeout=0, units=size)

        return limiter, fill

    return build


def _limits(kind: str) -> Any:
    def build(rate: int) -> Any:
        storage = importlib.import_module("limits.storage").MemoryStorage()
        found = importlib.import_module("limits.strategies")
        limiter = getattr(found, kind)(storage)
        item = importlib.import_module("limits").RateLimitItemPerMinute(rate)
        calls, size = _shape(rate)

        def fill(key: str) -> Any:
            for _ in range(calls):
                limiter.hit(item, key, cost=size)

        return limiter, fill

    return build


def _pyrate(*, log: bool) -> Any:
    def build(rate: int) -> Any:
        lib: Any = importlib.import_module("pyrate_limiter")
        calls, size = _shape(rate)

        def fill(key: str) -> Any:
            rates = [lib.Rate(rate, lib.Duration.MINUTE)]
            bucket = lib.InMemoryBucket(rates) if log else lib.StateBucket(rates)
            limiter = lib.Limiter(bucket)
            for _ in range(calls):
                limiter.try_acquire(key, weight=size, blocking=False)
            return limiter

        return None, fill

    return build


def _throttled(rate: int) -> Any:
    lib: Any = importlib.import_module("throttled")
    store = importlib.import_module("throttled.store").MemoryStore()
    limiter = lib.Throttled(quota=f"{rate}/m", store=store)
    calls, size = _shape(rate)

    def fill(key: str) -> Any:
        for _ in range(calls):
            limiter.limit(key, cost=size)

    return limiter, fill


def _token_throttle(rate: int) -> Any:
    lib: Any = importlib.import_module("token_throttle")
    quotas = lib.UsageQuotas([lib.Quota(metric="units", limit=rate, per_seconds=60)])
    limiter = lib.SyncRateLimiter(
        lambda model: lib.PerModelConfig(quotas=quotas, model_family=model),
        backend=lib.SyncMemoryBackendBuilder(),
    )
    calls, size = _shape(rate)

    def fill(key: str) -> Any:
        for _ in range(calls):
            usage = {"units": size}
            held = limiter.acquire_capacity(model=key, usage=usage)
            limiter.refund_capacity(actual_usage=usage, reservation=held)

    return limiter, fill


def _aiolimiter(rate: int) -> Any:
    import asyncio

    lib: Any = importlib.import_module("aiolimiter")
    calls, size = _shape(rate)
    runner = asyncio.Runner()

    def fill(key: str) -> Any:
        del key
        limiter = lib.AsyncLimiter(rate, 60)

        async def take() -> None:
            for _ in range(calls):
                await limiter.acquire(size)

        runner.run(take())
        return limiter

    return runner, fill


def _infermesh(rate: int) -> Any:
    import asyncio

    lib: Any = importlib.import_module("infermesh")
    calls, size = _shape(rate)
    runner = asyncio.Runner()

    def fill(key: str) -> Any:
        del key
        limiter = lib.RateLimiter(requests_per_minute=rate, tokens_per_minute=rate)

        async def take() -> None:
            for _ in range(calls):
                held = await limiter.acquire(size)
                await limiter.adjust(held, actual_tokens=size)

        runner.run(take())
        return limiter

    return runner, fill


def _langchain(rate: int) -> Any:
    lib: Any = importlib.import_module("langchain_core.rate_limiters")

    def fill(key: str) -> Any:
        del key
        limiter = lib.InMemoryRateLimiter(
            requests_per_second=rate / 60, max_bucket_size=rate
        )
        limiter.acquire(blocking=False)
        return limiter

    return None, fill


CONTESTANTS: tuple[tuple[str, str, Any], ...] = (
    ("ratekeeper, sliding window", "", _ratekeeper("sliding-window")),
    ("ratekeeper, token bucket", "", _ratekeeper("token-bucket")),
    ("ratekeeper, fixed window", "", _ratekeeper("fixed-window")),
    ("ratekeeper, paced", "", _ratekeeper("paced")),
    ("limits, moving window", "limits", _limits("MovingWindowRateLimiter")),
    ("limits, fixed window", "limits", _limits("FixedWindowRateLimiter")),
    ("pyrate-limiter, log", "pyrate_limiter", _pyrate(log=True)),
    ("pyrate-limiter, bucket", "pyrate_limiter", _pyrate(log=False)),
    ("throttled-py, bucket", "throttled", _throttled),
    ("aiolimiter", "aiolimiter", _aiolimiter),
    ("infermesh (two limits)", "infermesh", _infermesh),
    ("token-throttle", "token_throttle", _token_throttle),
    ("langchain-core", "langchain_core", _langchain),
)


def bytes_a_key(build: Any, rate: int, keys: int) -> float:
    """Measure one library at one rate."""
    limiter, fill = build(rate)
    kept = [fill("warm")]
    gc.collect()
    tracemalloc.start()
    try:
        kept += [fill(f"key-{at}") for at in range(keys)]
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / keys
    finally:
        tracemalloc.stop()
        if hasattr(limiter, "close"):
            limiter.close()


def measure_all() -> list[Row]:
    """Measure all that are installed."""
    return [
        Row(
            name=name,
            slow=bytes_a_key(build, SLOW, 5 if module else 20),
            fast=bytes_a_key(build, FAST, 1 if module else 20),
        )
        for name, module, build in CONTESTANTS
        if not module or importlib.util.find_spec(module)
    ]


def table(rows: list[Row]) -> str:
    """Return the Markdown table."""
    lines = ["### Bytes a key, after a minute at its limit", ""]
    lines += ["| | 60 a minute | 1 M a minute |", "|---|---:|---:|"]
    lines += [f"| {row.name} | {row.slow:,.0f} | {row.fast:,.0f} |" for row in rows]
    return "\n".join(lines)


def missed(rows: list[Row]) -> list[str]:
    """List what grows with its rate and should not."""
    return [
        f"memory of {row.name} grows with its rate"
        for row in rows
        if row.name.startswith("ratekeeper") and row.fast > row.slow + SLACK
    ]
