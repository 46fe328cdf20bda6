"""The flow of an acquire, without a store: a generator is sent its results."""

from __future__ import annotations

import pytest

from ratekeeper.core import plans
from ratekeeper.core.effects import Enter, Leave, LookAgain, Park
from ratekeeper.core.line import State, Waiter


def test_a_call_that_fits_enters_and_is_done() -> None:
    waiter = Waiter([1])
    plan = plans.acquire(waiter)
    assert Enter(waiter) == next(plan)
    waiter.state = State.GRANTED

    with pytest.raises(StopIteration) as stop:
        plan.send(None)
    assert waiter is stop.value.value


def test_a_call_that_waits_parks_and_looks_again_until_its_fate_is_decided() -> None:
    waiter = Waiter([1])
    plan = plans.acquire(waiter)
    effects = [next(plan) for _ in range(5)]
    waiter.state = State.REFUSED

    assert [type(effect) for effect in effects] == [
        Enter,
        Park,
        LookAgain,
        Park,
        LookAgain,
    ]
    with pytest.raises(StopIteration):
        plan.send(None)


def test_a_call_that_is_told_of_its_fate_does_not_look_again() -> None:
    waiter = Waiter([1])
    plan = plans.acquire(waiter)
    next(plan)
    assert Park(waiter) == next(plan)
    waiter.state = State.GRANTED

    with pytest.raises(StopIteration):
        plan.send(None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, GeneratorExit])
def test_a_cancelled_call_leaves_the_line(error: type[BaseException]) -> None:
    waiter = Waiter([1])
    plan = plans.acquire(waiter)
    next(plan)
    next(plan)
    assert Leave(waiter) == plan.throw(error)

    with pytest.raises(error):
        plan.send(None)


def test_effects_compare_by_what_they_hold() -> None:
    waiter = Waiter([1])

    assert Park(waiter) == Park(waiter)
    assert Park(waiter) != Park(Waiter([1]))
