"""Concurrency as leases."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.limits import Limit
from ratekeeper.core.slots import Slots
from ratekeeper.core.units import MINUTE, SECOND
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
