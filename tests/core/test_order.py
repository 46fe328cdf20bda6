"""The order of one line against a list that is sorted anew for every question."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratekeeper.core.order import Line
from ratekeeper.core.waiter import LAST, RISE, Priority, Waiter
from tests.core.room import START


def waiter(
    seq: int,
    *,
    flow: str = "",
    weight: int = 1,
    priority: int = Priority.NORMAL,
    again: bool = False,
    now: int = START,
) -> Waiter:
    made = Waiter([1], flow=flow, weight=weight, priority=priority, again=again)
    made.arrive([], now, seq)
    return made


def drain(line: Line, now: int) -> list[Waiter]:
    order = []
    while len(line):
        first = line.first(now)
        assert first is not None
        order.append(first)
        line.remove(first, served=True)
    return order


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["in", "in", "in", "out", "leave", "wait"]),
            st.integers(0, 10**6),
            st.integers(0, 5),
            st.sampled_from(list(Priority)),
        ),
        max_size=250,
    )
)
def test_one_flow_is_served_by_class_and_arrival(
    ops: list[tuple[str, int, int, Priority]],
) -> None:
    line, here, now, costs = Line(), list[Waiter](), START, dict[Waiter, int]()
    for seq, (what, pick, cost, priority) in enumerate(ops):
        if what == "in":
            made = waiter(seq, priority=priority, now=now)
            ahead = line.ahead(made, now)
            line.add(made, cost, now)
            here.append(made)
            costs[made] = cost
            assert ahead == line.ahead(made, now)
        elif what == "wait":
            now += pick * 20
        elif here:
            here.sort(key=lambda w: (w.rank(now), w.seq))
            assert line.first(now) is here[0]
            gone = here.pop(0 if what == "out" else pick % len(here))
            line.remove(gone, served=what == "out")
        here.sort(key=lambda w: (w.rank(now), w.seq))

        assert len(line) == len(here)
        assert set(line) == set(here)
        for i in {0, len(here) // 2, len(here) - 1} & set(range(len(here))):
            assert sum(costs[w] for w in here[:i]) == line.ahead(here[i], now)
            assert line.is_first(here[i], now) == (i == 0)
        assert line.first(now) is (here[0] if here else None)
        if here:
            second = here[1] if len(here) > 1 else None
            nxt = line.first(now, skip=here[0])
            assert nxt is second


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(2, 60))
def test_flows_are_served_by_their_share_and_what_is_ahead_is_never_more(
    seed: int, flows: int, many: int
) -> None:
    rng = random.Random(seed)
    line = Line()
    weights = {str(i): rng.randint(1, 16) for i in range(flows)}
    cost = {}
    for seq in range(many):
        flow = rng.choice(list(weights))
        made = waiter(
            seq,
            flow=flow,
            weight=weights[flow],
            priority=rng.choice([Priority.NORMAL, Priority.BATCH]),
            again=rng.random() < 0.1,
        )
        cost[made] = rng.randint(0, 9)
        line.add(made, cost[made], START)
    promised = {made: line.ahead(made, START) for made in cost}
    served = 0
    for made in drain(line, START):
        assert promised[made] <= served
        served += cost[made]


def test_what_is_ahead_in_other_flows_is_known_but_for_their_last_calls() -> None:
    line = Line()
    made = [waiter(i, flow=str(i % 5)) for i in range(50)]
    for each in made:
        line.add(each, 1, START)

    assert all(i - 4 <= line.ahead(made[i], START) <= i for i in range(50))
    assert made == drain(line, START)


def test_what_is_ahead_counts_one_for_each_of_very_many_flows() -> None:
    line = Line()
    made = [waiter(i, flow=str(i)) for i in range(500)]
    for each in made:
        line.add(each, 1, START)

    assert 498 == line.ahead(made[-1], START)
    free = waiter(500, flow="free")
    line.add(free, 0, START)
    assert 64 == line.ahead(made[-1], START)
    line.remove(free, served=False)
    assert 498 == line.ahead(made[-1], START)


def test_behind_every_class_all_are_ahead() -> None:
    line = Line()
    for i, priority in enumerate(Priority):
        line.add(waiter(i, priority=priority), 2, START)
    last = waiter(9, priority=LAST)

    assert 6 == line.ahead(last, START)
    assert not line.is_first(last, START)


def test_anyone_is_first_where_nobody_waits() -> None:
    assert Line().is_first(waiter(0, priority=LAST), START)
    assert Line().first(START) is None


def test_a_newcomer_of_another_flow_does_not_go_ahead_on_a_tie() -> None:
    line = Line()
    line.add(waiter(0, flow="a"), 1, START)

    assert not line.is_first(waiter(1, flow="b"), START)
    assert line.is_first(waiter(1, flow="b", again=True), START)
    assert line.is_first(waiter(1, priority=Priority.INTERACTIVE), START)


def test_a_flow_that_left_keeps_its_service_until_the_others_have_caught_up() -> None:
    line = Line()
    greedy = waiter(0, flow="greedy")
    line.add(greedy, 50, START)
    others = [waiter(i, flow="modest") for i in range(1, 4)]
    for other in others:
        line.add(other, 10, START)
    line.remove(greedy, served=True)
    back = waiter(9, flow="greedy")
    line.add(back, 1, START)

    assert [*others, back] == drain(line, START)


def test_a_flow_that_comes_back_late_starts_where_the_others_are() -> None:
    line = Line()
    early = waiter(0, flow="early")
    line.add(early, 1, START)
    line.add(waiter(1, flow="busy"), 1, START)
    line.remove(early, served=True)
    busy = [waiter(i, flow="busy") for i in range(2, 40)]
    for each in busy:
        line.add(each, 1, START)
    for _ in range(20):
        first = line.first(START)
        assert first is not None
        line.remove(first, served=True)
    for i in range(40, 44):
        line.add(waiter(i, flow="early"), 1, START)
    order = [each.flow for each in drain(line, START)]

    assert 4 == order[:8].count("early")


def test_service_remembered_of_flows_that_left_is_bounded() -> None:
    line = Line()
    line.add(waiter(0, flow="stays"), 1, START)
    for i in range(1, 3000):
        gone = waiter(i, flow=str(i))
        line.add(gone, 5, START)
        line.remove(gone, served=True)

        assert len(line._tiers[Priority.NORMAL]._flows) <= 1026


def test_those_who_left_are_swept_from_what_is_still_to_rise() -> None:
    line = Line()
    line.add(waiter(0), 1, START)
    for i in range(1, 1000):
        gone = waiter(i)
        line.add(gone, 1, START)
        line.remove(gone, served=False)

        assert len(line._rises) <= 70


def test_who_left_and_came_back_rises_once() -> None:
    line = Line()
    late = waiter(0, priority=Priority.BATCH)
    line.add(late, 1, START)
    line.remove(late, served=False)
    line.add(late, 1, START)
    other = waiter(1, priority=Priority.NORMAL, now=START + 1)
    line.add(other, 1, START + 1)
    left = waiter(2, priority=Priority.BATCH)
    line.add(left, 1, START)
    line.remove(left, served=False)
    assert line.first(START + RISE - 1) is other

    assert line.first(START + RISE) is late
    assert 2 == len(line)


@pytest.mark.parametrize("many", [64, 127, 128, 129, 1000])
def test_a_long_flow_keeps_its_order_whoever_leaves(many: int) -> None:
    rng = random.Random(many)
    line = Line()
    made = [waiter(i) for i in range(many)]
    for each in rng.sample(made, many):
        line.add(each, each.seq, START)
    gone = set(rng.sample(made, many // 2))
    for each in gone:
        line.remove(each, served=False)
    left = [each for each in made if each not in gone]

    assert [sum(e.seq for e in left[:i]) for i in range(len(left))] == [
        line.ahead(each, START) for each in left
    ]
    assert left == drain(line, START)


def test_what_is_ahead_in_a_flow_of_more_weight_is_that_much_more() -> None:
    line = Line()
    for seq in range(40):
        line.add(waiter(seq, flow="three", weight=3), 1, START)
    mine = [waiter(40 + seq, flow="one") for seq in range(10)]
    for each in mine:
        line.add(each, 1, START)

    assert [max(1, 3 * i) + i for i in range(10)] == [
        line.ahead(each, START) for each in mine
    ]
