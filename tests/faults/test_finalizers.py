"""Grants that are settled by the garbage collector, wherever it happens to run."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ratekeeper import Grant, Limiter, MemoryStore, StoreUnavailable
from tests.flows.world import assert_idle

if TYPE_CHECKING:
    from collections.abc import Iterator


def stream(limiter: Limiter) -> Iterator[int]:
    """A stream that holds its grant until it is closed, if only by being forgotten."""
    with limiter.acquire():
        yield 1


def forget_a_stream(limiter: Limiter) -> None:
    """Leave a stream in a cycle, so that only the collector can close it."""
    cycle: list[Any] = [stream(limiter)]
    next(cycle[0])
    cycle.append(cycle)


@pytest.fixture
def _collecting_everywhere() -> Iterator[None]:
    """Let the collector run at almost every allocation."""
    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("_collecting_everywhere")
def test_a_forgotten_stream_gives_its_slot_back_whatever_the_store_is_doing() -> None:
    limiter = Limiter("600 concurrent", "1M rpm", store=MemoryStore(max_keys=5))
    for at in range(500):
        forget_a_stream(limiter)
        answer = limiter.try_acquire(key=f"k{at % 7}")
        if isinstance(answer, Grant):
            answer.cancel()
    gc.collect()

    assert 0 == limiter.status()["600 concurrent"].used
    assert_idle(limiter._store)


def test_settling_while_the_line_is_being_moved_is_done_right_after() -> None:
    """As a finalizer does it: in the same thread, under the same lock."""
    limiter = Limiter("1 concurrent", "100 tpd")
    store = limiter._store
    holder = limiter.acquire(tokens=40)
    waiter = threading.Thread(target=lambda: limiter.acquire(tokens=1).settle())
    waiter.start()
    while store._waiting == 0:
        pass

    def step(now: int) -> list[Any]:
        del now
        holder.settle(tokens=10)

        assert not holder.is_open
        assert 1 == store._waiting  # nothing has moved yet

        return []

    store._move(step)
    waiter.join(5)

    assert not waiter.is_alive()
    assert 11 == limiter.status()["100 tokens/day"].used
    assert_idle(store)


def test_what_came_meanwhile_is_done_even_where_the_step_failed() -> None:
    limiter = Limiter("1 concurrent")
    store = limiter._store
    holder = limiter.acquire()

    def step(now: int) -> list[Any]:
        del now
        holder.settle()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store._move(step)

    assert limiter.try_acquire()


def test_a_finalizer_that_asks_for_a_grant_meanwhile_is_refused() -> None:
    """It cannot be answered before the step is over, and must not wait for that."""
    limiter = Limiter("1 concurrent", "10 rpm")
    limiter.acquire()
    store = limiter._store

    def step(now: int) -> list[Any]:
        del now
        with pytest.raises(StoreUnavailable, match="finalizer"):
            limiter.acquire()
        with pytest.raises(StoreUnavailable, match="finalizer"):
            limiter.try_acquire()
        return []

    store._move(step)

    assert 1 == limiter.status()["10 requests/minute"].used
    assert_idle(store)


def test_all_ways_to_end_a_grant_may_come_while_the_line_is_being_moved() -> None:
    limiter = Limiter("5 concurrent", "10 rpm")
    store = limiter._store
    ended = [limiter.acquire() for _ in range(4)]

    def step(now: int) -> list[Any]:
        del now
        first, second, third, fourth = ended
        first.cancel()
        second.release()
        third.refused(0.0)
        fourth.settle(requests=0)

        assert 4 == len(store._keys.kept[0][0].rows[""][0]._expiries)  # type: ignore[attr-defined]

        return []

    store._move(step)

    assert 0 == limiter.status()["5 concurrent"].used
    assert 2 == limiter.status()["10 requests/minute"].used
    assert not store._later


@pytest.mark.parametrize("ending", ["cancel", "release"])
def test_a_crowd_may_be_forgotten_at_once_while_others_wait(ending: str) -> None:
    """What comes meanwhile is done one after the other, never one inside the other."""
    limiter = Limiter("2000 concurrent")
    store = limiter._store
    ended = [limiter.acquire() for _ in range(2_000)]
    waiter = threading.Thread(target=lambda: limiter.acquire().release())
    waiter.start()
    while store._waiting == 0:
        pass

    def step(now: int) -> list[Any]:
        del now
        for grant in ended:
            getattr(grant, ending)()
        return []

    store._move(step)
    waiter.join(5)

    assert not waiter.is_alive()
    assert 0 == limiter.status()["2000 concurrent"].used
    assert_idle(store)
