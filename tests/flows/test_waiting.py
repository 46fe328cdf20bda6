"""What callers see while they wait: each scenario by threads and by tasks."""

from __future__ import annotations

from operator import methodcaller
from typing import TYPE_CHECKING

import pytest

from ratekeeper import BudgetExceeded, LimitExceeded, NeverPossible, StoreUnavailable
from tests.flows.world import Call, assert_idle, granted, in_turn

if TYPE_CHECKING:
    from ratekeeper import Grant, Limiter
    from tests.flows.world import World

US = 1e-6


def test_equal_waiters_are_served_in_the_order_they_came(world: World) -> None:
    outcomes = world.play(["60 rpm burst 1"], in_turn(20))

    assert [float(at) for at in range(20)] == pytest.approx(granted(outcomes), abs=0)
    assert_idle(world.store)


def test_a_refund_wakes_the_head_of_the_line_at_once(world: World) -> None:
    calls = [
        Call(cost={"tokens": 100}, lasts_s=5, ends=methodcaller("settle", tokens=30)),
        *in_turn(2, since_s=1, cost={"tokens": 60}),
    ]
    outcomes = world.play(["100 tpm"], calls)

    assert [0.0, 5.0] == granted(outcomes[:2])
    assert 65.0 == pytest.approx(granted(outcomes)[2], abs=0.2)


def test_a_slot_that_is_given_back_goes_to_the_head_at_once(world: World) -> None:
    calls = [Call(lasts_s=7), *in_turn(3, since_s=1, lasts_s=2)]
    outcomes = world.play(["1 concurrent"], calls)

    assert [0.0, 7.0, 9.0, 11.0] == granted(outcomes)
    assert_idle(world.store)


def test_a_slot_whose_holder_never_comes_back_passes_on_after_its_hold(
    world: World,
) -> None:
    limits = ["1 concurrent"]
    keeper = Call(ask={"hold": 30.0}, lasts_s=1, ends=_forget)
    outcomes = world.play(limits, [keeper, Call(at_s=2)])

    assert [0.0, 30.0] == granted(outcomes)


def _forget(grant: Grant) -> None:
    """Lose the grant, as a holder that died does: nothing closes or renews it."""
    if grant._renewal is not None:
        grant._renewal.discard(grant)
    grant._open = False


def test_one_key_that_waits_holds_up_no_other(world: World) -> None:
    calls = [
        Call(ask={"key": "a"}),
        Call(at_s=1, ask={"key": "a"}),
        Call(at_s=2, ask={"key": "b"}),
    ]

    assert [0.0, 60.0, 2.0] == granted(world.play(["1 rpm"], calls))


def test_the_line_serves_the_higher_class_first(world: World) -> None:
    calls = [
        Call(),
        Call(at_s=0.1, ask={"priority": "batch"}),
        Call(at_s=0.2, ask={"priority": "normal"}),
        Call(at_s=0.3, ask={"priority": "interactive"}),
    ]

    outcomes = world.play(["60 rpm burst 1"], calls)

    assert [0.0, 3.0, 2.0, 1.0] == granted(outcomes)


def test_a_batch_call_rises_until_it_is_served(world: World) -> None:
    stream = [Call(at_s=at, ask={"priority": "interactive"}) for at in range(90)]
    calls = [Call(at_s=0.5, ask={"priority": "batch"}), *stream]
    outcomes = world.play(["60 rpm burst 1"], calls)

    assert 62.0 >= granted(outcomes)[0]


def test_another_attempt_goes_ahead_of_its_class(world: World) -> None:
    calls = [Call(), *in_turn(3, since_s=0.1), Call(at_s=0.5, ask={"again": True})]
    outcomes = world.play(["60 rpm burst 1"], calls)

    assert 1.0 == granted(outcomes)[4]


def test_a_call_with_a_lost_deadline_is_refused_at_once_with_the_exact_wait(
    world: World,
) -> None:
    calls = [Call(), Call(at_s=10, ask={"timeout": 49.9}), Call(at_s=20)]
    outcomes = world.play(["1 rpm"], calls)
    error = outcomes[1].error

    assert isinstance(error, LimitExceeded)
    assert (50.0, "1 requests/minute") == (error.retry_after_s, error.limit)
    assert 10.0 == outcomes[1].ended_s
    assert [0.0, 60.0] == granted([outcomes[0], outcomes[2]])


def test_a_deadline_counts_those_who_stand_ahead(world: World) -> None:
    calls = [
        Call(),
        Call(at_s=1),
        Call(at_s=2, ask={"timeout": 60}),
        Call(at_s=3, ask={"timeout": 117}),
    ]
    outcomes = world.play(["1 rpm"], calls)
    error = outcomes[2].error

    assert isinstance(error, LimitExceeded)
    assert 118.0 == error.retry_after_s
    assert 2.0 == outcomes[2].ended_s
    assert 120.0 == granted([outcomes[3]])[0]


def test_a_waiter_whose_deadline_passes_is_refused_at_that_instant(
    world: World,
) -> None:
    calls = [
        Call(cost={"tokens": 100}, lasts_s=1, ends=methodcaller("settle", tokens=150)),
        Call(at_s=0.5, cost={"tokens": 80}, ask={"timeout": 60}),
        Call(at_s=3, ask={"timeout": 2}, cost={"tokens": 1}),
    ]
    outcomes = world.play(["100 tpm"], calls)

    assert isinstance(outcomes[1].error, LimitExceeded)
    assert 60.5 >= outcomes[1].ended_s
    assert isinstance(outcomes[2].error, LimitExceeded)
    assert 3.0 == outcomes[2].ended_s
    assert_idle(world.store)


def test_waiting_for_a_slot_ends_at_the_deadline(world: World) -> None:
    calls = [Call(lasts_s=10), Call(at_s=1, ask={"timeout": 4}), Call(at_s=2)]
    outcomes = world.play(["1 concurrent"], calls)

    assert isinstance(outcomes[1].error, LimitExceeded)
    assert 5.0 == outcomes[1].ended_s
    assert 10.0 == granted([outcomes[2]])[0]


def test_a_pause_holds_the_line_and_then_the_line_moves_on(world: World) -> None:
    calls = [
        Call(),
        *in_turn(3, since_s=0.1),
        Call(at_s=20),
    ]
    outcomes = world.play(
        ["60 rpm burst 1"],
        calls,
        meanwhile={0.5: lambda limiter: _refuse(limiter, 10)},
    )

    assert [0.0, 10.5, 11.5, 12.5, 20.0] == granted(outcomes)
    assert_idle(world.store)


def _refuse(limiter: Limiter, hint_s: float) -> None:
    """Tell the limiter of a 429 by way of a grant that was given before."""
    scope, store = limiter._scope, limiter._store
    store.refused(scope.rows[""], round(hint_s * 1e6), None, (), ramp=False)


def test_a_pause_refuses_at_once_whom_it_makes_late(world: World) -> None:
    calls = [
        Call(),
        Call(at_s=0.1, ask={"timeout": 5}),
        Call(at_s=0.2, ask={"timeout": 50}),
    ]
    outcomes = world.play(
        ["60 rpm burst 1"],
        calls,
        meanwhile={0.5: lambda limiter: _refuse(limiter, 10)},
    )
    error = outcomes[1].error

    assert isinstance(error, LimitExceeded)
    assert 10.0 == error.retry_after_s
    assert 0.5 == outcomes[1].ended_s
    assert 10.5 == granted([outcomes[2]])[0]


def test_a_raised_limit_lets_waiters_go_earlier_and_keeps_their_places(
    world: World,
) -> None:
    calls = [Call(), *in_turn(3, since_s=1)]
    outcomes = world.play(
        ["1 rpm burst 1"],
        calls,
        meanwhile={10: lambda limiter: limiter.update("6 rpm burst 1")},
    )

    # A sixth of the call at 0 was paid at 10; the rest is paid at the new rate.
    expected = [0.0, 10 + 50 / 6, 20 + 50 / 6, 30 + 50 / 6]
    assert expected == pytest.approx(granted(outcomes), abs=1e-5)


def test_a_lowered_limit_is_in_force_for_those_who_wait(world: World) -> None:
    calls = [Call(), *in_turn(2, since_s=1)]
    outcomes = world.play(
        ["6 rpm burst 1"],
        calls,
        meanwhile={5: lambda limiter: limiter.update("1 rpm burst 1")},
    )
    first, second, third = granted(outcomes)

    assert (0.0, 60.0) == (first, third - second)
    assert 10.0 < second


def test_a_call_above_a_lowered_limit_is_told_so_and_blocks_nobody(
    world: World,
) -> None:
    calls = [
        Call(cost={"tokens": 100}),
        Call(at_s=1, cost={"tokens": 90}),
        Call(at_s=2, cost={"tokens": 10}),
    ]
    outcomes = world.play(
        ["100 tpm"], calls, meanwhile={5: lambda limiter: limiter.update("50 tpm")}
    )

    assert isinstance(outcomes[1].error, NeverPossible)
    assert 5.0 == outcomes[1].ended_s
    assert 60.0 == granted([outcomes[2]])[0]
    assert_idle(world.store)


def test_a_call_waits_for_all_its_limits_together(world: World) -> None:
    limits = ["60 rpm burst 1", "100 tpm"]
    calls = [Call(cost={"tokens": 100}), *in_turn(3, since_s=1, cost={"tokens": 10})]
    first, *others = granted(world.play(limits, calls))

    assert 0.0 == first
    assert [60.0, 61.0, 62.0] == others


def test_small_calls_do_not_starve_a_large_one(world: World) -> None:
    crowd = [Call(at_s=at * 0.5, cost={"tokens": 50}) for at in range(100)]
    large = Call(at_s=10.2, cost={"tokens": 900})
    limits = ["1000 tpm using token-bucket burst 1000"]
    outcomes = world.play(limits, [large, *crowd])

    # Alone behind those who came first it would go when 21 x 50 + 900 have refilled.
    ideal = (21 * 50 + 900 - 1000) * 60 / 1000

    assert granted(outcomes)[0] == pytest.approx(ideal, abs=0.01)


def test_a_call_that_will_not_wait_overtakes_nobody(world: World) -> None:
    calls = [
        Call(cost={"tokens": 60}),
        Call(at_s=1, cost={"tokens": 60}),
        Call(at_s=2, cost={"tokens": 10}, ask={"timeout": 0}),
        Call(at_s=3, cost={"tokens": 0}, ask={"timeout": 0}),
    ]
    outcomes = world.play(["100 tpm"], calls)

    assert isinstance(outcomes[2].error, LimitExceeded)
    assert 58.0 == outcomes[2].error.retry_after_s
    assert [60.0, 3.0] == granted([outcomes[1], outcomes[3]])


def test_a_caller_with_a_spent_budget_is_told_at_once(world: World) -> None:
    calls = [Call(cost={"usd": 1}), Call(at_s=5, cost={"usd": "0.01"})]
    outcomes = world.play(["$1/day"], calls)
    error = outcomes[1].error

    assert isinstance(error, BudgetExceeded)
    assert 86_395.0 == error.retry_after_s


@pytest.mark.parametrize("used", [10, 90])
def test_what_a_call_holds_is_no_reason_to_refuse_until_it_is_settled(
    world: World, used: int
) -> None:
    settle = methodcaller("settle", tokens=used)
    calls = [
        Call(cost={"tokens": 10}, ends=methodcaller("settle", tokens=1)),
        Call(at_s=1, cost={"tokens": 90}, lasts_s=3.5, ends=settle),
        Call(at_s=2, cost={"tokens": 50}, ask={"timeout": 20}),
    ]
    last = world.play(["100 tokens/day"], calls)[2]

    if used == 10:
        assert 4.5 == last.granted_s
    else:  # at the first look after the day is provably used up
        assert isinstance(last.error, LimitExceeded)
        assert 5.0 == last.ended_s
        assert 86_396.0 == pytest.approx(last.error.retry_after_s, abs=1)
    assert_idle(world.store)


def test_a_budget_that_is_only_held_is_waited_for(world: World) -> None:
    calls = [
        Call(cost={"usd": "0.01"}, ends=methodcaller("settle", usd=0)),
        Call(at_s=1, cost={"usd": 1}, lasts_s=9, ends=methodcaller("settle", usd=0)),
        Call(at_s=2, cost={"usd": "0.50"}),
        Call(at_s=3, cost={"usd": "0.50"}, ask={"timeout": 4}),
    ]
    outcomes = world.play(["$1/day"], calls)
    error = outcomes[3].error

    assert 10.0 == outcomes[2].granted_s
    assert isinstance(error, BudgetExceeded)
    assert 7.0 == outcomes[3].ended_s
    assert 1.0 == error.retry_after_s
    assert "'$1/day' is held by calls under way: try again in at least 1 s" in str(
        error
    )


def test_no_more_callers_wait_than_the_store_allows(world: World) -> None:
    world.store._max_waiting = 2
    calls = [Call(), *in_turn(3, since_s=1), Call(at_s=2, ask={"timeout": 0})]
    calls.append(Call(at_s=3, ask={"key": "other"}))
    outcomes = world.play(["60 rph burst 1"], calls)

    assert isinstance(outcomes[3].error, StoreUnavailable)
    assert isinstance(outcomes[4].error, LimitExceeded)
    assert [0.0, 60.0, 120.0, 3.0] == granted([*outcomes[:3], outcomes[5]])


def test_a_large_call_among_a_crowd_is_served_within_twice_its_ideal_time(
    world: World,
) -> None:
    small = in_turn(world.many, cost={"tokens": 10})
    large = Call(at_s=world.many / 2 * US + US / 2, cost={"tokens": 5000})
    limits = ["6000 tpm using token-bucket burst 5000"]
    outcomes = world.play(limits, [large, *small])
    ideal = (world.many // 2 * 10 + 5000 - 5000) * 60 / 6000

    assert granted(outcomes)[0] <= 2 * ideal + 1
    assert_idle(world.store)
