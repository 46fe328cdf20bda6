"""Who waits and who is next, driven as a store would drive it."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ratekeeper.core import line
from ratekeeper.core.limits import Limit
from ratekeeper.core.line import LAST, Priority, State, Waiter
from ratekeeper.core.meter import Meter
from ratekeeper.core.policy import rules_of
from ratekeeper.core.units import MINUTE, SECOND
from ratekeeper.errors import ConfigError
from tests.core.room import START, Room, meters_of

LIMITS = [
    "10 tokens/minute",
    "10 tokens/minute burst 3",
    "10 tokens/minute using leaky-bucket",
    "10 tokens/minute using fixed-window",
    "10 tokens/minute using paced",
]


@settings(max_examples=150)
@given(
    st.sampled_from(LIMITS),
    st.lists(st.tuples(st.integers(0, 20 * SECOND), st.integers(1, 10)), max_size=25),
)
def test_a_line_serves_by_arrival_each_at_the_first_instant_it_fits(
    text: str, calls: list[tuple[int, int]]
) -> None:
    room = Room(text)
    waiters = []
    for gap, cost in calls:
        room.run(room.now + gap)
        waiters.append(room.enter(Waiter([cost])))
    room.run()
    (alone,) = meters_of(text)
    served = START
    expected = []
    for waiter in waiters:
        served = max(served, waiter.arrived_us)
        served += alone.wait_us(waiter.costs[0], served)
        alone.take(waiter.costs[0], served)
        expected.append(served)

    assert expected == [waiter.granted_us for waiter in waiters]
    assert waiters == room.granted
    assert room.is_empty()


@given(st.sampled_from(LIMITS), st.lists(st.integers(1, 10), max_size=8))
def test_the_wait_foretold_before_the_line_is_the_wait_in_it(
    text: str, costs: list[int]
) -> None:
    room = Room(text)
    for cost in costs:
        room.enter(Waiter([cost]))
    foretold = Waiter([3])
    foretold.arrive(room.meters, room.now, len(costs))
    wait_us = line.wait_us(foretold, room.now)
    entered = room.enter(Waiter([3]))

    assert wait_us == entered.wait_us
    assert (wait_us == 0) is (entered.state is State.GRANTED)


@settings(max_examples=150)
@given(
    st.sampled_from(LIMITS),
    st.lists(
        st.tuples(st.integers(0, 20 * SECOND), st.integers(1, 10), st.integers(1, 10)),
        max_size=20,
    ),
)
@example(
    "10 tokens/minute",
    [(0, 1, 1)] * 4 + [(0, 7, 7), *[(0, 1, 1)] * 2, (0, 2, 1), (0, 1, 7)],
)
def test_two_limits_serve_by_arrival_when_both_grant(
    text: str, calls: list[tuple[int, int, int]]
) -> None:
    room = Room("10 requests/minute", text)
    waiters = []
    for gap, requests, tokens in calls:
        room.run(room.now + gap)
        waiters.append(room.enter(Waiter([requests, tokens])))
    room.run()
    alone = meters_of("10 requests/minute", text)
    served = START
    expected = []
    for waiter in waiters:
        pairs = list(zip(alone, waiter.costs, strict=True))
        served = max(served, waiter.arrived_us)
        served += max(meter.wait_us(cost, served) for meter, cost in pairs)
        for meter, cost in pairs:
            meter.take(cost, served)
        expected.append(served)

    assert expected == [waiter.granted_us for waiter in waiters]
    assert waiters == room.granted
    assert sum(w.costs[0] for w in waiters) == room.meters[0].charged
    assert sum(w.costs[1] for w in waiters) == room.meters[1].charged
    assert room.is_empty()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_nobody_is_forgotten_whatever_happens_to_the_others(seed: int) -> None:
    rng = random.Random(seed)
    room = Room("6 requests/minute", "40 tokens/minute using paced", "3 concurrent")
    keys = [meters_of("4 requests/minute burst 2") for _ in range(3)]
    waiting: list[Waiter] = []
    held: list[Waiter] = []
    for _ in range(60):
        room.run(room.now + rng.randint(0, 12 * SECOND))
        held += [w for w in room.granted if w not in held]
        what = rng.random()
        if what < 0.55:
            own = rng.choice(keys) if rng.random() < 0.5 else []
            waiter = Waiter(
                [1, rng.choice([0, 3, 20, 40]), 30 * SECOND, 1][: 3 + len(own)],
                timeout_us=rng.choice([None, None, 0, 20 * SECOND]),
                priority=rng.choice([*Priority, LAST]),
                flow=rng.choice(["", "a", "b"]),
                weight=1,
                again=rng.random() < 0.1,
            )
            if waiter.priority == LAST:
                waiter.timeout_us = 0
            waiting.append(room.enter(waiter, [*room.meters, *own]))
        elif what < 0.7 and waiting:
            waiter = rng.choice(waiting)
            if waiter.state is State.WAITING:
                room.withdraw(waiter)
        elif what < 0.95 and held:
            waiter = held.pop(rng.randrange(len(held)))
            room.back(waiter, 0, 2, 30 * SECOND, *waiter.costs[3:])
        else:
            for meter in room.meters[:1]:
                meter.pause(room.now + 15 * SECOND)
                room.tell(line.refuse_lost([meter], room.now))
    room.run()

    assert not [w for w in waiting if w.state is State.WAITING]
    assert room.is_empty()
    assert all(meter.line is None for row in keys for meter in row)
    for waiter in waiting:
        if waiter.state is State.GRANTED and waiter.deadline_us is not None:
            assert waiter.granted_us <= waiter.deadline_us


def test_a_refused_call_leaves_every_limit_untouched() -> None:
    room = Room("10 rpm", "100 tokens/minute")
    room.enter(Waiter([1, 90]))
    refused = room.enter(Waiter([1, 20], timeout_us=0))

    assert State.REFUSED is refused.state
    assert refused.held_by is room.meters[1]
    assert MINUTE == refused.wait_us
    assert 1 == room.meters[0].used(START)


def test_one_wake_up_at_the_longest_of_the_waits() -> None:
    room = Room("2 requests/2 seconds", "100 tokens/40 seconds")
    room.enter(Waiter([2, 100]))
    waiter = room.enter(Waiter([1, 50]))
    room.run()

    assert START + 40 * SECOND == waiter.granted_us
    assert {waiter: 1} == room.woken


def test_a_hundred_waiters_and_one_place_make_one_wake_up() -> None:
    room = Room("60 rpm burst 1")
    for _ in range(101):
        room.enter(Waiter([1]))
    room.run(START + SECOND)

    assert 2 == len(room.granted)
    assert 1 == sum(room.woken.values())


def test_a_hundred_waiters_for_slots_do_not_wake_together_when_a_lease_ends() -> None:
    room = Room("1 concurrent")
    for _ in range(101):
        room.enter(Waiter([MINUTE]))
    room.run(START + MINUTE)

    assert 2 == len(room.granted)
    assert 1 == sum(room.woken.values())


def test_a_caller_stuck_at_its_own_key_holds_up_nobody() -> None:
    room = Room("2 rpm")
    own = meters_of("1 requests/hour")
    room.enter(Waiter([1, 1]), [*room.meters, *own])
    stuck = room.enter(Waiter([1, 1]), [*room.meters, *own])
    free = room.enter(Waiter([1]))
    last = room.enter(Waiter([1]))
    room.run(START + MINUTE)

    assert State.WAITING is stuck.state
    assert State.GRANTED is free.state
    assert START + MINUTE == last.granted_us


def test_the_second_passes_a_first_that_is_held_up_elsewhere() -> None:
    room = Room("1 rpm")
    own = meters_of("1 requests/2 minutes")
    room.enter(Waiter([1, 1]), [*room.meters, *own])
    first = room.enter(Waiter([1, 1]), [*room.meters, *own])
    second = room.enter(Waiter([1]))
    third = room.enter(Waiter([1]))
    room.run()

    assert START + MINUTE == second.granted_us
    assert START + 2 * MINUTE == first.granted_us
    assert START + 3 * MINUTE == third.granted_us


def test_small_calls_do_not_starve_a_large_one() -> None:
    room = Room("100 tokens/minute")
    for _ in range(10):
        room.enter(Waiter([10]))
    large = room.enter(Waiter([90]))
    for _ in range(300):
        room.run(room.now + SECOND)
        room.enter(Waiter([1]))

    assert START + MINUTE == large.granted_us


def test_a_small_call_does_not_slip_past_a_large_one_at_the_same_limit() -> None:
    room = Room("100 tokens/minute")
    room.enter(Waiter([60]))
    room.run(START + SECOND)
    large = room.enter(Waiter([90]))
    small = room.enter(Waiter([10]))
    now_or_never = room.enter(Waiter([10], timeout_us=0))

    assert State.WAITING is small.state
    assert State.REFUSED is now_or_never.state
    assert 60 * SECOND == now_or_never.wait_us
    room.run()
    assert START + MINUTE == large.granted_us == small.granted_us


@pytest.mark.parametrize("priority", [Priority.BATCH, Priority.NORMAL])
def test_a_call_that_must_not_overtake_stands_behind_every_class(
    priority: Priority,
) -> None:
    room = Room("100 tokens/minute")
    room.enter(Waiter([60]))
    room.enter(Waiter([90], priority=priority, flow="a"))
    tried = room.enter(Waiter([10], priority=LAST, timeout_us=0))

    assert State.REFUSED is tried.state
    assert MINUTE == tried.wait_us


def test_classes_are_served_in_their_order() -> None:
    room = Room("1 requests/second")
    room.enter(Waiter([1]))
    batch = room.enter(Waiter([1], priority=Priority.BATCH))
    normal = room.enter(Waiter([1]))
    interactive = room.enter(Waiter([1], priority=Priority.INTERACTIVE))
    room.run()

    assert [interactive, normal, batch] == room.granted[1:]


def test_a_waiter_of_half_a_minute_rises_one_class() -> None:
    room = Room("1 requests/second")
    room.enter(Waiter([1]))
    batch = room.enter(Waiter([1], priority=Priority.BATCH))
    for _ in range(70):
        room.enter(Waiter([1], priority=Priority.NORMAL))
        room.run(room.now + SECOND)

    # from 30 s on it stands among the normal ones, with the earliest arrival
    assert START + 30 * SECOND == batch.granted_us


def test_a_waiter_of_a_minute_rises_two_classes() -> None:
    room = Room("1 requests/second")
    room.enter(Waiter([1]))
    batch = room.enter(Waiter([1], priority=Priority.BATCH))
    for _ in range(70):
        room.enter(Waiter([1], priority=Priority.INTERACTIVE))
        room.run(room.now + SECOND)

    assert START + 60 * SECOND == batch.granted_us


def test_flows_of_a_class_share_by_weight() -> None:
    room = Room("1 requests/second")
    room.enter(Waiter([1]))
    for _ in range(80):
        room.enter(Waiter([1], flow="three", weight=3, timeout_us=None))
        room.enter(Waiter([1], flow="one", weight=1))
    room.run(START + 28 * SECOND)

    first = [waiter.flow for waiter in room.granted[1:]]
    assert 21 == first.count("three")
    assert 7 == first.count("one")


def test_a_flow_that_comes_late_does_not_catch_up_on_the_past() -> None:
    room = Room("1 requests/second")
    for _ in range(40):
        room.enter(Waiter([1], flow="early"))
    room.run(START + 10 * SECOND)
    for _ in range(20):
        room.enter(Waiter([1], flow="late"))
    room.run(START + 20 * SECOND)

    since = [w.flow for w in room.granted if w.granted_us > START + 10 * SECOND]
    assert since.count("early") == since.count("late") == 5


def test_a_call_that_has_had_its_turn_goes_ahead_of_its_class_alone() -> None:
    room = Room("1 requests/second")
    room.enter(Waiter([1]))
    first = room.enter(Waiter([1], flow="a"))
    again = room.enter(Waiter([1], flow="b", again=True))
    batch = room.enter(Waiter([1], priority=Priority.BATCH, again=True))
    once_more = room.enter(Waiter([1], again=True))
    room.run()

    assert [again, once_more, first, batch] == room.granted[1:]


def test_a_deadline_that_cannot_be_met_is_refused_at_once_with_the_wait() -> None:
    room = Room("1 rpm")
    room.enter(Waiter([1]))
    late = room.enter(Waiter([1], timeout_us=MINUTE - 1))
    in_time = room.enter(Waiter([1], timeout_us=MINUTE))
    behind = room.enter(Waiter([1], timeout_us=2 * MINUTE - 1))

    assert [late, behind] == room.refused
    assert [MINUTE, 2 * MINUTE] == [late.wait_us, behind.wait_us]
    room.run()
    assert START + MINUTE == in_time.granted_us


def test_a_deadline_is_not_lost_to_those_who_came_later_and_are_risen_above() -> None:
    room = Room("60 requests/minute using leaky-bucket")
    room.enter(Waiter([1]))
    batch = room.enter(Waiter([1], priority=Priority.BATCH, timeout_us=MINUTE))
    room.run(START + SECOND // 2)
    for _ in range(100):
        room.enter(Waiter([1]))
    room.run()

    assert State.GRANTED is batch.state
    assert START + 30 * SECOND == batch.granted_us


def test_a_deadline_is_lost_to_those_who_came_earlier_and_rise_as_well() -> None:
    room = Room("60 requests/minute using leaky-bucket")
    room.enter(Waiter([1]))
    for priority in (Priority.NORMAL, Priority.BATCH):
        for _ in range(20):
            room.enter(Waiter([1], priority=priority))
    batch = Waiter([1], priority=Priority.BATCH, timeout_us=41 * SECOND)
    late = Waiter([1], priority=Priority.BATCH, timeout_us=41 * SECOND - 1)
    room.enter(late)
    room.enter(batch)

    assert State.REFUSED is late.state
    assert State.WAITING is batch.state

    room.run()

    assert START + 41 * SECOND == batch.granted_us


def test_a_deadline_in_a_line_for_slots_is_refused_when_it_comes() -> None:
    room = Room("1 concurrent")
    room.enter(Waiter([15 * MINUTE]))
    waiter = room.enter(Waiter([15 * MINUTE], timeout_us=SECOND))
    assert waiter not in room.refused
    room.run()

    assert [waiter] == room.refused
    assert START + SECOND == room.now


def test_a_timeout_of_nothing_grants_where_there_is_room() -> None:
    room = Room("1 rpm")

    assert State.GRANTED is room.enter(Waiter([1], timeout_us=0)).state


def test_a_refund_serves_the_head_at_once() -> None:
    room = Room("100 tokens/minute")
    held = room.enter(Waiter([100]))
    head = room.enter(Waiter([70]))
    tail = room.enter(Waiter([30]))
    room.run(START + 2 * SECOND)
    room.back(held, 80)

    assert START + 2 * SECOND == head.granted_us
    assert State.WAITING is tail.state


def test_withdrawing_the_large_head_lets_the_small_ones_through() -> None:
    room = Room("100 tokens/minute")
    room.enter(Waiter([60]))
    large = room.enter(Waiter([90]))
    small = room.enter(Waiter([10]))
    room.withdraw(large)

    assert State.LEFT is large.state
    assert START == small.granted_us
    assert room.is_empty()


def test_half_of_a_thousand_waiters_leave_without_a_trace() -> None:
    rng = random.Random(7)
    room = Room("600 rpm", "60000 tokens/minute using paced")
    waiters = [room.enter(Waiter([1, rng.randint(1, 400)])) for _ in range(1000)]
    for waiter in rng.sample(waiters, 500):
        if waiter.state is State.WAITING:
            room.withdraw(waiter)
        else:
            room.back(waiter, *waiter.costs)
        room.run(room.now + rng.randint(0, 20_000))
    room.run()

    assert room.is_empty()
    assert not [w for w in waiters if w.state is State.WAITING]
    assert 600 == room.meters[0].remaining(room.now + MINUTE)
    assert 60_000 == room.meters[1].remaining(room.now + MINUTE)


def test_a_lowered_amount_refuses_whom_it_can_never_serve() -> None:
    room = Room("100 tokens/minute")
    room.enter(Waiter([60]))
    large = room.enter(Waiter([90]))
    small = room.enter(Waiter([10]))
    room.meters[0].change(Limit.parse("80 tokens/minute").resolved(), START)
    room.tell(line.refuse_lost(room.meters, START))

    assert State.REFUSED is large.state
    assert room.meters[0] is large.held_by
    assert State.GRANTED is small.state


def test_whom_an_earlier_refusal_let_through_is_not_served_twice() -> None:
    room = Room("100 tokens/minute", "100 input_tokens/minute")
    room.enter(Waiter([60, 60]))
    large = room.enter(Waiter([90, 90]))
    small = room.enter(Waiter([10, 10]))
    for meter in room.meters:
        meter.change(Limit.parse(f"80 {meter.unit}/minute").resolved(), START)
    room.tell(line.refuse_lost(room.meters, START))

    assert State.REFUSED is large.state
    assert [70, 70] == [meter.used(START) for meter in room.meters]
    assert START == small.granted_us


def test_a_pause_refuses_whose_deadline_it_passes_and_keeps_the_others() -> None:
    room = Room("1 requests/10 seconds")
    room.enter(Waiter([1]))
    patient = room.enter(Waiter([1], timeout_us=MINUTE))
    hasty = room.enter(Waiter([1], timeout_us=20 * SECOND))
    for_ever = room.enter(Waiter([1]))
    room.meters[0].pause(START + 30 * SECOND)
    room.tell(line.refuse_lost(room.meters, START))

    assert State.REFUSED is hasty.state
    assert hasty.wait_us >= 30 * SECOND
    room.run()
    assert START + 30 * SECOND == patient.granted_us
    assert START + 40 * SECOND == for_ever.granted_us


def test_an_unlimited_wait_for_money_ends_after_a_minute() -> None:
    soon, late = Room("$1/minute"), Room("$1/day")
    for room in (soon, late):
        room.enter(Waiter([10**9]))

    assert State.WAITING is soon.enter(Waiter([1])).state
    assert State.REFUSED is late.enter(Waiter([1])).state
    assert State.WAITING is late.enter(Waiter([1], timeout_us=2 * 86_400_000_000)).state


def elastic() -> tuple[Room, Meter]:
    """Return a day of 100 tokens whose calls are settled, all of it held by one."""
    room = Room("100 tokens/day")
    room.meters[0].settles = True
    room.enter(Waiter([100]))
    return room, room.meters[0]


def test_nobody_is_refused_while_a_call_under_way_may_make_room() -> None:
    room, meter = elastic()
    waiting = room.enter(Waiter([50], timeout_us=20 * SECOND))
    room.run(START + 3 * SECOND)

    assert [] == room.refused

    meter.let_go(100, 100, START)  # it has used all of it
    room.run(START + 4 * SECOND)

    assert [waiting] == room.refused
    assert waiting.wait_us == waiting.least_us


def test_those_ahead_are_thought_to_use_what_others_did() -> None:
    room, meter = elastic()
    for _ in range(2):
        room.enter(Waiter([50], timeout_us=MINUTE))
    meter.settled, meter.kept = 100, 50
    fits = room.enter(Waiter([50], timeout_us=20 * SECOND))
    late = room.enter(Waiter([51], timeout_us=20 * SECOND))

    assert State.WAITING is fits.state  # 100 may come back, and 100 ahead come to 50
    assert State.REFUSED is late.state
    assert 86_400 * SECOND == late.least_us


def test_what_others_used_long_ago_is_forgotten_by_halves() -> None:
    _, meter = elastic()
    meter.settled, meter.kept = 801, 400

    assert 5 == meter.likely(10)
    assert (400, 200) == (meter.settled, meter.kept)


def test_what_was_taken_in_a_window_that_has_gone_does_not_come_back() -> None:
    room = Room("100 tokens/minute")
    (meter,) = room.meters
    meter.settles = True
    room.enter(Waiter([80]))  # a long stream, not settled for minutes
    room.run(START + 2 * MINUTE)
    room.enter(Waiter([100]))
    meter.let_go(100, 100, room.now)
    late = room.enter(Waiter([50], timeout_us=20 * SECOND))

    assert State.REFUSED is late.state
    assert 0 == meter.may_come_back(room.now)

    meter.let_go(80, 10, START)  # forgotten by now: it changes nothing
    room.run(START + 9 * MINUTE)
    room.enter(Waiter([1]))

    meter.let_go(80, 80, START)

    assert (1, 0) == (meter.held, meter.held_before)


def test_what_the_window_before_holds_is_remembered_and_let_go() -> None:
    room = Room("100 tokens/minute")
    (meter,) = room.meters
    room.enter(Waiter([80]))
    room.run(START + MINUTE)
    room.enter(Waiter([10]))

    assert (10, 80) == (meter.held, meter.held_before)

    meter.let_go(80, 80, START)
    meter.let_go(10, 10, room.now)

    assert (0, 0) == (meter.held, meter.held_before)

    meter.settles = True
    for now in (room.now, room.now + 2 * MINUTE):
        meter.take_hold(5, now)

    assert (5, 0) == (meter.held, meter.held_before)
    assert 0 == meter.may_come_back(room.now + 9 * MINUTE)


def test_what_is_only_watched_is_waited_for_where_the_provider_said_so_alone() -> None:
    (meter,) = [rule.meter(START) for rule in rules_of(["100 tpm"], shadow={0})]
    meter.grant(100, START)

    assert 0 == meter.surely_us(0, 50, 0, START)

    meter.pause(START + SECOND)

    assert SECOND == meter.surely_us(0, 50, 0, START)


def test_a_cold_start_is_waited_for_whatever_comes_back() -> None:
    meter, pace = meters_of("100 tpm", "60 tokens/minute using token-bucket burst 1")
    meter.start_cold(START, pace)
    meter.grant(1, START)

    assert SECOND == meter.surely_us(0, 1, 100, START)


@pytest.mark.parametrize("limit", ["using paced", "using token-bucket burst 20"])
def test_what_comes_back_makes_room_for_a_call_above_the_burst(limit: str) -> None:
    room = Room(f"100 tokens/minute {limit}")
    (meter,) = room.meters
    meter.settles = True
    room.enter(Waiter([20]))
    waiting = room.enter(Waiter([30], timeout_us=5 * SECOND))

    assert State.WAITING is waiting.state


def test_whoever_waits_in_a_crowd_looks_less_often() -> None:
    room, _ = elastic()
    waits = [
        room.enter(Waiter([50], timeout_us=20 * SECOND)).wake_us for _ in range(1001)
    ]

    assert START + SECOND == waits[0]
    assert START + 3 * SECOND == waits[-1]


def test_a_call_is_looked_at_when_it_rises() -> None:
    room = Room("100 tokens/minute using token-bucket")
    for _ in range(10):
        room.enter(Waiter([10], priority=Priority.INTERACTIVE))
    small = room.enter(Waiter([1]))
    large = room.enter(Waiter([95], priority=Priority.INTERACTIVE))
    room.run()

    assert START + 30 * SECOND == small.granted_us
    assert large in room.granted


def test_a_pause_is_certain_whatever_calls_hold() -> None:
    room, meter = elastic()
    meter.pause(START + 30 * SECOND)
    late = room.enter(Waiter([50], timeout_us=20 * SECOND))

    assert State.REFUSED is late.state
    assert 30 * SECOND == late.least_us


def test_a_call_that_takes_nothing_of_a_limit_does_not_wait_in_its_line() -> None:
    room = Room("10 rpm", "100 tokens/minute")
    room.enter(Waiter([1, 60]))
    room.enter(Waiter([1, 90]))

    assert State.GRANTED is room.enter(Waiter([1, 0])).state


def test_a_call_that_takes_nothing_waits_out_a_pause() -> None:
    room = Room("10 rpm", "100 tokens/minute")
    room.meters[1].pause(START + SECOND)
    waiter = room.enter(Waiter([1, 0]))
    room.run()

    assert START + SECOND == waiter.granted_us


def test_a_cold_line_wakes_each_waiter_when_it_is_its_turn() -> None:
    from ratekeeper.core.policy import Account, rules_of

    room = Room("60 rpm")
    (rule,) = rules_of(["60 rpm using sliding-window"], Account())
    room.meters = [rule.meter(START)]
    for _ in range(30):
        room.enter(Waiter([1]))
    room.run()

    assert [START + i * SECOND for i in range(30)] == [
        w.granted_us for w in room.granted
    ]
    assert sum(room.woken.values()) <= 35


@pytest.mark.parametrize(
    "text", ["60 rpm using paced", "60 rpm", "60 rpm burst 3", "5 concurrent"]
)
def test_thousands_of_waiters_cost_each_what_hundreds_do(text: str) -> None:
    few, many = _comparisons(text, 300), _comparisons(text, 4800)

    assert many < 4 * few  # sixteen times as many wait


def _comparisons(text: str, waiting: int) -> float:
    """Count how often a waiter is compared from its coming to its grant."""
    looks = 0
    plain = Waiter.__lt__

    def counting(self: Waiter, other: Waiter) -> bool:
        nonlocal looks
        looks += 1
        return plain(self, other)

    room = Room(text)
    cost = 60 * SECOND if "concurrent" in text else 1
    Waiter.__lt__ = counting  # type: ignore[method-assign]
    try:
        for i in range(waiting):
            room.enter(Waiter([cost], flow=str(i % 7), priority=list(Priority)[i % 3]))
        room.run()
    finally:
        Waiter.__lt__ = plain  # type: ignore[method-assign]
    assert waiting == len(room.granted)
    return looks / waiting


class _Owner:
    """An owner who may be gone before the turn comes."""

    def __init__(self) -> None:
        self.gone = False

    def wake(self, waiter: Waiter) -> bool:
        del waiter
        return not self.gone

    def is_gone(self) -> bool:
        return self.gone


def test_an_owner_who_is_gone_takes_no_turn() -> None:
    room = Room("1 tokens/second using leaky-bucket")
    owner = _Owner()
    room.enter(Waiter([1]))
    gone = [room.enter(Waiter([1], seat=owner)) for _ in range(5)]
    owner.gone = True
    last = room.enter(Waiter([1]))
    room.run()

    assert START + SECOND == last.granted_us
    assert [State.LEFT] * 5 == [waiter.state for waiter in gone]
    assert room.is_empty()


def test_a_class_is_named_as_callers_name_it() -> None:
    assert Priority.BATCH is Priority.named("batch")
    assert Priority.INTERACTIVE is Priority.named("Interactive")


@pytest.mark.parametrize("name", ["urgent", "", None, 1])
def test_a_class_nobody_knows_is_a_config_error(name: object) -> None:
    with pytest.raises(ConfigError, match="expected interactive, normal or batch"):
        Priority.named(name)  # type: ignore[arg-type]  # what a caller may pass


def test_those_who_are_let_go_keep_their_place_in_another_line() -> None:
    room = Room("1 request/minute", "1 request/minute burst 1")
    here, there = ([meter] for meter in room.meters)
    for meters in (here, there):
        room.enter(Waiter([1]), meters)
    early = [room.enter(Waiter([1]), here) for _ in range(3)]
    room.tell(line.let_go(early[:2], room.now))
    later = room.enter(Waiter([1]), there)
    came = [Waiter([1], place=one.place) for one in early[:2]]
    for one in reversed(came):
        room.enter(one, there)
    room.run()

    assert [State.LET_GO, State.LET_GO, State.GRANTED] == [one.state for one in early]
    assert START + MINUTE == early[2].granted_us
    assert [*came, later] == [one for one in room.granted if one in {*came, later}]
    assert room.is_empty()


def test_nobody_is_let_go_who_does_not_wait() -> None:
    room = Room("1 request/minute")
    granted = room.enter(Waiter([1]))
    changed = line.let_go([granted], room.now)

    assert [] == changed
    assert State.GRANTED is granted.state
