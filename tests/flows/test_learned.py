"""Limits that an account's answers teach, for threads and tasks alike."""

from __future__ import annotations

import asyncio
import gc
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from ratekeeper import (
    AsyncLimiter,
    Denied,
    Grant,
    Limiter,
    LimitExceeded,
    MemoryStore,
    NeverPossible,
    Reading,
)
from ratekeeper.core.policy import Account
from ratekeeper.core.units import MINUTE
from ratekeeper.testing import ManualClock, VirtualLoop, run_virtual
from tests.flows.world import assert_idle

if TYPE_CHECKING:
    from collections.abc import Callable

SHOWS = Account(
    shows=(("requests", MINUTE), ("tokens", MINUTE)),
    refunds=frozenset({"tokens"}),
    cold=False,
)


def readings(requests: int, tokens: int = 1000) -> list[Reading]:
    """Return what a header shows of a limit that is whole but for this call."""
    return [
        Reading(unit="requests", limit=requests, remaining=requests - 1),
        Reading(unit="tokens", limit=tokens, remaining=tokens - 100),
    ]


def learned(**options: Any) -> tuple[Limiter, ManualClock]:
    clock = ManualClock(auto=True)
    store = MemoryStore(clock=clock)
    return Limiter("learned", store=store, account=SHOWS, **options), clock


def test_one_call_goes_until_an_answer_shows_the_limits() -> None:
    limiter, clock = learned()
    first = limiter.acquire(tokens=100)

    assert {} == {k: v for k, v in limiter.status().items() if "/" in k}
    assert not limiter.try_acquire(tokens=100)

    first.answered(readings(60))
    first.settle(tokens=100)

    assert ["60 requests/minute (learned)", "1000 tokens/minute (learned)"] == [
        one for one in limiter.status() if "/" in one
    ]
    clock.advance(10)

    assert limiter.try_acquire(tokens=10)


def test_an_answer_without_limits_lets_one_call_after_the_other_go() -> None:
    limiter, _ = learned()
    for _ in range(5):
        grant = limiter.acquire(tokens=100, timeout=0)
        assert not limiter.try_acquire(tokens=100)
        grant.answered([])
        grant.settle(tokens=100)

    assert limiter.is_learned


def test_calls_larger_than_a_limit_that_came_to_be_known_are_cut_to_it() -> None:
    """They reserved as much as they might use while nobody knew a bound."""
    loop = VirtualLoop()
    limiter = AsyncLimiter(
        "learned", store=MemoryStore(clock=loop.clock), account=SHOWS
    )
    went_s: list[float] = []

    async def call() -> None:
        async with limiter.acquire(tokens=5000) as grant:
            went_s.append(loop.time())
            await asyncio.sleep(1)
            grant.answered(readings(60))
            grant.settle(tokens=100)

    async def main() -> None:
        await asyncio.gather(*(call() for _ in range(3)))

    run_virtual(main(), loop)

    assert 0.0 == went_s[0]
    assert went_s == sorted(went_s)
    assert went_s[-1] < 130
    assert_idle(limiter._store)


def test_a_call_larger_than_a_learned_limit_never_goes() -> None:
    limiter, _ = learned()
    first = limiter.acquire(tokens=100)
    first.answered(readings(60))
    first.settle()

    with pytest.raises(NeverPossible, match=r"1000 tokens/minute \(learned\)"):
        limiter.acquire(tokens=1001)


def test_each_key_learns_limits_of_its_own() -> None:
    limiter, _ = learned()
    for key, amount in (("a", 60), ("b", 500)):
        grant = limiter.acquire(key=key, tokens=0)
        grant.answered(readings(amount))
        grant.settle()

    assert "60 requests/minute (learned)" in limiter.status("a")
    assert "500 requests/minute (learned)" in limiter.status("b")


# However a grant ends.


def settled(grant: Grant) -> None:
    grant.settle(tokens=10)


def answered_twice(grant: Grant) -> None:
    grant.answered(readings(60))
    grant.answered(readings(5))
    grant.settle(tokens=10)


def answered_late(grant: Grant) -> None:
    grant.settle(tokens=10)
    grant.answered(readings(5))


def cancelled(grant: Grant) -> None:
    grant.cancel()
    grant.answered(readings(5))


def refused_twice(grant: Grant) -> None:
    grant.refused(0, readings=readings(60))
    grant.refused(0, readings=readings(5))


def left_with_an_error(grant: Grant) -> None:
    with pytest.raises(ZeroDivisionError), grant:
        raise ZeroDivisionError


ENDINGS = [
    settled,
    answered_twice,
    answered_late,
    cancelled,
    refused_twice,
    left_with_an_error,
    Grant.release,
]


@pytest.mark.parametrize("end", ENDINGS)
def test_however_a_grant_ends_the_next_call_goes_and_learns(
    end: Callable[[Grant], None],
) -> None:
    limiter, _ = learned()
    end(limiter.acquire(tokens=100))
    grant = limiter.acquire(tokens=100, timeout=20)
    grant.answered(readings(120))
    grant.settle(tokens=10)

    assert "120 requests/minute (learned)" in limiter.status()
    assert 2 * 100 >= limiter.status()["1000 tokens/minute (learned)"].used
    assert_idle(limiter._store)


def test_an_answer_counts_once() -> None:
    limiter, _ = learned()
    answered_twice(limiter.acquire(tokens=100))

    assert "60 requests/minute (learned)" in limiter.status()


def test_a_grant_that_is_dropped_teaches_nothing_and_keeps_its_cost() -> None:
    limiter = Limiter("60 rpm", account=SHOWS)
    limiter.acquire()
    gc.collect()

    assert 1 == limiter.status()["60 requests/minute"].used


def test_an_answer_heard_while_the_line_is_being_moved_is_learned_right_after() -> None:
    """As a finalizer tells of it: in the same thread, under the same lock."""
    limiter, _ = learned()
    grant = limiter.acquire(tokens=100)

    def step(now: int) -> list[Any]:
        del now
        grant.answered(readings(60))
        grant.settle(tokens=10)

        assert "60 requests/minute (learned)" not in limiter.status()

        return []

    limiter._store._move(step)

    assert 10 == limiter.status()["1000 tokens/minute (learned)"].used
    assert_idle(limiter._store)


def test_threads_and_tasks_learn_and_wait_together() -> None:
    """One state: what a thread's answer shows lets tasks go, and the other way round."""
    loop = VirtualLoop()
    store = MemoryStore(clock=loop.clock)
    threads = Limiter("learned", store=store, name="n", account=SHOWS)
    tasks = AsyncLimiter("learned", store=store, name="n", account=SHOWS)
    holder = threads.acquire(tokens=0)
    went: list[float] = []

    async def call() -> None:
        async with tasks.acquire(tokens=0):
            went.append(loop.time())

    async def main() -> None:
        loop.call_later(2, partial(holder.answered, readings(60)))
        await asyncio.gather(*(call() for _ in range(4)))

    run_virtual(main(), loop)

    assert 2.0 <= went[0] < 3.1
    assert 4 == len(went)
    assert isinstance(threads.try_acquire(tokens=0), Grant | Denied)
    assert_idle(store)


def test_a_hundred_callers_keep_a_limit_that_nobody_told() -> None:
    """Threads in virtual time: after the first answer they share what it shows."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    limiter = Limiter("learned", store=store, account=SHOWS)
    went: list[int] = []

    def call() -> None:
        with limiter.acquire(tokens=0) as grant:
            went.append(clock.now_us())
            clock.sleep(0.5)
            grant.answered([Reading(unit="requests", limit=30)])

    clock.run(*[call] * 60)
    went.sort()

    assert all(b - a >= MINUTE for a, b in zip(went[1:], went[31:], strict=False))
    assert went[-1] - went[0] <= 3 * MINUTE
    assert_idle(store)


# Live changes.


def test_an_operator_may_lower_a_limit_that_learns() -> None:
    limiter = Limiter("60 rpm", account=SHOWS)
    for _ in range(5):
        grant = limiter.acquire()
        grant.answered([Reading(unit="requests", limit=50)])
        grant.settle()
    limiter.update("40 rpm")

    assert (5, 35) == (
        limiter.status()["40 requests/minute"].used,
        limiter.status()["40 requests/minute"].remaining,
    )

    limiter.update("500 rpm")

    assert 45 == limiter.status()["500 requests/minute"].remaining


def test_who_waits_in_vain_for_a_limit_that_was_shown_to_be_lower_is_told() -> None:
    limiter, clock = learned()
    first = limiter.acquire(tokens=0)
    first.answered(readings(60, tokens=10_000))
    first.settle()
    second = limiter.acquire(tokens=9000)
    second.answered(readings(60, tokens=100))
    second.settle()
    clock.advance(120)

    with pytest.raises(NeverPossible):
        limiter.acquire(tokens=9000)


def test_limits_learned_from_refusals_go_down_and_wait() -> None:
    clock = ManualClock(auto=True)
    limiter = Limiter(
        "learned from refusals", store=MemoryStore(clock=clock), account=Account()
    )
    grants = [limiter.acquire() for _ in range(4)]
    with pytest.raises(LimitExceeded):
        limiter.acquire(timeout=0)
    grants.pop().refused(2)

    denied = limiter.try_acquire()
    assert isinstance(denied, Denied)
    grants.pop().settle()
    clock.advance(2)

    assert limiter.try_acquire()
    assert not limiter.try_acquire()


def test_a_refusal_is_the_accounts_and_holds_up_nobodys_own_limit() -> None:
    """A call takes of a team's limit and of an account's; the provider knows of one."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    account = Limiter("60 rpm", store=store, account=SHOWS)
    team = Limiter("10 rpm", store=store)
    grant = account.acquire(also=[(team, "search")])
    grant.refused(5, readings=[Reading(unit="requests", limit=40, remaining=20)])

    assert team.try_acquire(key="search")
    assert 8 == team.status("search")["10 requests/minute"].remaining
    assert 39 == account.status()["60 requests/minute"].remaining

    denied = account.try_acquire()
    assert isinstance(denied, Denied)
    assert 5.0 <= denied.retry_after_s


def test_a_waiter_that_is_cancelled_leaves_the_gate_to_the_next() -> None:
    loop = VirtualLoop()
    limiter = AsyncLimiter(
        "learned", store=MemoryStore(clock=loop.clock), account=SHOWS
    )

    async def main() -> float:
        first = await limiter.acquire(tokens=0)
        waiting = [asyncio.ensure_future(limiter.acquire(tokens=0)) for _ in range(2)]
        await asyncio.sleep(1)
        waiting[0].cancel()
        await asyncio.sleep(1)
        first.release()
        grant = await waiting[1]
        grant.answered(readings(60))
        grant.settle()
        return loop.time()

    assert 2.0 == pytest.approx(run_virtual(main(), loop))
    assert_idle(limiter._store)


def test_a_stream_that_is_forgotten_lets_the_next_call_through_the_gate() -> None:
    limiter, _ = learned()

    def stream() -> Any:
        with limiter.acquire(tokens=0):
            yield 1

    cycle: list[Any] = [stream()]
    next(cycle[0])
    cycle.append(cycle)

    assert not limiter.try_acquire(tokens=0)

    del cycle
    gc.collect()

    assert limiter.try_acquire(tokens=0)
    assert_idle(limiter._store)


def test_answers_heard_by_many_threads_at_once_lose_no_count() -> None:
    """Real threads: answers, refusals and settlements in whatever order they come."""
    limiter = Limiter("10M rpm", "1B tpm", "6 concurrent", account=SHOWS)
    endings: list[Callable[[Grant], None]] = [
        lambda grant: grant.answered(
            [Reading(unit="requests", limit=10_000_000, remaining=9_999_000)]
        ),
        lambda grant: grant.answered(),
        lambda grant: grant.refused(0.001, tokens=5),
        lambda grant: grant.settle(tokens=5),
    ]

    def work(at: int) -> None:
        for turn in range(200):
            grant = limiter.acquire(tokens=9)
            endings[(at + turn) % len(endings)](grant)
            if grant.is_open:
                grant.settle(tokens=5)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    status = limiter.status()

    assert 1600 == status["10M requests/minute"].used
    assert 1600 * 5 == status["1B tokens/minute"].used
    assert 0 == status["6 concurrent"].used
    assert_idle(limiter._store)
