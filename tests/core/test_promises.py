"""Promises: callers refused together are told moments at which each finds a place."""

from __future__ import annotations

import heapq
import math
import random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core import policy
from ratekeeper.core.meter import Meter
from ratekeeper.core.promises import Promises
from ratekeeper.core.units import DAY, HOUR, MINUTE, SECOND


def _meter(limit: str) -> Meter:
    return policy.rules_of([limit])[0].meter(0)


def _come(
    meter: Meter,
    promises: Promises,
    costs: list[int],
    late_us: int = 0,
    over_us: int = 0,
) -> list[tuple[int, int]]:
    """Let callers come, and each come back when told, until all have gone.

    They come evenly within `over_us`, and back up to `late_us` later than they were
    told.
    """
    draw = random.Random(7)
    calls = [
        _Caller(at * over_us // len(costs), cost, draw.randint(0, late_us))
        for at, cost in enumerate(costs)
    ]
    gone, vain = _play(meter, promises, calls)
    assert not vain, "somebody was refused again"
    return gone


class _Caller(NamedTuple):
    """When a caller comes first, what it takes, and how late it comes back."""

    comes_us: int
    cost: int
    late_us: int


def _play(
    meter: Meter,
    promises: Promises,
    callers: list[_Caller],
    *,
    newcomers: bool = True,
) -> tuple[list[tuple[int, int]], int]:
    """Return which calls went when, and how many came back in vain.

    Without `newcomers` those stay away who would find room once somebody was told.
    """
    waiting = [(one.comes_us, at) for at, one in enumerate(callers)]
    gone: list[tuple[int, int]] = []
    told: set[int] = set()
    vain = 0
    heapq.heapify(waiting)
    while waiting:
        now, at = heapq.heappop(waiting)
        cost = callers[at].cost
        promises.expire(now)
        wait_us = meter.wait_us(cost, now)
        if wait_us:
            vain += at in told
            told.add(at)
            back_us = now + promises.next_us(meter, cost, wait_us, now)
            heapq.heappush(waiting, (back_us + callers[at].late_us, at))
        elif at in told or not told or newcomers:
            meter.take(cost, now)
            gone.append((now, cost))
    return gone, vain


def _most(gone: list[tuple[int, int]], window_us: int) -> int:
    return max(
        sum(cost for at, cost in gone if start - window_us < at <= start)
        for start, _ in gone
    )


@pytest.mark.parametrize(
    "limit",
    [
        "60 requests/minute",
        "60 requests/minute using token-bucket",
        "60 requests/minute burst 5",
        "60 requests/minute using fixed-window",
    ],
)
@pytest.mark.parametrize("late_us", [0, 1000, 200_000])
def test_all_who_were_refused_together_go_when_they_come_back(
    limit: str, late_us: int
) -> None:
    gone = _come(_meter(limit), Promises(), [1] * 150, late_us)

    assert 150 == len(gone)


@pytest.mark.parametrize("late_us", [0, 20_000, 60_000])
def test_who_was_refused_finds_a_place_where_the_window_empties_bit_by_bit(
    late_us: int,
) -> None:
    """What came within half a second leaves the window in several of its slots."""
    costs, over_us = [1] * 200, SECOND // 2

    gone = _come(_meter("60 requests/minute"), Promises(), costs, late_us, over_us)

    assert 200 == len(gone)


_COMES = st.tuples(st.integers(0, SECOND), st.integers(1, 60)).map(math.prod)
_LATE = st.integers(0, SECOND // 4) | st.sampled_from([0, SECOND // 4])


@pytest.mark.parametrize(
    "limit",
    [
        "4 requests/minute",
        "4 requests/minute burst 2",
        "4 requests/minute using fixed-window",
        "4 requests/minute using paced",
        "4 requests/second",
        "4 requests/second using paced",
    ],
)
@given(st.lists(st.tuples(_COMES, _LATE), min_size=5, max_size=20))
def test_whenever_they_come_and_however_late_all_who_were_told_go(
    limit: str, callers: list[tuple[int, int]]
) -> None:
    calls = [_Caller(comes_us, 1, late_us) for comes_us, late_us in callers]

    _, vain = _play(_meter(limit), Promises(), calls, newcomers=False)

    assert 0 == vain


def test_nobody_is_told_later_than_the_first_moment_at_which_there_is_room() -> None:
    meter, promises = _meter("2 requests/minute"), Promises()
    meter.take(1, 0)
    meter.take(1, 10 * SECOND)
    now = 20 * SECOND
    wait_us = meter.wait_us(1, now)

    told_us = [now + promises.next_us(meter, 1, wait_us, now) for _ in range(4)]

    late_us = MINUTE + SECOND // 4 + MINUTE // 480  # as the two before may be
    first_us, second_us = MINUTE, MINUTE + 10 * SECOND
    assert [first_us, second_us, first_us + late_us, second_us + late_us] == told_us


@pytest.mark.parametrize("many", [200, 800])
def test_no_window_holds_more_than_the_limit(many: int) -> None:
    gone = _come(_meter("60 requests/minute"), Promises(), [1] * many)

    assert 60 == _most(gone, MINUTE)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_calls_of_any_size_find_their_places(costs: list[int]) -> None:
    gone = _come(_meter("100 tokens/minute"), Promises(), costs)

    assert sum(costs) == sum(cost for _, cost in gone)
    assert _most(gone, MINUTE) <= 100


def test_a_caller_that_comes_back_as_told_is_let_in() -> None:
    meter, promises = _meter("1 request/minute"), Promises()
    meter.take(1, 0)
    told_us = promises.next_us(meter, 1, meter.wait_us(1, 0), 0)

    promises.expire(told_us)

    assert MINUTE == told_us
    assert 0 == meter.wait_us(1, told_us)
    assert not promises


def test_a_caller_that_polls_pushes_nobody_further_than_some_windows() -> None:
    meter, promises = _meter("1 request/minute"), Promises()
    meter.take(1, 0)
    told = [promises.next_us(meter, 1, MINUTE - at, at) for at in range(50)]

    assert max(told) <= 16 * MINUTE


_WEIGHT = st.integers(1, 4)


@pytest.mark.parametrize(
    "limit",
    [
        "4 requests/minute",
        "4 requests/minute burst 2",
        "4 requests/minute using fixed-window",
        "4 requests/minute using paced",
    ],
)
@given(st.integers(1, 40), st.integers(1, 6), _WEIGHT, _WEIGHT)
def test_a_flow_that_polls_pushes_another_no_further_than_by_its_share(
    limit: str, polls: int, asks: int, weight: int, own: int
) -> None:
    meter, alone = _meter(limit), Promises()
    meter.take(4, 0)
    wait_us = meter.wait_us(1, 0)
    places = [alone.next_us(meter, 1, wait_us, 0) for _ in range(60)]
    both = Promises()
    for _ in range(polls):
        both.next_us(meter, 1, wait_us, 0, flow="polls", weight=weight)

    told = [
        both.next_us(meter, 1, wait_us, 0, flow="asks", weight=own) for _ in range(asks)
    ]

    before = [min(polls, 1 + at * weight // own) for at in range(asks)]
    fair = [places[at + many] for at, many in enumerate(before)]
    assert fair[0] == told[0]
    assert all(one <= most for one, most in zip(told, fair, strict=True))


_FLOW = st.tuples(st.sampled_from("abcdefghijklmnop"), st.integers(0, 3 * SECOND))


@given(st.lists(_FLOW, min_size=5, max_size=40), st.booleans())
def test_callers_of_one_flow_find_their_places_whatever_others_were_told(
    asked: list[tuple[str, int]], is_paced: bool
) -> None:
    meter = _meter("4 requests/minute" + is_paced * " using paced")
    meter.take(4, 0)
    promises = Promises()
    told: dict[str, list[int]] = {}
    for flow, now in sorted(asked, key=lambda one: one[1]):
        wait_us = meter.wait_us(1, now)
        back_us = now + promises.next_us(meter, 1, wait_us, now, flow=flow)
        told.setdefault(flow, []).append(back_us)
    most = max(told.values(), key=len)

    waits = []
    for back_us in most:
        waits.append(meter.wait_us(1, back_us))
        meter.take(1, back_us)

    assert [0] * len(most) == waits


@pytest.mark.parametrize("many", [2, 5, 20])
def test_flows_that_ask_in_turn_find_a_place_each(many: int) -> None:
    meter, promises = _meter("4 requests/minute"), Promises()
    meter.take(4, 0)
    told = [
        promises.next_us(meter, 1, MINUTE, 0, flow=f"{flow}")
        for _ in range(40 // many)
        for flow in range(many)
    ]

    waits = []
    for back_us in told:
        waits.append(meter.wait_us(1, back_us))
        meter.take(1, back_us)

    assert [0] * len(told) == waits


def test_a_flow_that_joins_later_gets_no_turns_of_the_time_before() -> None:
    meter, promises = _meter("60 requests/minute using paced"), Promises()
    meter.take(1, 0)

    def told_us(flow: str, now: int) -> int:
        wait_us = meter.wait_us(1, now)
        return now + promises.next_us(meter, 1, wait_us, now, flow=flow)

    first = [told_us("first", 0) for _ in range(20)]
    for back_us in first[:10]:
        meter.take(1, back_us)
    now = first[9]
    joined = [told_us("joined", now) for _ in range(3)]
    last = told_us("first", now)

    assert joined[0] <= first[10]
    assert first[12] < joined[2] < first[15]
    assert last > max(*first, *joined)


def test_a_wait_that_nobody_can_know_is_left_as_it_is() -> None:
    meter, promises = _meter("1 concurrent"), Promises()

    told = [promises.next_us(meter, SECOND, SECOND, 0) for _ in range(3)]

    assert [SECOND] * 3 == told


def test_a_window_of_days_is_left_as_it_is() -> None:
    meter, promises = _meter("1 request/day"), Promises()
    meter.take(1, 0)

    told = [promises.next_us(meter, 1, DAY, 0) for _ in range(3)]

    assert [DAY] * 3 == told


def test_what_others_took_meanwhile_is_looked_at_again() -> None:
    meter, promises = _meter("2 requests/minute"), Promises()
    meter.take(2, 0)
    first_us = promises.next_us(meter, 1, MINUTE, 0)
    now = 2 * SECOND
    second_us = promises.next_us(meter, 1, MINUTE - now, now)
    third_us = promises.next_us(meter, 1, MINUTE - now, now)

    assert MINUTE == first_us == now + second_us
    assert now + third_us > 2 * MINUTE


class _Page:
    """Where a budget is written down."""

    def __init__(self) -> None:
        self.noted: list[int] = []

    def note(self, amount: int, at_us: int) -> None:
        del at_us
        self.noted.append(amount)

    def recall(self, now: int) -> tuple[()]:
        del now
        return ()


def test_a_promise_is_nowhere_written_down() -> None:
    page = _Page()
    meter = policy.rules_of(["$1/hour"])[0].meter(0, page)
    whole = meter.limit.amount
    meter.take(whole, 0)
    told = [promises.next_us(meter, whole, HOUR, 0) for promises in [Promises()] * 2]

    assert HOUR == told[0] < told[1]
    assert [whole] == page.noted
