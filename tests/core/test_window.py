"""Sliding, fixed and calendar windows against a log that remembers every call."""

from __future__ import annotations

import datetime
import itertools
import time
import zoneinfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratekeeper.core.limits import Limit, Resets
from ratekeeper.core.meter import NEVER
from ratekeeper.core.units import DAY, HOUR, MINUTE, MONTH, SECOND
from ratekeeper.core.window import (
    SLOTS,
    FixedWindow,
    SlidingWindow,
    index_of,
    start_of,
)
from ratekeeper.simulator.reset import EveryDay
from tests.core.oracle import Entry, ExactLog, limit_of

START = 1_800_000_000_000_000
W = 100_000

gaps = st.one_of(
    st.just(0),
    st.integers(0, 3 * W // SLOTS),
    st.integers(0, W // 10),
    st.integers(0, 3 * W),
)
ops = st.lists(
    st.tuples(gaps, st.sampled_from("ttttrro"), st.integers(0, 12), st.integers(0, 9)),
    max_size=120,
)


def sliding(amount: int, window_us: int = W, guard_us: int = 0) -> SlidingWindow:
    return SlidingWindow(limit_of(amount, window_us), guard_us=guard_us)


def fixed(text: str, guard_us: int = 0) -> FixedWindow:
    return FixedWindow(Limit.parse(text).resolved(), guard_us=guard_us)


def at(text: str) -> int:
    """Return an instant written with its offset in epoch microseconds."""
    return int(datetime.datetime.fromisoformat(text).timestamp()) * SECOND


class TestSlidingWindow:
    @settings(max_examples=400)
    @given(st.integers(1, 30), ops)
    def test_a_grant_of_ours_is_one_of_the_exact_log_after_refunds_and_overruns(
        self, amount: int, calls: list[tuple[int, str, int, int]]
    ) -> None:
        ours, oracle = sliding(amount), ExactLog(amount, W)
        now = START
        taken: list[Entry] = []
        for gap, what, cost, back in calls:
            now += gap
            if what == "t":
                wait = ours.wait_us(cost, now)
                if wait == 0:
                    assert oracle.fits(cost, now)
                    ours.admit(cost, now)
                    taken.append(oracle.take(cost, now))
                elif wait == NEVER:
                    assert cost > amount
                else:
                    assert ours.wait_us(cost, now + wait - 1) > 0
                    now += wait
                    assert 0 == ours.wait_us(cost, now)
                    assert oracle.fits(cost, now)
            elif what == "o":
                ours.take(cost, now)
                oracle.take(cost, now)
            elif taken:
                entry = taken.pop(back % len(taken))
                unused = min(cost, entry.cost)
                ours.back(unused, entry.at_us, now)
                if entry.at_us + W > now:
                    entry.cost -= unused
            assert ours.used(now) >= oracle.used(now)
            assert ours._total >= ours._closed >= 0
            assert ours._debt == 0 or ours._total == amount

    @settings(max_examples=300)
    @given(st.integers(1, 30), ops)
    def test_no_window_holds_more_than_the_limit_and_none_waits_a_slot_too_long(
        self, amount: int, calls: list[tuple[int, str, int, int]]
    ) -> None:
        ours, oracle = sliding(amount), ExactLog(amount, W)
        now = START
        for gap, _, asked, _ in calls:
            now += gap
            cost = min(asked, amount)
            due = oracle.ready_us(cost, now)
            wait = ours.wait_us(cost, now)
            assert due <= now + wait <= due + W // 256
            now += wait
            ours.take(cost, now)
            oracle.take(cost, now)

        assert oracle.worst() <= amount

    @settings(max_examples=300)
    @given(st.integers(2, 20), ops, st.lists(st.integers(1, 40), min_size=1))
    def test_the_wait_is_exact_with_debt_and_changed_amounts(
        self,
        amount: int,
        calls: list[tuple[int, str, int, int]],
        amounts: list[int],
    ) -> None:
        ours = sliding(amount)
        now = START
        later = itertools.cycle(amounts)
        for gap, what, cost, _ in calls:
            now += gap
            if what == "r":
                ours.change(limit_of(next(later), W), now)
            elif what == "o":
                ours.take(cost * 10, now)
            wait = ours.wait_us(cost, now)
            if wait == NEVER:
                continue
            if wait:
                assert ours.wait_us(cost, now + wait - 1) > 0
                now += wait
            assert 0 == ours.wait_us(cost, now)
            ours.admit(cost, now)
            assert ours._size <= ours._mask + 1 <= 1024

    def test_denied_a_microsecond_before_a_call_is_a_window_old(self) -> None:
        meter = sliding(1, MINUTE)
        meter.admit(1, START)

        assert 1 == meter.wait_us(1, START + MINUTE - 1)
        assert 0 == meter.wait_us(1, START + MINUTE)

    def test_waits_for_the_call_whose_leaving_makes_room(self) -> None:
        meter = sliding(1000, MINUTE)
        meter.admit(600, START)
        meter.admit(300, START + 10 * SECOND)

        assert 50 * SECOND == meter.wait_us(500, START + 10 * SECOND)
        assert 60 * SECOND == meter.wait_us(701, START + 10 * SECOND)

    def test_a_call_above_the_limit_never_goes_not_even_when_empty(self) -> None:
        meter = sliding(10)

        assert meter.never(11)
        assert NEVER == meter.wait_us(11, START)

    def test_a_cost_of_nothing_always_fits_and_is_nowhere_kept(self) -> None:
        meter = sliding(10)
        meter.take(25, START)

        assert 0 == meter.wait_us(0, START)
        meter.take(0, START + 1)
        assert 15 == meter.used(START + W)

    def test_a_refund_for_a_window_that_has_gone_changes_nothing(self) -> None:
        meter = sliding(10)
        meter.admit(10, START)
        meter.take(10, START + W)
        meter.take(5, START + W)
        meter.back(10, START, START + W)

        assert 15 == meter.used(START + W)

    def test_a_refund_lands_in_the_slot_of_its_call(self) -> None:
        meter = sliding(10)
        meter.admit(4, START)
        meter.admit(6, START + W // 2)
        meter.back(3, START, START + W // 2)

        assert 3 == meter.remaining(START + W // 2)
        assert 6 == meter.used(START + W)

    def test_a_refund_larger_than_its_slot_takes_no_more_than_is_there(self) -> None:
        meter = sliding(10)
        meter.admit(4, START)
        meter.back(9, START, START)
        assert 0 == meter.used(START)
        meter.admit(4, START)
        meter.admit(2, START + W // 2)
        meter.back(9, START, START + W // 2)

        assert 2 == meter.used(START + W // 2)

    def test_a_refund_larger_than_the_open_slot_leaves_the_closed_ones(self) -> None:
        meter = sliding(10)
        meter.admit(4, START)
        meter.admit(2, START + W // 2)
        meter.back(9, START + W // 2, START + W // 2)

        assert 4 == meter.used(START + W // 2)

    def test_a_raised_amount_keeps_what_is_still_owed(self) -> None:
        meter = sliding(10)
        meter.take(45, START)
        meter.change(limit_of(20, W), START)

        assert 45 == meter.used(START)
        assert 0 == meter.remaining(START)
        assert 2 * W == meter.wait_us(1, START)
        assert 3 * W == meter.wait_us(16, START)

    def test_debt_leaves_one_limit_a_window(self) -> None:
        meter = sliding(10)
        meter.admit(10, START)
        meter.take(25, START)

        assert 35 == meter.used(START)
        assert 0 == meter.remaining(START)
        assert 3 * W == meter.wait_us(1, START)
        assert 4 * W == meter.wait_us(6, START)
        assert 4 * W == meter.reset_us(START)
        assert 5 == meter.used(START + 3 * W)

    def test_a_refund_pays_the_debt_into_the_window_from_now(self) -> None:
        """Else a unit used at 2 could leave with the call of 0 that was refunded."""
        meter = sliding(10)
        meter.admit(5, START)
        meter.admit(5, START + 1000)
        meter.take(5, START + 2000)
        meter.back(5, START + 1000, START + 3000)

        assert 10 == meter.used(START + 3000)
        assert W - 3000 == meter.wait_us(5, START + 3000)
        assert meter.wait_us(6, START + 3000) == W

    @pytest.mark.parametrize("debt", [10**6, 10**15])
    def test_a_clock_that_jumps_years_pays_debt_without_counting_the_windows(
        self, debt: int
    ) -> None:
        meter = sliding(3, SECOND)
        for i in range(3):
            meter.admit(1, START + i * 1000)
        meter.take(debt, START + 2000)
        began = time.process_time()
        later = START + 50 * 365 * DAY
        used = meter.used(later)

        assert max(0, debt - 3 * 50 * 365 * 86_400) == pytest.approx(used, abs=6)
        assert time.process_time() - began < 0.1

    @given(st.integers(1, 9), st.integers(0, 300), st.integers(0, 12 * W))
    def test_a_jump_pays_what_as_many_small_steps_pay(
        self, amount: int, debt: int, jump: int
    ) -> None:
        at_once, stepwise = sliding(amount), sliding(amount)
        for meter in (at_once, stepwise):
            for i in range(amount):
                meter.admit(1, START + i * 7000)
            meter.take(debt, START + 70_000)
        for now in range(START + 70_000, START + 70_000 + jump, 3500):
            stepwise.used(now)
        now = START + 70_000 + jump

        assert stepwise.used(now) == at_once.used(now)
        assert stepwise.reset_us(now) == at_once.reset_us(now)

    def test_memory_is_bounded_at_any_rate(self) -> None:
        meter = sliding(10**9)
        now = START
        for _ in range(20_000):
            now += W // 3000
            meter.take(1, now)

        assert 400 < meter._size <= SLOTS + 2
        assert 512 == len(meter._lasts)

    def test_a_key_that_pays_debt_all_the_time_has_a_bound_as_well(self) -> None:
        """Calls open two slots close together, then one: 1.5 times as many alive."""
        pairs, width = SLOTS // 2, W // SLOTS
        meter = sliding(4 * pairs)
        starts = [START + i * 2 * (width + 1) for i in range(pairs)]
        for start in starts:
            meter.take(1, start)
            meter.take(1, start + width)
            meter.take(2, start + width + 1)
        most = 0
        for start in starts:
            left_us = start + width + W
            meter.take(1, left_us - 1)
            meter.take(2, left_us)
            meter.used(left_us + 1)
            meter.take(1, left_us + width + 3)
            most = max(most, meter._size)

        assert 512 < most <= 1024
        assert 1024 == len(meter._lasts)

    def test_the_ring_goes_round_and_refunds_find_their_slots(self) -> None:
        meter = sliding(10_000)
        oracle = ExactLog(10_000, W)
        now, taken = START, []
        for i in range(3000):
            now += W // SLOTS + 1 + i % 3
            if meter.wait_us(10, now) == 0:
                meter.admit(10, now)
                taken.append(oracle.take(10, now))
            if i % 2:
                entry = taken.pop(-1 - i % min(400, len(taken)))
                meter.back(4, entry.at_us, now)
                if entry.at_us + W > now:
                    entry.cost -= 4

            assert meter.used(now) == oracle.used(now)

    def test_a_lowered_amount_is_in_force_at_once_and_a_raised_one_too(self) -> None:
        meter = sliding(10)
        meter.admit(8, START)
        meter.change(limit_of(5, W), START)
        assert 8 == meter.used(START)
        assert 0 == meter.remaining(START)
        meter.change(limit_of(20, W), START)

        assert 12 == meter.remaining(START)

    def test_a_guard_keeps_calls_in_the_window_that_much_longer(self) -> None:
        meter = sliding(1, MINUTE, guard_us=SECOND)
        meter.admit(1, START)

        assert MINUTE + SECOND == meter.wait_us(1, START)

    @given(
        st.lists(st.tuples(gaps, st.integers(1, 9)), max_size=20),
        st.integers(0, 60),
        st.integers(1, 9),
    )
    def test_the_backlog_is_never_later_than_those_ahead_are_really_served(
        self, calls: list[tuple[int, int]], ahead: int, cost: int
    ) -> None:
        meter = sliding(9)
        now = START
        for gap, taken in calls:
            now += gap
            meter.take(taken, now)
        backlog = meter.backlog_us(ahead, cost, now)
        served = now
        for _ in range(ahead):
            served += meter.wait_us(1, served)
            meter.take(1, served)
        served += meter.wait_us(cost, served)

        assert now + backlog <= served
        assert served <= now + backlog + 8 * (W // SLOTS)

    def test_the_backlog_of_nothing_is_nothing(self) -> None:
        assert 0 == sliding(9).backlog_us(0, 9, START)


class TestFixedWindow:
    def test_never_more_than_the_limit_between_two_resets(self) -> None:
        meter = fixed("3 rpm using fixed-window")
        start = START - START % MINUTE
        for _ in range(3):
            assert 0 == meter.wait_us(1, start)
            meter.admit(1, start)

        assert MINUTE == meter.wait_us(1, start)
        assert 1 == meter.wait_us(1, start + MINUTE - 1)
        assert 0 == meter.wait_us(1, start + MINUTE)
        assert 3 == meter.remaining(start + MINUTE)

    def test_each_window_pays_one_limit_of_the_debt(self) -> None:
        meter = fixed("10 rpm using fixed-window")
        start = START - START % MINUTE
        meter.take(35, start)

        assert 3 * MINUTE == meter.wait_us(5, start)
        assert 4 * MINUTE == meter.wait_us(6, start)
        assert 4 * MINUTE == meter.reset_us(start)
        assert 15 == meter.used(start + 2 * MINUTE)
        assert 0 == meter.used(start + 4 * MINUTE)
        assert 0 == meter.reset_us(start + 4 * MINUTE)

    def test_a_refund_counts_in_its_own_window_alone(self) -> None:
        meter = fixed("10 rpm using fixed-window")
        start = START - START % MINUTE
        meter.take(10, start)
        meter.back(4, start, start + 1)
        assert 4 == meter.remaining(start + 1)
        meter.take(14, start + 1)
        meter.back(6, start, start + MINUTE)

        assert 10 == meter.used(start + MINUTE)

    def test_a_call_above_the_limit_never_goes(self) -> None:
        meter = fixed("10 rpm using fixed-window")

        assert meter.never(11)
        assert NEVER == meter.wait_us(11, START)

    def test_a_cost_of_nothing_passes_a_full_window(self) -> None:
        meter = fixed("10 rpm using fixed-window")
        meter.take(15, START)

        assert 0 == meter.wait_us(0, START)

    def test_a_changed_amount_keeps_what_was_used(self) -> None:
        meter = fixed("10 rpm using fixed-window")
        meter.take(8, START)
        meter.change(Limit.parse("5 rpm using fixed-window"), START)
        assert 0 == meter.remaining(START)
        meter.change(Limit.parse("20 rpm using fixed-window"), START)

        assert 12 == meter.remaining(START)
        later = START + MINUTE
        meter.change(Limit.parse("10 rpm using fixed-window"), later)
        assert 10 == meter.remaining(later)

    def test_what_is_sent_in_the_last_moment_counts_in_both_windows(self) -> None:
        meter = fixed("10 rpm using fixed-window", guard_us=SECOND)
        start = START - START % MINUTE
        meter.take(3, start)
        meter.take(4, start + 59 * SECOND)
        assert SECOND == meter.wait_us(4, start + 59 * SECOND)
        assert MINUTE + SECOND == meter.wait_us(7, start + 59 * SECOND)

        assert 6 == meter.remaining(start + MINUTE)
        assert MINUTE == meter.reset_us(start + MINUTE)
        assert 10 == meter.remaining(start + 2 * MINUTE)

    def test_a_refund_from_the_last_moment_counts_in_both_windows(self) -> None:
        meter = fixed("10 rpm using fixed-window", guard_us=SECOND)
        start = START - START % MINUTE
        late = start + 59 * SECOND
        meter.take(8, late)
        meter.back(3, late, late)
        assert 5 == meter.remaining(late)
        meter.back(2, late, start + MINUTE)

        assert 7 == meter.remaining(start + MINUTE)
        meter.back(2, late, start + 2 * MINUTE)
        assert 10 == meter.remaining(start + 2 * MINUTE)

    @given(
        st.lists(
            st.tuples(st.integers(0, 40 * SECOND), st.integers(0, 30 * SECOND)),
            max_size=60,
        ),
        st.integers(0, 30 * SECOND),
    )
    def test_no_window_of_a_provider_that_counts_late_holds_too_much(
        self, calls: list[tuple[int, int]], guard_us: int
    ) -> None:
        meter = fixed("5 rpm using fixed-window", guard_us=guard_us)
        counted: dict[int, int] = {}
        now = START
        for gap, late in calls:
            now += gap
            now += meter.wait_us(1, now)
            meter.take(1, now)
            window = (now + min(late, guard_us)) // MINUTE
            counted[window] = counted.get(window, 0) + 1

        assert max(counted.values(), default=0) <= 5

    def test_a_guard_longer_than_the_window_halves_the_rate_at_worst(self) -> None:
        meter = fixed("10 rps using fixed-window", guard_us=5 * SECOND)
        now = start = START - START % SECOND
        for _ in range(1000):
            now += meter.wait_us(1, now)
            meter.take(1, now)

        assert now - start <= 200 * SECOND

    @pytest.mark.parametrize(
        "text",
        [
            "1 rps using fixed-window",
            "1 rpd resets 00:00 America/Los_Angeles",
            "1 requests/month resets 12:30",
        ],
    )
    @pytest.mark.parametrize("debt", [5, 10**15])
    def test_a_clock_that_jumps_years_does_not_count_the_windows(
        self, text: str, debt: int
    ) -> None:
        meter = fixed(text)
        meter.take(debt, START)
        began = time.process_time()
        later = START + 100 * 365 * DAY
        meter.used(later)
        wait = meter.wait_us(1, later)

        assert (wait > DAY) == (debt > 5)
        assert time.process_time() - began < 0.1

    @given(
        st.lists(
            st.tuples(st.integers(0, 3 * HOUR), st.integers(0, 15), st.booleans()),
            max_size=60,
        )
    )
    def test_a_wait_is_exact_in_hours_with_debt(
        self, calls: list[tuple[int, int, bool]]
    ) -> None:
        meter = fixed("10 requests/hour using fixed-window", guard_us=MINUTE)
        now = START
        for gap, asked, overrun in calls:
            now += gap
            if overrun:
                meter.take(asked, now)
                continue
            cost = min(asked, 10)
            wait = meter.wait_us(cost, now)
            if wait:
                assert 1 == meter.wait_us(cost, now + wait - 1)
                now += wait
            assert 0 == meter.wait_us(cost, now)
            meter.admit(cost, now)

    @given(
        st.lists(st.integers(0, 9), max_size=20), st.integers(0, 40), st.integers(1, 9)
    )
    def test_the_backlog_is_never_later_than_those_ahead_are_really_served(
        self, taken: list[int], ahead: int, cost: int
    ) -> None:
        meter = fixed("9 rpm using fixed-window")
        for amount in taken:
            meter.take(amount, START)
        backlog = meter.backlog_us(ahead, cost, START)
        served = START
        for _ in range(ahead):
            served += meter.wait_us(1, served)
            meter.take(1, served)
        served += meter.wait_us(cost, served)

        assert START + backlog <= served


_ZONES = [
    "UTC",
    "America/Los_Angeles",
    "Europe/Berlin",
    "Asia/Shanghai",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/Sao_Paulo",
    "America/Havana",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Tehran",
    "Pacific/Chatham",
    "Antarctica/Troll",
]


def calendar(zone: str, minute: int, window_us: int = DAY, amount: int = 5) -> Limit:
    return Limit(
        amount=amount,
        unit="requests",
        window_us=window_us,
        resets=Resets(minute_of_day=minute, zone=zone),
    ).resolved()


class TestCalendar:
    @settings(max_examples=400)
    @given(
        st.sampled_from(_ZONES),
        st.integers(0, 1439),
        st.booleans(),
        st.integers(at("2005-01-01T00:00+00:00"), at("2045-01-01T00:00+00:00")),
        st.integers(0, 3),
    )
    def test_days_and_months_are_those_of_the_simulator(
        self, zone: str, minute: int, months: bool, now: int, cost: int
    ) -> None:
        limit = calendar(zone, minute, MONTH if months else DAY)
        index = index_of(limit, now)
        theirs = EveryDay(minute, zone, months=months).window(now)

        assert theirs == (start_of(limit, index), start_of(limit, index + 1))

    @settings(max_examples=300)
    @given(
        st.sampled_from(_ZONES),
        st.integers(0, 1439),
        st.booleans(),
        st.integers(at("2010-01-01T00:00+00:00"), at("2040-01-01T00:00+00:00")),
        st.integers(0, 40),
        st.integers(1, 5),
    )
    def test_denied_a_microsecond_before_the_reset_and_granted_at_it(
        self,
        zone: str,
        minute: int,
        months: bool,
        now: int,
        used: int,
        cost: int,
    ) -> None:
        meter = FixedWindow(calendar(zone, minute, MONTH if months else DAY))
        meter.take(used, now)
        wait = meter.wait_us(cost, now)

        assert (used + cost > 5) == (wait > 0)
        if wait:
            assert 1 == meter.wait_us(cost, now + wait - 1)
        assert 0 == meter.wait_us(cost, now + wait)

    @pytest.mark.parametrize(
        ("noon", "hours"),
        [
            ("2027-03-14T12:00-07:00", 23),
            ("2027-11-07T12:00-08:00", 25),
            ("2027-06-01T12:00-07:00", 24),
        ],
    )
    def test_a_day_of_a_zone_has_as_many_hours_as_its_clocks_say(
        self, noon: str, hours: int
    ) -> None:
        limit = calendar("America/Los_Angeles", 0)
        index = index_of(limit, at(noon))

        assert hours * HOUR == start_of(limit, index + 1) - start_of(limit, index)

    def test_a_reset_that_occurs_twice_is_the_first_of_the_two(self) -> None:
        limit = calendar("America/Los_Angeles", 90)
        index = index_of(limit, at("2027-11-07T12:00-08:00"))

        assert at("2027-11-07T01:30-07:00") == start_of(limit, index)

    def test_a_reset_that_is_skipped_is_read_with_the_offset_before(self) -> None:
        limit = calendar("America/Los_Angeles", 150)
        index = index_of(limit, at("2027-03-14T12:00-07:00"))

        assert at("2027-03-14T03:30-07:00") == start_of(limit, index)

    def test_a_month_ends_where_the_next_begins(self) -> None:
        limit = calendar("UTC", 0, MONTH)
        index = index_of(limit, at("2028-02-10T00:00+00:00"))

        assert at("2028-02-01T00:00+00:00") == start_of(limit, index)
        assert at("2028-03-01T00:00+00:00") == start_of(limit, index + 1)

    def test_before_the_reset_of_the_first_it_is_still_last_month(self) -> None:
        limit = calendar("UTC", 17 * 60, MONTH)
        index = index_of(limit, at("2028-01-01T16:59+00:00"))

        assert at("2027-12-01T17:00+00:00") == start_of(limit, index)

    @pytest.mark.parametrize("window_us", [DAY, MONTH])
    def test_a_window_beyond_the_calendar_never_starts(self, window_us: int) -> None:
        limit = calendar("UTC", 0, window_us)

        assert NEVER == start_of(limit, 10**9)

    def test_every_zone_of_the_system_has_a_window_around_now(self) -> None:
        for zone in sorted(zoneinfo.available_timezones()):
            limit = calendar(zone, 0)
            index = index_of(limit, START)

            assert start_of(limit, index) <= START < start_of(limit, index + 1)
