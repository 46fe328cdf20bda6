"""What a bar says of a call by its head is what the line says of it, body and all."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core import policy
from ratekeeper.core.line import Priority, State, Waiter
from ratekeeper.core.units import MINUTE, SECOND
from ratekeeper.gateway.bar import Bar
from ratekeeper.stores.keys import Scope, Target
from ratekeeper.stores.memory import MemoryStore
from ratekeeper.testing import ManualClock


class _Call(NamedTuple):
    after_us: int
    priority: Priority
    flow: str
    timeout_us: int

    def waiter(self) -> Waiter:
        return Waiter(
            (1,),
            timeout_us=self.timeout_us,
            priority=self.priority,
            flow=self.flow,
        )


CALLS = st.builds(
    _Call,
    after_us=st.integers(0, 20 * SECOND),
    priority=st.sampled_from(Priority),
    flow=st.sampled_from("ab"),
    timeout_us=st.sampled_from([0, 20 * SECOND, 2 * MINUTE, 5 * MINUTE]),
)


def _scope(store: MemoryStore, limit: str) -> Scope:
    return store.scope(None, policy.rules_of([limit]))


def _said(bar: Bar, left_us: int, now: int, call: _Call | None = None) -> int:
    def waiter() -> Waiter:
        assert call is not None
        return call.waiter()

    if bar.meter is None:
        return 0
    return bar.wait_us(left_us, now, waiter, only_counts=False)


@pytest.mark.parametrize(
    "limit",
    ["2 rpm", "2 rpm burst 1", "2 rpm using fixed-window"],
)
@given(st.lists(CALLS, min_size=3, max_size=20))
def test_what_a_bar_refuses_the_line_refuses_with_the_same_wait(
    limit: str, calls: list[_Call]
) -> None:
    clock, bar = ManualClock(), Bar()
    store = MemoryStore(clock=clock)
    ours: list[Target] = [(_scope(store, limit), "")]
    for call in calls:
        clock.advance(us=call.after_us)
        waiter = call.waiter()
        said_us = _said(bar, call.timeout_us, store.now_us(), call)
        store.enter(waiter, ours)
        if waiter.state is State.REFUSED:
            assert waiter.held_by is not None
            bar.close(waiter.held_by)

        assert waiter.state is State.REFUSED or not said_us
        assert said_us in {0, waiter.wait_us}


def test_a_bar_is_gone_once_there_is_room() -> None:
    clock, bar = ManualClock(), Bar()
    store = MemoryStore(clock=clock)
    ours: list[Target] = [(_scope(store, "1 rpm"), "")]
    store.try_take(ours, (1,))
    waiter = store.try_take(ours, (1,))
    assert waiter.held_by is not None
    bar.close(waiter.held_by)
    clock.advance(us=MINUTE)

    assert 0 == _said(bar, 0, store.now_us())
    assert bar.meter is None


@pytest.mark.parametrize("limit", ["100 tpm", "$1/day"])
def test_tokens_and_money_bar_nobody(limit: str) -> None:
    bar = Bar()
    bar.close(policy.rules_of(["1 rpm"])[0].meter(0))
    bar.close(policy.rules_of([limit])[0].meter(0))

    assert bar.meter is None


def test_a_slot_may_come_back_at_any_moment_for_whoever_may_wait() -> None:
    bar, meter = Bar(), policy.rules_of(["1 concurrent"])[0].meter(0)
    meter.take(policy.HOLD, 0)
    bar.close(meter)

    assert policy.HOLD - 1 == _said(bar, 0, 1)
    assert 0 == _said(bar, 1, 1)
