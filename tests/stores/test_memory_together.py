"""Several keys that grant together: the direct path and room."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper import ConfigError, Limiter, MemoryStore
from ratekeeper.core.line import State, Waiter
from ratekeeper.core.meter import NEVER
from ratekeeper.core.units import MINUTE, SECOND, Nano
from ratekeeper.grant import Grant
from ratekeeper.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratekeeper.stores.keys import Target

KEY, TEAM, ACCOUNT = ("5 rpm", "2 concurrent"), ("1000 tpm",), ("3 rpm", "900 tpm")
COSTS = [1, 60 * SECOND, 300, 1, 300]


class Three:
    """A client key, its team and an account in one store."""

    def __init__(
        self, account: str | None = None, clock: ManualClock | None = None
    ) -> None:
        self.clock = clock or ManualClock(auto=True)
        self.store = MemoryStore(clock=self.clock)
        self.limiters = [
            Limiter(*KEY, store=self.store),
            Limiter(*TEAM, store=self.store),
            Limiter(*ACCOUNT, account=account, store=self.store),
        ]
        self.targets: list[Target] = [(one._scope, "") for one in self.limiters]
        for _ in range(2):  # keys are made, and then past an account's cold start
            self.store.leave(self.store.try_take(self.targets, [0] * len(COSTS)))
            self.clock.advance(61)
        self.store.leave(self.store.try_take(self.targets, [0] * len(COSTS)))

    def take(self, costs: Sequence[int] = COSTS) -> Grant | None:
        """Grant on the direct path, or not at all."""
        taken = self.store.take_all(self.targets, costs)
        if taken is None:
            return None
        return Grant(self.store, taken[0], costs, taken[1], taken[2])

    def used(self) -> list[int]:
        """Say what counts against each limit."""
        found = [one.status().values() for one in self.limiters]
        return [int(row.used) for rows in found for row in rows]


def test_several_keys_grant_together() -> None:
    three = Three()

    assert three.take() is not None
    assert [1, 1, 300, 1, 300] == three.used()


def test_where_one_key_is_full_none_is_charged() -> None:
    three = Three()
    for _ in range(2):
        assert three.take()

    assert three.take() is None
    assert [2, 2, 600, 2, 600] == three.used()


def test_a_key_that_was_forgotten_is_for_the_line_to_make() -> None:
    three = Three()
    scope, key = three.targets[0]
    del scope.rows[key]

    assert three.take() is None
    assert State.GRANTED is three.store.try_take(three.targets, COSTS).state


def test_a_key_named_twice_is_a_mistake() -> None:
    three = Three()
    twice = [three.targets[1], three.targets[1]]

    assert three.store.take_all(twice, [1, 1]) is None
    with pytest.raises(ConfigError, match="twice"):
        three.store.try_take(twice, [1, 1])


def test_nobody_who_waits_is_overtaken() -> None:
    three = Three()
    first = Waiter([1000])
    three.store.enter(Waiter([900]), three.targets[1:2])
    three.store.enter(first, three.targets[1:2])

    assert State.WAITING is first.state
    assert three.take([1, 60 * SECOND, 1, 1, 1]) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 40 * SECOND)),
        min_size=1,
        max_size=20,
    )
)
def test_the_direct_path_decides_as_the_line_does(calls: list[tuple[int, int]]) -> None:
    direct, line = Three(), Three()
    for tokens, later_us in calls:
        costs = [1, 60 * SECOND, tokens, 1, tokens]
        direct.clock.advance(us=later_us)
        line.clock.advance(us=later_us)
        granted = line.store.try_take(line.targets, costs).state is State.GRANTED

        assert granted is (direct.take(costs) is not None)
        assert line.used() == direct.used()


def test_money_is_settled_in_billionths_as_in_sums() -> None:
    limiter = Limiter("$5/day")
    limiter.acquire(usd=1).settle(usd=Nano(250_000_000))
    limiter.acquire(usd=1).settle(usd="0.25")

    assert Decimal("0.5") == limiter.status()["$5/day"].used

    with pytest.raises(ConfigError, match="money"):
        limiter.acquire(usd=1).settle(usd=Nano(-1))


def test_a_refusal_pauses_the_account_and_not_the_caller() -> None:
    three = Three(account="openai")
    grant = three.take()
    assert grant is not None
    grant.refused(20, tokens=0)

    assert 0 == three.store.room(three.targets[:2], COSTS[:3])[0]
    assert 20 * SECOND <= three.store.room(three.targets[2:], COSTS[3:])[0]


def test_room_is_the_wait_and_the_largest_share_in_use() -> None:
    three = Three()
    three.limiters[1].acquire(tokens=400)

    assert (0, 0.4) == three.store.room(three.targets, COSTS)
    assert (MINUTE, 0.4) == three.store.room(three.targets, [1, 1, 700, 1, 700])


def test_room_counts_those_who_wait() -> None:
    three = Three()
    three.limiters[1].acquire(tokens=600)
    three.clock.advance(10)
    three.limiters[1].acquire(tokens=400)
    three.store.enter(Waiter([600]), three.targets[1:2])
    three.store.enter(Waiter([400]), three.targets[1:2])

    assert 110 * SECOND == three.store.room(three.targets[1:2], [100])[0]


def test_there_is_no_room_for_what_no_wait_lets_through() -> None:
    three = Three()

    assert NEVER == three.store.room(three.targets[1:2], [1001])[0]


def test_asking_for_room_makes_no_key() -> None:
    three = Three()
    scope = three.limiters[1]._scope

    assert (0, 0.0) == three.store.room([(scope, "new")], [1000])
    assert "new" not in scope.rows
