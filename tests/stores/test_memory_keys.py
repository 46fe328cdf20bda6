"""The bounds of the memory store: keys, names, and what is forgotten first."""

from __future__ import annotations

import contextlib
import gc
import threading
import time

import pytest

from ratekeeper import ConfigError, Grant, Limiter, MemoryStore, StoreUnavailable
from ratekeeper.testing import ManualClock


def keyed(*limits: str, max_keys: int) -> tuple[Limiter, ManualClock]:
    clock = ManualClock(auto=True)
    return Limiter(*limits, store=MemoryStore(clock=clock, max_keys=max_keys)), clock


def kept(limiter: Limiter) -> set[str]:
    return set(limiter._scope.rows)


@pytest.mark.parametrize(
    "limit",
    [
        "3 rpm",
        "3 rpm burst 3",
        "180 rpm burst 3",
        "3 rpm using fixed-window",
        "3 rpm using paced",
        "3 concurrent",
    ],
)
def test_a_key_at_its_limit_survives_any_flood(limit: str) -> None:
    limiter, _ = keyed(limit, max_keys=50)
    for _ in range(3):
        limiter.try_acquire(key="spent")

    for at in range(2000):
        with contextlib.suppress(StoreUnavailable):  # a paced key binds for a while
            grant = limiter.try_acquire(key=f"flood-{at}")
            assert isinstance(grant, Grant)
            grant.release()

    assert not limiter.try_acquire(key="spent")
    assert 50 == len(kept(limiter))


def test_the_key_that_holds_least_is_forgotten_first() -> None:
    limiter, clock = keyed("100 rpm", max_keys=4)
    for key, calls in (("a", 50), ("b", 2), ("c", 70)):
        limiter.acquire(key=key, requests=calls)
    limiter.acquire(key="idle")
    clock.advance(59)
    limiter.acquire(key="a", requests=10)
    clock.advance(1)  # idle and b hold nothing now, c has lost its 70 as well
    limiter.acquire(key="new")
    limiter.acquire(key="newer", requests=1)

    assert "a" in kept(limiter)
    assert {"new", "newer"} <= kept(limiter)


def test_new_keys_are_refused_while_every_place_is_held_at_a_limit() -> None:
    limiter, clock = keyed("1 rpm", max_keys=20)
    for at in range(20):
        limiter.acquire(key=str(at))
    for at in range(100):
        with pytest.raises(StoreUnavailable, match="max_keys"):
            limiter.try_acquire(key=f"new-{at}")

    assert 20 == len(kept(limiter))
    assert not limiter.try_acquire(key="7")

    clock.advance(60)

    assert limiter.try_acquire(key="new")
    assert 20 == len(kept(limiter))


def test_one_free_place_among_many_is_found() -> None:
    limiter, _ = keyed("1 rpm", max_keys=300)
    for at in range(299):
        limiter.acquire(key=str(at))
    limiter.try_acquire(key="free", requests=0)

    assert limiter.try_acquire(key="new")
    assert "free" not in kept(limiter)


def test_a_key_that_waits_is_not_forgotten() -> None:
    clock = ManualClock()
    limiter = Limiter("10 tpm", store=MemoryStore(clock=clock, max_keys=4))

    def flood() -> None:
        clock.sleep(2)
        for at in range(100):
            limiter.try_acquire(key=f"flood-{at}", tokens=1)

    def wait() -> None:
        limiter.acquire(key="patient", tokens=6)
        clock.sleep(1)
        limiter.acquire(key="patient", tokens=6)

    clock.run(wait, flood)

    assert 6 == limiter.status("patient")["10 tokens/minute"].used


def test_a_key_that_a_waiter_will_need_is_not_forgotten() -> None:
    """It waits for another limit, and finds this one as everybody else does."""
    clock = ManualClock()
    store = MemoryStore(clock=clock, max_keys=3)
    account = Limiter("1 rpm", store=store)
    team = Limiter("1 concurrent", store=store)
    account.acquire()
    grants: list[Grant] = []
    waiter = threading.Thread(
        target=lambda: grants.append(account.acquire(also=[(team, "red")]))
    )
    waiter.start()
    while not account.status()["1 requests/minute"].waiting:
        pass
    for at in range(9):
        team.acquire(key=f"flood-{at}").release()
    clock.advance(60)
    waiter.join(5)

    assert 1 == len(grants)
    assert not team.try_acquire(key="red")

    grants[0].release()

    assert team.try_acquire(key="red")


def test_keys_of_one_call_do_not_push_each_other_out() -> None:
    store = MemoryStore(max_keys=1)
    one, two = Limiter("5 rpm", store=store), Limiter("5 rpm", store=store)
    with pytest.raises(StoreUnavailable):
        one.acquire(also=[(two, "")])

    assert one.acquire()


def test_a_name_is_forgotten_with_its_last_key_and_limiter() -> None:
    store = MemoryStore(max_keys=2)
    for at in range(500):
        Limiter("5 rpm", store=store, name=f"name-{at}").acquire()
    gc.collect()

    assert 2 >= len(store._scopes)
    assert 2 == len(store._keys.kept)


def test_a_name_keeps_its_state_while_no_limiter_refers_to_it() -> None:
    store = MemoryStore()
    Limiter("1 rpm", store=store, name="n").acquire()
    gc.collect()

    assert not Limiter("1 rpm", store=store, name="n").try_acquire()


def test_a_store_without_room_is_refused() -> None:
    with pytest.raises(ConfigError):
        MemoryStore(max_keys=0)
    with pytest.raises(ConfigError):
        MemoryStore(max_waiting=0)


def test_forgetting_costs_the_same_however_many_keys_there_are() -> None:
    """A flood must not make each newcomer pay for all that are kept."""
    took = []
    for size in (1000, 100_000):
        limiter, _ = keyed("60 rpm", max_keys=size)
        for at in range(size):
            limiter.try_acquire(key=str(at))
        begin = time.process_time()
        for at in range(5000):
            limiter.try_acquire(key=f"flood-{at}")
        took.append(time.process_time() - begin)

    assert took[1] < 5 * took[0]
