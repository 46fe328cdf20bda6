"""Concurrency as leases."""

from __future__ import annotations

import heapq
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from ratekeeper.core.limits import Limit
from ratekeeper.core.policy import HOLD, Account, rules_of
from ratekeeper.core.slots import Adaptive, Gate, Slots
from ratekeeper.core.units import MAX_AMOUNT, MINUTE, SECOND
from tests.core.room import START


def slots(amount: int) -> Slots:
    return Slots(Limit.parse(f"{amount} concurrent"))


@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(
            st.integers(0, 5 * SECOND),
            st.sampled_from(["take", "take", "back", "renew"]),
            st.integers(1, 9 * SECOND),
            st.integers(0, 9),
        ),
        max_size=60,
    ),
)
def test_leases_are_those_of_a_list_that_is_searched(
    amount: int, ops: list[tuple[int, str, int, int]]
) -> None:
    meter = slots(amount)
    held: list[tuple[int, int]] = []
    now = START
    for gap, what, hold, pick in ops:
        now += gap
        held = [lease for lease in held if sum(lease) > now]
        wait = meter.wait_us(hold, now)
        assert (len(held) < amount) == (wait == 0)
        if what == "take" and wait == 0:
            meter.admit(hold, now)
            held.append((now, hold))
        elif what == "take":
            assert wait == min(sum(lease) for lease in held) - now
            assert 1 == meter.wait_us(hold, now + wait - 1)
        elif what == "back" and held:
            taken, cost = held.pop(pick % len(held))
            meter.back(cost, taken, now)
        elif held:
            taken, cost = held.pop(pick % len(held))
            assert meter.renew(taken + cost, now + hold)
            held.append((now, hold))

        assert len(held) == meter.used(now)
        assert amount - len(held) == meter.remaining(now)
        assert meter.is_binding(now) == bool(held)
        last = max((sum(lease) for lease in held), default=now)
        assert last - now == meter.reset_us(now)


def test_a_lease_that_ran_out_is_not_given_back_twice() -> None:
    meter = slots(1)
    meter.admit(SECOND, START)
    later = START + SECOND
    meter.admit(MINUTE, later)
    meter.back(SECOND, START, later)

    assert 1 == meter.used(later)
    assert not meter.renew(START + SECOND, later + MINUTE)
    assert meter.renew(later + MINUTE, later + 2 * MINUTE)
    assert 2 * MINUTE == meter.wait_us(SECOND, later)


def test_a_lowered_number_is_in_force_at_once() -> None:
    meter = slots(3)
    for i in range(3):
        meter.admit(SECOND * (i + 1), START)
    meter.change(Limit.parse("1 concurrent"), START)

    assert 0 == meter.remaining(START)
    assert 3 * SECOND == meter.wait_us(SECOND, START)
    meter.change(Limit.parse("5 concurrent"), START)
    assert 0 == meter.wait_us(SECOND, START)


def test_a_call_stands_in_line_for_one_slot_however_long_it_holds_it() -> None:
    assert 1 == slots(3).weight(15 * MINUTE)
    assert not slots(1).never(10**15)


def test_the_backlog_is_the_wait_if_all_leases_run_their_course() -> None:
    meter = slots(2)
    assert 0 == meter.backlog_us(1, MINUTE, START)
    assert 0 * SECOND == meter.backlog_us(2, MINUTE, START)
    meter.admit(SECOND, START)
    meter.admit(3 * SECOND, START)

    assert SECOND == meter.backlog_us(0, MINUTE, START)
    assert 3 * SECOND == meter.backlog_us(1, MINUTE, START)
    assert MINUTE + SECOND == meter.backlog_us(2, MINUTE, START)


def test_slots_of_a_process_that_ended_are_free() -> None:
    meter = slots(2)
    meter.start_cold(START, slots(2))

    assert not meter.attention
    assert 0 == meter.wait_us(SECOND, START)


# Where nothing is known.


def adaptive() -> Adaptive:
    (rule,) = rules_of(("learned from refusals",), Account())
    meter = rule.meter(START)
    assert isinstance(meter, Adaptive)
    return meter


def fill(meter: Adaptive, now: int) -> int:
    """Take every slot there is; returns how many."""
    calls = 0
    while not meter.wait_us(HOLD, now):
        meter.grant(HOLD, now)
        calls += 1
    return calls


def empty(meter: Adaptive, taken_us: int, calls: int) -> None:
    for _ in range(calls):
        meter.back(HOLD, taken_us, taken_us)


def test_four_calls_go_at_once_at_first() -> None:
    assert 4 == fill(adaptive(), START)


def test_one_more_goes_each_time_as_many_were_let_in_as_there_are() -> None:
    meter, now = adaptive(), START
    numbers = []
    for _ in range(5):
        calls = fill(meter, now)
        numbers.append(calls)
        for _ in range(calls):
            meter.let_in(now, now)
        empty(meter, now, calls)
        now += SECOND

    assert [4, 5, 6, 7, 8] == numbers


def test_calls_that_left_slots_free_prove_nothing() -> None:
    meter = adaptive()
    for _ in range(50):
        meter.grant(HOLD, START)
        meter.let_in(START, START)
        empty(meter, START, 1)

    assert 4 == fill(meter, START)


def test_one_refused_and_it_is_a_quarter_less_but_never_none() -> None:
    meter, now = adaptive(), START
    numbers = []
    for _ in range(5):
        now += SECOND
        calls = fill(meter, now)
        numbers.append(calls)
        assert meter.turned_away(now, now)
        empty(meter, now, calls)

    assert [4, 3, 2, 1, 1] == numbers


def test_slots_refused_while_the_last_refusal_was_on_its_way_are_no_news() -> None:
    meter = adaptive()
    for _ in range(4):
        meter.turned_away(START, START + SECOND)

    assert 3 == fill(meter, START + SECOND)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 99))
def test_as_many_go_as_a_provider_lets_in_and_now_and_then_one_too_many(
    most: int, seed: int
) -> None:
    """A provider with so many slots of its own, and always one more call to send.

    Each time it goes up by one: that many are let in before the next is refused.
    """
    meter, source = adaptive(), random.Random(seed)
    under_way: list[tuple[int, int, bool]] = []  # ends, taken, let in
    let_in = refused = 0
    now = START
    for _ in range(1000):
        while not meter.wait_us(HOLD, now):
            meter.grant(HOLD, now)
            held = sum(1 for call in under_way if call[2])
            takes_us = source.randint(SECOND, 3 * SECOND) if held < most else 1000
            heapq.heappush(under_way, (now + takes_us, now, held < most))
            now += 1
        ends_us, taken_us, was_let_in = heapq.heappop(under_way)
        now = max(now, ends_us)
        if was_let_in:
            let_in += 1
            meter.let_in(taken_us, now)
        else:
            refused += 1
            meter.turned_away(taken_us, now)
        meter.back(HOLD, taken_us, now)

    assert 1 <= meter.limit.amount <= most + most // 2 + 4
    assert refused <= 8 + 2 * let_in // most
    if most > 4:
        assert meter.limit.amount >= most // 2


def test_one_call_goes_until_limits_are_known_and_then_all() -> None:
    gate = rules_of(("learned",), Account(shows=(("requests", MINUTE),)))[0].meter(
        START
    )
    assert isinstance(gate, Gate)
    gate.grant(HOLD, START)

    assert not gate.is_known
    assert 0 < gate.wait_us(HOLD, START) <= MINUTE

    gate.back(HOLD, START, START)
    gate.grant(HOLD, START)

    assert 1 == gate.used(START)

    gate.open(START)
    gate.open(START)

    assert 0 == gate.wait_us(HOLD, START)
    assert MAX_AMOUNT == gate.limit.amount


def test_slots_that_were_told_learn_nothing_from_a_refusal() -> None:
    meter = slots(3)

    assert not meter.turned_away(START, START)
    assert 3 == meter.limit.amount
    assert meter.mark(START) is None


def test_what_adapts_marks_every_call_as_one_to_learn_from() -> None:
    meter = adaptive()
    meter.grant(HOLD, START)
    mark = meter.mark(START)

    assert (HOLD, 3) == (mark.charged, mark.left)
