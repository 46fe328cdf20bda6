"""Room for bodies: bounded in all, and one caller's crowd leaves some for the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.gateway.intake import Crowded, Held


def test_one_body_may_fill_all_the_room() -> None:
    held = Held(100)
    held.take(60, "a")
    held.take(40, "a", own=60)

    assert 100 == held.bytes


def test_several_bodies_of_one_take_no_more_than_is_left_for_others() -> None:
    held = Held(100)
    for owner, most in (("a", 50), ("b", 25)):
        for _ in range(most):
            held.take(1, owner)

        with pytest.raises(Crowded):
            held.take(1, owner)

    assert 75 == held.bytes


def test_there_is_a_bound_for_all_together() -> None:
    held = Held(100)
    held.take(100, "a")

    with pytest.raises(Crowded):
        held.take(1, "b")


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 300)), max_size=50),
)
def test_whatever_comes_the_bound_holds_and_all_of_it_comes_back(
    most: int, bodies: list[tuple[str, int]]
) -> None:
    held, taken = Held(most), []
    for owner, size in bodies:
        try:
            held.take(size, owner)
        except Crowded:
            continue
        taken.append((owner, size))
        assert held.bytes <= most

    for owner, size in taken:
        held.give(size, owner)

    assert 0 == held.bytes
    held.take(most, "a")
