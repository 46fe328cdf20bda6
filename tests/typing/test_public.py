"""The public types of the limiters: mypy reads them, and running them agrees."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any, assert_type

import pytest

from ratekeeper import (
    Algorithm,
    AsyncLimiter,
    Denied,
    Grant,
    Limit,
    Limiter,
    LimitExceeded,
    LimitStatus,
    MemoryStore,
    NeverPossible,
    PriceBook,
    PriceUnknown,
    RatekeeperError,
    Reading,
    http_client,
    price_book,
)
from ratekeeper.testing import ManualClock, VirtualLoop, run_virtual


def test_a_limiter_is_typed() -> None:
    store = MemoryStore(clock=ManualClock(), max_keys=10, max_waiting=10)
    limiter = Limiter("10 rpm", Limit.per_minute(tokens=100), name="n", store=store)
    assert_type(limiter, Limiter)
    assert_type(limiter.limits, tuple[Limit, ...])
    assert_type(limiter.limits[0].algorithm, Algorithm | None)
    with limiter.acquire(
        key="k", timeout=1.5, priority="batch", hold=5, tokens=1
    ) as grant:
        assert_type(grant, Grant)
        assert_type(grant.waited_s, float)
        assert_type(grant.is_open, bool)
        grant.settle(tokens=1, usd=Decimal("0.1"))
    assert_type(limiter.acquire(tokens=1, timeout=None), Grant)

    answer = limiter.try_acquire(tokens=99, key="k")
    assert_type(answer, Grant | Denied)
    if isinstance(answer, Denied):
        assert_type(answer.retry_after_s, float)
        assert_type(answer.retry_after_us, int)
        assert_type(answer.limit, str)
        assert_type(answer.exact, bool)
    else:
        assert_type(answer, Grant)
        answer.release()
        answer.cancel()
        answer.refused(retry_after_s=3.2, unit="tokens", window_s=60, tokens=0)
        answer.answered([Reading(unit="tokens", remaining=5)])

    status = limiter.status("k")
    assert_type(status, dict[str, LimitStatus])
    for row in status.values():
        assert_type(row.used, int | Decimal)
        assert_type(row.remaining, int | Decimal)
        assert_type(row.reset_after_s, float)
        assert_type(row.waiting, int)
    limiter.update("20 rpm", "200 tpm")

    assert 20 == limiter.limits[0].amount


def test_an_async_limiter_is_typed() -> None:
    loop = VirtualLoop()
    limiter = AsyncLimiter("10 rpm", store=MemoryStore(clock=loop.clock))

    async def main() -> None:
        async with limiter.acquire(timeout=5) as grant:
            assert_type(grant, Grant)
            grant.settle(requests=1)
        assert_type(await limiter.acquire(), Grant)
        assert_type(await limiter.try_acquire(), Grant | Denied)
        assert_type(await limiter.status(), dict[str, LimitStatus])
        await limiter.update("20 rpm")
        shared = Limiter("5 rpm", store=limiter._store)
        assert_type(await limiter.acquire(also=[(shared, "team")]), Grant)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(limiter.acquire())
        assert_type(task.result(), Grant)

    run_virtual(main(), loop)


def test_prices_are_typed() -> None:
    prices = {"m": {"input": "2.50", "output": Decimal(10), "max_output": 9}}
    book = price_book(prices, rates={"eur": "0.92"})
    assert_type(book, PriceBook)
    for one in (book, prices, None):
        http_client("openai", "$5/day", prices=one).close()

    assert issubclass(PriceUnknown, RatekeeperError)


def test_errors_are_typed() -> None:
    limiter = Limiter("1 rpm")
    limiter.acquire()
    with pytest.raises(LimitExceeded) as exceeded:
        limiter.acquire(timeout=0)
    assert_type(exceeded.value.retry_after_s, float)
    assert_type(exceeded.value.limit, str)
    with pytest.raises(NeverPossible) as never:
        limiter.acquire(requests=2)
    assert_type(never.value.limit, str)

    assert isinstance(never.value, RatekeeperError)


def test_wrong_uses_are_wrong_to_the_type_checker() -> None:
    """Each ignored line is an error to mypy, or it would call the ignore unused."""
    limiter = Limiter("10 rpm")
    wrong: list[Any] = [
        lambda: Limiter(10),  # type: ignore[arg-type]
        lambda: limiter.acquire(500),  # type: ignore[arg-type,call-arg]
        lambda: limiter.acquire(timeout="5"),  # type: ignore[arg-type]
        lambda: limiter.acquire(key=5),  # type: ignore[arg-type]
        lambda: limiter.acquire(requests=1.5),  # type: ignore[arg-type]
    ]
    for call in wrong:
        with pytest.raises((TypeError, ValueError, AttributeError)):
            call()
