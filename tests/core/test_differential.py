"""Ours against the provider's side in the simulator, which was written apart from it.

What ours grants, the provider must admit; where both keep the same account, they also
name the same instant.
"""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from ratekeeper.core.gcra import Bucket
from ratekeeper.core.paced import Paced
from ratekeeper.core.units import MINUTE
from ratekeeper.core.window import FixedWindow, SlidingWindow
from ratekeeper.simulator import rules
from tests.core.oracle import limit_of
from tests.core.room import START

Call = tuple[int, int, int, int]

calls = st.lists(
    st.tuples(
        st.integers(0, MINUTE // 2) | st.integers(0, 10_000) | st.just(0),
        st.integers(1, 30),  # cost
        st.integers(0, 30),  # unused
        st.integers(0, 4),  # settled so many calls later
    ),
    max_size=60,
)
amounts = st.integers(1, 40)


def play(
    ours: SlidingWindow | FixedWindow | Bucket | Paced,
    theirs: rules.Rule,
    history: list[Call],
    *,
    late_us: int,
) -> None:
    """Send each call when ours grants it; refund in both what was not used."""
    now = START
    due: list[tuple[int, int, int, int, rules.Mark]] = []
    for at, (gap, asked, unused, later) in enumerate(history):
        now += gap
        cost = min(asked, theirs.capacity)
        for entry in [entry for entry in due if entry[0] <= at]:
            due.remove(entry)
            _, back, taken_us, _, mark = entry
            ours.back(back, taken_us, now)
            theirs.give_back(mark, back, now)
        wait = ours.wait_us(cost, now)
        ready = theirs.ready_at(cost, now)
        assert ready is not None
        assert ready <= now + wait <= ready + late_us
        now += wait
        assert 0 == ours.wait_us(cost, now)
        ours.admit(cost, now)
        mark = theirs.take(cost, now)
        due.append((at + 1 + later, min(unused, cost), now, cost, mark))


@settings(max_examples=200)
@given(amounts, st.integers(1, 40), calls)
def test_a_bucket_and_the_providers_bucket_name_the_same_instant(
    amount: int, burst: int, history: list[Call]
) -> None:
    limit = dataclasses.replace(limit_of(amount, MINUTE, "token-bucket"), burst=burst)
    kept = [(gap, cost, 0, later) for gap, cost, _, later in history]
    play(Bucket(limit), rules.TokenBucket(amount, capacity=burst), kept, late_us=0)


@settings(max_examples=200)
@given(amounts, st.integers(1, 40), calls)
def test_what_a_bucket_grants_the_providers_admits_after_refunds(
    amount: int, burst: int, history: list[Call]
) -> None:
    limit = dataclasses.replace(limit_of(amount, MINUTE, "token-bucket"), burst=burst)
    play(
        Bucket(limit),
        rules.TokenBucket(amount, capacity=burst, refunds=True),
        history,
        late_us=40 * MINUTE,  # a refund from before it was full is theirs alone
    )


@settings(max_examples=200)
@given(amounts, calls)
def test_a_leaky_bucket_and_a_quantised_one_name_the_same_instant(
    amount: int, history: list[Call]
) -> None:
    limit = limit_of(amount, MINUTE, "leaky-bucket", unit="requests")
    ones = [(gap, 1, 0, 0) for gap, *_ in history]
    play(Bucket(limit), rules.QuantizedBucket(amount, quantum_us=1), ones, late_us=0)


@settings(max_examples=200)
@given(amounts, calls)
def test_what_a_sliding_window_grants_the_log_admits_and_256th_of_it_later_at_most(
    amount: int, history: list[Call]
) -> None:
    play(
        SlidingWindow(limit_of(amount, MINUTE)),
        rules.SlidingLog(amount, refunds=True),
        history,
        late_us=MINUTE // 256,
    )


@settings(max_examples=200)
@given(amounts, calls)
def test_a_fixed_window_and_the_providers_name_the_same_instant(
    amount: int, history: list[Call]
) -> None:
    play(
        FixedWindow(limit_of(amount, MINUTE, "fixed-window")),
        rules.FixedWindow(amount, refunds=True),
        history,
        late_us=0,
    )


@settings(max_examples=200)
@given(st.integers(1, 40), calls)
def test_paced_is_refused_by_no_model_of_enforcement(
    amount: int, history: list[Call]
) -> None:
    limit = limit_of(amount, MINUTE, "paced", unit="requests")
    models: list[rules.Rule] = [
        rules.TokenBucket(amount),
        rules.QuantizedBucket(amount),
        rules.SlidingLog(amount),
        rules.FixedWindow(amount),
    ]
    ours = Paced(limit)
    now = START
    for gap, *_ in history:
        now += gap
        now += ours.wait_us(1, now)
        assert [now] * 4 == [max(now, m.ready_at(1, now) or 0) for m in models]
        ours.take(1, now)
        for model in models:
            model.take(1, now)
