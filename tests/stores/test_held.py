"""What calls under way hold: nobody is refused who might yet be let through."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratekeeper import Denied, Limiter, MemoryStore
from ratekeeper.core.line import State, Waiter
from ratekeeper.core.units import SECOND
from ratekeeper.testing import ManualClock

START = 1_800_000_000_000_000
LIMITS = (
    "100 tokens/minute",
    "100 tokens/minute using token-bucket",
    "100 tokens/minute using token-bucket burst 20",
    "100 tokens/minute using paced",
    "100 tokens/day resets 12:00",
)
CALLS = st.lists(
    st.tuples(
        st.integers(1, 100),  # tokens
        st.integers(0, 5),  # seconds until the next
        st.sampled_from([None, 0, 0.5, 1.2]),  # the share it settles by, if it does
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("limit", LIMITS)
@given(calls=CALLS, tokens=st.integers(1, 100), timeout_s=st.integers(1, 59))
@example(calls=[(2, 0, None)], tokens=3, timeout_s=1)
@example(calls=[(1, 0, None)] * 2, tokens=22, timeout_s=1)
def test_whoever_is_refused_ahead_of_time_could_not_have_been_served(
    limit: str, calls: list[tuple[int, int, float | None]], tokens: int, timeout_s: int
) -> None:
    clock = ManualClock(START)
    store = MemoryStore(clock=clock)
    limiter = Limiter(limit, store=store)
    limiter.try_acquire(tokens=1).settle(tokens=0)  # type: ignore[union-attr]
    held = []
    for taken, gap_s, share in calls:
        grant = limiter.try_acquire(tokens=taken)
        clock.advance(gap_s)
        if isinstance(grant, Denied):
            continue
        if share is None:
            held.append(grant)
        else:
            grant.settle(tokens=int(taken * share))
    waiter = Waiter([tokens], timeout_us=timeout_s * SECOND)
    store.enter(waiter, [(limiter._scope, "")])
    if waiter.state is not State.REFUSED:
        return
    for grant in held:
        grant.settle(tokens=0)
    again = limiter.try_acquire(tokens=tokens)

    assert isinstance(again, Denied)
    assert again.retry_after_us > timeout_s * SECOND


@given(calls=CALLS)
def test_what_is_settled_or_taken_back_is_held_no_more(
    calls: list[tuple[int, int, float | None]],
) -> None:
    clock = ManualClock(START)
    limiter = Limiter(*LIMITS[:2], "10 concurrent", store=MemoryStore(clock=clock))
    grants = []
    for taken, gap_s, _ in calls:
        clock.advance(gap_s)
        grant = limiter.try_acquire(tokens=taken)
        if not isinstance(grant, Denied):
            grants.append(grant)
    for at, grant in enumerate(grants):
        if at % 3:
            grant.settle(tokens=at)
        else:
            grant.cancel()
    (row,) = limiter._scope.rows.values() if grants else [()]

    assert [0] * len(row) == [meter.held + meter.held_before for meter in row]
