"""Windows whose calls are dated anew once it is known when the provider counted them."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from ratekeeper.core.units import MINUTE, SECOND
from ratekeeper.core.window import SLOTS, FixedWindow, SlidingWindow
from tests.core.oracle import limit_of
from tests.core.room import START

SLOT_US = (MINUTE + SECOND) // SLOTS


@dataclasses.dataclass
class Dated:
    """A call as an exact log has it."""

    taken_us: int
    cost: int
    at_us: int  # from when it counts
    counted_us: int | None = None
    known_us: int = 0  # since when that is known

    def counts(self, now: int, guard_us: int) -> bool:
        return self.at_us + MINUTE + guard_us > now


def used(calls: list[Dated], now: int, guard_us: int) -> int:
    """Add up what counts now: no slots, nothing clever."""
    return sum(call.cost for call in calls if call.counts(now, guard_us))


def most_used(calls: list[Dated], now: int, guard_us: int) -> int:
    """Add up what may count still.

    A call leaves with its slot, which ends when its last call does: less than a slot's
    width after any call that came to it. One that is dated anew goes to the first slot
    there is that ends at its instant or later, so to that of any such call or to one
    before: as long as that call counts, and is neither dated anew nor given back, its
    slot is there. Where there is none, no slot ends later than the last instant of all.
    """
    most = 0
    sure = [call.at_us for call in calls if call.counted_us is None and call.cost]
    last = max((max(call.at_us, call.taken_us) for call in calls), default=0)
    for call in calls:
        ends_us = call.at_us
        if call.counted_us is not None:
            gone_us = call.known_us - MINUTE - guard_us  # what had left by then
            least_us = max(call.at_us, gone_us + 1)
            ends_us = min((at for at in sure if at >= least_us), default=last)
        most += call.cost if ends_us + SLOT_US + MINUTE + guard_us > now else 0
    return most


GAPS = st.one_of(
    st.integers(0, 2 * SLOT_US), st.integers(0, 3 * SECOND), st.integers(0, MINUTE)
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "take", "take", "redate", "redate", "back"]),
            GAPS,
            st.integers(1, 100),
            st.integers(0, 50),
        ),
        max_size=80,
    )
)
def test_calls_dated_anew_count_as_in_an_exact_log_or_a_little_longer(
    steps: list[tuple[str, int, int, int]],
) -> None:
    meter = SlidingWindow(limit_of(600, MINUTE), guard_us=SECOND)
    calls: list[Dated] = []
    now = START
    for what, gap_us, figure, pick in steps:
        now += gap_us
        fresh = [c for c in calls if c.counted_us is None and c.counts(now, SECOND)]
        if what == "take" and not meter.wait_us(figure, now):
            meter.admit(figure, now)
            calls.append(Dated(now, figure, now))
        elif what == "redate" and fresh:
            call = fresh[pick % len(fresh)]
            late_us = min(now - call.taken_us, figure * SECOND // 40)
            call.counted_us, call.known_us = call.taken_us + late_us, now
            call.at_us = call.counted_us - SECOND
            meter.redate(call.cost, call.taken_us, call.counted_us, now)
        elif what == "back" and calls:
            call = calls[pick % len(calls)]
            if call.counts(now, SECOND):
                unused = min(call.cost, figure)
                meter.back(unused, call.taken_us, now, call.counted_us)
                call.cost -= unused

        assert used(calls, now, SECOND) <= meter.used(now)
        assert meter.used(now) <= most_used(calls, now, SECOND)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 60), st.integers(0, 3 * SECOND), st.integers(0, 60)),
        min_size=1,
        max_size=40,
    ),
    st.integers(0, 4 * SECOND),
)
def test_all_that_was_taken_comes_back_after_dating_anew(
    taken: list[tuple[int, int, int]], late_us: int
) -> None:
    meter = SlidingWindow(limit_of(10_000, MINUTE), guard_us=SECOND)
    now, calls = START, []
    for cost, gap_us, _ in taken:
        now += min(gap_us, MINUTE // (2 * len(taken)))
        meter.admit(cost, now)
        calls.append((cost, now))
    now += late_us
    counted = [min(taken_us + late_us, now) for _, taken_us in calls]
    for (cost, taken_us), counted_us in zip(calls, counted, strict=True):
        meter.redate(cost, taken_us, counted_us, now)

    assert sum(cost for cost, _ in calls) == meter.used(now)

    for at in sorted(range(len(calls)), key=lambda at: taken[at][2]):
        meter.back(calls[at][0], calls[at][1], now, counted[at])

    assert 0 == meter.used(now)
    assert 0 == meter.wait_us(10_000, now)


def test_what_has_left_the_window_is_not_dated_back_into_it() -> None:
    meter = SlidingWindow(limit_of(10, MINUTE))
    meter.admit(7, START)
    now = START + MINUTE
    meter.redate(7, START, START + SECOND, now)

    assert 0 == meter.used(now)


def test_a_call_counted_late_leaves_late() -> None:
    meter = SlidingWindow(limit_of(10, MINUTE))
    meter.admit(10, START)
    meter.redate(10, START, START + 2 * SECOND, START + 3 * SECOND)

    assert 59 * SECOND == meter.wait_us(1, START + 3 * SECOND)


def test_no_call_leaves_before_a_window_after_it_was_sent() -> None:
    """However quick it was: the guard is allowed for where nothing else is known."""
    meter = SlidingWindow(limit_of(10, MINUTE), guard_us=SECOND)
    for cost, at_us in ((5, 0), (5, SECOND)):
        meter.admit(cost, START + at_us)
    now = START + 3 * SECOND
    meter.redate(5, START + SECOND, START + SECOND, now)

    assert 57 * SECOND <= meter.wait_us(1, now) <= 58 * SECOND
    assert 58 * SECOND <= meter.wait_us(6, now) <= 59 * SECOND


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 20 * SECOND),
            st.one_of(st.none(), st.integers(0, 15 * SECOND)),
            st.integers(1, 80),
        ),
        max_size=60,
    )
)
def test_a_guard_that_changes_counts_for_what_is_in_the_window_already(
    steps: list[tuple[int, int | None, int]],
) -> None:
    meter = SlidingWindow(limit_of(600, MINUTE))
    calls: list[Dated] = []
    now, guard_us = START, 0
    for gap_us, wider_us, cost in steps:
        now += gap_us
        calls = [call for call in calls if call.counts(now, guard_us)]
        if wider_us is not None:
            guard_us = wider_us
            meter.widen(guard_us, now)
        elif not meter.wait_us(cost, now):
            meter.admit(cost, now)
            calls.append(Dated(now, cost, now))
        calls = [call for call in calls if call.counts(now, guard_us)]

        assert used(calls, now, guard_us) <= meter.used(now)
    now += MINUTE + guard_us + 2 * SLOT_US

    assert 0 == meter.used(now)
    assert 0 == meter.wait_us(600, now)


def test_a_fixed_window_has_no_guard_longer_than_itself() -> None:
    meter = FixedWindow(limit_of(10, MINUTE, "fixed-window"))
    meter.widen(2 * MINUTE, START)

    assert MINUTE == meter.guard_us
