"""A scope's limits changed live, in number as well as in amount."""

from __future__ import annotations

import pytest

from ratekeeper.core import policy
from ratekeeper.core.line import State, Waiter
from ratekeeper.core.units import MINUTE, SECOND
from ratekeeper.errors import NeverPossible
from ratekeeper.stores.keys import Scope
from ratekeeper.stores.memory import MemoryStore
from ratekeeper.testing import ManualClock

LIMITS = (
    "2 requests/minute",
    "2 requests/minute using fixed-window",
    "2 requests/minute using token-bucket",
    "2 requests/minute using paced",
    "2 concurrent",
)


def _store(*limits: str) -> tuple[MemoryStore, Scope, ManualClock]:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    return store, store.scope("team", policy.rules_of(limits)), clock


def _take(store: MemoryStore, scope: Scope, **cost: int) -> State:
    costs = policy.costs_of(scope.rules, {"requests": 1, **cost}, 900 * SECOND)
    return store.try_take([(scope, "")], costs).state


def _wait(store: MemoryStore, scope: Scope, **cost: int) -> Waiter:
    costs = policy.costs_of(scope.rules, {"requests": 1, **cost}, 900 * SECOND)
    waiter = Waiter(costs, timeout_us=30 * MINUTE)
    store.enter(waiter, [(scope, "")])
    return waiter


def test_a_limit_that_stays_keeps_what_was_used() -> None:
    store, scope, _ = _store("2 requests/minute")
    _take(store, scope)
    store.reshape(scope, policy.rules_of(["2 requests/minute", "100 tokens/minute"]))
    states = [_take(store, scope, tokens=10) for _ in range(2)]

    assert [State.GRANTED, State.REFUSED] == states


def test_a_new_limit_holds_at_once() -> None:
    store, scope, _ = _store("9 requests/minute")
    _take(store, scope)
    store.reshape(scope, policy.rules_of(["9 requests/minute", "100 tokens/minute"]))

    with pytest.raises(NeverPossible):
        _take(store, scope, tokens=101)


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_that_is_gone_lets_go_whoever_waits_for_it(limit: str) -> None:
    store, scope, _ = _store(limit, "1000 tokens/minute")
    while _take(store, scope, tokens=1) is State.GRANTED:
        pass
    waiters = [_wait(store, scope, tokens=1) for _ in range(3)]
    assert all(one.state is State.WAITING for one in waiters)
    store.reshape(scope, policy.rules_of(["1000 tokens/minute"]))

    assert all(one.state is State.GRANTED for one in waiters)
    assert all(one.line is None for one in waiters[0].meters)


def test_who_waits_for_what_stays_keeps_its_place() -> None:
    store, scope, clock = _store("1 request/minute", "100 tokens/minute")
    _take(store, scope, tokens=1)
    first = _wait(store, scope, tokens=1)
    store.reshape(scope, policy.rules_of(["1 request/minute"]))
    second = _wait(store, scope)
    clock.advance(60)
    store.look_again(first)

    assert State.GRANTED is first.state
    assert State.WAITING is second.state


def test_a_limit_may_be_watched_and_enforced_in_turn() -> None:
    store, scope, _ = _store("1 request/minute")
    states = [_take(store, scope)]
    store.reshape(scope, policy.rules_of(["1 request/minute"], shadow={0}))
    states.append(_take(store, scope))
    store.reshape(scope, policy.rules_of(["1 request/minute"]))
    states.append(_take(store, scope))

    assert [State.GRANTED, State.GRANTED, State.REFUSED] == states


def test_a_limit_begins_to_be_watched_by_letting_its_waiters_go() -> None:
    store, scope, _ = _store("1 request/minute")
    _take(store, scope)
    waiter = _wait(store, scope)
    store.reshape(scope, policy.rules_of(["1 request/minute"], shadow={0}))

    assert State.GRANTED is waiter.state


def test_limits_may_change_their_order() -> None:
    store, scope, _ = _store("1 request/minute", "100 tokens/minute")
    _take(store, scope, tokens=99)
    store.reshape(scope, policy.rules_of(["100 tokens/minute", "2 requests/minute"]))
    states = [_take(store, scope, tokens=1) for _ in range(2)]

    assert [State.GRANTED, State.REFUSED] == states


def test_what_is_in_flight_settles_on_a_limit_that_is_gone() -> None:
    store, scope, _ = _store("2 concurrent", "9 requests/minute")
    costs = policy.costs_of(scope.rules, {"requests": 1}, 900 * SECOND)
    waiter = store.try_take([(scope, "")], costs)
    store.reshape(scope, policy.rules_of(["9 requests/minute"]))
    store.settle(waiter.meters, waiter.costs, waiter.granted_us, {"requests": 0})

    assert [0] == [row.used for row in store.status(scope, "")]
