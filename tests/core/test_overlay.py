"""What lies over an algorithm: limits only watched, and limits whose use is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.meter import Meter
from ratekeeper.core.policy import Account, rules_of
from ratekeeper.core.units import DAY, HOUR, MINUTE, SECOND
from ratekeeper.errors import ConfigError
from tests.core.room import START

ALGORITHMS = [
    "3 rpm",
    "3 rpm burst 3",
    "3 rpm using leaky-bucket",
    "3 rpm using fixed-window",
    "3 rpm using paced",
]


def watched(text: str) -> Meter:
    (rule,) = rules_of([text], shadow=[0])
    return rule.meter(START)


class Written:
    """A page in memory."""

    def __init__(self, *had: tuple[int, int]) -> None:
        self.had = had
        self.notes: list[tuple[int, int]] = []

    def note(self, amount: int, at_us: int) -> None:
        self.notes.append((amount, at_us))

    def recall(self, now: int) -> tuple[tuple[int, int], ...]:
        return self.had


@pytest.mark.parametrize("text", ALGORITHMS)
def test_a_watched_limit_lets_all_through_and_counts_what_it_would_deny(
    text: str,
) -> None:
    meter = watched(text)
    (rule,) = rules_of([text])
    enforced = rule.meter(START)
    missed = 0
    for at in range(10):
        now = START + at * SECOND
        missed += bool(enforced.wait_us(1, now))
        enforced.take(1, now)

        assert (0, 0, False) == (
            meter.wait_us(1, now),
            meter.backlog_us(5, 1, now),
            meter.never(10**9),
        )

        meter.grant(1, now)

    assert missed == meter.missed
    assert START + 9 * SECOND == meter.missed_us


@pytest.mark.parametrize("text", [x for x in ALGORITHMS if "paced" not in x])
def test_a_watched_limit_owes_nothing_for_what_it_let_through(text: str) -> None:
    """A script far above its limit would else be blamed for hours after it stopped."""
    meter = watched(text)
    for at in range(1000):
        meter.grant(1, START + at * 10_000)
    missed = meter.missed
    later = START + 1000 * 10_000 + 2 * MINUTE
    meter.grant(1, later)

    assert missed == meter.missed
    assert 1 == meter.used(later)


def test_a_watched_limit_counts_all_that_was_used_of_a_window() -> None:
    meter = watched("$10/day")
    for _ in range(3):
        meter.grant(9_000_000_000, START)

    assert 27_000_000_000 == meter.used(START)
    assert 0 == meter.remaining(START)
    assert 0 == meter.fullness(START)
    assert 2 == meter.missed


def test_a_call_no_limit_would_ever_hold_is_missed_once() -> None:
    meter = watched("3 rpm burst 3")
    meter.grant(100, START)

    assert 1 == meter.missed


def test_watched_limits_are_named_by_their_place() -> None:
    account = Account(shows=(("requests", MINUTE),))
    rules = rules_of(["learned", "1M tpd", "$5/day"], account, shadow=[2])

    assert ["$5/day"] == [rule.text for rule in rules if rule.shadow]


def test_a_watched_limit_of_an_account_neither_learns_nor_starts_cold() -> None:
    (rule,) = rules_of(["60 rpm"], Account(), shadow=[0])
    meter = rule.meter(START)

    assert meter.learner is None
    assert not meter.attention


def test_learned_limits_cannot_be_watched() -> None:
    with pytest.raises(ConfigError, match="say the limits that are to be watched"):
        rules_of(["learned"], Account(shows=(("requests", MINUTE),)), shadow=[0])


@pytest.mark.parametrize(
    ("text", "durable"),
    [
        ("$5/minute", True),
        ("10M tpd", True),
        ("1000 requests/week", True),
        ("60 rpm", False),
        ("20 concurrent", False),
        ("1000 requests/hour", False),
    ],
)
def test_money_and_days_are_durable(text: str, durable: bool) -> None:
    (rule,) = rules_of([text])

    assert durable is rule.is_durable


def test_a_limit_that_nobody_told_is_not_durable() -> None:
    *_, rule = rules_of(["learned"], Account(shows=(("tokens", DAY),)))

    assert not rule.is_durable


@pytest.mark.parametrize(
    "text",
    ["100 tokens/day", "100 tokens/day using fixed-window", "100 tokens/day burst 100"],
)
def test_a_charge_is_written_once_and_a_refund_where_it_was_taken(text: str) -> None:
    page = Written()
    (rule,) = rules_of([text])
    meter = rule.meter(START, page)
    meter.grant(60, START)
    meter.charge(70, START + SECOND)
    meter.grant(0, START + SECOND)
    meter.back(20, START, START + HOUR)
    meter.back(20, START, START + DAY)

    assert [(60, START), (70, START + SECOND), (-20, START)] == page.notes


@pytest.mark.parametrize("shadow", [(), (0,)])
def test_a_meter_starts_from_its_page_and_writes_nothing_of_it_again(
    shadow: tuple[int, ...],
) -> None:
    page = Written((START - HOUR, 30), (START - MINUTE, 25))
    (rule,) = rules_of(["100 tokens/day"], shadow=shadow)
    meter = rule.meter(START, page)

    assert 55 == meter.used(START)
    assert 25 == meter.used(START + DAY - MINUTE - 1)
    assert [] == page.notes
    assert 0 == meter.missed


@given(
    st.lists(st.tuples(st.integers(0, 3 * HOUR), st.integers(1, 60)), max_size=40),
)
def test_what_is_written_adds_up_whatever_debt_moves_inside(
    steps: list[tuple[int, int]],
) -> None:
    """A debt that enters the window later is no second charge."""
    page = Written()
    (rule,) = rules_of(["100 tokens/day"])
    meter = rule.meter(START, page)
    now = START
    for gap, cost in steps:
        now += gap
        meter.wait_us(cost, now)
        meter.charge(cost, now)

    assert sum(cost for _, cost in steps) == sum(amount for amount, _ in page.notes)
